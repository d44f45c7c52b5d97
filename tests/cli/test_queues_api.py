"""Queues and workers over HTTP: listed in pages, emptied, requeued, deleted, shut down."""

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue
from test_actions_api import everything, queue, status, web  # noqa: F401
from test_http import problem
from test_operations import ended, fill


def queues(web, path="", method="GET", **query):
    suffix = "?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else ""
    return http(method, f"{web.url}/api/v1/queues{path}{suffix}")


def test_queues_are_listed_in_pages(web, connection, system):  # noqa: F811
    assert queues(web).json == {"status": "ok", "items": [], "next": None}
    for name in ("b", "a", "c", "other"):
        Queue(name, connection=connection).enqueue(tasks.add, 1, 2, job_id=f"job-{name}")
    system.test_worker("b").wait_for_log("Job finished")
    http("POST", f"{web.url}/api/v1/queues/a/pause")
    page = queues(web, limit=2).json
    assert [item["name"] for item in page["items"]] == ["a", "b"] and page["next"] == "b"
    a, b = page["items"]
    assert (a["queued"], a["paused"], a["workers"]) == (1, True, 0) and a["oldest_waiting"].endswith("Z")
    assert (b["queued"], b["finished"], b["workers"], b["oldest_waiting"], b["paused"]) == (0, 1, 1, None, False)
    rest = queues(web, limit=2, cursor="b").json
    assert [item["name"] for item in rest["items"]] == ["c", "other"] and rest["next"] is None
    assert [item["name"] for item in queues(web, prefix="o").json["items"]] == ["other"]
    one = queues(web, "/b").json["queue"]
    assert one["workers"] == 1 and len(one["worker_names"]) == 1
    assert problem(queues(web, "/none"), 404) == "Queue not found"
    assert problem(queues(web, limit=201), 422)


def test_a_queue_is_emptied_and_its_failed_jobs_requeued(web, connection, system, queue):  # noqa: F811
    for i in range(3):
        queue.enqueue(tasks.fail, "x", job_id=f"bad-{i}")
    assert system.test_worker("--burst", "default").wait() == 0
    before = everything(connection)
    assert queues(web, "/default/requeue-failed", "POST", dry_run="true").json["matched"] == 3
    assert everything(connection) == before
    assert queues(web, "/default/requeue-failed", "POST").json["done"] == 3 and len(queue.job_ids) == 3
    before = everything(connection)
    assert queues(web, "/default/empty", "POST", dry_run="true").json["matched"] == 3
    assert {k: v for k, v in everything(connection).items() if k != b"rqxx:audit"} == {k: v for k, v in before.items() if k != b"rqxx:audit"}
    assert queues(web, "/default/empty", "POST").json["done"] == 3 and queue.job_ids == []
    assert not connection.exists("rq:job:bad-0")
    assert problem(queues(web, "/none/empty", "POST"), 404)


def test_a_large_queue_is_emptied_by_an_operation(web, connection, queue):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="sample")
    fill(connection, 1500, "big")
    answer = queues(web, "/big/empty", "POST")
    assert answer.status == 202, answer.body
    assert ended(web, answer.json["operation_id"])["done"] == 1500
    assert connection.llen("rq:queue:big") == 0 and queue.job_ids == ["sample"]


def test_a_queue_is_deleted_only_without_jobs_or_by_force(web, connection, queue):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    before = everything(connection)
    answer = queues(web, "/default", "DELETE")
    assert problem(answer, 409) == "There are jobs of this queue" and answer.json["jobs"]["queued"] == 1
    assert queues(web, "/default", "DELETE", dry_run="true", force="true").status == 200
    assert {k: v for k, v in everything(connection).items() if k != b"rqxx:audit"} == before
    assert queues(web, "/default", "DELETE", force="true").json["jobs"]["queued"] == 1
    assert not connection.smembers("rq:queues") and not connection.exists("rq:job:a")
    assert problem(queues(web, "/default", "DELETE"), 404)
    connection.sadd("rq:queues", "rq:queue:bare")
    assert queues(web, "/bare", "DELETE").status == 200 and not connection.smembers("rq:queues")


def test_a_queue_with_places_of_jobs_that_are_gone_is_deleted_by_force(web, connection, queue):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    for place in ("rq:failed:default", "rq:wip:default", "rq:scheduled:default"):
        connection.zadd(place, {"gone:x": 4e9, "gone": 1})
    assert problem(queues(web, "/default", "DELETE"), 409) == "There are jobs of this queue"
    assert queues(web, "/default", "DELETE", force="true").status == 200
    assert [key for key in everything(connection) if not key.startswith(b"rqxx:")] == []


@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_a_worker_is_shown_and_shut_down(web, connection, system, kind):  # noqa: F811
    worker = system.test_worker("default") if kind == "ours" else system.rq_worker("default")
    name = wait_for(lambda: [w["name"] for w in http("GET", f"{web.url}/api/v1/workers").json["items"]])[0]
    assert http("GET", f"{web.url}/api/v1/workers/{name}").json["worker"]["name"] == name
    wait_for(lambda: connection.pubsub_numsub(f"rq:pubsub:{name}")[0][1] == 1)
    tried = http("POST", f"{web.url}/api/v1/workers/{name}/shutdown?dry_run=true")
    assert tried.json["listens"] is True and worker.process.poll() is None
    assert http("POST", f"{web.url}/api/v1/workers/{name}/shutdown").status == 200
    worker.wait()
    assert problem(http("GET", f"{web.url}/api/v1/workers/nobody"), 404) == "Worker not found"
    assert problem(http("POST", f"{web.url}/api/v1/workers/nobody/shutdown"), 404) == "Worker not found"


def test_a_worker_that_does_not_listen_is_said_so(web, connection):  # noqa: F811
    connection.sadd("rq:workers", "rq:worker:dead")
    connection.hset("rq:worker:dead", mapping={"birth": "2026-01-01T00:00:00.000000Z", "state": "idle"})
    assert "does not listen" in problem(http("POST", f"{web.url}/api/v1/workers/dead/shutdown"), 409)


def test_hostile_queues_are_shown(web, connection):  # noqa: F811
    connection.sadd("rq:queues", b"rq:queue:\xff<b>", b"junk")
    connection.set(b"rq:queue:\xff<b>", "not a list")
    assert [item["name"] for item in queues(web).json["items"]] == ["\ufffd<b>"]
