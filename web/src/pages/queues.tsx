import type { JSX } from "preact";
import { watch } from "../actions";
import { get, path, post, useMay } from "../api";
import { ask } from "../ask";
import { Charts, Spark } from "../chart";
import { Choice, countTitle, Empty, fits, Filter, Loading, QueueLink, statusText, Strip, Table, type Column } from "../components";
import { useHas } from "../features";
import { number, seconds, show } from "../format";
import { lang, t } from "../i18n";
import { askAgain, useData, useOverview } from "../live";
import { href, setParam, useRoute } from "../router";
import { JobTable, QueueTable, WorkerTable } from "../tables";
import { statuses, type Counts, type Job } from "../types";

interface QueueItem extends Counts {
  name: unknown;
  oldest_waiting: string | null;
  workers: number;
  paused: boolean;
  waiting_under_limits: number;
}
type Sparks = Record<string, Record<string, (number | null)[]>>;

const most = 50;   // Of which the lines of the last half hour are kept.

async function load(prefix: string, cursor: string, drawn: boolean): Promise<{ items: QueueItem[]; next: string | null; sparks: Sparks }> {
  const query = new URLSearchParams({ limit: String(most), ...(prefix ? { prefix } : {}), ...(cursor ? { cursor } : {}) }).toString();
  const { items, next } = await get<{ items: QueueItem[]; next: string | null }>(`/api/v1/queues?${query}`);
  const names = items.map((item) => item.name).filter((name): name is string => typeof name === "string" && name !== "" && !name.includes(",") && name.length < 100);
  if (!drawn || names.length === 0) return { items, next, sparks: {} };
  const { queues } = await get<{ queues: Sparks }>(`/api/v1/history/queues?${new URLSearchParams({ span: "30m", queues: names.join(",") }).toString()}`);
  return { items, next, sparks: queues };
}

/** Mean of the last five minutes of thirty. */
function recent(values: (number | null)[] | undefined): number | null {
  const last = (values ?? []).slice(-10).filter((value): value is number => value !== null);
  return last.length === 0 ? null : last.reduce((sum, value) => sum + value, 0) / last.length;
}

function Rich({ prefix }: { prefix: string }): JSX.Element {
  const drawn = useHas("/api/v1/history/queues");
  const cursor = useRoute().params.get("cursor") ?? "";
  const { data, forbidden } = useData(`queues ${prefix} ${cursor} ${drawn}`, () => load(prefix, cursor, drawn));
  if (data === null) return <Loading forbidden={forbidden} />;
  const lines = (queue: QueueItem) => (typeof queue.name === "string" && Object.hasOwn(data.sparks, queue.name) ? data.sparks[queue.name] : undefined);
  const rate = (queue: QueueItem) => recent(lines(queue)?.finished);
  const columns: Column<QueueItem>[] = [
    { name: t("queue"), kind: "name", cell: (queue) => <><QueueLink name={queue.name} />{queue.paused && <> <span class="badge">{t("pausedQueue")}</span></>}</> },
    { name: t("Queued"), kind: "number", cell: (queue) => number(queue.queued) },
    { name: t("oldest"), kind: "number", cell: (queue) => <span title={queue.oldest_waiting ?? ""}>{queue.oldest_waiting ? seconds(Math.max(0, (Date.now() - Date.parse(queue.oldest_waiting)) / 1000)) : "–"}</span> },
    { name: t("Started"), kind: "number", cell: (queue) => number(queue.started) },
    { name: t("rate"), kind: "number optional", cell: (queue) => rate(queue)?.toLocaleString(lang, { maximumFractionDigits: 1 }) ?? "–" },
    { name: t("drained"), kind: "number optional", cell: (queue) => (rate(queue) && queue.queued > 0 ? seconds(queue.queued / (rate(queue) ?? 1)) : "–") },
    { name: t("halfHour"), kind: "optional", cell: (queue) => <Spark values={lines(queue)?.queued ?? []} label={t("sparkQueued")} /> },
    { name: t("workers"), kind: "number", cell: (queue) => <span class={queue.workers === 0 && queue.queued > 0 ? "problem" : ""}>{number(queue.workers)}</span> },
    ...(["finished", "failed", "deferred", "scheduled"] as const).map((status): Column<QueueItem> => ({
      name: countTitle(status), kind: status === "failed" ? "number" : "number optional",
      cell: (queue) => <a href={href(["jobs"], { status, queue: String(queue.name) })}>{number(queue[status])}</a> })),
  ];
  return <>
    {data.items.length > 0 ? <Table label={t("queues")} columns={columns} rows={data.items} />
      : prefix + cursor !== "" ? <Empty text={t("noMatch")} /> : <Empty text={t("noQueue")} command="rqxx enqueue FUNC ARG" />}
    {(data.next !== null || cursor !== "") && <p class="buttons"><button type="button" disabled={cursor === ""} onClick={() => setParam("cursor", "")}>{t("first")}</button>
      <button type="button" disabled={data.next === null} onClick={() => setParam("cursor", data.next ?? "")}>{t("next")} →</button></p>}
  </>;
}

function Plain({ wanted }: { wanted: string }): JSX.Element {
  const data = useOverview();
  if (data === null) return <Loading />;
  return <QueueTable queues={data.stats.queues.filter((queue) => fits(wanted, queue.queue_name))} filtered={wanted !== ""} />;
}

export function QueuesPage(): JSX.Element {
  const wanted = useRoute().params.get("q") ?? "";
  return <>
    <div class="head"><h2>{t("queues")}</h2><Filter /></div>
    {useHas("/api/v1/queues") ? <Rich prefix={wanted} /> : <Plain wanted={wanted} />}
  </>;
}

interface QueueAnswer {
  matched?: number;
  done?: number;
  operation_id?: string;
}

/** Empties the queue, or puts back what has failed in it. */
function clear(name: string, verb: "empty" | "requeue-failed"): void {
  const text = verb === "empty" ? t("emptyQueue") : t("requeueFailed");
  ask({
    title: t("queueTitle", { verb: text, name: show(name, 60) }), text: t(verb === "empty" ? "emptyText" : "requeueText"), yes: text,
    preview: async () => {
      const { matched = 0 } = await post<QueueAnswer>(`${path`/api/v1/queues/${name}/`}${verb}?dry_run=true`);
      return { text: t("bulkCount", { n: matched }), nothing: matched === 0 };
    },
    act: async () => {
      const answer = await post<QueueAnswer>(path`/api/v1/queues/${name}/` + verb);
      askAgain();
      if (answer.operation_id !== undefined) watch(answer.operation_id);
      return answer.operation_id !== undefined ? t("bulkBegun") : t("bulkDone", { n: answer.done ?? 0 });
    },
  });
}

const nothing = Object.fromEntries(statuses.map((status) => [status, 0])) as Counts;

/** Asks, telling what it means, and pauses or resumes. */
export function changeQueue(name: string, waits: number, pauses: boolean): void {
  const values = { name: show(name, 60), n: waits };
  ask({
    title: t(pauses ? "pauseTitle" : "resumeTitle", values), text: t(pauses ? "pauseText" : "resumeText", values),
    yes: t(pauses ? "pauseQueue" : "resumeQueue"),
    act: async () => {
      const change = async (verb: "pause" | "resume") => {
        const { changed } = await post<{ changed: boolean }>(path`/api/v1/queues/${name}/` + verb);
        askAgain();
        return changed ? t(verb === "pause" ? "didPause" : "didResume", values) : t("unchangedQueue");
      };
      return { text: await change(pauses ? "pause" : "resume"), undo: () => change(pauses ? "resume" : "pause") };
    },
  });
}

export function QueuePage({ name }: { name: string }): JSX.Element {
  const data = useOverview();
  const may = useMay("operate");
  const clears = useHas("/api/v1/queues/{name}/empty");
  const status = useRoute().params.get("status") ?? "";
  const query = new URLSearchParams({ limit: "50", queue: name, ...((statuses as readonly string[]).includes(status) ? { status } : {}) }).toString();
  const jobs = useData(`queue ${query}`, () => get<{ jobs: Job[] }>(`/api/rq/jobs/recent?${query}`));
  if (data === null) return <Loading />;
  const queue = data.stats.queues.find((one) => one.queue_name === name);
  const waits = queue?.queued ?? 0;
  const listeners = data.workers.filter((worker) => worker.queues.includes(name));
  return <>
    <p class="path"><a href={href(["queues"])}>← {t("queues")}</a></p>
    <div class="head">
      <h2>{t("queue")} {show(name, 100)} {queue?.paused && <span class="badge">{t("pausedQueue")}</span>}</h2>
      {may && <span class="buttons">{clears && <>
        <button type="button" disabled={waits === 0} onClick={() => clear(name, "empty")}>{t("emptyQueue")}</button>
        <button type="button" disabled={!queue?.failed} onClick={() => clear(name, "requeue-failed")}>{t("requeueFailed")}</button></>}
      {queue?.paused ? <button key="resume" type="button" onClick={() => changeQueue(name, waits, false)}>{t("resumeQueue")}</button>
        : <button key="pause" type="button" onClick={() => changeQueue(name, waits, true)}>{t("pauseQueue")}</button>}</span>}
    </div>
    <Strip counts={queue ?? nothing} link={(one) => href(["queues", name], status === one ? {} : { status: one })} current={status} />
    <Charts queue={name} />
    {!!queue?.waiting_under_limits && <p class="note"><a href={href(["limits"])}>{t("underLimits", { n: queue.waiting_under_limits })}</a></p>}
    <h2>{t("workers")}</h2>
    {listeners.length > 0 ? <WorkerTable workers={listeners} brief />
      : <Empty text={t("noListener")} command={/^[\w.-]+$/.test(name) ? `rqxx worker ${name}` : "rqxx worker QUEUE"} />}
    <div class="head"><h2>{t("recentJobs")}</h2><Choice name="status" label={t("status")} options={statuses.map((one) => [one, statusText(one)])} /></div>
    {jobs.data ? <JobTable jobs={jobs.data.jobs} filtered={status !== ""} /> : <Loading />}
  </>;
}
