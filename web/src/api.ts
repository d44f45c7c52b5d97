import { Store, useStore } from "./store";

export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

/** Whether the server has asked for a token, and whether it has refused one. */
export const tokenWanted = new Store<"" | "asked" | "refused">("");

/** Who we are for the server. */
export interface Session {
  name: string;
  scopes: string[];
  queues: string[];
  read_only: boolean;
  auth: "none" | "token" | "session";
}

export const session = new Store<Session | null>(null);

/** Whether the server lets us do what needs this scope. Its routes decide; this is for what to offer. */
export function useMay(scope: "read" | "operate" | "admin"): boolean {
  const who = useStore(session);
  return who !== null && who.scopes.includes(scope) && (scope === "read" || !who.read_only);
}

/** Whether we may see all queues: what concerns all of them is not offered to others. */
export function useSeesAll(): boolean {
  return useStore(session)?.queues.includes("*") ?? false;
}

/** Below the page's own address, whatever a proxy puts in front of it. */
export const place = (path: string): string => `.${path}`;

type Headers = Record<string, string>;

/** A body that is JSON text already, so that numbers keep their digits. */
export class JsonText {
  constructor(readonly text: string) {}
}

let logins = 0;
let changed = 0;   // When something was last changed from here.
const settles = 2000;

async function call<T>(method: string, path: string, body?: unknown, more: Headers = {}): Promise<T> {
  const headers: Headers = { Accept: "application/json", ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  // What another page has been told within the last second will do, but not for who has just changed something.
  if (method !== "GET") changed = Date.now();
  else if (Date.now() - changed > settles) headers["Cache-Control"] = "max-age=1";
  const before = logins;
  const response = await fetch(place(path), { method, headers, body: body === undefined ? null : body instanceof JsonText ? body.text : JSON.stringify(body) });
  const answer = (await response.json().catch(() => ({}))) as { detail?: string };
  if (response.ok) return answer as T;
  // Not where somebody has logged in since the question was asked.
  if (response.status === 401 && tokenWanted.value === "" && before === logins) tokenWanted.set("asked");
  throw new ApiError(response.status, answer.detail || response.statusText || String(response.status));
}

export const get = <T>(path: string): Promise<T> => call<T>("GET", path);
export const post = <T>(path: string, body?: unknown, headers?: Headers): Promise<T> => call<T>("POST", path, body, headers);
export const put = <T>(path: string, body: unknown, headers?: Headers): Promise<T> => call<T>("PUT", path, body, headers);
export const patch = <T>(path: string, body: unknown, headers?: Headers): Promise<T> => call<T>("PATCH", path, body, headers);
export const remove = <T>(path: string, headers?: Headers): Promise<T> => call<T>("DELETE", path, undefined, headers);

/** Change it only where it is still what was shown; where nothing was shown, only where there is nothing. */
export const unchanged = (etag: string | null | undefined): Headers => (etag ? { "If-Match": `"${etag}"` } : { "If-None-Match": "*" });
/** Whether somebody else's change came in between. */
export const isChanged = (error: unknown): boolean => error instanceof ApiError && error.status === 412;

/** Asks who we are until the server says it, or wants a token. */
export async function learnSession(): Promise<void> {
  try {
    session.set(await get<Session>("/api/v1/session"));
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) setTimeout(learnSession, 2000);
  }
}

/** The server gives a cookie for it; the token itself is kept nowhere. */
export async function logIn(token: string): Promise<void> {
  try {
    session.set(await post<Session>("/api/v1/session", { token }));
    ++logins;
    tokenWanted.set("");
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    tokenWanted.set("refused");
  }
}

export async function logOut(): Promise<void> {
  await remove("/api/v1/session");
  location.reload();   // Nothing of what was shown stays.
}

/** A path from constant and encoded parts: path`/api/v1/jobs/${id}`. */
export function path(parts: TemplateStringsArray, ...values: string[]): string {
  return parts.reduce((all, part, i) => all + encodeURIComponent(values[i - 1] ?? "") + part);
}
