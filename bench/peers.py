#!/usr/bin/env python3
"""Stock RQ on the same machine and Redis, one repetition: peers.py SOCKET [--scale FACTOR]. Prints JSON.

Processing counts from 10 % done to all done; workers log warnings only, as a busy site would have them. Latency is taken on
CLOCK_MONOTONIC, by a worker of three queues of which the second is used. With --stored QUEUE, what monitoring costs instead.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import psutil
import redis
from rq import Queue, Worker
from rq.job import Job

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


def worker(socket, kind, queues, *flags):
    command = [sys.executable, "-m", "rq.cli", "worker", "--url", f"unix://{socket}", "--path", HERE, "-w", kind,
               "--logging_level", "WARNING", *flags, *queues]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": HERE})


def process(connection, socket, kind, count):
    queue = Queue("peers", connection=connection)
    enqueue_many(queue, count)
    running = worker(socket, kind, ["peers"], "--burst")
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


def latency(connection, socket, kind, pause, count):
    queue = Queue("peers", connection=connection)
    running = worker(socket, kind, ["peers-high", "peers", "peers-low"])
    try:
        while not any("blmove" in client["cmd"] or "blpop" in client["cmd"] for client in connection.client_list()):
            time.sleep(0.01)
        time.sleep(1)
        rss = psutil.Process(running.pid).memory_info().rss / 1e6
        jobs = []
        for _ in range(count + 1):  # The first one does not count.
            jobs.append(queue.enqueue("peer_tasks.now", time.monotonic()))
            time.sleep(pause)
        while not jobs[-1].is_finished:
            time.sleep(0.02)
    finally:
        running.terminate()
        running.wait(30)
    return {**quantiles([job.return_value() * 1000 for job in jobs[1:]]), "rss_mb": rss}


def quantiles(times):
    times = sorted(times)
    return {f"p{q}": times[len(times) * q // 100] for q in (50, 95, 99)}


def stats(connection):
    """What a page of counts needs."""
    result = {"workers": Worker.count(connection=connection)}
    for queue in Queue.all(connection=connection):
        registries = (queue.started_job_registry, queue.finished_job_registry, queue.failed_job_registry, queue.deferred_job_registry,
                      queue.scheduled_job_registry, queue.canceled_job_registry)
        # `count` cleans up first; that it need not is new in RQ 2.
        result[queue.name] = [queue.count] + [registry.get_job_count(cleanup=False) if hasattr(registry, "get_job_count")
                                              else registry.count for registry in registries]
    return result


def recent(connection, limit):
    """The newest jobs by ranged reads of each queue's list and registries; nobody gets them for less from RQ's Python API."""
    ids = []
    for queue in Queue.all(connection=connection):
        ids += [id.decode() for id in connection.lrange(queue.key, -limit, -1)]
        for registry in (queue.started_job_registry, queue.finished_job_registry, queue.failed_job_registry,
                         queue.deferred_job_registry, queue.scheduled_job_registry, queue.canceled_job_registry):
            ids += [id.decode().split(":")[0] for id in connection.zrevrange(registry.key, 0, limit - 1)]
    jobs = [job for job in Job.fetch_many(ids, connection=connection) if job]
    newest = sorted(jobs, key=lambda job: job.created_at, reverse=True)[:limit]
    assert len(newest) == limit
    return newest


def monitoring(connection, queue):
    newest = connection.zrevrange(f"rq:finished:{queue}", 0, 0)[0].decode()
    result = {}
    for name, call in (("stats", lambda: stats(connection)), ("recent_10", lambda: recent(connection, 10)),
                       ("recent_100", lambda: recent(connection, 100)), ("job", lambda: Job.fetch(newest, connection).results())):
        times = []
        for _ in range(200):
            begin = time.perf_counter()
            call()
            times.append((time.perf_counter() - begin) * 1000)
        result[name] = quantiles(times)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--stored", metavar="QUEUE")
    args = parser.parse_args()
    connection = redis.Redis(unix_socket_path=args.socket)
    queue = Queue("peers", connection=connection)
    if args.stored:
        print(json.dumps(monitoring(connection, args.stored)))
        return

    def alone(measure, count, *context):
        connection.flushall()
        return measure(*context, max(50, int(count * args.scale)))

    result = {
        "enqueue_one": alone(enqueue_one, 3000, queue),
        "enqueue_many": alone(enqueue_many, 20000, queue),
        "worker": alone(process, 400, connection, args.socket, "rq.worker.Worker"),
        "simple_worker": alone(process, 3000, connection, args.socket, "rq.worker.SimpleWorker"),
        "latency_worker": alone(latency, 200, connection, args.socket, "rq.worker.Worker", 0.04),  # Busy for 12 ms per job.
        "latency_simple_worker": alone(latency, 200, connection, args.socket, "rq.worker.SimpleWorker", 0.02),
    }
    connection.flushall()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
