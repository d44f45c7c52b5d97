// Who asks, and what they may do.

import { get } from "./api";
import { useHas } from "./features";
import { Store, useStore } from "./store";
import type { Session } from "./types";
import { useEffect } from "preact/hooks";

export const session = new Store<Session | null>(null);

export const loadSession = (): Promise<void> => get<Session>("/api/v1/session").then((now) => session.set(now), () => {});

/** Whether they may `read`, `operate` or `admin`; buttons for what they may not are left out. */
export function useMay(scope: "read" | "operate" | "admin"): boolean {
  const there = useHas("/api/v1/session");
  const now = useStore(session);
  useEffect(() => {
    if (there && session.value === null) void loadSession();
  }, [there]);
  if (!there) return true;
  if (now === null) return false;
  return now.scopes.includes(scope) && (scope === "read" || !now.read_only);
}
