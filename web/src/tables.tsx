// Tables that several pages show, with their empty states.

import type { JSX } from "preact";
import { path, post, useMay } from "./api";
import { ask } from "./ask";
import { countTitle, Empty, JobLink, QueueLink, Status, Table, Time, type Column } from "./components";
import { useHas } from "./features";
import { number, seconds, show } from "./format";
import { t } from "./i18n";
import { statuses, type Job, type Queue, type RateLimit, type Worker } from "./types";

/** In seconds; of jobs that wait still, the stream leaves it to us. */
export function waited(job: Pick<Job, "status" | "queued_for" | "enqueued_at">): number | null {
  if (job.queued_for !== null || job.status !== "queued" || !job.enqueued_at) return job.queued_for;
  return Math.max(0, (Date.now() - Date.parse(job.enqueued_at)) / 1000);
}

export function QueueTable({ queues, filtered = false }: { queues: Queue[]; filtered?: boolean }): JSX.Element {
  if (queues.length === 0) return filtered ? <Empty text={t("noMatch")} /> : <Empty text={t("noQueue")} command="rqxx enqueue FUNC ARG" />;
  const columns: Column<Queue>[] = [
    { name: t("queue"), kind: "name", cell: (queue) => <><QueueLink name={queue.queue_name} />{queue.paused && <> <span class="badge">{t("pausedQueue")}</span></>}</> },
    ...statuses.map((status, i): Column<Queue> => ({
      name: countTitle(status), kind: i < 4 ? "number" : "number optional", cell: (queue) => number(queue[status]) })),
  ];
  return <Table label={t("queues")} columns={columns} rows={queues} />;
}

function shutdown(worker: string): void {
  const name = show(worker, 60);
  ask({
    title: t("shutdownTitle", { name }), text: t("shutdownText"), yes: t("shutdown"),
    act: async () => {
      await post(path`/api/v1/workers/${worker}/shutdown`);
      return t("didShutdown", { name });
    },
  });
}

export function WorkerTable({ workers, brief = false, filtered = false }: { workers: Worker[]; brief?: boolean; filtered?: boolean }): JSX.Element {
  const may = [useMay("operate"), useHas("/api/v1/workers/{name}/shutdown")].every(Boolean);
  if (workers.length === 0) return filtered ? <Empty text={t("noMatch")} /> : <Empty text={t("noWorker")} command="rqxx worker" />;
  const columns: Column<Worker>[] = [
    { name: t("worker"), kind: "long", cell: (worker) => <span title={show(worker.name, 200)}>{show(worker.name, 60)}</span> },
    { name: t("state"), cell: (worker) => show(worker.state, 20) },
    { name: t("queues"), kind: "long optional", cell: (worker) => show(worker.queues.map((queue) => show(queue, 40)).join(", "), 200) },
    { name: t("running"), kind: "number", cell: (worker) => number(worker.jobs.length) },
    { name: t("done"), kind: "number", cell: (worker) => number(worker.successful_job_count) },
    { name: t("Failed"), kind: "number", cell: (worker) => number(worker.failed_job_count) },
  ];
  if (!brief) columns.push(
    { name: t("job"), cell: (worker) => <JobLink id={worker.current_job ?? worker.jobs[0]} /> },
    { name: t("host"), kind: "long", cell: (worker) => show(worker.hostname, 60) },
    { name: t("process"), kind: "number", cell: (worker) => show(worker.pid) },
    { name: t("version"), cell: (worker) => show(worker.version, 20) },
    { name: t("heartbeat"), cell: (worker) => <Time at={worker.last_heartbeat} /> },
    { name: t("upSince"), cell: (worker) => <Time at={worker.birth} /> });
  if (!brief && may) columns.push({ name: t("actions"), cell: (worker) => typeof worker.name === "string" && <button type="button"
    aria-label={`${t("shutdown")}: ${show(worker.name, 60)}`} onClick={() => shutdown(String(worker.name))}>{t("shutdown")}</button> });
  return <Table label={t("workers")} columns={columns} rows={workers} />;
}

export function JobTable({ jobs, filtered = false }: { jobs: Job[]; filtered?: boolean }): JSX.Element {
  if (jobs.length === 0)
    return filtered ? <Empty text={t("noJobsLike")} /> : <Empty text={t("noJobs")} command="rqxx enqueue eval_worker.evaluate 1" />;
  const columns: Column<Job>[] = [
    { name: t("job"), cell: (job) => <JobLink id={job.id} /> },
    { name: t("status"), cell: (job) => <Status word={job.status} /> },
    { name: t("call"), kind: "long", cell: (job) => <span title={show(job.description ?? job.func_name, 500)}>{show(job.description ?? job.func_name)}</span> },
    { name: t("queue"), kind: "optional", cell: (job) => <QueueLink name={job.queue} /> },
    { name: t("waited"), kind: "number optional", cell: (job) => seconds(waited(job)) },
    { name: t("took"), kind: "number", cell: (job) => seconds(job.duration) },
    { name: t("created"), kind: "optional", cell: (job) => <Time at={job.created_at} /> },
  ];
  return <Table label={t("recentJobs")} columns={columns} rows={jobs} id={(job, i) => (typeof job.id === "string" ? job.id : String(i))} />;
}

/** Limits that producers on RQ 3 set. */
export function RateLimitTable({ limits }: { limits: RateLimit[] }): JSX.Element | null {
  if (limits.length === 0) return null;
  const columns: Column<RateLimit>[] = [
    { name: t("key"), kind: "long", cell: (limit) => show(limit.key) },
    { name: t("limit"), kind: "number", cell: (limit) => number(limit.concurrency) },
    { name: t("allowed"), kind: "number", cell: (limit) => number(limit.allowed) },
    { name: t("held"), kind: "number", cell: (limit) => number(limit.rate_limited) },
  ];
  return <><h2>{t("rqLimits")}</h2><Table label={t("rqLimits")} columns={columns} rows={limits} /></>;
}
