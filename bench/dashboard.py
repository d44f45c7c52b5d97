"""What the dashboard's server costs and how fast it answers, with many jobs in Redis, beside running jobs and open pages.

    dashboard.py SOCKET BUILD [--jobs N] [--rate N] [--subscribers N] [--requests N]      one JSON object to stdout

Redis at SOCKET is emptied. N jobs: four fifths finished, a tenth failed, a tenth waiting where nobody takes them. Beside them a
producer enqueues `rate` no-op jobs a second (it makes them inside Redis, as many as are due every 20 ms), and a worker runs them. Each
subscriber is an open page: a connection to `/api/v1/events`. One client asks, one request after the other on one connection.
The index is complete before anything is measured. The sampler's share is the processor time of a server that does nothing else, less
that of one that does not sample.
"""

import argparse
import http.client
import json
import pathlib
import pickle
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zlib

import psutil
import redis

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "support"))
from many_jobs import make_jobs  # noqa: E402

REQUESTS = {
    "jobs": "/api/v1/jobs?limit=50", "jobs_failed": "/api/v1/jobs?status=failed&limit=50", "jobs_of_a_function": "/api/v1/jobs?func=app.tasks.work_3&limit=50",
    "overview_counts": "/api/rq/stats", "overview_recent": "/api/rq/jobs/recent?limit=50", "overview_workers": "/api/rq/workers",
    "failures": "/api/v1/failures",
}
PRODUCE = """
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
    local id = 'load-' .. n
    redis.call('HSET', 'rq:job:' .. id, 'created_at', ARGV[4], 'data', ARGV[3], 'description', 'tasks.noop(1)', 'enqueued_at', ARGV[4],
        'origin', 'load', 'status', 'queued', 'timeout', '180', 'started_at', '', 'ended_at', '', 'last_heartbeat', '', 'worker_name', '')
    redis.call('RPUSH', 'rq:queue:load', id)
end
"""
QUIET = ["--no-worker", "--no-scheduler", "--no-cron", "--no-maintenance", "--no-webhooks", "--no-access-log"]


class Serve:
    def __init__(self, build, redis_socket, folder, name, *flags):
        self.process = subprocess.Popen([build / "rqxx", "serve", "--redis-url", f"unix://{redis_socket}", "--port", "0",
                                         "--data-dir", folder / name, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.host, self.port = self.process.stdout.readline().split()[1].removeprefix("http://").rstrip("/").split(":")
        self.connection = http.client.HTTPConnection(self.host, int(self.port), timeout=60)
        self.known = psutil.Process(self.process.pid)

    def get(self, target):
        self.connection.request("GET", target)
        answer = self.connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (target, answer.status, body[:300])
        return body

    def index_is_complete(self):
        self.connection.request("GET", "/api/v1/jobs?limit=1")
        return json.loads(self.connection.getresponse().read()).get("index", {}).get("complete", False)   # 503 before it has begun.

    def memory(self):
        return self.known.memory_info().rss / 1e6

    def cpu(self):
        times = self.known.cpu_times()
        return times.user + times.system

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            print("serve did not end within 30 s", file=sys.stderr)
            self.process.kill()
            self.process.wait()


# ---- what goes on beside, in processes of their own ---------------------------------------------------------------------------------

def produce(redis_socket, rate):
    """Until killed; tells of nothing."""
    connection = redis.Redis(unix_socket_path=redis_socket)
    script = connection.register_script(PRODUCE)
    data = zlib.compress(pickle.dumps(("tasks.noop", None, (1,), {})))
    connection.sadd("rq:queues", "rq:queue:load")
    begin, made = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - begin) * rate)
        if due > made and connection.llen("rq:queue:load") < 5 * rate:   # A worker that cannot keep up is told by how much it did.
            script(args=[made, min(due, made + rate), data, time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())])
        made = due
        time.sleep(0.02)


def subscribe(host, port, count):
    """Reads what all of them are told; says when all are there."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    selector = selectors.DefaultSelector()
    for _ in range(count):
        conn = socket.create_connection((host, port))
        conn.sendall(f"GET /api/v1/events?topics=overview HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        selector.register(conn, selectors.EVENT_READ)
    silent, told = set(selector.get_map()), 0
    while True:
        for key, _ in selector.select():
            received = key.fileobj.recv(1 << 20)
            if not received:
                sys.exit("a subscriber was cut off")
            silent.discard(key.fd)
            if not silent and not told:
                told = 1
                print("all", flush=True)


def beside(*args):
    return subprocess.Popen([sys.executable, __file__, *map(str, args)], stdout=subprocess.PIPE, text=True)


# ---- measuring ------------------------------------------------------------------------------------------------------------------

def percentiles(serve, target, count):
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        serve.get(target)
        times.append((time.perf_counter() - begin) * 1000)
    times.sort()
    return {"p50": times[count // 2], "p99": times[count * 99 // 100], "max": times[-1]}


def share(serve, seconds):
    begin, before = time.monotonic(), serve.cpu()
    time.sleep(seconds)
    return (serve.cpu() - before) / (time.monotonic() - begin)


def ended(connection):
    return connection.zcard("rq:finished:load")


def main():
    if sys.argv[1] in ("produce", "subscribe"):
        {"produce": lambda: produce(sys.argv[2], int(sys.argv[3])),
         "subscribe": lambda: subscribe(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))}[sys.argv[1]]()
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=300)
    options = parser.parse_args()
    connection = redis.Redis(unix_socket_path=options.socket)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rqxx-bench-"))
    processes, result = [], {"jobs": options.jobs, "rate": options.rate, "subscribers": options.subscribers}
    try:
        connection.flushall()
        make_jobs(connection, options.jobs * 8 // 10, ["finished"])
        make_jobs(connection, options.jobs // 10, ["failed", "queued"])
        serve = Serve(options.build, options.socket, folder, "serve", *QUIET)
        processes.append(serve)
        begin = time.monotonic()
        while not serve.index_is_complete():
            time.sleep(0.5)
        result["index_seconds"] = time.monotonic() - begin
        result["alone_ms"] = {name: percentiles(serve, target, options.requests) for name, target in REQUESTS.items()}
        result["rss_mb"] = {"alone": serve.memory()}

        worker = subprocess.Popen([options.build / "test_worker", f"unix://{options.socket}", "--concurrency", "128", "load"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        producer = beside("produce", options.socket, options.rate)
        processes += [worker, producer]
        time.sleep(3)
        before, at = ended(connection), time.monotonic()
        result["loaded_ms"] = {name: percentiles(serve, target, options.requests) for name, target in REQUESTS.items()}
        result["jobs_per_second"] = (ended(connection) - before) / (time.monotonic() - at)
        # The same server would not tell what the sampler alone costs: others, of which one does nothing at all.
        for name, flag in (("sampling", []), ("idle", ["--no-sampler"])):
            serve.process.send_signal(19)   # One samples at a time.
            other = Serve(options.build, options.socket, folder, name, *QUIET, "--no-index", *flag)
            processes.append(other)
            time.sleep(8)   # The lock of the one before has run out.
            result[f"core_share_{name}"] = share(other, 10)
            other.end()
            processes.remove(other)
            serve.process.send_signal(18)
        result["core_share_sampler"] = result["core_share_sampling"] - result["core_share_idle"]
        time.sleep(3)

        subscribers = beside("subscribe", serve.host, serve.port, options.subscribers)
        processes.append(subscribers)
        assert subscribers.stdout.readline() == "all\n"
        before, at, cpu = ended(connection), time.monotonic(), serve.cpu()
        result["loaded_with_pages_ms"] = {name: percentiles(serve, target, options.requests) for name, target in REQUESTS.items()}
        assert subscribers.poll() is None, "subscribers were cut off"
        result["jobs_per_second_with_pages"] = (ended(connection) - before) / (time.monotonic() - at)
        result["core_share_serve_with_pages"] = (serve.cpu() - cpu) / (time.monotonic() - at)
        result["rss_mb"]["with_pages"] = serve.memory()
        print(json.dumps(result, indent=1), flush=True)
    finally:
        for process in reversed(processes):
            if isinstance(process, Serve):
                process.process.send_signal(18)
                process.end()
            else:
                process.kill()
                process.wait()
        connection.flushall()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
