// What the API answers, as far as the page uses it. Text from jobs may also be a labelled node: see `show`.

export type Text = unknown;

export const statuses = ["queued", "started", "finished", "failed", "deferred", "scheduled", "canceled"] as const;
export type Counts = Record<(typeof statuses)[number], number>;

export interface Queue extends Counts {
  queue_name: Text;
  paused?: boolean;
  waiting_under_limits?: number;
}

export interface RateLimit {
  key: Text;
  concurrency: number;
  allowed: number;
  rate_limited: number;
}

export interface Stats {
  queues: Queue[];
  totals: Counts;
  rate_limits?: RateLimit[];
}

export interface Worker {
  name: Text;
  state: Text;
  hostname: Text;
  pid: number | null;
  version: Text;
  queues: Text[];
  jobs: Text[];
  current_job: Text;
  successful_job_count: number;
  failed_job_count: number;
  total_working_time: number;
  birth: string | null;
  last_heartbeat: string | null;
}

export interface Execution {
  id: Text;
  worker: Text;
  started_at: string | null;
  ended_at: string | null;
  outcome: string;
  error: Text;
  progress: { fraction?: unknown; text?: unknown } | null;
  cause: Text;
  max_rss_kb: number | null;
  cpu_seconds: number | null;
  stop: Text;
}

export interface Job {
  id: Text;
  status: Text;
  queue: Text;
  func_name: Text;
  description: Text;
  args: unknown;
  kwargs: unknown;
  created_at: string | null;
  enqueued_at: string | null;
  started_at: string | null;
  ended_at: string | null;
  duration: number | null;
  queued_for: number | null;
  result: unknown;
  exc_info: Text;
  timeout: number | null;
  retry: number | null;
  result_ttl: number | null;
  failure_ttl: number | null;
  worker_name: Text;
  meta: unknown;
  depends_on: Text[];
  executions: Execution[];
  problems: Text[];
}

export interface Finding {
  code: string;
  severity: string;
  found: number;
  what: string;
  why: string;
  repair: string | null;
  examples: { subject: string; key: string; note: string }[];
}

export interface Doctor {
  state: "none" | "running" | "done" | "failed";
  step: string | null;
  done: number;
  total: number;
  ended_at: string | null;
  error: string | null;
  report: { healthy: boolean; keys: number; jobs: number; findings: Finding[]; command: string | null } | null;
}

export interface RawJob {
  key: string;
  type: string;
  ttl: number | null;
  fields_total: number;
  fields: { name: string; size: number; value: string; cut: boolean; hidden: boolean }[];
}

/** What would enqueue another job like one; arguments and meta data as JSON text. */
export interface JobRequest {
  request: { func?: string; queue: string; serializer: string; timeout?: number; result_ttl?: number; failure_ttl?: number; ttl?: number; description?: string;
    retry?: { max: number; intervals?: number[]; at_front?: boolean } };
  args: string | null;
  kwargs: string | null;
  meta: string | null;
  problems: { field: string; code: string; detail: string }[];
  left_out: string[];
}

export interface Why {
  reasons: { code: string; text: string }[];
  estimated_start: string | null;
}

export interface Limiter {
  key: Text;
  used: number;
  waiting: number;
  pushed_back_until: string | null;
}

export interface Limit {
  name: string;
  kind: string;
  queue?: string;
  function?: string;
  key?: string;
  limit?: number;
  per?: number;
  burst?: number;
  scope?: string;
  etag: string;
  limiters: Limiter[];
}

export interface Limits {
  limits: Limit[];
  faults: { name: Text; detail: Text }[];
}

export interface Batch {
  id: string;
  state: Text;
  successful: boolean;
  total: number;
  done: number;
  pending: number;
  finished: number;
  failed: number;
  stopped: number;
  canceled: number;
  deleted: number;
  parent: Text;
  children: { total: number; waiting: number; failed: number; ids: Text[] };
  created_at: string | null;
  sealed_at: string | null;
  completed_at: string | null;
  first_failure_at: string | null;
  jobs_per_second: number;
  eta: number | null;
  in_progress: Text;
  on_complete: Text;
  on_success: Text;
  on_first_failure: Text;
}

export interface Overview {
  stats: Stats;
  workers: Worker[];
  recent: Job[];
}

export interface OutputPart {
  executions: string[];
  entries: { stream: "stdout" | "stderr" | "cut"; text?: string; missing_bytes?: number }[];
  next_after: string;
  ended: boolean;
}

/** A job as lists have it. */
export interface JobItem {
  id: Text;
  status: Text;
  queue: Text;
  func_name: Text;
  description: Text;
  created_at: string | null;
  enqueued_at: string | null;
  started_at: string | null;
  ended_at: string | null;
  duration: number | null;
  queued_for: number | null;
  worker_name: Text;
  error: Text;
  error_group: Text;
  tags: Text[];
}

export interface IndexState {
  complete: boolean;
  jobs: number | null;   // Null for who may see some queues only.
  progress: number;
  max_age: number | null;   // Seconds.
}

export interface JobList {
  items: JobItem[];
  next: string | null;
  approx_total: number;
  total_is_exact: boolean;
  index: IndexState;
}

export interface Failure {
  id: string;
  title: Text;
  exception: Text;
  message: Text;
  frame: Text;
  count: number;
  first_seen: string | null;
  last_seen: string | null;
  queues: { name: Text; count: number }[];
  functions: { name: Text; count: number }[];
  workers?: { name: Text; count: number }[];
  sample_job_ids: Text[];
  spark: number[];
  state: string;
  traceback?: Text;
}

export interface History {
  step: number;
  times: number[];
  series: Record<string, (number | null)[]>;
}

export interface Alert {
  level: string;
  code: string;
  text: string;
  queue?: Text;
}

export interface Operation {
  id: string;
  action: string;
  state: string;
  looked_at: number;
  matched: number;
  done: number;
  refused: number;
  total: number;
  started_at: string | null;
  ended_at: string | null;
  by: Text;
  error: Text;
}

export interface TimelineItem {
  at: string;
  event: string;
  worker: Text;
  execution: Text;
  by: Text;
  details: Text;
}

export interface Scheduled {
  job_id: Text;
  at: string;
  queue: Text;
  func_name: Text;
  description: Text;
}

export interface CronJob {
  name: string;
  stored: boolean;   // In Redis; else of a file, which is not changed here.
  expression: Text;
  interval: number | null;
  words: Text;
  timezone: Text;
  func_name: Text;
  queue: Text;
  next: string[];
  last: { at: string; job_id: Text; status: Text } | null;
  runs: { at: string; job_id: Text; status: Text }[];
  lag: number | null;
  paused: boolean;
  can_pause: boolean;
  leader: Text;
  etag: string | null;
}

export interface AuditEntry {
  id: string;
  at: string;
  by: Text;
  via: string;
  action: string;
  target: Text;
  outcome: Text;
  details: Text;
}

export interface RedisHealth {
  version: Text;
  mode: Text;
  role: Text;
  uptime: number;
  rtt: { p50: number | null; p99: number | null };
  ops_per_second: number;
  memory: { used: number; peak: number; max: number; policy: Text };
  evicted_keys: number;
  expired_keys: number;
  clients: number;
  blocked_clients: number;
  persistence: Record<string, unknown>;
  replication: Record<string, unknown>;
  slowlog: { at: string; micros: number; command: Text }[];
  keys: { total: number; sampled: boolean; families: { family: Text; keys: number; bytes: number }[] };
  largest: { key?: Text; bytes?: number; [more: string]: unknown }[];
  findings: Alert[];
}

export interface Token {
  id: string;
  name: Text;
  scope: string;
  queues: string[];
  redact: boolean;
  created_at: string | null;
  expires_at: string | null;
}

/** A job that has come into another status. */
export interface Transition {
  id: Text;
  queue: Text;
  func_name: Text;
  status: Text;
  at: string | null;
}
