"""Redis data written by somebody else, broken or malicious: clear errors, nothing crashes, nothing is lost."""

import pickle
import zlib

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue

JUNK = bytes(range(256))
FIELDS = ["data", "status", "created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat", "worker_name", "origin",
          "description", "timeout", "result_ttl", "failure_ttl", "ttl", "success_callback_name", "success_callback_timeout",
          "webhooks", "dependency_ids", "allow_dependency_failures", "enqueue_at_front", "meta", "retries_left", "retry_intervals",
          "enqueue_at_front_on_retry", "number_of_retries", "repeats_left", "repeat_intervals", "group_id", "result", "exc_info"]


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def cycle():
    value = []
    value.append(value)
    return value


def laughs():
    value = ["lol"] * 10
    for _ in range(12):
        value = [value] * 10
    return value


FAILING = zlib.compress(pickle.dumps(("tasks.fail", None, ("no",), {})))


def call(*args, **kwargs):
    return pickle.dumps(("tasks.echo", None, args, kwargs))


PAYLOADS = {
    "nothing": b"", "junk": JUNK, "junk_in_zlib": zlib.compress(JUNK), "truncated_zlib": zlib.compress(call(1))[:-3],
    "truncated_pickle": zlib.compress(call("text" * 20)[:-5]), "wrong_tuple": zlib.compress(pickle.dumps((1, 2))),
    "no_tuple": zlib.compress(pickle.dumps(None)), "zlib_bomb": zlib.compress(b"\0" * 300_000_000, 9),
    "cycle": zlib.compress(call(cycle())), "billion_laughs": zlib.compress(call(laughs())),
    "huge_declared_length": zlib.compress(b"\x80\x05X\xff\xff\xff\xff."), "name_is_no_text": zlib.compress(pickle.dumps((1, None, (), {}))),
    "json_object": zlib.compress(b'{"a": 1}'), "deep_json": zlib.compress(b"[" * 100000), "args_no_sequence": zlib.compress(pickle.dumps(("f", None, 1, {})))}


def put(connection, job_id, **fields):
    job = {"data": zlib.compress(call(1)), "status": "queued", "origin": "default", "created_at": "2026-11-23T17:47:37.728246Z"}
    job.update(fields)
    connection.sadd("rq:queues", "rq:queue:default")
    connection.hset(f"rq:job:{job_id}", mapping={name: value for name, value in job.items() if value is not None})
    connection.rpush("rq:queue:default", job_id)


def test_unreadable_payloads_fail_the_job_and_show_as_labels(system, connection):
    for name, data in PAYLOADS.items():
        put(connection, name, data=data)
    web = system.serve("--no-worker", url=system.server.url)
    for name in PAYLOADS:
        job = http("GET", f"{web.url}/api/rq/jobs/{name}").json["job"]
        assert job["func_name"] is None and (job["args"] is None or "$undecodable" in job["args"]), name
    worker = system.test_worker("--burst", "default")
    assert worker.wait() == 0, worker.log
    for name in PAYLOADS:
        assert connection.hget(f"rq:job:{name}", "status") == b"failed", name
        error = http("GET", f"{web.url}/api/rq/jobs/{name}").json["job"]["exc_info"]
        assert error.startswith("rqxx.DeserializationError: data: "), name
    assert connection.zcard("rq:failed:default") == len(PAYLOADS)


def test_foreign_objects_show_as_inert_nodes_and_run_nothing(system, connection):
    put(connection, "evil", data=zlib.compress(call(Evil(), {1: 2}, b"\xff", float("nan"), nested(50))))
    web = system.serve("--no-worker", url=system.server.url)
    job = http("GET", f"{web.url}/api/rq/jobs/evil").json["job"]
    assert job["func_name"] == "tasks.echo"
    assert job["args"][:4] == [{"$opaque": "builtins.print", "parts": ["executed"]}, {"$dict": [[1, 2]]}, {"$bytes": "/w=="},
                               {"$float": "nan"}]
    assert "executed" not in web.log + web.out


@pytest.mark.parametrize("value", [JUNK, b"", b"-", b"1h", b"9" * 400, b"null", b"[]", b"{}", b"\xff\xfe", b"2026-13-40T99:99:99Z"],
                         ids=lambda value: value[:8].hex() or "empty")
def test_junk_in_each_field_stops_neither_worker_nor_server(system, connection, value):
    for field in FIELDS:
        put(connection, f"junk_{field}", **{field: value})
    put(connection, "good")
    worker = system.test_worker("default")
    wait_for(lambda: connection.hget("rq:job:good", "status") == b"finished")
    wait_for(lambda: connection.llen("rq:queue:default") == 0 and not connection.keys("rq:executions:*"))
    web = system.serve("--no-worker", url=system.server.url)
    assert http("GET", web.url + "/api/rq/jobs/recent?limit=100").status == 200
    for field in FIELDS:
        answer = http("GET", f"{web.url}/api/rq/jobs/junk_{field}")
        assert answer.status == 200 and answer.json["job"]["id"] == f"junk_{field}"
    assert worker.process.poll() is None and web.process.poll() is None


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "500.5", "1e300", "-7", "9" * 30])
def test_odd_numbers_do_not_leave_half_a_transition(system, connection, value):
    fields = ["result_ttl", "failure_ttl", "ttl", "retries_left", "repeats_left", "rqxx_retries", "rqxx_recoveries"]
    for field in fields:
        put(connection, f"good_{field}", **{field: value})
        put(connection, f"bad_{field}", data=FAILING, **{"retries_left": 1, field: value})
    assert system.test_worker("--burst", "default").wait() == 0
    assert connection.zcard("rq:wip:default") == 0 and not connection.keys("rq:execution*")
    for field in fields:
        for job_id in (f"good_{field}", f"bad_{field}"):
            status = connection.hget(f"rq:job:{job_id}", "status").decode()
            assert status in ("finished", "failed"), job_id
            assert connection.zscore(f"rq:{status}:default", job_id) is not None, job_id


def test_keys_of_other_types_do_not_leave_half_a_transition(system, connection):
    for job_id in ("good", "bad"):
        put(connection, job_id, rqxx_retries="x", retries_left=1)
        connection.set(f"rq:results:{job_id}", "not a stream")
        connection.set(f"rq:executions:{job_id}", "not a sorted set")
        connection.set(f"rq:job:{job_id}:dependents", "not a set")
    connection.hset("rq:job:bad", "data", FAILING)
    connection.set("rq:finished:default", "not a sorted set")
    connection.set("rqxx:totals", "not a hash")
    assert system.test_worker("--burst", "default").wait() == 0
    assert [connection.hget(f"rq:job:{job_id}", "status") for job_id in ("good", "bad")] == [b"finished", b"failed"]
    assert connection.xlen("rq:results:good") == 1 and connection.zscore("rq:failed:default", "bad")
    assert connection.zcard("rq:wip:default") == 0


@pytest.mark.parametrize("field", ["created_at", "timeout", "retries_left", "dependency_ids"])
def test_a_malformed_field_fails_the_job_naming_the_field(system, connection, field):
    put(connection, "bad", **{field: "nonsense"})
    assert system.test_worker("--burst", "default").wait() == 0
    web = system.serve("--no-worker", url=system.server.url)
    job = http("GET", f"{web.url}/api/rq/jobs/bad").json["job"]
    assert job["status"] == "failed" and job["exc_info"].startswith(f"rqxx.DeserializationError: {field}: ")
    assert any(problem.startswith(field) for problem in job["problems"])


def test_ids_without_jobs_and_keys_of_other_types_are_stepped_over(system, connection):
    connection.sadd("rq:queues", "rq:queue:default", "not a queue", "rq:queue:broken", JUNK)
    connection.set("rq:queue:broken", "a string")
    connection.rpush("rq:queue:default", "absent", "a:b", "with space", "", JUNK, "string_job", "list_job")
    connection.set("rq:job:string_job", "x")
    connection.rpush("rq:job:list_job", "x")
    for registry in ("finished", "failed", "deferred", "scheduled", "canceled", "wip"):
        connection.zadd(f"rq:{registry}:default", {"absent": 1, "a:b:c": 2, JUNK: 3})
    connection.sadd("rq:workers", "not a worker", "rq:worker:absent", JUNK)
    connection.hset("rq:worker:odd", mapping={"pid": "x", "birth": "never", "queues": JUNK})
    connection.sadd("rq:workers", "rq:worker:odd")
    put(connection, "good")
    worker = system.test_worker("broken", "default")
    wait_for(lambda: connection.hget("rq:job:good", "status") == b"finished")
    for reason in ("no such job", "not a job id", "its key is not a hash", "the queue is not a list"):
        assert f"reason={reason}" in worker.log
    web = system.serve("--no-worker", url=system.server.url)
    for path in ("/api/rq/stats", "/api/rq/jobs/recent?limit=100", "/api/rq/workers", "/metrics", "/api/rq/jobs/string_job"):
        assert http("GET", web.url + path).status == 200, path
    assert system.rqxx("info", "--redis-url", system.server.url).returncode == 0
    assert worker.process.poll() is None


def test_a_broken_registry_does_not_swallow_jobs(system, connection):
    connection.set("rq:wip:default", "not a sorted set")
    put(connection, "job")
    worker = system.test_worker("default")
    worker.wait_for_log("is not a sorted set")
    assert connection.lrange("rq:queue:default", 0, -1) == [b"job"]
    connection.delete("rq:wip:default")
    wait_for(lambda: connection.hget("rq:job:job", "status") == b"finished")


def test_results_that_cannot_be_read_are_labelled(system, connection):
    job = Queue("default", connection=connection).enqueue(tasks.add, 1, 1)
    assert system.test_worker("--burst", "default").wait() == 0
    for fields in ({"type": "9"}, {"no": "type"}, {"type": 2, "exc_string": "!!!"}, {"type": 1, "return_value": "gAVL"},
                   {"type": 1, "return_value": JUNK}):
        connection.xadd(f"rq:results:{job.id}", fields)
    web = system.serve("--no-worker", url=system.server.url)
    shown = http("GET", f"{web.url}/api/rq/jobs/{job.id}").json["job"]
    assert len(shown["problems"]) == 4
    assert shown["executions"][0]["result"]["$undecodable"]


def test_unknown_statuses_and_fields_survive(system, connection):
    put(connection, "new", status="ready_to_enqueue", rate_limit_key="k", future="\u2603")
    web = system.serve("--no-worker", url=system.server.url)
    assert http("GET", f"{web.url}/api/rq/jobs/new").json["job"]["status"] == "ready_to_enqueue"
    assert system.test_worker("--burst", "default").wait() == 0
    job = connection.hgetall("rq:job:new")
    assert job[b"status"] == b"finished" and job[b"future"] == "\u2603".encode() and job[b"rate_limit_key"] == b"k"


def test_terminal_text_is_harmless(system, connection):
    put(connection, "evil", description="\x1b[2J\x1b]0;title\x07 \u202egnp.exe \x9b31m")
    shown = system.rqxx("job", "show", "evil", "--redis-url", system.server.url)
    assert shown.returncode == 0
    assert not any(bad in shown.stdout for bad in ("\x1b", "\x07", "\u202e", "\x9b"))
