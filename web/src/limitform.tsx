import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get, isChanged, path, put, unchanged } from "./api";
import { messageOf, say } from "./ask";
import { Dialog } from "./components";
import { show } from "./format";
import { t, type Key } from "./i18n";
import type { Limit, Limits } from "./types";

const kinds = ["token-bucket", "leaky-bucket", "fixed-window", "sliding-window", "concurrency", "fair"];

/** What is stored of a limit. */
export function ruleOf(limit: Limit): Record<string, unknown> {
  const { name: _, limiters: __, etag: ___, ...rule } = limit;
  return rule;
}

interface Field {
  name: "queue" | "function" | "key" | "limit" | "per" | "burst" | "points";
  text: Key;
  hint: string;
  /** Whether limits of this kind have it. */
  of: (kind: string) => boolean;
}

const limits = (kind: string): boolean => kind !== "fair";
const fields: Field[] = [
  { name: "queue", text: "queue", hint: "images, img-*", of: () => true },
  { name: "function", text: "function", hint: "app.tasks.*", of: limits },
  { name: "key", text: "key", hint: "args[0], kwargs.user, meta.tenant", of: () => true },
  { name: "limit", text: "limit", hint: "10", of: limits },
  { name: "per", text: "perSeconds", hint: "1", of: (kind) => limits(kind) && kind !== "concurrency" },
  { name: "burst", text: "burst", hint: "10", of: (kind) => kind === "token-bucket" },
  { name: "points", text: "points", hint: "1, args[1]", of: limits },
];
const numbers = ["limit", "per", "burst"];

const textsOf = (limit: Limit | null): Record<string, string> =>
  Object.fromEntries(Object.entries(limit ? ruleOf(limit) : {}).map(([field, value]) => [field, String(value)]));

/** Adds a limit, or changes one where nobody else has meanwhile. */
export function LimitForm({ limit, onClose, reload }: { limit: Limit | null; onClose: () => void; reload: () => void }): JSX.Element {
  const [name, setName] = useState(limit?.name ?? "");
  const [kind, setKind] = useState(limit?.kind ?? "token-bucket");
  const [worker, setWorker] = useState(limit?.scope === "worker");
  const [values, setValues] = useState<Record<string, string>>(() => textsOf(limit));
  const [etag, setEtag] = useState(limit?.etag);
  const [problem, setProblem] = useState("");
  const [changed, setChanged] = useState(false);
  const readAgain = async () => {
    try {
      const now = (await get<Limits>("/api/v1/limits")).limits.find((one) => one.name === limit?.name);
      reload();
      if (!now) return setProblem(t("goneMeanwhile"));
      setKind(now.kind);
      setWorker(now.scope === "worker");
      setValues(textsOf(now));
      setEtag(now.etag);
      setProblem("");
      setChanged(false);
    } catch (error) {
      setProblem(messageOf(error));
    }
  };
  const title = limit ? t("editLimit", { name: show(limit.name, 60) }) : t("addLimit");
  const save = async (event: Event) => {
    event.preventDefault();
    const rule: Record<string, unknown> = { kind };
    for (const field of fields) {
      const value = (values[field.name] ?? "").trim();
      if (field.of(kind) && value !== "") rule[field.name] = numbers.includes(field.name) || /^\d+$/.test(value) && field.name === "points" ? Number(value) : value;
    }
    if (limits(kind) && worker) rule.scope = "worker";
    try {
      await put(path`/api/v1/limits/${name}`, rule, unchanged(etag));
      reload();
      say(t("didSaveLimit", { name: show(name, 60) }));
      onClose();
    } catch (error) {
      const taken = isChanged(error) && !limit;
      setProblem(taken ? t("limitExists") : messageOf(error));
      setChanged(isChanged(error) && !taken);
    }
  };
  return <Dialog label={title} onClose={onClose}>
    <form onSubmit={save} class="fields">
      <h2>{title}</h2>
      {!limit && <label><span>{t("name")}</span><input value={name} required maxLength={100} autocomplete="off" spellcheck={false} placeholder="api" onInput={(event) => setName(event.currentTarget.value)} /></label>}
      <label><span>{t("kind")}</span><select value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
        {kinds.map((one) => <option key={one} value={one}>{one}</option>)}</select></label>
      {fields.filter((field) => field.of(kind)).map((field) => <label key={field.name}><span>{t(field.text)}</span>
        <input value={values[field.name] ?? ""} placeholder={field.hint} maxLength={200} autocomplete="off" spellcheck={false} inputMode={numbers.includes(field.name) ? "decimal" : "text"}
          onInput={(event) => setValues({ ...values, [field.name]: event.currentTarget.value })} /></label>)}
      {limits(kind) && <label class="check"><input type="checkbox" checked={worker} onChange={(event) => setWorker(event.currentTarget.checked)} /> {t("eachWorker")}</label>}
      {problem !== "" && <p class="problem" role="alert">{problem}</p>}
      <p class="buttons"><button type="button" onClick={onClose}>{t("cancel")}</button> {changed ? <button type="button" class="main" onClick={() => void readAgain()}>{t("readAgain")}</button>
        : <button type="submit" class="main">{t("save")}</button>}</p>
    </form>
  </Dialog>;
}
