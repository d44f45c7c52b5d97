import type { ComponentChildren, JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { get, session, useSeesAll } from "../api";
import { Choice, Empty, Filter, fits, JobLink, Loading, QueueLink, Status, Table, Time, type Column } from "../components";
import { number, show } from "../format";
import { t } from "../i18n";
import { useData, useTopic } from "../live";
import { useRoute } from "../router";
import { useStore } from "../store";
import type { AuditEntry, Operation, Transition } from "../types";

const useIsAdmin = (): boolean => useStore(session)?.scopes.includes("admin") ?? false;

function Target({ of }: { of: AuditEntry }): JSX.Element {
  return /^job\b/.test(of.action) ? <JobLink id={of.target} size={40} /> : <span title={show(of.target, 300)}>{show(of.target, 80)}</span>;
}

// ---- the log of this moment ----

const kinds = ["jobs", "operations", "audit"] as const;
type Kind = (typeof kinds)[number];
const kindText = (kind: Kind): string => t(kind === "audit" ? "actions" : kind);

interface Row {
  id: string;
  kind: Kind;
  at: string | null;
  what: ComponentChildren;
  of: ComponentChildren;
  texts: unknown[];   // What the filter looks at.
}

const mostRows = 300;

const jobRow = (job: Transition, id: string): Row => ({
  id, kind: "jobs", at: job.at, what: <Status word={job.status} />, texts: [job.id, job.queue, job.func_name, job.status],
  of: <><JobLink id={job.id} size={13} /> {show(job.func_name, 60)} <small><QueueLink name={job.queue} /></small></>,
});

const operationRow = (one: Operation): Row => ({
  id: `operation ${one.id}`, kind: "operations", at: one.ended_at ?? one.started_at, what: <>{show(one.action, 20)}: {show(one.state, 20)}</>,
  of: <>{number(one.done)}{one.total > 0 && ` / ${number(one.total)}`} <small>{show(one.by, 60)}</small></>, texts: [one.id, one.action, one.state, one.by],
});

const auditRow = (one: AuditEntry): Row => ({
  id: `audit ${one.id ?? ""}`, kind: "audit", at: one.at, what: <>{show(one.action, 40)}: {show(one.outcome, 30)}</>,
  of: <><Target of={one} /> <small>{show(one.by, 60)}</small></>, texts: [one.action, one.target, one.by, one.outcome],
});

const columns: Column<Row>[] = [
  { name: t("when"), cell: (row) => <Time at={row.at} short /> },
  { name: t("kind"), kind: "optional", cell: (row) => kindText(row.kind) },
  { name: t("action"), cell: (row) => row.what },
  { name: t("target"), kind: "long", cell: (row) => row.of },
];

/** What happens while one looks. */
function Log(): JSX.Element {
  const [rows, setRows] = useState<Row[]>([]);
  const [held, setHeld] = useState<Row[] | null>(null);
  const [dropped, setDropped] = useState<number | null>(0);   // Of jobs; null: nobody says how many.
  const count = useRef(0);
  const { params } = useRoute();
  const wanted = params.get("q") ?? "";
  const kind = params.get("kind") ?? "";
  const all = useSeesAll();
  // The newest first; an operation has one row, which moves.
  const add = (more: Row[]) => setRows((before) => {
    const ids = new Set(more.map((row) => row.id));
    return [...more.reverse(), ...before.filter((row) => !ids.has(row.id))].slice(0, mostRows);
  });
  useTopic<{ jobs: Transition[]; dropped: number | null }>("jobs", (data) => {
    setDropped((before) => before === null || data.dropped === null ? null : before + data.dropped);
    add(data.jobs.map((job) => jobRow(job, `job ${++count.current}`)));
  });
  useTopic<{ operations: Operation[] }>(all ? "operations" : "", (data) => add(data.operations.map(operationRow)));
  useTopic<{ items: AuditEntry[] }>(useIsAdmin() && all ? "audit" : "", (data) => add(data.items.map(auditRow)));
  const shown = (held ?? rows).filter((row) => (kind === "" || row.kind === kind) && fits(wanted, ...row.texts));
  const news = held === null ? 0 : rows.findIndex((row) => row.id === held[0]?.id);
  return <section class="log" aria-label={t("liveLog")}>
    <div class="head"><h2>{t("liveLog")}</h2><span class="buttons">
      {held !== null && news !== 0 && <small role="status">{t("newRows", { n: news < 0 ? rows.length : news })}</small>}
      <button type="button" aria-pressed={held !== null} onClick={() => setHeld(held === null ? rows : null)}>{t(held === null ? "holdLog" : "releaseLog")}</button></span></div>
    <div class="filters"><Filter /><Choice name="kind" label={t("kind")} options={kinds.map((one) => [one, kindText(one)])} /></div>
    {shown.length > 0 ? <Table label={t("liveLog")} columns={columns} rows={shown} id={(row) => row.id} />
      : <Empty text={t(rows.length > 0 ? "noMatch" : "emptyLog")} />}
    {dropped !== 0 && <p class="note">{dropped === null ? t("someLeftOut") : t("leftOut", { n: dropped })}</p>}
  </section>;
}

// ---- who did what, from the beginning ----

const auditColumns: Column<AuditEntry>[] = [
  { name: t("when"), cell: (one) => <Time at={one.at} /> },
  { name: t("who"), kind: "long", cell: (one) => <span title={show(one.by, 200)}>{show(one.by, 60)}</span> },
  { name: t("via"), kind: "optional", cell: (one) => show(one.via, 10) },
  { name: t("action"), cell: (one) => show(one.action, 40) },
  { name: t("target"), kind: "long", cell: (one) => <Target of={one} /> },
  { name: t("outcome"), kind: "long", cell: (one) => <span title={show(one.details, 500)}>{show(one.outcome, 60)}</span> },
];

function Audit(): JSX.Element {
  const [cursor, setCursor] = useState("");
  const wanted = useRoute().params.get("q") ?? "";
  const { data, forbidden } = useData(`audit ${cursor}`, () => get<{ items: AuditEntry[]; next: string | null }>(`/api/v1/audit?limit=100${cursor && `&cursor=${encodeURIComponent(cursor)}`}`));
  const shown = data?.items.filter((one) => fits(wanted, one.by, one.action, one.target, one.outcome, one.via)) ?? [];
  return <>
    <h2>{t("auditLog")}</h2>
    {data === null ? <Loading forbidden={forbidden} /> : shown.length > 0 ? <Table label={t("auditLog")} columns={auditColumns} rows={shown} id={(one, i) => one.id ?? String(i)} />
      : wanted !== "" ? <Empty text={t("noMatch")} /> : <Empty text={t("noAudit")} command="rqxx queue pause NAME" />}
    {data !== null && (data.next !== null || cursor !== "") && <p class="buttons"><button type="button" disabled={cursor === ""} onClick={() => setCursor("")}>{t("newest")}</button>
      <button type="button" disabled={data.next === null} onClick={() => setCursor(data.next ?? "")}>{t("older")} →</button></p>}
  </>;
}

/** What happens now, and who did what. */
export function EventsPage(): JSX.Element {
  const admin = useIsAdmin();
  const all = useSeesAll();
  return <><Log />{admin && all && <Audit />}</>;
}
