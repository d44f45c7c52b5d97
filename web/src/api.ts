import { Store } from "./store";

export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

/** Whether the server has asked for a token, and whether it has refused one. */
export const tokenWanted = new Store<"" | "asked" | "refused">("");

export const token = (): string | null => sessionStorage.getItem("token");

export function giveToken(text: string): void {
  sessionStorage.setItem("token", text);
  tokenWanted.set("");
}

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json" };
  const sent = token();
  if (sent !== null) headers.Authorization = `Bearer ${sent}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body === undefined ? null : JSON.stringify(body) });
  const answer = (await response.json().catch(() => ({}))) as { detail?: string };
  if (response.ok) return answer as T;
  if (response.status === 401 && sent === token()) {
    sessionStorage.removeItem("token");
    if (sent !== null || tokenWanted.value === "") tokenWanted.set(sent === null ? "asked" : "refused");
  }
  throw new ApiError(response.status, answer.detail || response.statusText || String(response.status));
}

export const get = <T>(path: string): Promise<T> => call<T>("GET", path);
export const post = <T>(path: string, body?: unknown): Promise<T> => call<T>("POST", path, body);
export const put = <T>(path: string, body: unknown): Promise<T> => call<T>("PUT", path, body);
export const remove = <T>(path: string): Promise<T> => call<T>("DELETE", path);

/** A path from constant and encoded parts: path`/api/v1/jobs/${id}`. */
export function path(parts: TemplateStringsArray, ...values: string[]): string {
  return parts.reduce((all, part, i) => all + encodeURIComponent(values[i - 1] ?? "") + part);
}
