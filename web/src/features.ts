// What this server has: some of it can be switched off, and asking for what is not there would be an error.

import { get, tokenWanted } from "./api";
import { Store, useStore } from "./store";

const routes = new Store<Set<string> | null>(null);
const nothing: ReadonlySet<string> = new Set();
let asked: Promise<void> | null = null;

function load(): Promise<void> {
  asked ??= get<{ paths?: object }>("/api/v1/openapi.json").then(
    (doc) => routes.set(new Set(Object.keys(doc.paths ?? {}))), () => {
      asked = null;
      // Who logs in draws all anew, and asks with that.
      setTimeout(() => { if (routes.value === null && tokenWanted.value === "") void load(); }, 2000);
    });
  return asked;
}

/** Whether the server has a route, as its description names it. Asks the server where that is not known yet. */
export async function hasRoute(route: string): Promise<boolean> {
  await load();
  return routes.value?.has(route) ?? false;
}

/** The routes of the server; none while they are not known. */
export function useRoutes(): ReadonlySet<string> {
  const known = useStore(routes);
  if (known === null) void load();
  return known ?? nothing;
}

export const useHas = (route: string): boolean => useRoutes().has(route);
