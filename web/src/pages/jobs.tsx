import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get } from "../api";
import { Choice, Filter, fits, Loading, statusText } from "../components";
import { show } from "../format";
import { t } from "../i18n";
import { useData, useOverview } from "../live";
import { go, useRoute } from "../router";
import { JobTable } from "../tables";
import type { Job } from "../types";

const known = ["queued", "started", "finished", "failed", "stopped", "deferred", "scheduled", "canceled", "rate_limited", "created"];

/** The newest jobs, by status and queue, and the way to any by its id. */
export function JobsPage(): JSX.Element {
  const { params } = useRoute();
  const [id, setId] = useState("");
  const [status, queue, words] = [params.get("status") ?? "", params.get("queue") ?? "", params.get("q") ?? ""];
  const query = new URLSearchParams({ limit: "100", ...(known.includes(status) ? { status } : {}), ...(queue ? { queue } : {}) }).toString();
  const jobs = useData(`jobs ${query}`, () => get<{ jobs: Job[] }>(`/api/rq/jobs/recent?${query}`));
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
      <Filter />
    </div>
    {jobs.data ? <JobTable jobs={jobs.data.jobs.filter((job) => fits(words, job.id, job.description, job.func_name))} filtered={status + queue + words !== ""} />
      : <Loading />}
  </>;
}
