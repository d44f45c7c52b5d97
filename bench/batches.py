"""Batches of lines over HTTP and on the command line: jobs per second, and what memory ten times as many jobs take.

    batches.py SOCKET RQXX [--jobs N]      one JSON object to stdout
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

import redis

SERVE = ("--no-worker", "--no-sampler", "--no-scheduler", "--no-maintenance", "--no-access-log", "--port", "0", "--log-level", "error")


def write_lines(path, jobs):
    with open(path, "w") as out:
        for n in range(jobs):
            out.write(json.dumps({"func": "bench.noop", "args": [n]}) + "\n")


class Bench:
    def __init__(self, socket, rqxx, folder):
        self.connection = redis.Redis(unix_socket_path=socket)
        self.url, self.rqxx, self.folder = f"unix://{socket}", rqxx, folder

    def http(self, jobs):
        """Jobs per second over HTTP, and the most memory that the server took, in MB."""
        lines = self.folder / "lines"
        write_lines(lines, jobs)
        server = subprocess.Popen([self.rqxx, "serve", "--redis-url", self.url, "--data-dir", self.folder / "data", *SERVE],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            url = server.stdout.readline().split("Dashboard: ")[1].strip()
            begin = time.perf_counter()
            with open(lines, "rb") as body:
                request = urllib.request.Request(url + "api/v1/batches", data=body, method="POST",
                                                 headers={"Content-Length": str(lines.stat().st_size)})
                with urllib.request.urlopen(request, timeout=600) as response:
                    assert json.load(response)["jobs"] == jobs
            rate = jobs / (time.perf_counter() - begin)
            peak = next(line for line in pathlib.Path(f"/proc/{server.pid}/status").read_text().splitlines() if "VmHWM" in line)
            return {"rate": rate, "mb": int(peak.split()[1]) / 1024}
        finally:
            server.kill()
            server.wait()
            self.connection.flushall()

    def command_line(self, jobs):
        lines = self.folder / "lines"
        write_lines(lines, jobs)
        begin = time.perf_counter()
        client = subprocess.Popen([self.rqxx, "enqueue", "--batch", lines, "--redis-url", self.url, "--log-level", "error"],
                                  stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(client.pid, 0)
        rate = jobs / (time.perf_counter() - begin)
        assert status == 0
        self.connection.flushall()
        return {"rate": rate, "mb": usage.ru_maxrss / 1024}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("rqxx")
    parser.add_argument("--jobs", type=int, default=100_000)
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rqxx-batches-"))
    try:
        bench = Bench(args.socket, args.rqxx, folder)
        few = {"http": bench.http(args.jobs // 10), "cli": bench.command_line(args.jobs // 10)}
        many = {"http": bench.http(args.jobs), "cli": bench.command_line(args.jobs)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {way: {"rate": many[way]["rate"], "mb": many[way]["mb"], "mb_tenth": few[way]["mb"]} for way in many}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
