#!/usr/bin/env python3
"""Stock RQ on the same machine and Redis: peers.py SOCKET [--jobs N]. Prints JSON.

Processing counts from 10 % done to all done; workers log warnings only, as a busy site would have them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import psutil
import redis
from rq import Queue

HERE = os.path.dirname(os.path.abspath(__file__))


def enqueue_one(queue, count):
    begin = time.perf_counter()
    for n in range(count):
        queue.enqueue("peer_tasks.noop", n)
    return count / (time.perf_counter() - begin)


def enqueue_many(queue, count):
    begin = time.perf_counter()
    for at in range(0, count, 1000):
        queue.enqueue_many([Queue.prepare_data("peer_tasks.noop", (n,)) for n in range(at, min(at + 1000, count))])
    return count / (time.perf_counter() - begin)


def worker(socket, kind, *flags):
    command = [sys.executable, "-m", "rq.cli", "worker", "--url", f"unix://{socket}", "--path", HERE, "-w", kind,
               "--logging_level", "WARNING", *flags, "peers"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": HERE})


def process(connection, socket, kind, count):
    queue = Queue("peers", connection=connection)
    enqueue_many(queue, count)
    running = worker(socket, kind, "--burst")
    try:
        while connection.llen(queue.key) > count * 0.9:
            time.sleep(0.002)
        left = connection.llen(queue.key)
        begin = time.perf_counter()
        while connection.llen(queue.key) > 0:
            time.sleep(0.002)
        return left / (time.perf_counter() - begin)
    finally:
        running.terminate()
        running.wait(30)


def latency(connection, socket, kind, count):
    queue = Queue("peers", connection=connection)
    running = worker(socket, kind)
    waits = []
    try:
        while not any("blmove" in client["cmd"] or "blpop" in client["cmd"] for client in connection.client_list()):
            time.sleep(0.01)
        rss = psutil.Process(running.pid).memory_info().rss / 1e6
        for _ in range(count):
            job = queue.enqueue("peer_tasks.now", time.time())
            time.sleep(0.02)
            waits.append(job)
        time.sleep(0.3)
    finally:
        running.terminate()
        running.wait(30)
    times = sorted(job.return_value() * 1000 for job in waits if job.return_value() is not None)
    return {"p50": times[len(times) // 2], "p95": times[int(len(times) * 0.95)], "p99": times[int(len(times) * 0.99)], "rss_mb": rss}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    connection = redis.Redis(unix_socket_path=args.socket)
    queue = Queue("peers", connection=connection)

    def median(measure):
        values = []
        for _ in range(args.repetitions):
            connection.flushall()
            values.append(measure())
        return statistics.median(values)

    def n(count):
        return max(50, int(count * args.scale))

    result = {
        "enqueue_one": median(lambda: enqueue_one(queue, n(3000))),
        "enqueue_many": median(lambda: enqueue_many(queue, n(20000))),
        "worker": median(lambda: process(connection, args.socket, "rq.worker.Worker", n(400))),
        "simple_worker": median(lambda: process(connection, args.socket, "rq.worker.SimpleWorker", n(3000))),
    }
    connection.flushall()
    result["latency_worker"] = latency(connection, args.socket, "rq.worker.Worker", n(200))
    connection.flushall()
    result["latency_simple_worker"] = latency(connection, args.socket, "rq.worker.SimpleWorker", n(200))
    connection.flushall()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
