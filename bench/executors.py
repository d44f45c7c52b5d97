#!/usr/bin/env python3
"""Jobs in processes, one repetition: executors.py SOCKET RQXX [--scale FACTOR]. Prints JSON.

No-op Python jobs in warm processes and in one for each job, no-op programs, beside stock RQ, on one slot each; bare posix_spawn; and what
four slots take of memory beside four stock workers with the same modules. Counts from 10 % done to all done, as peers.py does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import peers
import psutil
import redis
from rq import Queue

HERE = peers.HERE
MODULES = ["peer_tasks", "json", "decimal", "asyncio", "email.mime.multipart", "http.client", "xml.etree.ElementTree", "logging.config"]


def rqxx_worker(rqxx, socket, folder, *flags):
    return subprocess.Popen([rqxx, "worker", "--redis-url", f"unix://{socket}", "--data-dir", folder, "--log-level", "warning", *flags],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def python_flags(*more):
    return ["--python", sys.executable, "--path", HERE, *(part for module in MODULES for part in ("--preload", module)), *more]


def rate(connection, count, function, start):
    """Jobs per second of what `start` starts."""
    connection.flushall()
    queue = Queue("peers", connection=connection)
    for at in range(0, count, 1000):
        queue.enqueue_many([Queue.prepare_data(function, (n,)) for n in range(at, min(at + 1000, count))])
    running = start()
    try:
        while connection.zcard("rq:finished:peers") < count * 0.1:
            time.sleep(0.001)
        done, begin = connection.zcard("rq:finished:peers"), time.perf_counter()
        while connection.zcard("rq:finished:peers") < count:
            time.sleep(0.001)
        return (count - done) / (time.perf_counter() - begin)
    finally:
        running.terminate()
        running.wait(30)


def bare_spawn(count):
    """Programs per second that one process can start and wait for."""
    begin = time.perf_counter()
    for _ in range(count):
        os.waitpid(os.posix_spawn("/bin/true", ["/bin/true"], {}), 0)
    return count / (time.perf_counter() - begin)


def pss(processes):
    """Proportional set size: shared pages count in parts. MB."""
    total = 0
    for process in processes:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().pss
    return total / 1e6


def memory(connection, rqxx, socket, folder):
    connection.flushall()
    queue = Queue("peers", connection=connection)
    flags = python_flags("--concurrency", "4", "peers")
    ours = rqxx_worker(rqxx, socket, folder, *flags)
    try:
        # All four slots have run something.
        jobs = [queue.enqueue("peer_tasks.nap", 0.5) for _ in range(4)]
        while not all(job.is_finished for job in jobs):
            time.sleep(0.05)
        ours_mb = pss([psutil.Process(ours.pid)])
    finally:
        ours.terminate()
        ours.wait(30)
    code = "import sys; " + "; ".join(f"import {module}" for module in MODULES) + "; from rq.cli import main; main()"
    stock = [subprocess.Popen([sys.executable, "-c", code, "worker", "--url", f"unix://{socket}", "--logging_level", "WARNING", "peers"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": HERE})
             for _ in range(4)]
    try:
        while connection.scard("rq:workers") < 4:
            time.sleep(0.05)
        jobs = [queue.enqueue("peer_tasks.nap", 0.5) for _ in range(4)]
        while not all(job.is_finished for job in jobs):
            time.sleep(0.05)
        time.sleep(0.5)
        stock_mb = pss([psutil.Process(one.pid) for one in stock])
    finally:
        for one in stock:
            one.terminate()
        for one in stock:
            one.wait(30)
    return {"rqxx_4_slots_pss_mb": ours_mb, "rq_4_workers_pss_mb": stock_mb}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("rqxx")
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    connection = redis.Redis(unix_socket_path=args.socket)
    with tempfile.TemporaryDirectory() as folder:
        def ours(count, function, *flags):
            return rate(connection, max(200, int(count * args.scale)), function,
                        lambda: rqxx_worker(args.rqxx, args.socket, folder, "--concurrency", "1", *flags, "peers"))

        def stock(count, kind):
            return rate(connection, max(100, int(count * args.scale)), "peer_tasks.noop",
                        lambda: peers.worker(args.socket, f"rq.worker.{kind}", ["peers"]))

        result = {
            "warm": ours(12000, "peer_tasks.noop", *python_flags()),
            "worker": stock(500, "Worker"),
            "fork": ours(2000, "peer_tasks.noop", *python_flags("--isolation", "fork")),
            "simple_worker": stock(2000, "SimpleWorker"),
            "command": ours(3000, "program", "--command", "program=/bin/true"),
            "posix_spawn": bare_spawn(max(200, int(3000 * args.scale))),
            **memory(connection, args.rqxx, args.socket, folder),
        }
    connection.flushall()
    print(json.dumps(result))


if __name__ == "__main__":
    os.environ.pop("RQXX_REDIS_URL", None)
    main()
