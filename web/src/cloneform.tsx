import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { get, JsonText, path, post } from "./api";
import { messageOf } from "./ask";
import { Dialog, Loading } from "./components";
import { show } from "./format";
import { t, type Key } from "./i18n";
import { go } from "./router";
import type { JobRequest } from "./types";

const texts = ["args", "kwargs", "meta"] as const;
type TextField = (typeof texts)[number];
const durations = ["timeout", "result_ttl", "failure_ttl", "ttl"] as const;
type Form = Record<"func" | "queue" | "retries" | "description" | TextField | (typeof durations)[number], string>;

const names: Record<string, Key> = { func: "function", args: "arguments", kwargs: "keywords", meta: "meta" };
const problemTexts: Record<string, Key> = { not_json: "cloneNotJson", unreadable: "cloneUnreadable", hidden: "cloneHidden", too_large: "cloneTooLarge", instance: "cloneInstance" };
const parts: Record<string, Key> = { depends_on: "partDependencies", on_success: "partCallbacks", on_failure: "partCallbacks", on_stopped: "partCallbacks", repeat: "partRepeat",
  webhooks: "partWebhooks", group: "partGroup", rate_limit: "partRateLimit" };

function formOf({ request, args, kwargs, meta }: JobRequest): Form {
  const text = (value: number | undefined) => (value === undefined ? "" : String(value));
  return { func: request.func ?? "", queue: request.queue, args: args ?? "", kwargs: kwargs === "{}" ? "" : kwargs ?? "", meta: meta === "{}" ? "" : meta ?? "",
    timeout: text(request.timeout), result_ttl: text(request.result_ttl), failure_ttl: text(request.failure_ttl), ttl: text(request.ttl),
    retries: text(request.retry?.max), description: request.description ?? "" };
}

/** JSON text of that kind, or what is wrong with it. */
function check(name: TextField, text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    if (name === "args" ? Array.isArray(value) : typeof value === "object" && value !== null && !Array.isArray(value)) return "";
  } catch {
    // Said below.
  }
  return t(name === "args" ? "mustBeList" : "mustBeObject", { name: t(names[name] as Key) });
}

/** The body as text: what was written as JSON goes as it was written. */
function bodyOf(form: Form, before: JobRequest): string {
  const members: [string, string][] = [["func", JSON.stringify(form.func.trim())], ["queue", JSON.stringify(form.queue.trim())], ["serializer", JSON.stringify(before.request.serializer)]];
  for (const name of texts) if (form[name].trim() !== "") members.push([name, form[name]]);
  for (const name of durations) {
    const text = form[name].trim();
    if (text !== "") members.push([name, /^-?\d+$/.test(text) ? text : JSON.stringify(text)]);
  }
  const retries = form.retries.trim();
  if (/^\d+$/.test(retries) && Number(retries) > 0) members.push(["retry", JSON.stringify({ ...before.request.retry, max: Number(retries) })]);
  if (form.description.trim() !== "") members.push(["description", JSON.stringify(form.description)]);
  return `{${members.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(",")}}`;
}

function randomKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function CloneFields({ id, from, onClose }: { id: string; from: JobRequest; onClose: () => void }): JSX.Element {
  const [form, setForm] = useState(() => formOf(from));
  const [problem, setProblem] = useState("");
  const [works, setWorks] = useState(false);
  const sent = useRef({ body: "", key: "" });   // The same again, after an answer that was lost, makes no second job.
  const impossible = from.problems.some((one) => one.code === "instance");
  const missing = (name: string) => from.problems.some((one) => one.field === name);
  const save = async (event: Event) => {
    event.preventDefault();
    const wrong = texts.map((name) => (form[name].trim() === "" ? "" : check(name, form[name]))).find((text) => text !== "");
    if (wrong) return setProblem(wrong);
    const body = bodyOf(form, from);
    if (sent.current.body !== body) sent.current = { body, key: randomKey() };
    setWorks(true);
    setProblem("");
    try {
      const made = await post<{ job_id: string }>("/api/v1/jobs", new JsonText(body), { "Idempotency-Key": sent.current.key });
      onClose();
      go("jobs", made.job_id);
    } catch (error) {
      setProblem(messageOf(error));
      setWorks(false);
    }
  };
  const input = (name: keyof Form, label: string, hint: string, required = false) => <label><span>{label}</span>
    <input value={form[name]} placeholder={hint} required={required} maxLength={500} spellcheck={false} autocomplete="off" inputMode={name === "retries" ? "numeric" : "text"}
      pattern={name === "retries" ? "\\d{0,6}" : undefined} onInput={(event) => setForm({ ...form, [name]: event.currentTarget.value })} /></label>;
  const area = (name: TextField, hint: string, required = false) => <label class="tall"><span>{t(names[name] as Key)} (JSON)</span>
    <textarea value={form[name]} placeholder={hint} required={required} rows={name === "args" ? 4 : 2} spellcheck={false} onInput={(event) => setForm({ ...form, [name]: event.currentTarget.value })} /></label>;
  const left = [...new Set(from.left_out.map((name) => t(parts[name] ?? "partOther")))];
  return <form onSubmit={save} class="fields">
    <h2>{t("cloneTitle", { name: show(id, 60) })}</h2>
    <p>{t("cloneText", { name: show(id, 60), queue: show(form.queue, 60) })}</p>
    {left.length > 0 && <p class="note">{t("cloneLeftOut", { names: left.join(", ") })}</p>}
    {from.problems.map((one, i) => <p key={i} class="problem">{t(names[one.field] ?? "arguments")}: {t(problemTexts[one.code] ?? "cloneUnreadable")}</p>)}
    {!impossible && <>
      {input("func", t("function"), "app.tasks.resize", true)}{input("queue", t("queue"), "default", true)}
      {area("args", "[]", missing("args"))}{area("kwargs", "{}", missing("kwargs"))}{area("meta", "{}")}
      {input("timeout", t("timeLimit"), t("defaultLimit"))}{input("retries", t("retriesLeft"), "0")}
      {input("result_ttl", t("resultKept"), "500s")}{input("failure_ttl", t("failureKept"), "365d")}{input("ttl", t("waitsAtMost"), "–")}
    </>}
    {problem !== "" && <p class="problem" role="alert">{problem}</p>}
    <p class="buttons"><button type="button" onClick={onClose}>{t("cancel")}</button>{!impossible && <> <button type="submit" class="main" disabled={works}>{t("enqueueNew")}</button></>}</p>
  </form>;
}

/** Another job like this one, changed before it is enqueued. */
export function CloneForm({ id, onClose }: { id: string; onClose: () => void }): JSX.Element {
  const [from, setFrom] = useState<JobRequest | null>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    get<JobRequest>(path`/api/v1/jobs/${id}/request`).then(setFrom, (error: unknown) => setProblem(messageOf(error)));
  }, []);
  return <Dialog label={t("cloneTitle", { name: show(id, 60) })} onClose={onClose} className="wide">
    {problem !== "" ? <p class="problem" role="alert">{problem}</p> : from === null ? <Loading /> : <CloneFields id={id} from={from} onClose={onClose} />}
  </Dialog>;
}
