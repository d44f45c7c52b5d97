"""Constant cost: what each page and list asks of Redis, however many jobs there are; the routes are those of the OpenAPI document."""

import datetime
import json
import os
import pathlib
import shutil
import tempfile
import time

import pytest
from conftest import System, http, wait_for
from many_jobs import STATUSES, make_jobs
from redis_cost import Meter

FULL = os.environ.get("RQXX_FULL") == "1"
SMALL, LARGE = (10_000, 1_000_000) if FULL else (1_000, 10_000)
NAMED = {
    "/api/v1/batches/{batch_id}": "load-7", "/api/v1/limits/{name}": "few-7",
    "/api/v1/cron/{name}": "nightly-007", "/api/v1/queues/{name}": "default", "/api/v1/workers/{name}": "worker-7",
}


def fill_with_the_rest(web, connection):
    """More of everything else than one page shows."""
    now = "2026-11-23T17:47:37.728246Z"
    for n in range(300):
        name = f"worker-{n}"
        connection.sadd("rq:workers", f"rq:worker:{name}")
        for queue in ("default", "high"):
            connection.sadd(f"rq:workers:{queue}", f"rq:worker:{name}")
        connection.hset(f"rq:worker:{name}", mapping={"queues": "default,high", "state": "busy", "birth": now, "last_heartbeat": now, "pid": n,
                                                      "hostname": "host", "version": "2.10.0", "current_job": f"started-{n}"})
        connection.hset("rqxx:cron_entries", f"nightly-{n:03}", json.dumps({"func": "app.tasks.nightly", "cron": "0 3 * * *"}))
        for run in range(30):
            connection.zadd(f"rq:cron_job:nightly-{n:03}:jobs", {f"finished-{n + run}": time.time() - run})
    for n in range(120):
        assert http("PUT", f"{web.url}/api/v1/limits/few-{n}", {"kind": "concurrency", "limit": 2, "queue": f"mail-{n}"}).status == 200
        assert http("POST", f"{web.url}/api/v1/batches?name=load-{n}&queue=low", b'{"func": "app.tasks.add", "args": [1, 2]}\n').status == 201


class World:
    """A server on as many jobs in each status, and what measures it."""

    def __init__(self, count):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rqxx-test-"))
        self.system = System(self.folder)
        server = self.system.redis()
        self.connection = server.client
        make_jobs(self.connection, count)
        self.meter = Meter(self.folder, server)
        self.web = self.system.serve("--no-worker", "--no-sampler", "--no-maintenance", "--no-scheduler", "--no-cron", "--no-access-log",
                                     url=self.meter.url)
        fill_with_the_rest(self.web, self.connection)
        wait_for(lambda: http("GET", self.web.url + "/api/v1/jobs?limit=1").json["index"]["jobs"] >= min(count * 8, 1_000_000 if FULL else 10_000), 1000, what="the index")


@pytest.fixture(scope="module")
def worlds():
    both = [World(SMALL), World(LARGE)]
    yield both
    for world in both:
        world.system.end()
        shutil.rmtree(world.folder, ignore_errors=True)


def targets(web):
    document = http("GET", f"{web.url}/api/v1/openapi.json").json
    for path, methods in document["paths"].items():
        if "get" in methods:
            yield path


def test_print(worlds):
    begin = time.time()
    for world in worlds:
        web, meter = world.web, world.meter
        for path in targets(web):
            if "events" in path:
                continue
            at = path.replace("{job_id}", "failed-7")
            if path in NAMED:
                at = path[:path.index("{")] + NAMED[path]
            if "failures/{" in path:
                at = "/api/v1/failures/" + http("GET", web.url + "/api/v1/failures").json["items"][0]["id"]
            r = []
            cost = meter.measure(lambda: r.append(http("GET", web.url + at)))
            print(at, r[0].status, len(r[0].body), cost)
    print("took", time.time() - begin)
    assert 0
