"""One job or many are canceled, requeued, deleted and stopped over HTTP."""

import json
import urllib.parse

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue
from rq.job import Job
from test_http import problem


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", "--no-scheduler", "--no-sampler", "--no-maintenance", url=server.url)


@pytest.fixture
def queue(connection):
    return Queue("default", connection=connection)


def status(connection, job_id):
    value = connection.hget(f"rq:job:{job_id}", "status")
    return value and value.decode()


def everything(connection):
    """But what a server keeps for itself all the time."""
    own = (b"rqxx:changes", b"rqxx:index:", b"rqxx:history:", b"rqxx:metrics:", b"rqxx:sampler")
    return {key: connection.dump(key) for key in connection.keys("*") if not key.startswith(own)}


def act(web, job_id, verb, body=None, **query):
    suffix = "?" + urllib.parse.urlencode(query) if query else ""
    if verb == "delete":
        return http("DELETE", f"{web.url}/api/v1/jobs/{job_id}{suffix}")
    return http("POST", f"{web.url}/api/v1/jobs/{job_id}/{verb}{suffix}", body)


def bulk(web, **body):
    return http("POST", f"{web.url}/api/v1/jobs/bulk", body)


def test_a_job_is_canceled_requeued_and_deleted(web, queue, connection):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    answer = act(web, "a", "cancel")
    assert answer.status == 200, answer.body
    assert answer.json == {"status": "ok", "result": {"job_id": "a", "code": "done", "status": "queued", "dependents": 0}}
    assert Job.fetch("a", connection=connection).is_canceled and queue.job_ids == []
    assert act(web, "a", "requeue", {"at_front": True}).json["result"]["status"] == "canceled"
    assert queue.job_ids == ["a"] and status(connection, "a") == "queued"
    assert act(web, "a", "delete").json["result"]["code"] == "done"
    assert not connection.exists("rq:job:a") and queue.job_ids == []


@pytest.mark.parametrize("dependents, states", [
    ("leave", ("deferred", "deferred")), ("enqueue", ("queued", "deferred")), ("cascade", ("canceled", "canceled"))])
def test_dependents_do_as_asked(web, queue, connection, dependents, states):
    for job_id, parent in (("a", None), ("b", "a"), ("c", "b")):
        queue.enqueue(tasks.add, 1, 2, job_id=job_id, depends_on=parent)
    before = everything(connection)
    tried = act(web, "a", "cancel", {"dependents": dependents}, dry_run="true")
    assert tried.status == 200 and everything(connection) == before
    done = act(web, "a", "cancel", {"dependents": dependents})
    assert done.json["result"]["dependents"] == tried.json["result"]["dependents"] > 0
    assert (status(connection, "b"), status(connection, "c")) == states


@pytest.mark.parametrize("verb", ["cancel", "requeue", "stop", "delete"])
def test_a_job_that_is_not_there_is_not_found(web, connection, verb):
    assert problem(act(web, "nope", verb), 404) == "Job not found"
    assert problem(act(web, "%00%ff", verb), 404) == "Job not found"
    assert everything(connection) == {}


def test_what_is_not_possible_is_refused_with_the_state(web, queue):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    for verb, word in (("requeue", "requeued"), ("stop", "stopped")):
        answer = act(web, "a", verb)
        assert problem(answer, 409) == f"The job cannot be {word}: it is queued"
        assert answer.json["job_status"] == "queued" and answer.json["result"]["code"] == "refused"
    act(web, "a", "cancel")
    assert problem(act(web, "a", "cancel"), 409) == "The job cannot be canceled: it is canceled"


@pytest.mark.parametrize("verb, body, query, told", [
    ("cancel", {"dependents": "maybe"}, {}, "dependents: "),
    ("cancel", {"dependents": 3}, {}, "dependents: must be text"),
    ("cancel", {"why": 1}, {}, "why: is not known"),
    ("cancel", [], {}, "must be an object"),
    ("cancel", b"{", {}, "JSON"),
    ("cancel", None, {"dry_run": "perhaps"}, "dry_run must be true or false"),
    ("requeue", {"at_front": "yes"}, {}, "at_front: must be true or false"),
    ("stop", {"now": True}, {}, "now: is not known"),
    ("delete", None, {"dependents": ""}, "dependents: "),
])
def test_what_makes_no_sense_changes_nothing(web, queue, connection, verb, body, query, told):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    before = everything(connection)
    assert told in problem(act(web, "a", verb, body, **query), 422)
    assert everything(connection) == before


def test_a_running_job_is_stopped_with_our_worker_and_a_stock_one(web, queue, connection, system):
    for start in (lambda: system.test_worker("--burst", "default"), lambda: system.rq_worker("--burst", "default")):
        queue.enqueue(tasks.slow, 60, job_id="a")
        worker = start()
        wait_for(lambda: connection.hget("rq:job:a", "worker_name") and status(connection, "a") == "started")
        tried = act(web, "a", "stop", dry_run="true")
        assert tried.json["result"]["listens"] is True and status(connection, "a") == "started"
        answer = act(web, "a", "stop")
        assert answer.status == 200, answer.body
        assert answer.json["result"]["listens"] is True and answer.json["result"]["code"] == "done"
        wait_for(lambda: status(connection, "a") == "stopped")
        worker.wait()
        act(web, "a", "delete")


def test_a_job_whose_worker_does_not_listen_is_not_called_stopped(web, queue, connection):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    connection.hset("rq:job:a", mapping={"status": "started", "worker_name": "gone"})
    answer = act(web, "a", "stop")
    assert problem(answer, 409) == "The job is started, but its worker does not listen"
    assert answer.json["result"]["listens"] is False


def test_many_jobs_by_id_are_answered_one_by_one(web, queue, connection):
    for job_id in ("a", "b", "c"):
        queue.enqueue(tasks.add, 1, 2, job_id=job_id)
    act(web, "c", "cancel")
    before = everything(connection)
    tried = bulk(web, action="cancel", ids=["a", "b", "c", "nope"], dry_run=True)
    assert tried.status == 200 and tried.json["done"] == 2 and tried.json["dry_run"] is True
    assert everything(connection) == before
    answer = bulk(web, action="cancel", ids=["a", "b", "c", "nope"])
    assert [(r["job_id"], r["code"], r["status"]) for r in answer.json["results"]] == [
        ("a", "done", "queued"), ("b", "done", "queued"), ("c", "refused", "canceled"), ("nope", "no_such_job", None)]
    assert (answer.json["done"], answer.json["refused"]) == (2, 2)
    assert queue.job_ids == []
    assert bulk(web, action="requeue", ids=["a"]).json["done"] == 1 and queue.job_ids == ["a"]
    assert bulk(web, action="delete", ids=["a", "b"]).json["done"] == 2


@pytest.mark.parametrize("body, told", [
    ({}, "action: is missing"),
    ({"action": "explode", "ids": ["a"]}, "action: must be one of cancel, requeue, delete, stop"),
    ({"action": "cancel"}, "give either ids or a filter"),
    ({"action": "cancel", "ids": ["a"], "filter": {}}, "give either ids or a filter"),
    ({"action": "cancel", "ids": []}, "ids: must not be empty"),
    ({"action": "cancel", "ids": "a"}, "ids: must be a list"),
    ({"action": "cancel", "ids": [1]}, "ids: must be a list of texts"),
    ({"action": "cancel", "ids": ["a b"]}, "ids: \"a b\" is no id of a job"),
    ({"action": "cancel", "ids": ["a"] * 1001}, "ids: at most 1000"),
    ({"action": "cancel", "ids": ["a"], "max": 3}, "max: goes with a filter"),
    ({"action": "cancel", "filter": {"status": "queued"}, "max": 0}, "max: must be"),
    ({"action": "cancel", "filter": []}, "filter: must be an object"),
    ({"action": "cancel", "filter": {}}, "filter: must not be empty"),
    ({"action": "cancel", "filter": {"status": "odd"}}, "status: must be one of"),
    ({"action": "cancel", "filter": {"status": 1}}, "filter.status: must be text"),
    ({"action": "cancel", "filter": {"status": "queued", "queue": ""}}, "filter.queue: must not be empty"),
    ({"action": "cancel", "filter": {"status": "queued", "colour": "red"}}, "filter.colour: is not known"),
    ({"action": "cancel", "filter": {"status": "queued", "since": "noon"}}, "filter.since: "),
    ({"action": "cancel", "filter": {"status": "queued"}, "dry_run": 1}, "dry_run: must be true or false"),
    ([], "must be an object"),
])
def test_a_bad_order_is_refused_and_changes_nothing(web, queue, connection, body, told):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    before = everything(connection)
    assert told in problem(http("POST", f"{web.url}/api/v1/jobs/bulk", body), 422)
    assert everything(connection) == before


def test_other_sites_cannot_act(web, queue, connection):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    for method, path in (("POST", "/jobs/a/cancel"), ("POST", "/jobs/a/requeue"), ("POST", "/jobs/a/stop"), ("DELETE", "/jobs/a"),
                         ("POST", "/jobs/bulk"), ("POST", "/operations/x/cancel")):
        body = {"action": "cancel", "ids": ["a"]} if path.endswith("bulk") else None
        assert http(method, f"{web.url}/api/v1{path}", body, headers=headers).status == 403
    assert queue.job_ids == ["a"]


def test_nothing_is_promised_while_redis_is_away(web, server):
    server.stop()
    for answer in (act(web, "a", "cancel"), bulk(web, action="cancel", filter={"status": "queued"}),
                   http("GET", f"{web.url}/api/v1/operations")):
        assert problem(answer, 503)


def test_hostile_jobs_are_acted_on_like_others(web, connection):
    connection.sadd("rq:queues", b"rq:queue:\xff\x00")
    connection.hset("rq:job:a", mapping={"status": b"\xff\xfe<script>", "origin": b"\xff\x00", "data": b"\x80\x04junk"})
    connection.rpush(b"rq:queue:\xff\x00", "a")
    connection.set("rq:job:text", "not a hash")
    answer = act(web, "a", "requeue")
    assert answer.status == 409 and json.loads(answer.body)["job_status"]
    assert problem(act(web, "text", "cancel"), 404) == "Job not found"
    assert act(web, "a", "delete").status == 200 and not connection.exists("rq:job:a")
