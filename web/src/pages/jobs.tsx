import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { changeJobs, verbsFor, verbText, type Selection, type Verb } from "../actions";
import { get, useMay } from "../api";
import { Choice, Empty, Filter, fits, IndexNote, JobLink, Loading, QueueLink, Status, statusText, Table, Time, type Column } from "../components";
import { useHas } from "../features";
import { lastLine, number, seconds, show } from "../format";
import { t } from "../i18n";
import { useData, useOverview } from "../live";
import { go, href, setParam, setParams, useRoute } from "../router";
import { parseSearch, part, type Search } from "../search";
import { SearchBox } from "../searchbox";
import { JobTable, waited } from "../tables";
import { Views } from "../views";
import type { Job, JobItem, JobList } from "../types";

const known = ["queued", "started", "finished", "failed", "stopped", "deferred", "scheduled", "canceled", "rate_limited", "created"];
const verbs: Verb[] = ["requeue", "cancel", "stop", "delete"];

export function JobsPage(): JSX.Element {
  const indexed = useHas("/api/v1/suggest");
  const { params } = useRoute();
  const [id, setId] = useState("");
  const [status, queue] = [params.get("status") ?? "", params.get("queue") ?? ""];
  const queues = (useOverview()?.stats.queues ?? []).map((one) => one.queue_name).filter((name): name is string => typeof name === "string").slice(0, 500);
  const find = (event: Event) => {
    event.preventDefault();
    if (id.trim() !== "") go("jobs", id.trim());
  };
  return <>
    <div class="head"><h2>{t("jobs")}</h2>
      <form class="filter" onSubmit={find}><label for="id">{t("jobId")}</label>
        <span class="joined"><input id="id" value={id} maxLength={500} autocomplete="off" onInput={(event) => setId(event.currentTarget.value)} /><button type="submit">{t("find")}</button></span></form>
    </div>
    <div class="filters">
      <Choice name="status" label={t("status")} options={known.map((one) => [one, statusText(one)])} />
      <Choice name="queue" label={t("queue")} options={queues.map((one) => [one, show(one, 60)])} />
      {indexed ? <SearchBox /> : <Filter />}
    </div>
    {indexed && <Views text={params.get("q") ?? ""} />}
    {indexed ? <Explorer status={status} queue={queue} text={params.get("q") ?? ""} /> : <Newest status={status} queue={queue} words={params.get("q") ?? ""} />}
  </>;
}

/** Where the server keeps no index. */
function Newest({ status, queue, words }: { status: string; queue: string; words: string }): JSX.Element {
  const query = new URLSearchParams({ limit: "100", ...(known.includes(status) ? { status } : {}), ...(queue ? { queue } : {}) }).toString();
  const jobs = useData(`jobs ${query}`, () => get<{ jobs: Job[] }>(`/api/rq/jobs/recent?${query}`));
  return jobs.data ? <JobTable jobs={jobs.data.jobs.filter((job) => fits(words, job.id, job.description, job.func_name))} filtered={status + queue + words !== ""} />
    : <Loading />;
}

/** For an action on all that fit; nothing where the search has several values for one thing, which actions do not know. */
function filterOf(terms: [string, string][]): Record<string, unknown> | null {
  const filter: Record<string, unknown> = {};
  for (const [name, value] of terms) {
    if (Object.hasOwn(filter, name)) return null;
    filter[name] = name.endsWith("_duration") ? Number(value) : value;
  }
  return terms.length > 0 ? filter : null;
}

/** A page that has something, if there is one soon: some of the index may fit no more. */
async function page(query: string, cursor: string): Promise<JobList> {
  let list = await get<JobList>(`/api/v1/jobs?${query}${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
  for (let turn = 0; turn < 10 && list.items.length === 0 && list.next !== null; ++turn)
    list = await get<JobList>(`/api/v1/jobs?${query}&cursor=${encodeURIComponent(list.next)}`);
  return list;
}

function termsOf(search: Search, status: string, queue: string): [string, string][] {
  return [...search.terms, ...(known.includes(status) ? [["status", status] as [string, string]] : []), ...(queue ? [["queue", queue] as [string, string]] : [])];
}

function Explorer({ status, queue, text }: { status: string; queue: string; text: string }): JSX.Element {
  const { params } = useRoute();
  const cursor = params.get("cursor") ?? "";
  const [before, setBefore] = useState<string[]>([]);   // Cursors of the pages before this one.
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const may = [useMay("operate"), useHas("/api/v1/jobs/bulk")].every(Boolean);
  // What an age means is another time with each question; the list stays the same one.
  const search = parseSearch(text);
  const terms = termsOf(search, status, queue);
  const list = JSON.stringify([text, status, queue]);
  const { data, missing, refused, forbidden, reload } = useData(`jobs ${list} ${cursor}`, () =>
    page(new URLSearchParams([...termsOf(parseSearch(text), status, queue), ["limit", "25"]]).toString(), cursor));
  useEffect(() => setChosen(new Set()), [list, cursor]);
  useEffect(() => {
    if (cursor === "") setBefore([]);
  }, [list, cursor]);

  if (missing) return <Empty text={t("noIndex")} />;
  if (refused !== "") return <p class="problem" role="alert">{t("notUnderstood", { text: show(refused, 300) })}</p>;
  if (data === null) return <Loading forbidden={forbidden} />;
  const ids = data.items.map((job) => job.id).filter((id): id is string => typeof id === "string");
  const picked = ids.filter((id) => chosen.has(id));
  const toggle = (id: string) => {
    const now = new Set(chosen);
    if (!now.delete(id)) now.add(id);
    setChosen(now);
  };
  const columns: Column<JobItem>[] = [
    { name: t("job"), cell: (job) => <JobLink id={job.id} /> },
    { name: t("status"), cell: (job) => <Status word={job.status} /> },
    { name: t("call"), kind: "long", cell: (job) => <><span title={show(job.description ?? job.func_name, 500)}>{show(job.description ?? job.func_name)}</span>
      {job.error ? <small class="line" title={show(job.error, 500)}>{lastLine(job.error)}</small> : null}
      {job.tags.slice(0, 5).map((tag, i) => <a key={i} class="tag" href={href(["jobs"], { q: part("tag", String(tag)) })}>{show(tag, 30)}</a>)}</> },
    { name: t("queue"), kind: "optional", cell: (job) => <QueueLink name={job.queue} /> },
    { name: t("waited"), kind: "number optional", cell: (job) => seconds(waited(job)) },
    { name: t("took"), kind: "number", cell: (job) => seconds(job.duration) },
    { name: t("created"), kind: "optional", cell: (job) => <Time at={job.created_at} /> },
  ];
  if (may) columns.unshift({ name: "", kind: "pick", cell: (job) => typeof job.id === "string" && <input type="checkbox" aria-label={t("choose", { id: show(job.id, 40) })}
    checked={chosen.has(job.id)} onChange={() => toggle(job.id as string)} /> });
  const older = () => {
    setBefore([...before, cursor]);
    setParam("cursor", data.next ?? "");
  };
  const newer = () => {
    setParam("cursor", before[before.length - 1] ?? "");
    setBefore(before.slice(0, -1));
  };
  // Not of less than what was searched for.
  const filter = search.unknown.length > 0 ? null : filterOf(terms);
  const selection: Selection | null = picked.length > 0 ? { ids: picked } : filter ? { filter } : null;
  const wanted = terms.filter(([name]) => name === "status").map(([, value]) => value);
  const offered = picked.length === 0 && wanted.length === 1 ? verbsFor(wanted[0]) : verbs;
  const total = data.total_is_exact ? number(data.approx_total) : t("about", { n: data.approx_total });
  return <>
    {search.unknown.length > 0 && <p class="problem" role="alert">{t("notUnderstood", { text: show(search.unknown.join(" "), 100) })}</p>}
    <IndexNote index={data.index} />
    <div class="bar"><span>{picked.length > 0 ? t("chosen", { n: picked.length }) : t("matches", { total })}</span>
      {may && data.items.length > 0 && selection && <span class="buttons">
        {offered.map((verb) => <button key={verb} type="button" onClick={() => changeJobs(verb, selection, reload)}>{picked.length > 0 ? verbText(verb) : t("all", { verb: verbText(verb) })}</button>)}</span>}
      {may && ids.length > 0 && <button type="button" onClick={() => setChosen(picked.length === ids.length ? new Set() : new Set(ids))}>{t(picked.length === ids.length ? "chooseNone" : "chooseAll")}</button>}
      <span class="buttons pages"><button type="button" disabled={cursor === ""} onClick={newer}>← {t("newer")}</button>
        <button type="button" disabled={data.next === null} onClick={older}>{t("older")} →</button></span></div>
    {data.items.length > 0 ? <Table label={t("jobs")} columns={columns} rows={data.items} id={(job, i) => (typeof job.id === "string" ? job.id : String(i))} />
      : terms.length > 0 ? <p class="empty">{t("noSuchJobs")} <button type="button" onClick={() => setParams({})}>{t("clear")}</button></p>
      : <Empty text={t("noJobs")} command="rqxx enqueue eval_worker.evaluate 1" />}
  </>;
}
