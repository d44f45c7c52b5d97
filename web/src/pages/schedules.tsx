import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { changeJob } from "../actions";
import { get, isChanged, patch, path, post, remove, unchanged, useMay } from "../api";
import { act, ask, messageOf, say } from "../ask";
import { Dialog, Empty, JobLink, Loading, QueueLink, Status, Table, Time, type Column } from "../components";
import { useHas } from "../features";
import { ago, seconds, show } from "../format";
import { t } from "../i18n";
import { useData } from "../live";
import type { CronJob, Scheduled } from "../types";

function runNow(one: Scheduled, reload: () => void): void {
  act(async () => {
    await post(path`/api/v1/jobs/${String(one.job_id)}/run-now`);
    reload();
    return t("didRunNow", { name: show(one.job_id, 40) });
  });
}

const when = (cron: CronJob): string => (cron.interval ? t("every", { time: seconds(cron.interval) }) : show(cron.words || cron.expression, 80));

function cronVerb(cron: CronJob, verb: "pause" | "resume" | "run-now", reload: () => void): void {
  const change = async (what: string) => {
    await post(path`/api/v1/cron/${cron.name}/` + what);
    reload();
    return t(what === "pause" ? "didPauseCron" : what === "resume" ? "didResumeCron" : "didRunCron", { name: show(cron.name, 60) });
  };
  act(async () => {
    const text = await change(verb);
    return verb === "run-now" ? text : { text, undo: () => change(verb === "pause" ? "resume" : "pause") };
  });
}

function drop(cron: CronJob, reload: () => void): void {
  ask({
    title: t("dropCronTitle", { name: show(cron.name, 60) }), text: t("dropCronText"), yes: t("delete"), reload,
    act: async () => {
      await remove(path`/api/v1/cron/${cron.name}`, unchanged(cron.etag));
      reload();
      return t("didDropCron", { name: show(cron.name, 60) });
    },
  });
}

function Runs({ cron }: { cron: CronJob }): JSX.Element {
  return <span class="runs">{cron.runs.slice(0, 24).reverse().map((run, i) =>
    <i key={i} class={`run ${/^[a-z_]+$/.test(String(run.status)) ? String(run.status) : "unreadable"}`} title={`${run.at} ${show(run.status, 20)}`} />)}</span>;
}

function NewCron({ reload }: { reload: () => void }): JSX.Element {
  const [form, setForm] = useState({ name: "", func: "", queue: "default", cron: "", timezone: "" });
  const [problem, setProblem] = useState("");
  const field = (name: keyof typeof form, label: string, hint: string, required: boolean) => <label class="filter"><span>{label}</span>
    <input value={form[name]} placeholder={hint} required={required} maxLength={200} spellcheck={false} autocomplete="off"
      onInput={(event) => setForm({ ...form, [name]: event.currentTarget.value })} /></label>;
  const submit = async (event: Event) => {
    event.preventDefault();
    const { timezone, ...rest } = form;
    try {
      await post("/api/v1/cron", { ...rest, ...(timezone ? { timezone } : {}) });
      setProblem("");
      setForm({ ...form, name: "", func: "", cron: "" });
      reload();
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  return <details class="add"><summary>{t("addCron")}</summary>
    <form class="filters" onSubmit={submit}>
      {field("name", t("name"), "nightly-report", true)}{field("func", t("function"), "app.tasks.report", true)}
      {field("queue", t("queue"), "default", true)}{field("cron", t("expression"), "0 3 * * *", true)}{field("timezone", t("timezone"), "UTC", false)}
      <button type="submit" class="main">{t("add")}</button>
      {problem !== "" && <p class="problem" role="alert">{problem}</p>}
    </form></details>;
}

type Settings = Record<"func" | "queue" | "cron" | "every" | "timezone", string>;

const settingsOf = (cron: CronJob): Settings => {
  const text = (value: unknown) => (typeof value === "string" ? value : "");
  return { func: text(cron.func_name), queue: text(cron.queue), cron: text(cron.expression), every: cron.interval ? `${cron.interval}s` : "", timezone: text(cron.timezone) };
};

/** Changes one that is kept in Redis where nobody else has meanwhile. */
function EditCron({ cron, onClose, reload }: { cron: CronJob; onClose: () => void; reload: () => void }): JSX.Element {
  const [there, setThere] = useState(cron);
  const [form, setForm] = useState(() => settingsOf(cron));
  const [problem, setProblem] = useState("");
  const [changed, setChanged] = useState(false);
  const title = t("editCron", { name: show(cron.name, 60) });
  const readAgain = async () => {
    try {
      const now = (await get<{ cron: CronJob }>(path`/api/v1/cron/${cron.name}`)).cron;
      reload();
      setThere(now);
      setForm(settingsOf(now));
      setProblem("");
      setChanged(false);
    } catch (error) {
      setProblem(messageOf(error));
    }
  };
  const save = async (event: Event) => {
    event.preventDefault();
    const before = settingsOf(there);
    const change: Record<string, string | null> = {};
    for (const name of Object.keys(form) as (keyof Settings)[])
      if (form[name].trim() !== before[name]) change[name] = form[name].trim() || null;
    try {
      await patch(path`/api/v1/cron/${cron.name}`, change, unchanged(there.etag));
      reload();
      say(t("didSaveCron", { name: show(cron.name, 60) }));
      onClose();
    } catch (error) {
      setProblem(messageOf(error));
      setChanged(isChanged(error));
    }
  };
  const field = (name: keyof Settings, label: string, hint: string) => <label><span>{label}</span>
    <input value={form[name]} placeholder={hint} maxLength={200} spellcheck={false} autocomplete="off" onInput={(event) => setForm({ ...form, [name]: event.currentTarget.value })} /></label>;
  return <Dialog label={title} onClose={onClose}>
    <form onSubmit={save} class="fields">
      <h2>{title}</h2>
      <p class="note">{t("editCronText")}</p>
      {field("func", t("function"), "app.tasks.report")}{field("queue", t("queue"), "default")}{field("cron", t("expression"), "0 3 * * *")}
      {field("every", t("interval"), "15m")}{field("timezone", t("timezone"), "UTC")}
      {problem !== "" && <p class="problem" role="alert">{problem}</p>}
      <p class="buttons"><button type="button" onClick={onClose}>{t("cancel")}</button> {changed ? <button type="button" class="main" onClick={() => void readAgain()}>{t("readAgain")}</button>
        : <button type="submit" class="main">{t("save")}</button>}</p>
    </form>
  </Dialog>;
}

interface Page<T> { items: T[]; next: string | null }

const behind = (cursor: string): string => cursor && `&cursor=${encodeURIComponent(cursor)}`;

function Pages({ cursor, next, go }: { cursor: string; next: string | null; go: (cursor: string) => void }): JSX.Element | null {
  if (next === null && cursor === "") return null;
  return <p class="buttons"><button type="button" disabled={cursor === ""} onClick={() => go("")}>{t("first")}</button>
    <button type="button" disabled={next === null} onClick={() => go(next ?? "")}>{t("later")} →</button></p>;
}

function CronTable(): JSX.Element | null {
  const [cursor, setCursor] = useState("");
  const { data, reload, forbidden } = useData(`cron ${cursor}`, () => get<Page<CronJob>>(`/api/v1/cron?limit=25${behind(cursor)}`));
  const may = useMay("operate");
  const [edited, setEdited] = useState<CronJob | null>(null);
  if (data === null) return <Loading forbidden={forbidden} />;
  const columns: Column<CronJob>[] = [
    { name: t("name"), kind: "name", cell: (cron) => <><span title={show(cron.name, 200)}>{show(cron.name, 60)}</span>{cron.paused && <> <span class="badge">{t("pausedQueue")}</span></>}</> },
    { name: t("when"), kind: "long", cell: (cron) => <span title={show(cron.expression, 100)}>{when(cron)}{cron.timezone ? ` (${show(cron.timezone, 40)})` : ""}</span> },
    { name: t("function"), kind: "long", cell: (cron) => show(cron.func_name) },
    { name: t("queue"), kind: "optional", cell: (cron) => <QueueLink name={cron.queue} /> },
    { name: t("next"), cell: (cron) => cron.paused || cron.next.length === 0 ? "–" : <span title={cron.next.join("\n")}>{ago(cron.next[0] ?? null)}</span> },
    { name: t("last"), cell: (cron) => cron.last ? <><JobLink id={cron.last.job_id} /> <Status word={cron.last.status} /></> : "–" },
    { name: t("runs"), kind: "optional", cell: (cron) => <Runs cron={cron} /> },
  ];
  if (may) columns.push({ name: t("actions"), cell: (cron) => <span class="buttons">
    <button type="button" aria-label={`${t("runNow")}: ${show(cron.name, 60)}`} onClick={() => cronVerb(cron, "run-now", reload)}>{t("runNow")}</button>
    {cron.can_pause && <button type="button" aria-label={`${t(cron.paused ? "resume" : "pause")}: ${show(cron.name, 60)}`} onClick={() => cronVerb(cron, cron.paused ? "resume" : "pause", reload)}>{t(cron.paused ? "resume" : "pause")}</button>}
    {cron.stored && <button type="button" aria-label={`${t("edit")}: ${show(cron.name, 60)}`} onClick={() => setEdited(cron)}>{t("edit")}</button>}
    {cron.stored && <button type="button" aria-label={`${t("delete")}: ${show(cron.name, 60)}`} onClick={() => drop(cron, reload)}>{t("delete")}</button>}</span> });
  return <>
    {data.items.length > 0 ? <Table label={t("cron")} columns={columns} rows={data.items} id={(cron) => cron.name} /> : <Empty text={t("noCron")} command="rqxx cron cron.toml" />}
    <Pages cursor={cursor} next={data.next} go={setCursor} />
    {may && <NewCron reload={reload} />}
    {edited && <EditCron key={edited.name} cron={edited} onClose={() => setEdited(null)} reload={reload} />}
  </>;
}

function ScheduledTable(): JSX.Element {
  const [cursor, setCursor] = useState("");
  const { data, reload, forbidden } = useData(`schedules ${cursor}`, () => get<Page<Scheduled>>(`/api/v1/schedules?limit=25${behind(cursor)}`));
  const may = useMay("operate");
  if (data === null) return <Loading forbidden={forbidden} />;
  const columns: Column<Scheduled>[] = [
    { name: t("job"), cell: (one) => <JobLink id={one.job_id} /> },
    { name: t("when"), cell: (one) => <><Time at={one.at} /> <small>{ago(one.at)}</small></> },
    { name: t("call"), kind: "long", cell: (one) => <span title={show(one.description ?? one.func_name, 500)}>{show(one.description ?? one.func_name)}</span> },
    { name: t("queue"), cell: (one) => <QueueLink name={one.queue} /> },
  ];
  if (may) columns.push({ name: t("actions"), cell: (one) => <span class="buttons">
    <button type="button" aria-label={`${t("runNow")}: ${show(one.job_id, 40)}`} onClick={() => runNow(one, reload)}>{t("runNow")}</button>
    <button type="button" aria-label={`${t("cancelJob")}: ${show(one.job_id, 40)}`} onClick={() => changeJob("cancel", String(one.job_id), reload)}>{t("cancelJob")}</button></span> });
  return <>
    {data.items.length > 0 ? <Table label={t("scheduledJobs")} columns={columns} rows={data.items} /> : <Empty text={t("noScheduled")} command="rqxx enqueue FUNC ARG --in 10m" />}
    <Pages cursor={cursor} next={data.next} go={setCursor} />
  </>;
}

export function SchedulesPage(): JSX.Element {
  const [cron, schedules] = [useHas("/api/v1/cron"), useHas("/api/v1/schedules")];
  return <>
    {cron && <><div class="head"><h2>{t("cron")}</h2></div><CronTable /></>}
    {schedules && <><div class="head"><h2>{t("scheduledJobs")}</h2></div><ScheduledTable /></>}
  </>;
}
