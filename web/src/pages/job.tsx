import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { changeJob, verbsFor, verbText } from "../actions";
import { get, path, useMay } from "../api";
import { CloneForm } from "../cloneform";
import { clip, Commands, Facts, JobLink, Json, Loading, QueueLink, Status, Table, Time, type Column } from "../components";
import { useHas } from "../features";
import { lastLine, memory, moment, plain, seconds, show } from "../format";
import { Dependencies } from "../graph";
import { lang, t } from "../i18n";
import { useData } from "../live";
import { Outputs } from "../output";
import { Raw } from "../rawjob";
import { href } from "../router";
import { eventsRu, reasonsRu } from "../ru";
import type { Execution, Job, TimelineItem, Why } from "../types";

const settled = ["started", "finished", "failed", "stopped", "canceled"];
const ends = ["finished", "failed", "stopped", "canceled"];

function timeLimit(timeout: number | null): string {
  if (timeout === null) return t("defaultLimit");
  return timeout < 0 ? t("none") : `${timeout} ${t("s")}`;
}

const kept = (ttl: number | null): string => (ttl === null ? "–" : ttl < 0 ? t("forever") : seconds(ttl));

function progress(run: Execution): string {
  const done = run.progress?.fraction;
  return typeof done === "number" ? `${Math.round(done * 100)} % ${run.progress?.text ? show(run.progress.text) : ""}` : "–";
}

const columns: Column<Execution>[] = [
  { name: t("execution"), cell: (run) => run.id ? <code title={show(run.id, 60)}>{show(run.id, 12)}</code> : "–" },
  { name: t("outcome"), cell: (run) => run.stop ? `${run.outcome}, ${t("stop", { word: show(run.stop, 30) })}` : run.outcome },
  { name: t("cause"), kind: "long", cell: (run) => show(run.cause) },
  { name: t("peakMemory"), kind: "number", cell: (run) => memory(run.max_rss_kb) },
  { name: t("cpu"), kind: "number", cell: (run) => seconds(run.cpu_seconds) },
  { name: t("progress"), kind: "number", cell: progress },
  { name: t("worker"), kind: "long", cell: (run) => <span title={show(run.worker, 200)}>{show(run.worker, 60)}</span> },
  { name: t("begun"), cell: (run) => <Time at={run.started_at} /> },
  { name: t("ended"), cell: (run) => <Time at={run.ended_at} /> },
  { name: t("error"), kind: "long", cell: (run) => run.error ? lastLine(run.error) : "–" },
];

function Reasons({ why }: { why: Why }): JSX.Element {
  return <section class="why"><h2>{t("why")}</h2>
    <ol>{why.reasons.map(({ code, text }) => <li key={code}>
      {lang === "ru" && Object.hasOwn(reasonsRu, code) ? <>{reasonsRu[code]} <small lang="en">{show(text, 500)}</small></> : show(text, 500)}
    </li>)}</ol>
    {why.estimated_start && <p>{t("estimated", { time: moment(why.estimated_start) })}</p>}
  </section>;
}

const eventText = (event: string): string => (lang === "ru" && Object.hasOwn(eventsRu, event) ? eventsRu[event] ?? event : show(event.replace(/_/g, " "), 40));

const has = (value: unknown): boolean => value !== null && value !== undefined && (typeof value !== "object" || Object.keys(value).length > 0);

interface Shown {
  job: Job;
  why: Why | null;
}

async function load(id: string): Promise<Shown> {
  const { job } = await get<{ job: Job }>(path`/api/rq/jobs/${id}`);
  if (settled.includes(String(job.status))) return { job, why: null };
  const { why } = await get<{ why: Why }>(path`/api/v1/jobs/${id}/why`);
  return { job, why };
}

function Timeline({ id }: { id: string }): JSX.Element | null {
  const { data } = useData(`timeline ${id}`, () => get<{ items: TimelineItem[] }>(path`/api/v1/jobs/${id}/timeline`));
  if (!data || data.items.length === 0) return null;
  let before = 0;
  return <><h2>{t("timeline")}</h2><ol class="timeline">{data.items.slice(0, 200).map((item, i) => {
    const at = Date.parse(item.at);
    const since = i > 0 && at >= before ? (at - before) / 1000 : null;
    before = at;
    return <li key={i} class={/^[a-z_]+$/.test(item.event) ? item.event : ""}><Time at={item.at} />{since !== null && <small> +{seconds(since)}</small>} <b>{eventText(item.event)}</b>
      {item.worker ? <> {t("byWorker", { name: show(item.worker, 60) })}</> : null}{item.by ? <> {t("byWhom", { name: show(item.by, 60) })}</> : null}
      {has(item.details) && <> <span class="details">{show(item.details, 200)}</span></>}</li>;
  })}</ol></>;
}

function Buttons({ job, reload }: { job: Job; reload: () => void }): JSX.Element | null {
  const may = useMay("operate");
  const [changes, clones] = [useHas("/api/v1/jobs/{job_id}/cancel"), useHas("/api/v1/jobs/{job_id}/request")];
  const [cloned, setCloned] = useState(false);
  if (!may || typeof job.id !== "string") return null;
  const { id } = job;
  return <span class="buttons">{changes && verbsFor(job.status).map((verb) => <button key={verb} type="button" onClick={() => changeJob(verb, id, reload)}>{verbText(verb)}</button>)}
    {clones && <button type="button" onClick={() => setCloned(true)}>{t("clone")}</button>}{cloned && <CloneForm id={id} onClose={() => setCloned(false)} />}</span>;
}

export function JobPage({ id }: { id: string }): JSX.Element {
  const { data, missing, reload } = useData(`job ${id}`, () => load(id));
  const [timeline, raw] = [useHas("/api/v1/jobs/{job_id}/timeline"), useHas("/api/v1/jobs/{job_id}/raw")];
  const back = <a href={href(["jobs"])}>← {t("jobs")}</a>;
  if (missing) return <p class="empty">{t("noSuchJob")}{back}</p>;
  if (data === null) return <Loading />;
  const { job, why } = data;
  const verbs = ends.includes(String(job.status)) ? ["rqxx job requeue", "rqxx job logs"] : job.status === "started" ? ["rqxx job stop", "rqxx job logs --follow"]
    : ["rqxx job cancel", "rqxx job why"];
  return <>
    <p class="path">{back}</p>
    <div class="head"><h2 class="id">{show(job.id, 200)}</h2><Buttons job={job} reload={reload} /></div>
    {why && <Reasons why={why} />}
    <Facts rows={[
      [t("status"), <Status word={job.status} />], [t("queue"), <QueueLink name={job.queue} />], [t("function"), show(job.func_name, 300)],
      [t("created"), <Time at={job.created_at} />], [t("enqueued"), <Time at={job.enqueued_at} />], [t("begun"), <Time at={job.started_at} />],
      [t("ended"), <Time at={job.ended_at} />], [t("waited"), seconds(job.queued_for)], [t("took"), seconds(job.duration)],
      [t("timeLimit"), timeLimit(job.timeout)], [t("retriesLeft"), show(job.retry)], [t("resultKept"), kept(job.result_ttl)],
      [t("failureKept"), kept(job.failure_ttl)], [t("worker"), show(job.worker_name, 200)],
      [t("dependsOn"), job.depends_on.length === 0 ? "–" : job.depends_on.slice(0, 100).map((one, i) => <>{i > 0 && ", "}<JobLink id={one} size={40} /></>)],
    ]} />
    {job.problems.map((problem, i) => <p key={i} class="problem">{t("unreadableField", { text: show(problem, 500) })}</p>)}
    <Dependencies id={id} />
    {timeline && <Timeline id={id} />}
    <h2>{t("arguments")}</h2><Json label={t("arguments")} value={job.args} />
    {has(job.kwargs) && <><h2>{t("keywords")}</h2><Json label={t("keywords")} value={job.kwargs} /></>}
    {has(job.meta) && <><h2>{t("meta")}</h2><Json label={t("meta")} value={job.meta} /></>}
    {job.status === "finished" && <><h2>{t("result")}</h2><Json label={t("result")} value={job.result} /></>}
    {!!job.exc_info && <><h2>{t("error")}</h2>
      <pre tabIndex={0} role="region" aria-label={t("error")}>{typeof job.exc_info === "string" ? plain(clip(job.exc_info)) : show(job.exc_info, 5000)}</pre></>}
    <h2>{t("executions")}</h2>
    {job.executions.length === 0 ? <p class="empty">{t("notRun")}</p> : <Table label={t("executions")} columns={columns} rows={job.executions} />}
    <Outputs id={id} ran={job.executions.length > 0} />
    {raw && <Raw id={id} />}
    <Commands of={job.id} verbs={verbs} />
  </>;
}
