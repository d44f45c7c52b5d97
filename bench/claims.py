"""What a claim costs Redis: a plain one, and one with weights, two limits and turns between keys, with many jobs waiting.

    claims.py SOCKET [--jobs N] [--keys N] [--claimed N]      one JSON object to stdout

The scripts are run as the worker runs them; what is counted is Redis' own time in EVALSHA, per job.
"""

import argparse
import json
import pathlib
import pickle
import re
import statistics
import uuid
import zlib

import redis

LUA = pathlib.Path(__file__).resolve().parent.parent / "lua"
QUEUES = {"high": 6, "default": 3, "low": 1}
MAKE_JOBS = """
for n = tonumber(ARGV[2]), tonumber(ARGV[3]) - 1 do
    local id = ARGV[1] .. '-' .. n
    redis.call('HSET', 'rq:job:' .. id, 'created_at', '2026-11-27T00:00:00.000000Z', 'data', ARGV[4], 'description', 'bench.noop(1)',
        'enqueued_at', '2026-11-27T00:00:00.000000Z', 'origin', ARGV[1], 'status', 'queued', 'timeout', '180', 'started_at', '',
        'ended_at', '', 'last_heartbeat', '', 'worker_name', '')
    redis.call('RPUSH', 'rq:queue:' .. ARGV[1], id)
end
"""


def script(connection, name):
    def resolved(text):
        return re.sub(r"^--- @include (\w+)$", lambda found: resolved((LUA / "includes" / f"{found[1]}.lua").read_text()), text,
                      flags=re.M)

    return connection.script_load(resolved((LUA / f"{name}.lua").read_text()))


class Bench:
    def __init__(self, socket, jobs, keys):
        self.connection = redis.Redis(unix_socket_path=socket)
        self.jobs, self.keys = jobs, keys

    def usec(self):
        """Redis' time in EVALSHA up to now."""
        return self.connection.info("commandstats").get("cmdstat_evalsha", {}).get("usec", 0)

    def prepare(self):
        self.connection.flushall()
        data = zlib.compress(pickle.dumps(("bench.noop", None, (1,), {})))
        make = self.connection.script_load(MAKE_JOBS)
        for queue in QUEUES:
            count = self.jobs // len(QUEUES)
            for begin in range(0, count, 5000):
                self.connection.evalsha(make, 0, queue, begin, min(begin + 5000, count), data)
        self.connection.zadd("rqxx:leases", {"w": 4e15})

    def claim(self, name, queue_keys, *arguments, jobs, at_once):
        """us per job: the median of 20 parts, since other programs come in between."""
        claim = script(self.connection, name)
        part, costs = max(jobs // 20 // at_once, 1), []
        for _ in range(jobs // at_once // part):
            before = self.usec()
            for _ in range(part):
                answer = self.connection.evalsha(claim, 2 + len(queue_keys), "rq:worker:w", "rq:worker:w:executions", *queue_keys,
                                                 "w", at_once, 90, "", 1_000_000, *arguments,
                                                 *(uuid.uuid4().hex for _ in range(at_once)))
                assert answer[0] == 0 and len(answer[2]) == at_once, answer[:2]
            costs.append((self.usec() - before) / part / at_once)
        return statistics.median(costs)

    def sort(self):
        """All jobs into lanes: each of its key, under a limit of this key and one of the function. us per job."""
        sort = script(self.connection, "sort")
        for queue in QUEUES:
            while ids := self.connection.lrange(f"rq:queue:{queue}", 0, 127):
                arguments = []
                for job in ids:
                    key = int(job.split(b"-")[1]) % self.keys
                    arguments += [job, "", f"e|{key}|each={key}*1|all=*1"]
                self.connection.evalsha(sort, 1, f"rq:queue:{queue}", queue, "", len(ids), *arguments)

    def run(self, claimed, at_once):
        self.prepare()
        plain = self.claim("claim", [f"rq:queue:{queue}" for queue in QUEUES], "", "1", jobs=claimed, at_once=at_once)
        self.prepare()
        before = self.usec()
        self.sort()
        sorting = (self.usec() - before) / self.jobs
        plan = {"strategy": "weighted", "age": 0, "after_risen": False,
                "queues": [{"name": queue, "weight": weight, "share": 0, "epoch": "e"} for queue, weight in QUEUES.items()],
                "rules": {"each": {"kind": "token-bucket", "limit": 1000, "per": 1_000_000, "points": 1},
                          "all": {"kind": "sliding-window", "limit": 10_000, "per": 1, "points": 1}}}
        ruled = self.claim("claim_ruled", [], "", json.dumps(plan), jobs=claimed, at_once=at_once)
        self.connection.flushall()
        return {"plain_us": plain, "ruled_us": ruled, "ratio": ruled / plain, "sort_us": sorting}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--claimed", type=int, default=20_000)
    options = parser.parse_args()
    bench = Bench(options.socket, options.jobs, options.keys)
    print(json.dumps({str(at_once): bench.run(options.claimed // at_once * at_once, at_once) for at_once in (1, 32)}))


if __name__ == "__main__":
    main()
