"""The newest jobs come first, whatever their place, TTL and queue."""

import time
from datetime import datetime, timedelta, timezone

import pytest
import tasks
from conftest import http
from rq import Queue

DAY = 86400
YEAR = 365 * DAY


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", "--no-sampler", url=server.url)


def recent(web, **query):
    body = http("GET", f"{web.url}/api/rq/jobs/recent?" + "&".join(f"{key}={value}" for key, value in query.items())).json
    assert body["count"] == len(body["jobs"])
    return [job["id"] for job in body["jobs"]]


class Jobs:
    """Jobs as workers leave them, each created a second after the one before and ended as it was created."""

    def __init__(self, connection):
        self.connection = connection
        self.at = time.time() - 400
        self.ids = []

    def add(self, count, what="finished", queue="default", ttl=500):
        pipeline = self.connection.pipeline()
        pipeline.sadd("rq:queues", f"rq:queue:{queue}")
        made = [f"{queue}-{len(self.ids) + n}" for n in range(count)]
        for job_id in made:
            self.at += 0.05
            created = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=self.at)
            pipeline.hset(f"rq:job:{job_id}", mapping={"status": what, "origin": queue, "data": b"",
                                                       "created_at": created.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})
            if what == "queued":
                pipeline.rpush(f"rq:queue:{queue}", job_id)
            else:
                registry = "wip" if what == "started" else what
                score = {"finished": float("inf"), "failed": -1}[what] if ttl == -1 else self.at + ttl
                pipeline.zadd(f"rq:{registry}:{queue}", {job_id: score})
        pipeline.execute()
        self.ids += made
        return self

    def newest(self, count):
        return self.ids[: -count - 1 : -1]


@pytest.fixture
def jobs(connection):
    return Jobs(connection)


@pytest.mark.parametrize("limit", [1, 10])
@pytest.mark.parametrize(("what", "long", "short"), [("finished", 3600, 500), ("failed", YEAR, DAY)])
def test_ended_jobs_with_mixed_ttls_are_in_the_order_of_creation(web, jobs, what, long, short, limit):
    jobs.add(500, what, ttl=long).add(1, what, ttl=short)
    assert recent(web, limit=limit) == jobs.newest(limit)
    jobs.add(500, what, ttl=short).add(3, what, ttl=long).add(3, what, ttl=short)
    assert recent(web, limit=limit) == jobs.newest(limit)
    assert recent(web, limit=limit, status=what) == jobs.newest(limit)


@pytest.mark.parametrize("status", ["", "finished"])
def test_jobs_kept_for_ever_are_among_the_others(web, jobs, status):
    jobs.add(300, ttl=3600).add(5, ttl=-1).add(300).add(2, ttl=-1)
    assert recent(web, limit=10, status=status) == jobs.newest(10)


@pytest.mark.parametrize("what", ["queued", "started", "finished", "failed", "canceled", "deferred", "scheduled"])
def test_more_jobs_than_asked_for(web, jobs, what):
    jobs.add(130, what)
    assert recent(web, limit=100) == jobs.newest(100)
    assert recent(web, limit=100, status=what) == jobs.newest(100)
    assert recent(web, limit=100, queue="default") == jobs.newest(100)


PLACES = ["queued", "started", "finished", "failed", "deferred", "canceled"]


@pytest.mark.parametrize("queues", [1, 5, 6])
@pytest.mark.parametrize("newest", PLACES)
def test_a_hundred_newest_jobs_in_one_place_of_many_full_ones(web, jobs, queues, newest):
    for queue in range(queues):
        for what in PLACES:
            jobs.add(110, what, f"queue{queue}")
    jobs.add(110, newest, "queue0")
    assert recent(web, limit=100) == jobs.newest(100)


def test_the_newest_jobs_of_six_queues_in_turn(web, jobs):
    for n in range(30):
        for queue in "abcdef":
            jobs.add(1, "queued" if n % 2 else "finished", queue, 3600 if n % 3 else 500)
    assert recent(web, limit=100) == jobs.newest(100)
    assert recent(web, limit=100, queue="c") == [job for job in reversed(jobs.ids) if job.startswith("c-")]
    finished = [job for n, job in enumerate(jobs.ids) if not n // 6 % 2]
    assert recent(web, limit=80, status="finished") == finished[:-81:-1]


def run(system, connection, *counts_and_ttls):
    queue = Queue("default", connection=connection)
    ids = [queue.enqueue(tasks.noop, n, result_ttl=ttl).id for count, ttl in counts_and_ttls for n in range(count)]
    assert system.test_worker("--burst", "default").wait() == 0
    return ids[::-1]


def test_jobs_that_our_workers_ran_are_found_by_their_creation(web, system, connection):
    ids = run(system, connection, (60, -1), (60, 3600), (60, 77), (60, -1))
    assert recent(web, limit=100) == ids[:100]
    assert recent(web, limit=100, status="finished", queue="default") == ids[:100]
    assert recent(web, limit=100, queue="other") == []


def test_ttls_that_our_workers_saw_are_remembered(web, system, connection):
    ids = run(system, connection, (150, 3600), (20, 77))
    assert list(connection.hgetall("rqxx:ttls:default")) == [b"finished|77"]
    connection.delete("rqxx:recent")
    assert recent(web, limit=20) == ids[:20]


def test_the_index_and_the_ttls_remembered_stay_small(system, connection):
    queue = Queue("default", connection=connection)
    queue.enqueue_many([Queue.prepare_data(tasks.noop, (n,), result_ttl=10_000 + n % 40) for n in range(1100)])
    assert system.test_worker("--burst", "default").wait() == 0
    assert connection.zcard("rqxx:recent") == 1000
    assert connection.hlen("rqxx:ttls:default") == 16


@pytest.mark.parametrize("created", ["2999-01-01T00:00:00.000000Z", "zzz", "", "2026-01-01T00:00:00Z" + "0" * 1000])
def test_times_that_are_none_do_not_come_into_the_index(system, connection, created):
    job = Queue("default", connection=connection).enqueue(tasks.noop, 1)
    connection.hset(job.key, "created_at", created)
    assert system.test_worker("--burst", "default").wait() == 0
    assert connection.hget(job.key, "status") in (b"finished", b"failed")   # What is no time cannot run.
    assert connection.exists("rqxx:recent") == 0


def test_an_index_of_another_type_stops_no_worker(web, system, connection):
    connection.set("rqxx:recent", "x")
    connection.set("rqxx:ttls:default", "x")
    ids = run(system, connection, (3, 500), (3, 77))
    assert sorted(recent(web, limit=10)) == sorted(ids)
