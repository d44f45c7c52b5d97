#!/usr/bin/env python3
"""Measures rqxx, the floor, stock RQ and BullMQ in one run and prints one table of ratios. Called by scripts/bench."""

import argparse
import datetime
import json
import os
import pathlib
import pickle
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib

import psutil
import redis

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "release"
NODE = HERE.parent / "build" / "bench-node"
BULLMQ_MODES = {"concurrency_1": "concurrency 1", "concurrency_10": "10", "concurrency_100": "100",
                "concurrency_100_removing": "100 with removeOnComplete"}
STORED = {"finished": 1_000_000, "queued": 100_000, "failed": 100_000}


class Server:
    """A private redis-server without persistence."""

    def __init__(self, folder, stream_node_max_bytes=4096):
        folder.mkdir()
        self.socket = folder / "redis.sock"
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no", "--dir", str(folder),
             "--stream-node-max-bytes", str(stream_node_max_bytes)], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(unix_socket_path=str(self.socket))
        while True:
            try:
                self.client.ping()
                return
            except redis.RedisError:
                if self.process.poll() is not None:
                    sys.exit("scripts/bench: redis-server did not start")
                time.sleep(0.01)

    def end(self):
        self.process.kill()
        self.process.wait()


def run_json(*command, cwd=None):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
    if done.returncode != 0:
        sys.exit(f"scripts/bench: {command[0]} failed: {done.stderr}")
    return json.loads(done.stdout)


def note(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def bullmq_missing():
    """Installs BullMQ into the build folder; why it cannot be measured, or nothing."""
    try:
        version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "node is missing"
    if int(version.lstrip("v").split(".")[0]) < 18:
        return "node is older than 18"
    if not shutil.which("npm"):
        return "npm is missing"
    stamp, lock = NODE / "installed.json", HERE / "package-lock.json"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return None
    note("installing BullMQ")
    NODE.mkdir(parents=True, exist_ok=True)
    for file in (HERE / "package.json", lock):
        shutil.copy(file, NODE)
    if subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=NODE, stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL).returncode != 0:
        return "npm cannot install it"
    shutil.copy(lock, stamp)
    return None


def flat(figures, prefix=""):
    """{"a": {"b": 1}} as {"a.b": 1}."""
    result = {}
    for key, value in figures.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return result


def rqxx_bench(server, jobs, repetitions=1):
    figures = run_json(BUILD / "rqxx", "bench", "--json", "--jobs", jobs, "--repetitions", repetitions, "--log-level", "error",
                       "--redis-url", f"unix://{server.socket}")
    return {"enqueue_many": figures["enqueue_many_per_second"], "enqueue_batch": figures["enqueue_batch_per_second"],
            "enqueue_one": figures["enqueue_one_per_second"],
            "run": figures["process_per_second"], "latency": figures["latency_ms"]}, figures["profile"]


class Repetitions:
    """Everything in turn, once per repetition, so that a machine that slows down slows all of them down."""

    def __init__(self, plain, small, bull, quick):
        self.jobs, self.scale, self.count = (20000, 0.4, 1) if quick else (60000, 1, 5)
        steps = [("floor", "the floor", lambda: run_json(BUILD / "rqxx_floor", plain.socket, self.jobs)),
                 ("rqxx", "rqxx", lambda: rqxx_bench(plain, self.jobs)[0]),
                 ("small_floor", "the floor, small stream nodes", lambda: run_json(BUILD / "rqxx_floor", small.socket, self.jobs)),
                 ("small", "rqxx, small stream nodes", lambda: rqxx_bench(small, self.jobs)[0]),
                 ("rq", "RQ", lambda: run_json(sys.executable, HERE / "peers.py", plain.socket, "--scale", self.scale)),
                 ("processes", "jobs in processes", lambda: run_json(sys.executable, HERE / "executors.py", plain.socket, BUILD / "rqxx",
                                                                     "--scale", self.scale)),
                 ("batches", "batches of lines", lambda: run_json(sys.executable, HERE / "batches.py", plain.socket, BUILD / "rqxx",
                                                                  "--jobs", 20_000 if quick else 100_000))]
        if bull:
            steps.append(("bullmq", "BullMQ", lambda: run_json("node", HERE / "bullmq.mjs", bull.socket, self.scale, cwd=NODE)))
        self.figures = []
        for repetition in range(self.count):
            figures = {}
            for number, (name, what, measure) in enumerate(steps):
                note(f"repetition {repetition + 1} of {self.count}, step {number + 1} of {len(steps)}: {what}")
                for server in filter(None, (plain, small, bull)):
                    server.client.flushall()
                figures[name] = measure()
            self.figures.append(flat(figures))

    def median(self, key):
        return statistics.median(figures[key] for figures in self.figures)

    def ratio(self, key, other):
        """Median of the repetitions' ratios."""
        return statistics.median(figures[key] / figures[other] for figures in self.figures)

    def summary(self):
        return {key: {"median": self.median(key), "min": min(figures[key] for figures in self.figures),
                      "max": max(figures[key] for figures in self.figures)} for key in self.figures[0]}


# ---- memory and monitoring ------------------------------------------------------------------------------------------------------

FILL = """
local status, data, queue, day, score = ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
    local id = string.format('%s-%07d', status, n)
    local time = string.format('%sT%02d:%02d:%02d.%06dZ', day, math.floor(n / 41667) % 24, math.floor(n / 695) % 60, n % 60, n % 1000000)
    redis.call('HSET', 'rq:job:' .. id, 'status', status, 'origin', queue, 'description', 'bench.noop(1)', 'data', data, 'timeout', '180',
        'created_at', time, 'enqueued_at', time, 'started_at', status == 'queued' and '' or time, 'ended_at', status == 'queued' and '' or time)
    if status == 'queued' then redis.call('RPUSH', 'rq:queue:' .. queue, id)
    else redis.call('ZADD', 'rq:' .. status .. ':' .. queue, score + n, id) end
end
"""


def store(client, queue):
    fill = client.register_script(FILL)
    day = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)).strftime("%Y-%m-%d")
    data = zlib.compress(pickle.dumps(("bench.noop", None, (1,), {})))
    client.sadd("rq:queues", f"rq:queue:{queue}")
    for status, count in STORED.items():
        for at in range(0, count, 20000):
            fill(args=[at, at + 19999, status, data, queue, day, int(time.time()) + 1_000_000])


def memory_and_monitoring(server, folder):
    """Resident memory of idle programs; what a page costs with many stored jobs, over HTTP and in RQ's Python API."""
    note("memory")
    server.client.flushall()
    url = f"unix://{server.socket}"
    worker = subprocess.Popen([BUILD / "rqxx", "worker", "--redis-url", url, "--data-dir", folder / "worker"], stderr=subprocess.DEVNULL)
    serve = subprocess.Popen([BUILD / "rqxx", "serve", "--redis-url", url, "--port", "0", "--data-dir", folder / "serve"],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    rss = {}
    try:
        page = serve.stdout.readline().split()[1].rstrip("/")
        time.sleep(2)
        rss["worker"] = psutil.Process(worker.pid).memory_info().rss / 1e6
        rss["serve"] = psutil.Process(serve.pid).memory_info().rss / 1e6
        note("storing 1.2 M jobs")
        store(server.client, "stored")
        note("statistics and recent jobs with 1.2 M stored jobs")
        ours = {}
        for name, path in (("stats", "stats"), ("recent_10", "jobs/recent?limit=10"), ("recent_100", "jobs/recent?limit=100"),
                           ("job", "jobs/finished-0999999")):
            times = []
            for _ in range(200):
                begin = time.perf_counter()
                urllib.request.urlopen(f"{page}/api/rq/{path}").read()
                times.append((time.perf_counter() - begin) * 1000)
            times.sort()
            ours[name] = {"p50": times[100], "p95": times[190], "p99": times[198]}
        rss["serve_after"] = psutil.Process(serve.pid).memory_info().rss / 1e6
        rq = run_json(sys.executable, HERE / "peers.py", server.socket, "--stored", "stored")
        left = server.client.zcard("rq:finished:stored"), server.client.llen("rq:queue:stored"), server.client.zcard("rq:failed:stored")
        assert left == tuple(STORED.values()), f"the stored jobs changed meanwhile: {left}"
    finally:
        for process in (worker, serve):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        server.client.flushall()
    return {"rss_mb": rss, "rqxx": ours, "rq": rq}


# ---- the table ------------------------------------------------------------------------------------------------------------------

def short(value):
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 20 else f"{value:.0f}"


def table(runs, pages, claims, missing):
    best = None if missing else max(BULLMQ_MODES, key=lambda mode: runs.median(f"bullmq.{mode}"))
    absent = f"not measured: {missing}"

    def line(cells, widths=(38, 9, 10, 8, 16, 15)):
        return "".join(f"{cell:{'<' if at == 0 else '>'}{widths[at]}}" for at, cell in enumerate(cells)).rstrip()

    lines = [line(["jobs/s", "rqxx", "of floor", "x RQ", "x SimpleWorker", "x BullMQ"])]
    for what, key, floor, rq, simple, bull in (
            ("bulk enqueue", "rqxx.enqueue_many", "floor.enqueue", "rq.enqueue_many", None, "enqueue_many"),
            ("single enqueue, one in flight", "rqxx.enqueue_one", "floor.enqueue_one", "rq.enqueue_one", None, "enqueue_one"),
            ("no-op jobs, start to finish", "rqxx.run", "floor.run", "rq.worker", "rq.simple_worker", best),
            ("the same, stream-node-max-bytes 256", "small.run", "small_floor.run", "rq.worker", "rq.simple_worker", best)):
        cells = [what, f"{runs.median(key):.0f}", f"{runs.ratio(key, floor):.2f}", short(runs.ratio(key, rq)),
                 short(runs.ratio(key, simple)) if simple else "", "" if missing else short(runs.ratio(key, f"bullmq.{bull}"))]
        lines.append(line(cells))
    if missing:
        lines.append(f"BullMQ: {absent}")
    else:
        modes = ", ".join(f"{text} {runs.median(f'bullmq.{mode}'):.0f}{' (best)' if mode == best else ''}"
                          for mode, text in BULLMQ_MODES.items())
        lines.append(f"BullMQ, no-op jobs/s: {modes}")
    lines.append(f"RQ, no-op jobs/s: Worker {runs.median('rq.worker'):.0f}, SimpleWorker {runs.median('rq.simple_worker'):.0f}")

    widths = (38, 9, 10, 16, 22)
    lines += ["", line(["jobs in processes, one slot, jobs/s", "rqxx", "x RQ", "x SimpleWorker", "a bare posix_spawn /"], widths)]
    for what, key in (("Python, warm", "warm"), ("Python, a process for each job", "fork")):
        lines.append(line([what, f"{runs.median(f'processes.{key}'):.0f}", short(runs.ratio(f"processes.{key}", "processes.worker")),
                           short(runs.ratio(f"processes.{key}", "processes.simple_worker"))], widths))
    lines.append(line(["commands", f"{runs.median('processes.command'):.0f}", "", "",
                       short(runs.ratio("processes.posix_spawn", "processes.command"))], widths))
    lines.append(f"idle memory (PSS), MB: rqxx with 4 Python slots {runs.median('processes.rqxx_4_slots_pss_mb'):.0f}, "
                 f"4 stock workers {runs.median('processes.rq_4_workers_pss_mb'):.0f}, "
                 f"ratio {runs.ratio('processes.rqxx_4_slots_pss_mb', 'processes.rq_4_workers_pss_mb'):.2f}")

    widths = (38, 9, 9, 15, 10)
    columns = ["rqxx.latency", "rq.latency_worker", "rq.latency_simple_worker"] + ([] if missing else ["bullmq.latency"])
    lines += ["", line(["enqueue to start, idle worker, ms", "rqxx", "RQ", "SimpleWorker", "BullMQ"], widths)]
    for quantile in ("p50", "p95", "p99"):
        lines.append(line([quantile] + [f"{runs.median(f'{column}.{quantile}'):.3f}" for column in columns], widths))
    if missing:
        lines.append(f"BullMQ: {absent}")

    rss = pages["rss_mb"]
    widths = (38, 9, 9, 9, 15, 10)
    bull = "" if missing else f"{runs.median('bullmq.latency.rss_mb'):.1f}"
    lines += ["", line(["idle memory, MB", "worker", "serve", "RQ", "SimpleWorker", "BullMQ"], widths),
              line(["resident", f"{rss['worker']:.1f}", f"{rss['serve']:.1f}", f"{runs.median('rq.latency_worker.rss_mb'):.1f}",
                    f"{runs.median('rq.latency_simple_worker.rss_mb'):.1f}", bull], widths),
              line(["after 800 requests with 1.2 M jobs", "", f"{rss['serve_after']:.1f}"], widths)]

    widths = (38, 9, 14, 13, 10, 12)
    lines += ["", line(["batches, jobs/s", "rqxx", "of C++ batch", "of C++ bulk", "peak, MB", "a tenth, MB"], widths),
              line(["C++, one call", f"{runs.median('rqxx.enqueue_batch'):.0f}", "",
                    f"{runs.ratio('rqxx.enqueue_batch', 'rqxx.enqueue_many'):.2f}"], widths)]
    for way, what in (("http", "HTTP, lines streamed"), ("cli", "command line")):
        rate = f"batches.{way}.rate"
        lines.append(line([what, f"{runs.median(rate):.0f}", f"{runs.ratio(rate, 'rqxx.enqueue_batch'):.2f}",
                           f"{runs.ratio(rate, 'rqxx.enqueue_many'):.2f}", f"{runs.median(f'batches.{way}.mb'):.1f}",
                           f"{runs.median(f'batches.{way}.mb_tenth'):.1f}"], widths))

    widths = (38, 9, 9, 9, 9, 12)
    lines += ["", line(["1.2 M stored jobs, ms", "rqxx p50", "p99", "RQ p50", "p99", "RQ / rqxx"], widths)]
    for name, what in (("stats", "statistics"), ("recent_10", "10 newest jobs"), ("recent_100", "100 newest jobs"), ("job", "one job")):
        ours, theirs = pages["rqxx"][name], pages["rq"][name]
        lines.append(line([what] + [f"{value:.2f}" for value in (ours["p50"], ours["p99"], theirs["p50"], theirs["p99"])]
                          + [short(theirs["p50"] / ours["p50"])], widths))

    widths = (38, 9, 18, 9, 14)
    lines += ["", line(["claims, 1 M jobs of 10 000 keys, us", "plain", "under all rules", "ratio", "sorting once"], widths)]
    for at_once, figures in claims.items():
        lines.append(line([f"{at_once} job{'s' if at_once != '1' else ''} at once", f"{figures['plain_us']:.0f}",
                           f"{figures['ruled_us']:.0f}", f"{figures['ratio']:.2f}", f"{figures['sort_us']:.1f}"], widths))
    return "\n".join(lines)


# ---- where the time goes --------------------------------------------------------------------------------------------------------

FAMILIES = {
    "job hashes": ("hset", "hget", "hmget", "hgetall", "hsetnx", "hdel", "persist"),
    "expiries": ("expire", "pexpire", "ttl"),
    "registries and executions": ("zadd", "zrem", "zscore", "zmscore", "zcard", "zrange", "zrangebyscore"),
    "result streams": ("xadd", "xtrim", "xlen"),
    "lists": ("lmove", "lpop", "rpush", "lpush", "lrem", "llen", "lrange"),
    "counters and statistics": ("hincrby", "hincrbyfloat", "incr", "incrby"),
    "keys": ("del", "unlink", "exists", "type"),
    "sets": ("sadd", "srem", "smembers", "sismember", "scard"),
}
CONTAINERS = {"eval": "scripts themselves (Lua)", "evalsha": "scripts themselves (Lua)", "fcall": "scripts themselves (Lua)",
              "exec": "the transaction around them"}


def split(phase):
    """Redis' time per job, by command family. The time of a script or transaction contains that of its commands."""
    commands = {name: figures for name, figures in phase["redis_commands"].items() if name != "info"}
    inner = sum(figures["us"] for name, figures in commands.items() if name not in CONTAINERS)
    outer = sum(figures["us"] for name, figures in commands.items() if name in CONTAINERS)
    rows = {}
    for name, figures in commands.items():
        if name in CONTAINERS:
            rows[CONTAINERS[name]] = (max(outer - inner, 0), figures["calls"])
            continue
        family = next((family for family, names in FAMILIES.items() if name in names), "other commands")
        us, calls = rows.get(family, (0, 0))
        rows[family] = (us + figures["us"], calls + figures["calls"])
    rows["sockets, parsing, replies"] = (max(phase["redis_cpu_us"] - max(outer, inner), 0), None)
    return sorted(rows.items(), key=lambda row: -row[1][0])


def profile(plain, small, quick):
    jobs, repetitions = (20000, 1) if quick else (60000, 3)
    lines = []
    result = {}
    for name, server, title in (("plain", plain, "Redis as it comes"), ("small_nodes", small, "stream-node-max-bytes 256")):
        note(f"profile: {title}")
        floors = []
        for _ in range(repetitions):
            floors.append(run_json(BUILD / "rqxx_floor", server.socket, jobs))
            server.client.flushall()
        floor = {key: statistics.median(each[key] for each in floors) for key in floors[0]}
        figures, phases = rqxx_bench(server, jobs, repetitions)
        result[name] = {"jobs": jobs, "floor": floor, "rqxx": figures, "profile": phases}
        for phase, what, rate, low in (("enqueue_many", "bulk enqueue", figures["enqueue_many"], floor["enqueue"]),
                                       ("process", "no-op jobs, claim to settle", figures["run"], floor["run"])):
            p = phases[phase]
            lines.append(f"{what}, {title}: {1e6 / rate:.1f} us per job; the floor {1e6 / low:.1f}")
            lines.append(f"  rqxx: {p['client_cpu_us']:.1f} us of CPU, {p['client_main_thread_cpu_us']:.1f} of them on the main thread")
            lines.append(f"  Redis: {p['redis_cpu_us']:.1f} us of CPU")
            for family, (us, calls) in split(p):
                if us >= 0.05:
                    count = "" if calls is None else f"{calls:8.2f} calls"
                    lines.append(f"    {family:28}{us:6.1f} us {us / p['redis_cpu_us'] * 100:4.0f} %{count}")
        lines.append("")
    note("")
    return "\n".join(lines).rstrip(), result


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers, one repetition: under two minutes")
    parser.add_argument("--json", metavar="FILE", help="also write all figures there, each with median, min and max")
    parser.add_argument("--profile", action="store_true", help="print instead where the processor time of a job goes")
    parser.add_argument("--dashboard", action="store_true", help="print instead what the dashboard's server costs with a million jobs, as JSON")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rqxx-bench-"))
    servers = []
    try:
        for name, size in (("plain", 4096), ("small", 256)):
            servers.append(Server(folder / name, size))
        plain, small = servers
        if args.dashboard:
            result = run_json(sys.executable, HERE / "dashboard.py", plain.socket, BUILD, "--jobs", 100_000 if args.quick else 1_000_000)
            text = json.dumps(result, indent=1)
        elif args.profile:
            text, result = profile(plain, small, args.quick)
        else:
            missing = bullmq_missing()
            bull = None
            if not missing:
                bull = Server(folder / "bullmq")
                servers.append(bull)
            runs = Repetitions(plain, small, bull, args.quick)
            pages = memory_and_monitoring(plain, folder)
            note("claims under rules")
            plain.client.flushall()
            claims = run_json(sys.executable, HERE / "claims.py", plain.socket, "--jobs", 100_000 if args.quick else 1_000_000)
            note("")
            text = table(runs, pages, claims, missing)
            result = {"repetitions": runs.count, "jobs": runs.jobs, "figures": runs.summary(), "stored": pages, "claims": claims,
                      "bullmq": f"not measured: {missing}" if missing else "measured"}
        print(text)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    finally:
        for server in servers:
            server.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    os.environ.pop("RQXX_REDIS_URL", None)
    main()
