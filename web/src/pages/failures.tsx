import type { JSX } from "preact";
import { changeJobs, verbText, type Verb } from "../actions";
import { get, path, post, useMay, useSeesAll } from "../api";
import { act } from "../ask";
import { Spark } from "../chart";
import { clip, Choice, Empty, Facts, IndexNote, JobLink, Loading, QueueLink, Table, Time, type Column } from "../components";
import { ago, number, plain, show } from "../format";
import { t, type Key } from "../i18n";
import { useData } from "../live";
import { href, setParam, useRoute } from "../router";
import type { Failure, IndexState } from "../types";

const states = ["open", "muted", "resolved"];
const stateText = (state: string): string => (states.includes(state) ? t(`state_${state}` as Key) : show(state, 20));

type Triage = "mute" | "resolve" | "reopen";
const back: Record<string, Triage> = { open: "reopen", muted: "mute", resolved: "resolve" };

function triage(failure: Failure, verb: Triage, reload: () => void): void {
  const change = async (what: Triage) => {
    const answer = await post<{ failure: Failure }>(path`/api/v1/failures/${failure.id}/` + what);
    reload();
    return t("didTriage", { state: stateText(answer.failure.state) });
  };
  act(async () => ({ text: await change(verb), undo: () => change(back[failure.state] ?? "reopen") }));
}

/** `brief`: those that a list has room for. */
function Buttons({ failure, reload, brief = false }: { failure: Failure; reload: () => void; brief?: boolean }): JSX.Element | null {
  const [may, decides] = [useMay("operate"), useSeesAll()];
  if (!may) return null;
  const verbs: Verb[] = brief ? ["requeue"] : ["requeue", "delete"];
  return <span class="buttons">
    {verbs.map((verb) => <button key={verb} type="button" aria-label={`${t("all", { verb: verbText(verb) })}: ${show(failure.title, 60)}`}
      onClick={() => changeJobs(verb, { filter: { group: failure.id, status: "failed" } }, reload)}>{t("all", { verb: verbText(verb) })}</button>)}
    {!decides ? null : failure.state === "open" ? <>
      <button type="button" aria-label={`${t("mute")}: ${show(failure.title, 60)}`} onClick={() => triage(failure, "mute", reload)}>{t("mute")}</button>
      {!brief && <button type="button" aria-label={`${t("resolve")}: ${show(failure.title, 60)}`} onClick={() => triage(failure, "resolve", reload)}>{t("resolve")}</button>}</>
      : <button type="button" aria-label={`${t("reopen")}: ${show(failure.title, 60)}`} onClick={() => triage(failure, "reopen", reload)}>{t("reopen")}</button>}
  </span>;
}

const names = (list: { name: unknown; count: number }[]): string => list.slice(0, 5).map((one) => show(one.name, 60)).join(", ");

export function FailureTable({ failures, reload, brief = false }: { failures: Failure[]; reload: () => void; brief?: boolean }): JSX.Element {
  const columns: Column<Failure>[] = [
    { name: t("error"), kind: "long", cell: (one) => <a href={href(["failures", one.id])} title={show(one.title, 500)}>{show(one.title, 160)}</a> },
    { name: t("count"), kind: "number", cell: (one) => number(one.count) },
    { name: t("day"), kind: "optional", cell: (one) => <Spark values={one.spark} label={t("sparkDay")} /> },
    { name: t("lastSeen"), cell: (one) => <span title={one.last_seen ?? ""}>{ago(one.last_seen)}</span> },
    { name: t("functions"), kind: "long optional", cell: (one) => <span title={names(one.functions)}>{names(one.functions)}</span> },
    { name: t("queues"), kind: "long optional", cell: (one) => <span title={names(one.queues)}>{names(one.queues)}</span> },
  ];
  if (!brief) columns.push({ name: t("actions"), cell: (one) => <Buttons failure={one} reload={reload} brief /> });
  return <Table label={t("failures")} columns={columns} rows={failures} id={(one) => one.id} />;
}

export function FailuresPage(): JSX.Element {
  const { params } = useRoute();
  const state = params.get("state") ?? "";
  const sort = params.get("sort") ?? "";
  const cursor = params.get("cursor") ?? "";
  const query = new URLSearchParams({ state: states.includes(state) ? state : "open", ...(sort === "count" ? { sort } : {}), ...(cursor ? { cursor } : {}) }).toString();
  const { data, missing, reload, forbidden } = useData(`failures ${query}`, () => get<{ items: Failure[]; next: string | null; index: IndexState }>(`/api/v1/failures?${query}`));
  return <>
    <div class="head"><h2>{t("failures")}</h2></div>
    <div class="filters">
      <Choice name="state" label={t("state")} options={states.slice(1).map((one) => [one, stateText(one)])} any={stateText("open")} />
      <Choice name="sort" label={t("order")} options={[["count", t("byCount")]]} any={t("byTime")} />
    </div>
    {data && <IndexNote index={data.index} />}
    {missing ? <Empty text={t("noIndex")} /> : data === null ? <Loading forbidden={forbidden} /> : data.items.length > 0 ? <FailureTable failures={data.items} reload={reload} />
      : <Empty text={t(state === "" ? "noFailures" : "noMatch")} />}
    {data?.next && <p><button type="button" onClick={() => setParam("cursor", data.next ?? "")}>{t("older")} →</button></p>}
  </>;
}

export function FailurePage({ id }: { id: string }): JSX.Element {
  const { data, missing, reload, forbidden } = useData(`failure ${id}`, () => get<{ failure: Failure }>(path`/api/v1/failures/${id}`));
  const link = <a href={href(["failures"])}>← {t("failures")}</a>;
  if (missing) return <p class="empty">{t("noSuchFailure")}{link}</p>;
  if (data === null) return <Loading forbidden={forbidden} />;
  const { failure } = data;
  const counted = (list: { name: unknown; count: number }[], cell: (name: unknown) => JSX.Element) =>
    list.length === 0 ? "–" : list.slice(0, 20).map((one, i) => <>{i > 0 && ", "}{cell(one.name)} ({number(one.count)})</>);
  return <>
    <p class="path">{link}</p>
    <div class="head"><h2 class="id">{show(failure.title, 300)}</h2><Buttons failure={failure} reload={reload} /></div>
    <Facts rows={[
      [t("state"), stateText(failure.state)], [t("count"), <a href={href(["jobs"], { q: `group:${failure.id} status:failed` })}>{number(failure.count)}</a>],
      [t("firstSeen"), <Time at={failure.first_seen} />], [t("lastSeen"), <Time at={failure.last_seen} />],
      [t("where"), show(failure.frame, 200)], [t("day"), <Spark values={failure.spark} label={t("sparkDay")} />],
      [t("functions"), counted(failure.functions, (name) => <>{show(name, 100)}</>)], [t("queues"), counted(failure.queues, (name) => <QueueLink name={name} />)],
      [t("workers"), counted(failure.workers ?? [], (name) => <>{show(name, 60)}</>)],
      [t("examples"), failure.sample_job_ids.length === 0 ? "–" : failure.sample_job_ids.map((one, i) => <>{i > 0 && ", "}<JobLink id={one} /></>)],
    ]} />
    {typeof failure.traceback === "string" && failure.traceback !== "" && <><h2>{t("traceback")}</h2>
      <pre tabIndex={0} role="region" aria-label={t("traceback")}>{plain(clip(failure.traceback))}</pre></>}
  </>;
}
