import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get } from "../api";
import { Empty, Filter, fits, JobLink, Loading, Table, Time, type Column } from "../components";
import { show } from "../format";
import { t } from "../i18n";
import { useData } from "../live";
import { useRoute } from "../router";
import type { AuditEntry } from "../types";

const columns: Column<AuditEntry>[] = [
  { name: t("when"), cell: (one) => <Time at={one.at} /> },
  { name: t("who"), kind: "long", cell: (one) => <span title={show(one.by, 200)}>{show(one.by, 60)}</span> },
  { name: t("via"), kind: "optional", cell: (one) => show(one.via, 10) },
  { name: t("action"), cell: (one) => show(one.action, 40) },
  { name: t("target"), kind: "long", cell: (one) => /^job\b/.test(one.action) ? <JobLink id={one.target} size={40} /> : <span title={show(one.target, 300)}>{show(one.target, 80)}</span> },
  { name: t("outcome"), kind: "long", cell: (one) => <span title={show(one.details, 500)}>{show(one.outcome, 60)}</span> },
];

/** Who did what. */
export function EventsPage(): JSX.Element {
  const [cursor, setCursor] = useState("");
  const wanted = useRoute().params.get("q") ?? "";
  const { data, forbidden } = useData(`audit ${cursor}`, () => get<{ items: AuditEntry[]; next: string | null }>(`/api/v1/audit?limit=100${cursor && `&cursor=${encodeURIComponent(cursor)}`}`));
  if (data === null) return <Loading forbidden={forbidden} />;
  const shown = data.items.filter((one) => fits(wanted, one.by, one.action, one.target, one.outcome, one.via));
  return <>
    <div class="head"><h2>{t("audit")}</h2><Filter /></div>
    {shown.length > 0 ? <Table label={t("audit")} columns={columns} rows={shown} id={(one, i) => one.id ?? String(i)} />
      : wanted !== "" ? <Empty text={t("noMatch")} /> : <Empty text={t("noAudit")} command="rqxx queue pause NAME" />}
    {(data.next !== null || cursor !== "") && <p class="buttons"><button type="button" disabled={cursor === ""} onClick={() => setCursor("")}>{t("newest")}</button>
      <button type="button" disabled={data.next === null} onClick={() => setCursor(data.next ?? "")}>{t("older")} →</button></p>}
  </>;
}
