import type { JSX } from "preact";
import { Loading, Strip } from "../components";
import { t } from "../i18n";
import { useOverview } from "../live";
import { href } from "../router";
import { JobTable, QueueTable, RateLimitTable, WorkerTable } from "../tables";

export function OverviewPage(): JSX.Element {
  const data = useOverview();
  if (data === null) return <Loading />;
  const { stats, workers, recent } = data;
  return <>
    <h2 class="unseen">{t("overview")}</h2>
    <Strip counts={stats.totals} link={(status) => href(["jobs"], { status })} />
    <h2>{t("queues")}</h2>
    <QueueTable queues={stats.queues} />
    <h2>{t("workers")}</h2>
    <WorkerTable workers={workers} brief />
    <RateLimitTable limits={stats.rate_limits ?? []} />
    <h2>{t("recentJobs")}</h2>
    <JobTable jobs={recent} />
  </>;
}
