// The search's language: status:failed queue:high func:app.* error:"time out" age<1h took>5s, and words for the function.

export const qualifiers = ["status", "queue", "func", "worker", "tag", "group", "error", "id", "since", "until", "age", "took"] as const;
type Qualifier = (typeof qualifiers)[number];

const spanUnits: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

/** 90, 5m, 1.5h as seconds. */
function secondsOf(text: string): number | null {
  const found = /^(\d+(?:\.\d+)?)(ms|[smhdw])?$/.exec(text);
  if (!found) return null;
  return Number(found[1]) * (found[2] === "ms" ? 0.001 : spanUnits[found[2] ?? "s"] ?? 1);
}

function timeOf(text: string): string | null {
  const span = secondsOf(text);
  // By the minute, so that the same search asks the same.
  if (span !== null) return new Date(Math.floor((Date.now() - span * 1000) / 60_000) * 60_000).toISOString();
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : new Date(at).toISOString();
}

export interface Search {
  /** Of `GET /api/v1/jobs`, in order. */
  terms: [string, string][];
  /** Parts that mean nothing. */
  unknown: string[];
}

/** Parts of the text, each with its place. */
export function partsOf(text: string): { text: string; at: number }[] {
  return [...text.matchAll(/(?:[^\s"]|"[^"]*"?)+/g)].map((found) => ({ text: found[0], at: found.index }));
}

const unquoted = (text: string): string => text.replace(/"/g, "");

export function parseSearch(text: string): Search {
  const search: Search = { terms: [], unknown: [] };
  const add = (name: string, value: string | null, whole: string) => {
    if (value === null || value === "") search.unknown.push(whole);
    else search.terms.push([name, value]);
  };
  for (const { text: part } of partsOf(text)) {
    const found = /^(\w+)(:|[<>]=?)(.*)$/s.exec(part);
    const name = found?.[1]?.toLowerCase();
    const value = unquoted(found?.[3] ?? "");
    if (!found || !(qualifiers as readonly string[]).includes(name ?? "")) {
      const word = unquoted(part);
      if (word !== "") search.terms.push(["func", word.includes("*") ? word : `*${word}*`]);
      continue;
    }
    const more = found[2] !== ":" && found[2]?.startsWith(">");
    switch (name as Qualifier) {
      case "age": add(more ? "until" : "since", secondsOf(value) === null ? null : timeOf(value), part); break;
      case "took": add(more ? "min_duration" : "max_duration", secondsOf(value)?.toString() ?? null, part); break;
      case "since": case "until": add(name as string, timeOf(value), part); break;
      default: add(name as string, found[2] === ":" ? value : null, part);
    }
  }
  return search;
}

/** A part for the search's text. */
export const part = (name: string, value: string): string => `${name}:${/[\s"]/.test(value) ? `"${unquoted(value)}"` : value}`;
