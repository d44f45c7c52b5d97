#!/usr/bin/env python3
"""Measures rqxx, stock RQ and the floor in one run and prints one table of ratios. Called by scripts/bench."""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import psutil
import redis

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "release"


class Server:
    """A private redis-server without persistence."""

    def __init__(self, folder, stream_node_max_bytes):
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
                time.sleep(0.01)

    def end(self):
        self.process.kill()
        self.process.wait()


def run_json(*command):
    return json.loads(subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout)


def note(text):
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True) if sys.stderr.isatty() else None


def side_by_side(server, jobs, repetitions):
    """The floor and rqxx in turn, each on an empty Redis, so that a machine that slows down slows both down. Medians."""
    runs = []
    for _ in range(repetitions):
        server.client.flushall()
        low = run_json(BUILD / "rqxx_floor", server.socket, jobs)
        server.client.flushall()
        ours = run_json(BUILD / "rqxx", "bench", "--json", "--jobs", jobs, "--repetitions", 1, "--log-level", "error",
                        "--redis-url", f"unix://{server.socket}")
        runs.append({"floor_enqueue": low["enqueue"], "floor_run": low["run"],
                     "enqueue_many": ours["enqueue_many_per_second"], "enqueue_one": ours["enqueue_one_per_second"],
                     "run": ours["process_per_second"], **ours["latency_ms"],
                     "enqueue_many_of_floor": ours["enqueue_many_per_second"] / low["enqueue"],
                     "run_of_floor": ours["process_per_second"] / low["run"]})
    server.client.flushall()
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def memory(server, folder):
    """Resident memory of idle programs, and what a job takes in Redis."""
    server.client.flushall()
    result = {}
    worker = subprocess.Popen([BUILD / "rqxx", "worker", "--redis-url", f"unix://{server.socket}", "--data-dir", folder / "w"],
                              stderr=subprocess.DEVNULL)
    serve = subprocess.Popen([BUILD / "rqxx", "serve", "--redis-url", f"unix://{server.socket}", "--port", "0", "--data-dir", folder / "s"],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = serve.stdout.readline().split()[1].rstrip("/")
        time.sleep(2)
        result["worker_mb"] = psutil.Process(worker.pid).memory_info().rss / 1e6
        result["serve_mb"] = psutil.Process(serve.pid).memory_info().rss / 1e6
        result["serve_1m"] = pages(server, url)
        result["serve_mb_1m"] = psutil.Process(serve.pid).memory_info().rss / 1e6
    finally:
        for process in (worker, serve):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    return result


FILL = """
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
    local id = ARGV[3] .. '-' .. n
    redis.call('HSET', 'rq:job:' .. id, 'status', ARGV[3], 'origin', 'default', 'description', 'bench.noop(1)',
        'data', ARGV[4], 'created_at', string.format('2026-11-%02dT%02d:%02d:%02d.%06dZ', 1 + n % 20, n % 24, n % 60, n % 60, n % 1000000))
    if ARGV[3] == 'queued' then redis.call('RPUSH', 'rq:queue:default', id)
    else redis.call('ZADD', 'rq:' .. ARGV[3] .. ':default', 1795456544 + n, id) end
end
"""


def pages(server, url):
    import pickle
    import zlib

    server.client.sadd("rq:queues", "rq:queue:default")
    fill = server.client.register_script(FILL)
    for status, count in (("finished", 1_000_000), ("failed", 100_000), ("deferred", 100_000)):
        for at in range(0, count, 20000):
            fill(args=[at, at + 19999, status, zlib.compress(pickle.dumps(("bench.noop", None, (1,), {})))])
    result = {}
    for name, path in (("stats", "/api/rq/stats"), ("recent", "/api/rq/jobs/recent?limit=100"), ("job", "/api/rq/jobs/finished-7")):
        times = []
        for _ in range(200):
            begin = time.perf_counter()
            urllib.request.urlopen(url + path).read()
            times.append((time.perf_counter() - begin) * 1000)
        times.sort()
        result[name] = {"p50": times[100], "p99": times[197]}
    server.client.flushall()
    return result


def table(r):
    ours, small, peers = r["plain"], r["small_nodes"], r["peers"]

    def ratio(value, other):
        return f"{value / other:.1f}" if value < 20 * other else f"{value / other:.0f}"

    rows = [
        ("bulk enqueue, jobs/s", ours["enqueue_many"], ours["enqueue_many_of_floor"], peers["enqueue_many"], None),
        ("single enqueue, jobs/s", ours["enqueue_one"], None, peers["enqueue_one"], None),
        ("no-op jobs (start to finish), jobs/s", ours["run"], ours["run_of_floor"], peers["worker"], peers["simple_worker"]),
        ("the same, stream-node-max-bytes 256", small["run"], small["run_of_floor"], peers["worker"], peers["simple_worker"]),
    ]
    lines = [f"{'measurement':38} {'rqxx':>10} {'of floor':>9} {'x RQ':>8} {'x SimpleWorker':>15}"]
    for name, value, low, rq, simple in rows:
        lines.append(f"{name:38} {value:10.0f} {f'{low:.2f}' if low else '':>9} {ratio(value, rq):>8} {ratio(value, simple) if simple else '':>15}")
    lines.append("")
    lines.append(f"{'enqueue to start, idle worker, ms':38} {'rqxx':>10} {'RQ':>9} {'SimpleWorker':>15}")
    for key in ("p50", "p95", "p99"):
        lines.append(f"{key:38} {ours[key]:10.3f} {peers['latency_worker'][key]:9.2f} {peers['latency_simple_worker'][key]:15.2f}")
    lines.append("")
    m = r["memory"]
    lines.append(f"idle memory: worker {m['worker_mb']:.1f} MB, serve {m['serve_mb']:.1f} MB (after 600 requests with 1.2 M jobs "
                 f"{m['serve_mb_1m']:.1f} MB), rq worker {peers['latency_worker']['rss_mb']:.1f} MB")
    for name, times in m["serve_1m"].items():
        lines.append(f"GET {name} with 1.2 M jobs: p50 {times['p50']:.2f} ms, p99 {times['p99']:.2f} ms")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers, one repetition: under two minutes")
    parser.add_argument("--json", metavar="FILE", help="also write all figures there")
    args = parser.parse_args()
    jobs, repetitions = (20000, 1) if args.quick else (60000, 5)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rqxx-bench-"))
    servers = []
    try:
        for number, size in enumerate((4096, 256)):
            place = folder / str(number)
            place.mkdir()
            servers.append(Server(place, size))
        plain, small = servers
        result = {}
        steps = [("plain", lambda: side_by_side(plain, jobs, repetitions)),
                 ("small_nodes", lambda: side_by_side(small, jobs, repetitions)),
                 ("peers", lambda: run_json(sys.executable, ROOT / "bench" / "peers.py", plain.socket, "--repetitions",
                                            1 if args.quick else 3, "--scale", 0.5 if args.quick else 1)),
                 ("memory", lambda: memory(plain, folder))]
        for name, step in steps:
            note(f"measuring {name}")
            plain.client.flushall()
            small.client.flushall()
            result[name] = step()
        note("")
        print(table(result))
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    finally:
        for server in servers:
            server.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    os.environ.pop("RQXX_REDIS_URL", None)
    main()
