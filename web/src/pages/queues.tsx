import type { JSX } from "preact";
import { get, path, post } from "../api";
import { ask } from "../ask";
import { Choice, Empty, fits, Filter, Loading, statusText, Strip } from "../components";
import { show } from "../format";
import { t } from "../i18n";
import { askAgain, useData, useOverview } from "../live";
import { May } from "../may";
import { href, useRoute } from "../router";
import { JobTable, QueueTable, WorkerTable } from "../tables";
import { statuses, type Counts, type Job } from "../types";

export function QueuesPage(): JSX.Element {
  const data = useOverview();
  const wanted = useRoute().params.get("q") ?? "";
  if (data === null) return <Loading />;
  return <>
    <div class="head"><h2>{t("queues")}</h2><Filter /></div>
    <QueueTable queues={data.stats.queues.filter((queue) => fits(wanted, queue.queue_name))} filtered={wanted !== ""} />
  </>;
}

const nothing = Object.fromEntries(statuses.map((status) => [status, 0])) as Counts;

/** Asks, telling what it means, and pauses or resumes. */
export function changeQueue(name: string, waits: number, pauses: boolean): void {
  const values = { name: show(name, 60), n: waits };
  ask({
    title: t(pauses ? "pauseTitle" : "resumeTitle", values), text: t(pauses ? "pauseText" : "resumeText", values),
    yes: t(pauses ? "pauseQueue" : "resumeQueue"),
    act: async () => {
      const { changed } = await post<{ changed: boolean }>(pauses ? path`/api/v1/queues/${name}/pause` : path`/api/v1/queues/${name}/resume`);
      askAgain();
      return changed ? t(pauses ? "didPause" : "didResume", values) : t("unchangedQueue");
    },
  });
}

export function QueuePage({ name }: { name: string }): JSX.Element {
  const data = useOverview();
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
      <May>{queue?.paused ? <button type="button" onClick={() => changeQueue(name, waits, false)}>{t("resumeQueue")}</button>
        : <button type="button" onClick={() => changeQueue(name, waits, true)}>{t("pauseQueue")}</button>}</May>
    </div>
    <Strip counts={queue ?? nothing} link={(one) => href(["queues", name], status === one ? {} : { status: one })} current={status} />
    {!!queue?.waiting_under_limits && <p class="note"><a href={href(["limits"])}>{t("underLimits", { n: queue.waiting_under_limits })}</a></p>}
    <h2>{t("workers")}</h2>
    {listeners.length > 0 ? <WorkerTable workers={listeners} brief />
      : <Empty text={t("noListener")} command={/^[\w.-]+$/.test(name) ? `rqxx worker ${name}` : "rqxx worker QUEUE"} />}
    <div class="head"><h2>{t("recentJobs")}</h2><Choice name="status" label={t("status")} options={statuses.map((one) => [one, statusText(one)])} /></div>
    {jobs.data ? <JobTable jobs={jobs.data.jobs} filtered={status !== ""} /> : <Loading />}
  </>;
}
