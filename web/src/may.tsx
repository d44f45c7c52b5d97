import type { ComponentChildren, JSX } from "preact";
import { useMay } from "./api";

/** What only those are offered whose scope allows it; the server refuses the others anyway. */
export function May({ scope = "operate", children }: { scope?: "operate" | "admin"; children: ComponentChildren }): JSX.Element | null {
  return useMay(scope) ? <>{children}</> : null;
}
