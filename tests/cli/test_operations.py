"""Actions on many jobs that go on by themselves: progress, cancel, servers that die, Redis away."""

import base64
import json
import signal
import zlib

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue
from test_actions_api import act, bulk, everything, queue, status, web  # noqa: F401
from test_http import problem


def operation(web, operation_id):
    return http("GET", f"{web.url}/api/v1/operations/{operation_id}").json["operation"]


def ended(web, operation_id, timeout=60):
    return wait_for(lambda: (state := operation(web, operation_id))["state"] != "running" and state, timeout=timeout)


def fill(connection, count, name="default", state="queued"):
    """Jobs that look like RQ's, without its cost."""
    data = connection.hget("rq:job:sample", "data")
    pipe = connection.pipeline(transaction=False)
    place = f"rq:queue:{name}"
    for i in range(count):
        job_id = f"{name}-{i}"
        pipe.hset(f"rq:job:{job_id}", mapping={"status": state, "origin": name, "data": data,
                                               "created_at": "2026-01-01T00:00:00.000000Z"})
        if state == "queued":
            pipe.rpush(place, job_id)
        else:
            pipe.zadd(f"rq:{state}:{name}", {job_id: 4000000000 + i})
        if i % 5000 == 4999:
            pipe.execute()
    pipe.sadd("rq:queues", place)
    pipe.execute()


@pytest.fixture
def sample(queue):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="sample")


def test_a_filter_starts_an_operation_that_says_how_far_it_is(web, connection, sample):  # noqa: F811
    fill(connection, 300, "work")
    answer = bulk(web, action="cancel", filter={"queue": "work", "status": "queued"})
    assert answer.status == 202, answer.body
    operation_id = answer.json["operation_id"]
    assert answer.headers["Location"] == f"/api/v1/operations/{operation_id}"
    state = ended(web, operation_id)
    assert {name: state[name] for name in ("action", "state", "looked_at", "matched", "done", "refused", "total", "error")} == {
        "action": "cancel", "state": "done", "looked_at": 300, "matched": 300, "done": 300, "refused": 0, "total": 300, "error": None}
    assert state["filter"] == {"queue": "work", "status": "queued"} and state["by"] and state["ended_at"] >= state["started_at"]
    assert connection.zcard("rq:canceled:work") == 300 and connection.llen("rq:queue:work") == 0
    assert connection.lrange("rq:queue:default", 0, -1) == [b"sample"]
    (listed,) = http("GET", f"{web.url}/api/v1/operations").json["items"]
    assert listed["id"] == operation_id and 86000 < connection.ttl(f"rqxx:operations:{operation_id}") <= 86400


def test_dry_run_counts_and_changes_nothing(web, connection, sample):  # noqa: F811
    fill(connection, 250, "work")
    fill(connection, 20, "play")
    before = everything(connection)
    answer = bulk(web, action="delete", filter={"status": "queued", "queue": "work"}, dry_run=True)
    assert answer.status == 200
    assert answer.json["matched"] == 250 and answer.json["exact"] is True
    assert answer.json["sample"] == [f"work-{i}" for i in range(10)]
    everywhere = bulk(web, action="delete", filter={"status": "queued"}, dry_run=True).json
    assert everywhere["matched"] == 271
    assert bulk(web, action="delete", filter={"status": "queued"}, dry_run=True, max=5).json["matched"] == 5
    by_function = bulk(web, action="delete", filter={"status": "queued", "func": "tasks.a*"}, dry_run=True).json
    assert by_function["matched"] == by_function["looked_at"] == 271
    assert bulk(web, action="delete", filter={"status": "queued", "func": "other"}, dry_run=True).json["matched"] == 0
    assert everything(connection) == before


def test_failed_jobs_are_requeued_by_a_part_of_their_error(web, connection, system, queue):  # noqa: F811
    for name in ("one", "two"):
        for i in range(3):
            Queue(name, connection=connection).enqueue(tasks.fail, f"{name} disk full" if i else "other", job_id=f"{name}-{i}")
    assert system.test_worker("--burst", "one", "two").wait() == 0
    answer = bulk(web, action="requeue", filter={"status": "failed", "error": "disk full"}, max=3)
    state = ended(web, answer.json["operation_id"])
    assert state["done"] == 3 and state["state"] == "done"
    assert sum(connection.llen(f"rq:queue:{name}") for name in ("one", "two")) == 3
    assert "one-0" not in [job.decode() for job in connection.lrange("rq:queue:one", 0, -1)]


@pytest.fixture
def failed_and_stopped(connection, sample):
    """Stopped jobs are kept where failed ones are."""
    fill(connection, 6, "mail", "failed")
    for n in (1, 4):
        connection.hset(f"rq:job:mail-{n}", "status", "stopped")
    for n in range(6):
        trace = base64.b64encode(zlib.compress(b"Traceback\nOSError: Disk FULL\n" if n > 2 else b"Traceback\nValueError: 7\n"))
        connection.xadd(f"rq:results:mail-{n}", {"type": 2, "exc_string": trace})


def test_what_is_done_to_failed_jobs_is_not_done_to_stopped_ones(web, connection, failed_and_stopped):  # noqa: F811
    order = {"action": "delete", "filter": {"status": "failed"}}
    preview = bulk(web, dry_run=True, **order).json
    assert preview["matched"] == 4 and sorted(preview["sample"]) == ["mail-0", "mail-2", "mail-3", "mail-5"] and preview["exact"]
    assert ended(web, bulk(web, **order).json["operation_id"])["done"] == 4
    assert connection.zrange("rq:failed:mail", 0, -1) == [b"mail-1", b"mail-4"]


def test_errors_are_found_in_any_case_as_in_the_list(web, connection, failed_and_stopped):  # noqa: F811
    wait_for_index(web, 7)
    listed = http("GET", f"{web.url}/api/v1/jobs?status=failed&error=disk+full").json["items"]
    assert {job["id"] for job in listed} == {"mail-3", "mail-5"}
    answer = bulk(web, action="delete", filter={"status": "failed", "queue": "mail", "error": "disk full"})
    assert ended(web, answer.json["operation_id"])["done"] == 2
    assert not connection.exists("rq:job:mail-3", "rq:job:mail-5") and connection.zcard("rq:failed:mail") == 4


def test_a_queue_s_failed_jobs_are_requeued_with_the_stopped_ones(web, connection, failed_and_stopped):  # noqa: F811
    fill(connection, 1100, "mail", "failed")
    connection.hset("rq:job:mail-7", "status", "stopped")
    answer = http("POST", f"{web.url}/api/v1/queues/mail/requeue-failed")
    assert answer.status == 202 and ended(web, answer.json["operation_id"])["done"] == 1100
    assert connection.llen("rq:queue:mail") == 1100 and connection.zcard("rq:failed:mail") == 0


def test_a_star_in_the_name_of_a_queue_is_no_pattern_when_it_is_emptied(web, connection, sample):  # noqa: F811
    fill(connection, 1100, "mail*")
    fill(connection, 10, "mail-2")
    answer = http("POST", f"{web.url}/api/v1/queues/mail*/empty")
    assert answer.status == 202 and ended(web, answer.json["operation_id"])["done"] == 1100
    assert connection.llen("rq:queue:mail*") == 0 and connection.llen("rq:queue:mail-2") == 10
    fill(connection, 10, "mail*")
    assert http("POST", f"{web.url}/api/v1/queues/mail*/empty").json["done"] == 10
    assert connection.llen("rq:queue:mail*") == 0 and connection.llen("rq:queue:mail-2") == 10


@pytest.mark.parametrize("name, value", [("group", "x"), ("worker", "w"), ("tag", "t"), ("since", "2026-01-01T00:00:00Z"), ("id", "a"), ("status", "stopped")])
def test_what_only_an_index_knows_is_refused_without_one(system, server, name, value):
    web = system.serve("--no-worker", "--no-index", url=server.url)
    answer = bulk(web, action="cancel", filter={"status": "queued", name: value})
    assert "filter: needs the index" in problem(answer, 422)


def wait_for_index(web, jobs):
    wait_for(lambda: (found := http("GET", f"{web.url}/api/v1/jobs?limit=1").json).get("index", {}).get("complete") and found["approx_total"] == jobs,
             60, "the index to have all jobs")


def test_jobs_are_found_by_the_index_for_what_is_done_to_many(web, connection):  # noqa: F811
    queue = Queue("default", connection=connection)
    for n in range(60):
        queue.enqueue(tasks.add, n, n, job_id=f"a-{n}", meta={"tags": ["red" if n % 2 else "blue"]})
    wait_for_index(web, 60)
    order = {"action": "cancel", "filter": {"tag": "red", "id": "a-1"}}
    expected = {f"a-{n}" for n in (1, *range(10, 20)) if n % 2}
    preview = bulk(web, dry_run=True, **order).json
    assert preview["matched"] == len(expected) and preview["exact"] and set(preview["sample"]) <= expected
    assert len(queue) == 60
    assert ended(web, bulk(web, **order).json["operation_id"])["done"] == len(expected)
    assert {f"a-{n}" for n in range(60)} - set(queue.job_ids) == expected


def test_what_an_index_has_not_heard_of_is_not_done_to_the_wrong_jobs(web, connection):  # noqa: F811
    queue = Queue("default", connection=connection)
    for n in range(20):
        queue.enqueue(tasks.add, n, n, job_id=f"a-{n}", meta={"tags": ["red"]})
    wait_for_index(web, 20)
    pipeline = connection.pipeline()   # Behind everybody's back.
    for n in range(10):
        pipeline.hset(f"rq:job:a-{n}", "status", "started")
    pipeline.execute()
    answer = bulk(web, action="delete", filter={"status": "queued", "tag": "red"})
    assert ended(web, answer.json["operation_id"])["done"] == 10
    assert all(connection.exists(f"rq:job:a-{n}") for n in range(10)) and not any(connection.exists(f"rq:job:a-{n}") for n in range(10, 20))


def test_a_hundred_thousand_jobs_with_progress_and_cancel(web, connection, sample):  # noqa: F811
    fill(connection, 100_000, "big", "failed")
    answer = bulk(web, action="requeue", filter={"queue": "big", "status": "failed"})
    operation_id = answer.json["operation_id"]
    seen = wait_for(lambda: (state := operation(web, operation_id))["done"] > 0 and state)
    assert seen["state"] == "running" and seen["done"] < seen["total"] == 100_000
    # Others are served meanwhile.
    assert http("GET", f"{web.url}/api/rq/stats").status == 200
    canceled = http("POST", f"{web.url}/api/v1/operations/{operation_id}/cancel")
    assert canceled.status == 200 and canceled.json["operation"]["canceled_by"]
    state = ended(web, operation_id)
    assert state["state"] == "canceled" and 0 < state["done"] < 100_000
    assert connection.llen("rq:queue:big") == state["done"]
    assert connection.zcard("rq:failed:big") == 100_000 - state["done"]
    assert problem(http("POST", f"{web.url}/api/v1/operations/{operation_id}/cancel"), 409)
    # Asking again does what is left.
    rest = ended(web, bulk(web, action="requeue", filter={"queue": "big", "status": "failed"}).json["operation_id"], 120)
    assert rest["state"] == "done" and rest["done"] == 100_000 - state["done"]
    assert connection.llen("rq:queue:big") == 100_000


def test_a_server_that_dies_leaves_an_interrupted_operation_and_whole_jobs(system, server, connection, web, sample):  # noqa: F811
    fill(connection, 30_000, "big")
    other = system.serve("--no-worker", "--no-scheduler", "--no-sampler", "--no-maintenance", url=server.url,
                         data_dir=system.folder / "other")
    operation_id = bulk(other, action="cancel", filter={"queue": "big", "status": "queued"}).json["operation_id"]
    wait_for(lambda: connection.zcard("rq:canceled:big") > 0)
    other.signal(signal.SIGKILL)
    other.wait()
    assert connection.llen("rq:queue:big") + connection.zcard("rq:canceled:big") == 30_000
    assert ended(web, operation_id, 30)["state"] == "interrupted"
    assert problem(http("POST", f"{web.url}/api/v1/operations/{operation_id}/cancel"), 409)
    rest = ended(web, bulk(web, action="cancel", filter={"queue": "big", "status": "queued"}).json["operation_id"], 60)
    assert rest["state"] == "done" and connection.zcard("rq:canceled:big") == 30_000


def test_a_server_that_stops_says_that_it_was_interrupted(system, server, connection, web, sample):  # noqa: F811
    fill(connection, 30_000, "big")
    other = system.serve("--no-worker", "--no-scheduler", "--no-sampler", "--no-maintenance", url=server.url,
                         data_dir=system.folder / "other")
    operation_id = bulk(other, action="cancel", filter={"queue": "big", "status": "queued"}).json["operation_id"]
    wait_for(lambda: connection.zcard("rq:canceled:big") > 0)
    other.signal(signal.SIGTERM)
    assert other.wait() == 0
    assert operation(web, operation_id)["state"] == "interrupted"


def test_another_server_cancels_it(system, server, connection, web, sample):  # noqa: F811
    fill(connection, 60_000, "big")
    other = system.serve("--no-worker", "--no-scheduler", "--no-sampler", "--no-maintenance", url=server.url,
                         data_dir=system.folder / "other")
    operation_id = bulk(other, action="cancel", filter={"queue": "big", "status": "queued"}).json["operation_id"]
    assert http("POST", f"{web.url}/api/v1/operations/{operation_id}/cancel").status == 200
    assert ended(web, operation_id)["state"] == "canceled"
    assert connection.llen("rq:queue:big") > 0


def test_redis_that_goes_away_fails_it(server, connection, web, sample):  # noqa: F811
    fill(connection, 60_000, "big")
    operation_id = bulk(web, action="cancel", filter={"queue": "big", "status": "queued"}).json["operation_id"]
    wait_for(lambda: connection.zcard("rq:canceled:big") > 0)
    server.stop(signal.SIGKILL)
    server.start()
    # Its data is gone; what matters is that the server is well and says what became of it.
    answer = wait_for(lambda: (a := http("GET", f"{web.url}/api/v1/operations/{operation_id}")).status != 503 and a)
    assert answer.status == 404
    web.wait_for_log("Operation ended")


@pytest.mark.parametrize("path", ["/operations/nope", "/operations/%00", "/operations/" + "x" * 600])
def test_unknown_operations_are_not_found(web, path):  # noqa: F811
    assert problem(http("GET", f"{web.url}/api/v1{path}"), 404) == "Operation not found"
    assert problem(http("POST", f"{web.url}/api/v1{path}/cancel"), 404) == "Operation not found"


def test_hostile_records_are_shown_as_text(web, connection):  # noqa: F811
    connection.hset("rqxx:operations:odd", mapping={"state": b"\xff<b>", "search": "{", "total": "-1", "started_at": "9" * 30})
    connection.zadd("rqxx:operations", {"odd": 1, b"\xff": 2})
    (listed,) = http("GET", f"{web.url}/api/v1/operations").json["items"]
    assert listed["filter"] is None and listed["started_at"] is None and json.dumps(listed)
