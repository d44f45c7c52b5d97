import type { JSX } from "preact";
import { Filter, fits, Loading } from "../components";
import { t } from "../i18n";
import { useOverview } from "../live";
import { useRoute } from "../router";
import { WorkerTable } from "../tables";

export function WorkersPage(): JSX.Element {
  const data = useOverview();
  const wanted = useRoute().params.get("q") ?? "";
  if (data === null) return <Loading />;
  return <>
    <div class="head"><h2>{t("workers")}</h2><Filter /></div>
    <WorkerTable workers={data.workers.filter((worker) => fits(wanted, worker.name, worker.hostname, worker.state, ...worker.queues))} filtered={wanted !== ""} />
  </>;
}
