// The first page: counts, recent jobs, one job's detail; asks again every two seconds.
// Job data is hostile: it reaches the document through textContent only.

const interval = 2000;
const main = document.getElementById("main");
const live = document.getElementById("live");
const pauseButton = document.getElementById("pause");
let paused = false;
let timer = 0;
let shownAt = 0;
let shown = "";   // What the page shows, as text: the same data is not drawn again, so focus and selection stay.
const answers = new Map();

/** An element with properties and children; strings become text nodes. */
function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") node.className = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** `watched`: what changes in the answer is drawn. */
async function get(path, watched = true) {
  const headers = { Accept: "application/json" };
  const token = sessionStorage.getItem("token");
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { headers });
  const body = await response.json().catch(() => ({}));
  if (watched) answers.set(path, JSON.stringify(body));
  if (!response.ok) throw Object.assign(new Error(body.detail || response.statusText), { status: response.status });
  return body;
}

const number = (value) => value.toLocaleString("en");
const clip = (text, size) => (text.length > size ? text.slice(0, size) + "…" : text);

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return "< 1 ms";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

function memory(kilobytes) {
  if (kilobytes === null || kilobytes === undefined) return "–";
  return kilobytes < 1048576 ? `${(kilobytes / 1024).toFixed(kilobytes < 102400 ? 1 : 0)} MB` : `${(kilobytes / 1048576).toFixed(2)} GB`;
}

function time(text) {
  if (!text) return "–";
  const node = el("time", { datetime: text, title: text }, new Date(text).toLocaleString());
  return node;
}

function status(word) {
  const known = /^[a-z_]+$/.test(word) ? word : "unreadable";
  return el("span", { class: `status ${known}` }, word);
}

function table(headings, rows) {
  const head = el("tr", {}, ...headings.map(([text, kind]) => el("th", { class: kind || "", scope: "col" }, text)));
  const body = rows.map((cells) =>
    el("tr", {}, ...cells.map((cell, i) => el("td", { class: headings[i][1] || "" }, cell))));
  return el("div", { class: "scroll", tabindex: "0" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
}

function strip(totals) {
  const order = ["queued", "started", "finished", "failed", "deferred", "scheduled", "canceled"];
  return el("div", { class: "strip" }, ...order.map((key) =>
    el("div", { class: "count" }, el("b", { class: totals[key] ? key : "" }, number(totals[key])), el("span", {}, key))));
}

function empty(text, command) {
  return el("p", { class: "empty" }, text + " ", el("code", {}, command));
}

async function overview() {
  const [stats, recent, workers] = await Promise.all([
    get("/api/rq/stats"), get("/api/rq/jobs/recent?limit=50"), get("/api/rq/workers")]);
  const parts = [strip(stats.totals), el("h2", {}, "Queues")];
  parts.push(stats.queues.length === 0
    ? empty("No queue yet. The first job makes one:", "rqxx enqueue FUNC ARG")
    : table([["Queue"], ["Queued", "number"], ["Started", "number"], ["Finished", "number"], ["Failed", "number"],
             ["Deferred", "number optional"], ["Scheduled", "number optional"], ["Canceled", "number optional"]],
            stats.queues.map((q) => [q.queue_name, ...["queued", "started", "finished", "failed", "deferred", "scheduled",
              "canceled"].map((key) => number(q[key]))])));
  parts.push(el("h2", {}, "Workers"));
  parts.push(workers.workers.length === 0
    ? empty("No worker listens. Start one:", "rqxx worker")
    : table([["Worker"], ["State"], ["Queues", "optional"], ["Running", "number"], ["Done", "number"], ["Failed", "number"]],
            workers.workers.map((w) => [clip(w.name, 60), w.state, w.queues.join(", "), number(w.jobs.length),
              number(w.successful_job_count), number(w.failed_job_count)])));
  parts.push(el("h2", {}, "Recent jobs"));
  parts.push(recent.jobs.length === 0
    ? empty("No jobs yet. Try:", "rqxx enqueue eval_worker.evaluate 1")
    : table([["Job"], ["Status"], ["Call", "long"], ["Queue", "optional"], ["Waited", "number optional"],
             ["Took", "number"], ["Created", "optional"]],
            recent.jobs.map((job) => [
              el("a", { href: `#/jobs/${encodeURIComponent(job.id)}`, title: job.id }, clip(job.id, 8)),
              status(job.status), clip(job.description || job.func_name || "–", 120), job.queue,
              seconds(job.queued_for), seconds(job.duration), time(job.created_at)])));
  return parts;
}

function json(value) {
  return el("pre", {}, clip(JSON.stringify(value, null, 2) ?? "", 200000));
}

// ---- what executions write: not drawn anew, so that scrolling and selection stay ----

const mostOutput = 2 << 20;   // Characters shown of an execution.
const outputs = el("section", { id: "outputs", "aria-label": "Output" });
const panes = new Map();      // Execution -> what is shown of its output.
let outputsOf = "";

/** Control characters are of no use here; colours are left out. */
function plain(text) {
  return text.replace(/\x1b\[[0-9;:]*m/g, "").replace(/\r\n?/g, "\n").replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

function newPane(path, execution, open) {
  const body = el("div", { class: "output", tabindex: "0", role: "log", "aria-live": "off", "aria-label": `Output of execution ${execution}` });
  const state = el("span", { class: "state" });
  const node = el("details", {}, el("summary", {}, "Execution ", el("code", { title: execution }, clip(execution, 12)), " ", state), body);
  const pane = { path, execution, node, body, state, after: "", size: 0, ended: false, loading: false };
  node.open = open;
  node.addEventListener("toggle", () => load(pane).catch(() => {}));
  return pane;
}

function addEntries(pane, entries) {
  const { body } = pane;
  const follows = body.scrollTop + body.clientHeight >= body.scrollHeight - 8;
  for (const entry of entries) {
    const last = body.lastElementChild;
    const text = entry.stream === "cut" ? `… ${number(entry.missing_bytes)} bytes are missing …` : plain(entry.text);
    if (entry.stream !== "cut" && last && last.className === entry.stream) last.append(text);
    else body.append(el("div", { class: entry.stream }, text));
    pane.size += text.length;
  }
  if (follows) body.scrollTop = body.scrollHeight;
}

/** What has been written since the last time. */
async function load(pane) {
  if (pane.loading || pane.ended || !pane.node.open) return;
  pane.loading = true;
  try {
    for (let more = true; more;) {
      const part = await get(`${pane.path}?execution=${encodeURIComponent(pane.execution)}&after=${pane.after}`, false);
      addEntries(pane, part.entries);
      pane.after = part.next_after;
      pane.ended = part.ended;
      if (!part.ended && pane.size > mostOutput) {
        pane.body.append(el("div", { class: "cut" }, "… all of it: rqxx job logs …"));
        pane.ended = true;
      }
      more = !pane.ended && part.entries.length > 0;
    }
    pane.state.textContent = pane.ended ? "" : "running";
  } catch (error) {
    if (error.status !== 404) throw error;
    pane.ended = true;   // It has expired.
  } finally {
    pane.loading = false;
  }
}

async function showOutputs(id) {
  const path = `/api/v1/jobs/${encodeURIComponent(id)}/output`;
  const { executions } = await get(`${path}?limit=1&after=18446744073709551615-0`);   // Behind all entries.
  if (outputsOf !== id) {
    outputsOf = id;
    panes.clear();
    outputs.replaceChildren();
  }
  for (const [execution, pane] of panes) {
    if (executions.includes(execution)) continue;
    pane.node.remove();
    panes.delete(execution);
  }
  for (const execution of [...executions].reverse()) {
    if (panes.has(execution)) continue;
    const pane = newPane(path, execution, execution === executions[0]);
    panes.set(execution, pane);
    outputs.prepend(pane.node);
  }
  await Promise.all([...panes.values()].map(load));
  return executions.length;
}

async function detail(id) {
  const { job } = await get(`/api/rq/jobs/${encodeURIComponent(id)}`);
  const written = await showOutputs(id);
  const facts = [
    ["Status", status(job.status)], ["Queue", job.queue], ["Function", job.func_name || "–"],
    ["Created", time(job.created_at)], ["Enqueued", time(job.enqueued_at)], ["Started", time(job.started_at)],
    ["Ended", time(job.ended_at)], ["Waited", seconds(job.queued_for)], ["Took", seconds(job.duration)],
    ["Time limit", job.timeout === null ? "180 s (default)" : job.timeout < 0 ? "none" : `${job.timeout} s`],
    ["Retries left", job.retry === null ? "–" : String(job.retry)],
    ["Worker", job.worker_name || "–"], ["Depends on", job.depends_on.join(", ") || "–"]];
  const parts = [
    el("p", {}, el("a", { href: "#/" }, "← Overview")),
    el("h2", {}, job.id),
    el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))];
  for (const problem of job.problems) parts.push(el("p", { class: "problem" }, `Unreadable: ${problem}`));
  parts.push(el("h2", {}, "Arguments"), json(job.args));
  if (job.kwargs && Object.keys(job.kwargs).length) parts.push(el("h2", {}, "Keyword arguments"), json(job.kwargs));
  if (job.meta && Object.keys(job.meta).length) parts.push(el("h2", {}, "Meta"), json(job.meta));
  if (job.status === "finished") parts.push(el("h2", {}, "Result"), json(job.result));
  if (job.exc_info) parts.push(el("h2", {}, "Error"), el("pre", {}, clip(job.exc_info, 200000)));
  parts.push(el("h2", {}, "Executions"));
  parts.push(job.executions.length === 0 ? el("p", { class: "empty" }, "Not run yet.")
    : table([["Execution"], ["Outcome"], ["Cause", "long"], ["Peak memory", "number"], ["CPU", "number"], ["Progress", "number"],
             ["Worker", "long"], ["Started"], ["Ended"], ["Error", "long"]],
            job.executions.map((run) => [
              run.id ? el("code", { title: run.id }, clip(run.id, 12)) : "–",
              run.stop ? `${run.outcome}, stop ${run.stop}` : run.outcome, run.cause || "–", memory(run.max_rss_kb), seconds(run.cpu_seconds),
              run.progress ? `${Math.round(run.progress.fraction * 100)} % ${run.progress.text || ""}` : "–",
              run.worker || "–", time(run.started_at), time(run.ended_at),
              run.error ? clip(run.error.trim().split("\n").pop(), 200) : "–"])));
  if (job.executions.length || written) {
    parts.push(el("h2", {}, "Output"));
    if (!written) parts.push(el("p", { class: "empty" }, "Nothing written to stdout or stderr is kept."));
  }
  return parts;
}

const view = el("div");

function draw(parts, isJob) {
  const sideways = [...main.querySelectorAll(".scroll")].map((node) => node.scrollLeft);
  if (view.parentNode !== main) main.replaceChildren(view, outputs);
  outputs.hidden = !isJob;
  view.replaceChildren(...parts);
  main.querySelectorAll(".scroll").forEach((node, i) => { node.scrollLeft = sideways[i] || 0; });
}

function askForToken() {
  shown = "";
  live.className = "stale";
  live.textContent = "Token needed";
  if (document.getElementById("token")) return;   // It is being typed.
  const refused = sessionStorage.getItem("token") !== null;
  sessionStorage.removeItem("token");
  const input = el("input", { id: "token", type: "password", autocomplete: "off", required: "", pattern: "[ -~]+" });
  const form = el("form", { class: "ask" },
    el("label", { for: "token" }, refused ? "That token was refused. The right one:" : "This server asks for its token:"),
    input, el("button", { type: "submit" }, "Continue"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", input.value);
    main.replaceChildren();
    refresh();
  });
  main.replaceChildren(form);
  input.focus();
}

async function refresh() {
  clearTimeout(timer);
  const route = location.hash;
  answers.clear();
  try {
    const match = route.match(/^#\/jobs\/(.+)$/);
    const parts = match ? await detail(decodeURIComponent(match[1])) : await overview();
    if (route !== location.hash) return;
    const data = [...answers].sort().join();
    if (data !== shown) draw(parts, match !== null);
    shown = data;
    shownAt = Date.now();
    live.className = "";
    live.textContent = paused ? "Paused" : "Live";
  } catch (error) {
    if (error.status === 401) return askForToken();
    live.className = "stale";
    live.textContent = shownAt ? `${error.message}; data of ${Math.round((Date.now() - shownAt) / 1000)} s ago` : error.message;
    if (error.status === 404) {
      shown = "";
      main.replaceChildren(el("p", { class: "empty" }, "There is no such job (any more). "), el("a", { href: "#/" }, "← Overview"));
    }
  }
  if (!paused && !document.hidden) timer = setTimeout(refresh, interval);
}

pauseButton.addEventListener("click", () => {
  paused = !paused;
  pauseButton.textContent = paused ? "Resume" : "Pause";
  pauseButton.setAttribute("aria-pressed", String(paused));
  live.textContent = paused ? "Paused" : "Live";
  clearTimeout(timer);
  if (!paused) refresh();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) refresh(); });
addEventListener("hashchange", () => { refresh(); main.focus(); });
refresh();
