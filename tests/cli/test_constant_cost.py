"""Constant cost: what each page and list asks of Redis, however many jobs there are.

The routes are all GET routes of the OpenAPI document, so that a new one is held to it from its first day: at most 3 round
trips, and at most 50 keys beside those of the things that its page shows. `MORE` says where a thing is more than one key, and which
routes look at a bounded number of keys that has nothing to do with a page. What is counted, and how, is told in
support/redis_cost.py. By default 1 000 and 10 000 jobs in each of eight statuses, with RQXX_FULL=1 10 000 and a million.
"""

import json
import os
import pathlib
import pickle
import re
import shutil
import tempfile
import time
import urllib.parse
import zlib

import pytest
from conftest import System, http, wait_for
from many_jobs import QUEUES, STATUSES, make_jobs, packed
from redis_cost import Meter
from scrape import Scrape

FULL = os.environ.get("RQXX_FULL") == "1"
SMALL, LARGE = (10_000, 1_000_000) if FULL else (1_000, 10_000)
#: The index of eight million jobs would take most of an hour; what it asks of Redis does not depend on that.
INDEXED = 1_000_000 if FULL else 10_000
WORKERS, CRON, RULES = 300, 300, 120
TRIPS, KEYS = 3, 50

#: What stands for the parameters of paths.
NAMES = {"batches": "load-7", "limits": "few-7", "cron": "nightly-007", "queues": "default", "workers": "worker-7"}
#: Questions beside the plain one.
QUERIES = {
    "/api/v1/history/queues": ["queues=" + ",".join(QUEUES)],
    "/api/v1/history": ["", "span=72h", "queue=mail"],
    "/api/v1/suggest": ["field=func", "field=queue&prefix=m"],
    "/api/v1/jobs": ["", *(f"status={status}" for status in STATUSES), "limit=50&order=oldest", "queue=mail&status=failed", "func=app.tasks.work_3",
                     "error=row+7", "worker=worker-3&status=finished", "id=failed-7", "since=2026-11-10T00:00:00Z&until=2026-11-12T00:00:00Z"],
    "/api/v1/failures": ["", "queue=mail", "sort=count&limit=50"],
    "/api/v1/schedules": ["", "queue=mail", "limit=200"],
    "/api/v1/queues": ["", "prefix=m", "limit=2"],
    "/api/v1/workers": ["", "limit=200", "cursor=worker-5"],
    "/api/v1/cron": ["", "limit=3", "cursor=nightly-250"],
    "/api/v1/batches": ["", "limit=10", "offset=100"],
    "/api/rq/stats": ["", "queue=mail", "queue=unknown"],
    "/api/rq/jobs/recent": ["", "limit=100", "limit=50&status=failed", "queue=mail&status=finished", "limit=1&status=scheduled"],
    "/api/rq/performance": ["", "hours=8760"],
}
#: Keys of each thing on a page: itself, unless said here.
OF_EACH = {
    "/api/v1/queues": 9,    # Its list, seven registries, its workers, the job that is next.
    "/api/v1/workers": 2,   # Its record, its jobs.
    "/api/v1/cron": 26,     # How it stands, its history, the jobs of 24 runs.
    "/api/v1/batches": 3,   # Its record, what is left, its children.
    "/api/rq/jobs/recent": 3,   # Its hash, results, execution; see below.
}
#: Routes that have no pages, or look at more than they show: how many keys at most, whatever there is.
MORE = {
    "/api/rq/jobs/recent": 2000,   # Jobs that are looked at: none of RQ's places is in the order of creation.
    "/api/rq/performance": 600, "/api/rq/performance/trends": 600, "/api/rq/performance/compare": 600,   # Minutes, hours and days of figures.
    "/api/rq/stats": 8 * len(QUEUES), "/api/rq/workers": 2 * WORKERS, "/api/v1/limits": 2 * RULES,   # All of them are told.
    "/api/v1/alerts": WORKERS + 11 * len(QUEUES),
    "/api/v1/redis": 300,          # A sample.
    "/metrics": WORKERS + 2 * RULES + 11 * len(QUEUES),
}
#: Scrapes come four times a minute, not with a page.
MORE_TRIPS = {"/metrics": 4}
#: A stream, whose cost is test_live.py's subject; one that enqueues, for scripts that are older than POST.
NOT_ASKED = {"/api/v1/events", "/api/sessions/{session_id}/evaluate"}
#: Of the application, which keeps them in SQLite: there are none here.
MISSING = {"/api/sessions/{session_id}", "/api/sessions/{session_id}/report"}
RANDOM = {"/api/v1/redis"}
QUIET = ("--no-worker", "--no-sampler", "--no-maintenance", "--no-scheduler", "--no-cron", "--no-webhooks", "--no-access-log")


def fill_with_the_rest(web, connection):
    """More of everything else than one page shows."""
    now = "2026-11-23T17:47:37.728246Z"
    pipe = connection.pipeline(transaction=False)
    for n in range(WORKERS):
        name = f"worker-{n}"
        pipe.sadd("rq:workers", f"rq:worker:{name}")
        for queue in ("default", "high"):
            pipe.sadd(f"rq:workers:{queue}", f"rq:worker:{name}")
        pipe.hset(f"rq:worker:{name}", mapping={"queues": "default,high", "state": "busy", "birth": now, "last_heartbeat": now, "pid": n,
                                                "hostname": "host", "version": "2.10.0", "current_job": f"started-{n}"})
    for n in range(CRON):
        pipe.hset("rqxx:cron_entries", f"nightly-{n:03}", json.dumps({"func": "app.tasks.nightly", "cron": "0 3 * * *"}))
        pipe.zadd(f"rq:cron_job:nightly-{n:03}:jobs", {f"finished-{30 * n + run}": time.time() - run for run in range(30)})
    pipe.execute()
    for n in range(RULES):
        assert http("PUT", f"{web.url}/api/v1/limits/few-{n}", {"kind": "concurrency", "limit": 2, "queue": f"mail-{n}"}).status == 200
        assert http("POST", f"{web.url}/api/v1/batches?name=load-{n}&queue=low", b'{"func": "app.tasks.add", "args": [1, 2]}\n').status == 201


class World:
    """A server on as many jobs in each status, and what measures it."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rqxx-test-"))
        self.system = System(self.folder)

    def begin(self, count):
        server = self.system.redis()
        make_jobs(server.client, count)
        self.meter = Meter(self.folder, server)
        self.web = self.system.serve(*QUIET, url=self.meter.url)
        fill_with_the_rest(self.web, server.client)
        wait_for(lambda: self.get("/api/v1/jobs?limit=1").json.get("index", {}).get("jobs", 0) >= min(len(STATUSES) * count, INDEXED), 1800, "the index")

    def get(self, target):
        return http("GET", self.web.url + target)

    def end(self):
        self.system.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def name_for(self, path, parameter):
        if parameter == "job_id":
            return "failed-7"
        if parameter == "group_id":
            return self.get("/api/v1/failures").json["items"][0]["id"]
        if parameter == "operation_id":
            order = {"action": "cancel", "filter": {"queue": "nowhere", "status": "queued"}}
            return http("POST", self.web.url + "/api/v1/jobs/bulk", order).json["operation_id"]
        if parameter == "session_id":
            return "7"
        words = path.split("/")
        assert words[3] in NAMES, f"say in NAMES what {{{parameter}}} of {path} stands for"
        return NAMES[words[3]]

    def targets(self):
        """(path of the document, target, how many things a page of it has) of all that can be asked."""
        for path, methods in self.get("/api/v1/openapi.json").json["paths"].items():
            if "get" not in methods or path in NOT_ASKED:
                continue
            target = re.sub(r"{(\w+)}", lambda found: self.name_for(path, found[1]), path)
            limits = [param["schema"].get("default", 0) for param in methods["get"].get("parameters", []) if param["name"] == "limit"]
            for query in QUERIES.get(path, [""]):
                asked = dict(urllib.parse.parse_qsl(query))
                yield path, f"{target}?{query}" if query else target, int(asked.get("limit", limits[0] if limits else 0))


@pytest.fixture(scope="module")
def worlds():
    both = [World(), World()]
    try:
        for world, count in zip(both, (SMALL, LARGE)):
            world.begin(count)
        yield both
    finally:
        for world in both:
            world.end()


def most_keys(path, page):
    return KEYS + MORE.get(path, 0) + OF_EACH.get(path, 1) * page


@pytest.mark.timeout(7200 if FULL else 120)
def test_every_route_costs_three_round_trips_and_few_keys_however_many_jobs_there_are(worlds):
    wrong, seen, costs = [], set(), [{}, {}]
    for world, found in zip(worlds, costs):
        for path, target, page in world.targets():
            answers = []
            cost = world.meter.measure(lambda: answers.append(world.get(target)))
            assert answers[0].status == (404 if path in MISSING else 200), (target, answers[0].body[:300])
            seen.add(path)
            found[path, target] = cost
            if cost.trips > MORE_TRIPS.get(path, TRIPS) or len(cost.keys) > most_keys(path, page):
                wrong.append(f"{target}: {cost}; at most {MORE_TRIPS.get(path, TRIPS)} round trips, {most_keys(path, page)} keys")
    small, large = costs
    for (path, target), cost in large.items():
        if path in RANDOM or "{operation_id}" in path or "{group_id}" in path:
            continue
        # Groups of failures have ids of their own.
        before = small[path, target]
        if len(cost.keys) > len(before.keys) + 5 or len(cost.commands) > len(before.commands) * 1.05 + 10:
            wrong.append(f"{target}: {cost}, and with {SMALL} jobs in each status {before}")
    assert not wrong, "\n".join(wrong)
    assert len(seen) > 40
    asks_redis = {path for (path, _), cost in large.items() if cost.trips}
    assert {"/api/v1/jobs", "/api/v1/queues", "/api/rq/stats", "/api/rq/jobs/recent", "/metrics"} <= asks_redis


def test_pages_of_workers_queues_and_cron_jobs_lead_through_all_of_them(worlds):
    world = worlds[0]
    for path, names in (("workers", {f"worker-{n}" for n in range(WORKERS)}), ("cron", {f"nightly-{n:03}" for n in range(CRON)}),
                        ("queues", {*QUEUES})):
        found, cursor = [], ""
        while cursor is not None:
            answer = world.get(f"/api/v1/{path}?limit=3&cursor={urllib.parse.quote(cursor)}" if path == "queues" else
                               f"/api/v1/{path}?limit=90&cursor={urllib.parse.quote(cursor)}").json
            found += [item["name"] for item in answer["items"]]
            cursor = answer["next"]
        assert found == sorted(set(found)) and set(found) == names


MANY = 10_000


@pytest.fixture(scope="module")
def crowded():
    """Ten thousand queues with a failed job each, of as many functions, and as many errors."""
    world = World()
    try:
        fill_with_queues(world)
        yield world
    finally:
        world.end()


def fill_with_queues(world):
    server = world.system.redis()
    pipe = server.client.pipeline(transaction=False)
    for n in range(MANY):
        queue, job = f"queue-{n:05}", f"job-{n:05}"
        pipe.sadd("rq:queues", f"rq:queue:{queue}")
        pipe.rpush(f"rq:queue:{queue}", f"waiting-{n}")
        pipe.hset(f"rq:job:waiting-{n}", mapping={"status": "queued", "origin": queue, "created_at": "2026-11-21T00:00:00.000000Z"})
        pipe.hset(f"rq:job:{job}", mapping={"status": "failed", "origin": queue, "created_at": "2026-11-20T00:00:00.000000Z",
                                            "ended_at": "2026-11-20T01:00:00.000000Z",
                                            "data": zlib.compress(pickle.dumps((f"app.tasks.function_{n:05}", None, (), {})))})
        pipe.zadd(f"rq:failed:{queue}", {job: 4e9})
        word = "".join(chr(97 + int(digit)) for digit in f"{n:05}")   # Numbers would be taken for one error.
        pipe.xadd(f"rq:results:{job}", {"type": 2, "exc_string": packed(f"Traceback (most recent call last):\n{word.title()}Error: no")})
        pipe.hset("rqxx:totals", f"finished|{queue}", 2)
    pipe.execute()
    world.meter = Meter(world.folder, server)
    world.web = world.system.serve(*QUIET, url=world.meter.url)
    # Tens of thousands of commands are too much for a man in the middle who is written in Python.
    world.direct = world.system.serve(*QUIET, "--no-index", url=server.url, data_dir=world.folder / "direct")
    wait_for(lambda: world.get("/api/v1/jobs?limit=1").json.get("index", {}).get("complete"), 60, "the index")


@pytest.mark.parametrize("target, items, keys", [
    ("/api/v1/queues", 50, 500), ("/api/v1/queues?prefix=queue-09&cursor=queue-09500", 50, 500), ("/api/v1/queues/queue-07777", None, 20),
    ("/api/v1/jobs", 25, 50), ("/api/v1/jobs?func=app.tasks.function_07777", 1, 50), ("/api/v1/jobs?queue=queue-*&limit=50", 50, 75),
    ("/api/v1/failures", 25, 50), ("/api/v1/failures?queue=queue-07777", 1, 50),
    ("/api/v1/suggest?field=func&prefix=app", 20, 50), ("/api/v1/suggest?field=queue", 20, 50), ("/api/v1/suggest?field=group", 20, 50),
    ("/api/rq/jobs/recent?limit=50", 50, 7000), ("/api/v1/workers", 0, 50),
])
def test_pages_of_ten_thousand_queues_functions_and_errors_are_bounded(crowded, target, items, keys):
    answers = []
    cost = crowded.meter.measure(lambda: answers.append(crowded.get(target)))
    assert answers[0].status == 200 and len(answers[0].body) < 100_000
    assert cost.trips <= 3 and len(cost.keys) <= keys, cost
    shown = next((answers[0].json[name] for name in ("items", "jobs", "values") if name in answers[0].json), None)
    assert shown is None and items is None or len(shown) == items


def test_the_counts_of_ten_thousand_queues_are_told(crowded):
    answer = http("GET", crowded.direct.url + "/api/rq/stats?queue=queue-07777").json
    assert answer["totals"]["queued"] == MANY and answer["stats"]["failed"] == 1 and len(answer["queues"]) == MANY


def test_a_scrape_of_ten_thousand_queues_and_functions_has_a_bounded_number_of_series(crowded):
    scrape = Scrape(crowded.direct.url + "/metrics")
    assert len({labels["queue"] for labels, _ in scrape.all("rqxx_queue_jobs")}) == 1001
    assert scrape.get("rqxx_queue_jobs", queue="other", status="failed") == MANY - 1000
    assert len(scrape.series) < 14_000 and not [labels for _, labels in scrape.series if "function_" in str(labels)]
