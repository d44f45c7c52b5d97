import type { JSX } from "preact";
import { get } from "../api";
import { Charts } from "../chart";
import { Loading, QueueLink, Strip } from "../components";
import { useHas } from "../features";
import { show } from "../format";
import { t } from "../i18n";
import { useData, useOverview } from "../live";
import { href } from "../router";
import { JobTable, QueueTable, RateLimitTable, WorkerTable } from "../tables";
import type { Alert, Failure } from "../types";
import { FailureTable } from "./failures";

function Alerts(): JSX.Element | null {
  const { data } = useData("alerts", () => get<{ alerts: Alert[] }>("/api/v1/alerts"), 5000);
  if (!data || data.alerts.length === 0) return null;
  return <ul class="alerts" aria-label={t("alerts")}>{data.alerts.slice(0, 20).map((one, i) =>
    <li key={i} class={one.level}>{show(one.text, 300)}{one.queue ? <> <QueueLink name={one.queue} /></> : null}</li>)}</ul>;
}

function Groups(): JSX.Element | null {
  const { data, reload } = useData("groups", () => get<{ items: Failure[] }>("/api/v1/failures?state=open&limit=5"), 5000);
  if (!data || data.items.length === 0) return null;
  return <><div class="head"><h2>{t("failures")}</h2><a href={href(["failures"])}>{t("allOfThem")}</a></div><FailureTable failures={data.items} reload={reload} brief /></>;
}

export function OverviewPage(): JSX.Element {
  const data = useOverview();
  const [alerts, failures] = [useHas("/api/v1/alerts"), useHas("/api/v1/failures")];
  if (data === null) return <Loading />;
  const { stats, workers, recent } = data;
  return <>
    <h2 class="unseen">{t("overview")}</h2>
    {alerts && <Alerts />}
    <Strip counts={stats.totals} link={(status) => href(["jobs"], { status })} />
    <Charts />
    <h2>{t("queues")}</h2>
    <QueueTable queues={stats.queues} />
    {failures && <Groups />}
    <h2>{t("workers")}</h2>
    <WorkerTable workers={workers} brief />
    <RateLimitTable limits={stats.rate_limits ?? []} />
    <h2>{t("recentJobs")}</h2>
    <JobTable jobs={recent} />
  </>;
}
