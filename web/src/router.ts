// The address says what is shown: #/queues/high?status=failed. Filters replace the entry, pages add one.

import { Store, useStore } from "./store";

export interface Route {
  parts: string[];
  params: URLSearchParams;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function read(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#/, "").split("?", 2);
  return { parts: path.split("/").filter((part) => part !== "").map(decode), params: new URLSearchParams(query) };
}

const route = new Store<Route>(read());
addEventListener("hashchange", () => route.set(read()));

export const useRoute = (): Route => useStore(route);
export const currentPath = (): string => route.value.parts.join("/");

export function href(parts: string[], params: Record<string, string> = {}): string {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "")).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${query && `?${query}`}`;
}

export function go(...parts: string[]): void {
  location.hash = href(parts);
}

/** Sets filters of this page; `keep`: the others stay. */
export function setParams(values: Record<string, string>, keep = false): void {
  const { parts, params } = route.value;
  history.replaceState(null, "", location.pathname + location.search + href(parts, keep ? { ...Object.fromEntries(params), ...values } : values));
  route.set(read());
}

/** Changes one of them, and goes to the first of the pages that it leads to. */
export const setParam = (name: string, value: string): void => setParams({ cursor: "", [name]: value }, true);
