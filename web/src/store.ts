import { useEffect, useState } from "preact/hooks";

/** A value that components can follow. */
export class Store<T> {
  private readonly listeners = new Set<() => void>();

  constructor(private held: T) {}

  get value(): T {
    return this.held;
  }

  set(value: T): void {
    if (value === this.held) return;
    this.held = value;
    for (const listener of [...this.listeners]) listener();
  }

  /** Returns what ends it. */
  follow(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  get followed(): boolean {
    return this.listeners.size > 0;
  }
}

export function useStore<T>(store: Store<T>): T {
  const [, redraw] = useState(0);
  const drawn = store.value;
  useEffect(() => {
    const draw = () => redraw((n) => n + 1);
    const end = store.follow(draw);
    if (drawn !== store.value) draw();   // It has changed before this effect ran, some time after the drawing.
    return end;
  }, [store]);
  return drawn;
}
