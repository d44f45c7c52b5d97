"""A job's hash as it is stored, and as a request for another job like it."""

import datetime
import json
import pickle
import re
import zlib

import pytest
import tasks
from conftest import http
from rq import Callback, Queue, Retry
from rq.job import Job
from test_http import problem

QUIET = ("--no-worker", "--no-sampler", "--no-maintenance", "--no-scheduler", "--no-index")


@pytest.fixture
def web(system, server):
    return system.serve(*QUIET, url=server.url)


@pytest.fixture
def queue(connection):
    return Queue("default", connection=connection)


def raw(web, job_id, **headers):
    answer = http("GET", f"{web.url}/api/v1/jobs/{job_id}/raw", headers=headers)
    assert answer.status == 200, answer.body
    return answer.json["raw"]


def as_request(web, job_id):
    answer = http("GET", f"{web.url}/api/v1/jobs/{job_id}/request")
    assert answer.status == 200, answer.body
    return answer.json


def unescaped(text):
    return re.sub(rb"\\(x[0-9a-f]{2}|n|t|\\)", lambda part: part[0].decode("unicode_escape").encode("latin-1"), text.encode())


def test_the_hash_is_shown_as_it_is_stored(web, queue, connection):
    job = queue.enqueue(tasks.add, 1, 2, job_id="a")
    shown = raw(web, "a")
    stored = connection.hgetall(job.key)
    assert shown["key"] == "rq:job:a" and shown["type"] == "hash" and shown["ttl"] is None and shown["fields_total"] == len(stored)
    assert {field["name"].encode(): unescaped(field["value"]) for field in shown["fields"]} == stored
    assert all(field["size"] == len(stored[field["name"].encode()]) and not field["cut"] and not field["hidden"] for field in shown["fields"])
    connection.expire(job.key, 100)
    assert 90 < raw(web, "a")["ttl"] <= 100


def test_whatever_a_hash_holds_the_answer_is_bounded_and_text(web, connection):
    connection.hset("rq:job:a", mapping={b"\xff\x00": b"\xff\x00\n\\ \xd0\xb6 \xed\xa0\x80", "text": "ж\n\u202e\x1b[31m\x85\\".encode(), "data": b"x" * 3_000_000, "meta": b"y" * 500_000,
                                         "n" * 5000: "v"})
    answer = http("GET", f"{web.url}/api/v1/jobs/a/raw?bytes=100")
    fields = {field["name"]: field for field in answer.json["raw"]["fields"]}
    assert len(answer.body) < 3000
    assert fields["\\xff\\x00"]["value"] == "\\xff\\x00\\n\\\\ \\xd0\\xb6 \\xed\\xa0\\x80"
    assert fields["text"]["value"] == "ж\\n\\xe2\\x80\\xae\\x1b[31m\\xc2\\x85\\\\"
    assert fields["data"] == {"name": "data", "size": 3_000_000, "value": "", "cut": True, "hidden": False}
    assert fields["meta"]["value"] == "y" * 100 and fields["meta"]["cut"] and len(fields["n" * 200]["value"]) == 1
    connection.hset("rq:job:b", mapping={"status": "queued", **{f"field-{n}": "x" * 1000 for n in range(5000)}})
    many = raw(web, "b")
    assert many["fields_total"] == 5001 and [field["name"] for field in many["fields"]] == ["status"]
    connection.set("rq:job:c", "text")
    assert raw(web, "c") == {"key": "rq:job:c", "type": "string", "ttl": None, "fields_total": 0, "fields": []}
    for job_id in ("absent", "a%20b", "%ff"):
        problem(http("GET", f"{web.url}/api/v1/jobs/{job_id}/raw"), 404)
        problem(http("GET", f"{web.url}/api/v1/jobs/{job_id}/request"), 404)
    assert problem(http("GET", f"{web.url}/api/v1/jobs/a/raw?bytes=0"), 422)


def test_where_data_is_hidden_only_fields_without_any_are_shown(system, server, queue, connection):
    job = queue.enqueue(tasks.add, 1, password="hunter2", job_id="a", meta={"password": "hunter2"})
    connection.hset(job.key, mapping={"password": "hunter2", "exc_info": "hunter2", "rqxx_timeline": "hunter2", "rate_limit_key": "hunter2"})
    for flag in (("--redact", "*password*"), ("--redact-all",)):
        web = system.serve(*QUIET, *flag, url=server.url, data_dir=system.folder / flag[0])
        answer = http("GET", f"{web.url}/api/v1/jobs/a/raw")
        fields = {field["name"]: field for field in answer.json["raw"]["fields"]}
        assert b"hunter2" not in answer.body and fields["status"]["value"] == "queued" and fields["origin"]["value"] == "default"
        for name in ("data", "meta", "description", "exc_info", "rqxx_timeline", "password", "rate_limit_key"):
            assert fields[name]["hidden"] and fields[name]["value"] == "[redacted]" and fields[name]["size"] > 0, name
        answer = http("GET", f"{web.url}/api/v1/jobs/a/request")
        assert b"hunter2" not in answer.body and answer.json["kwargs"] is answer.json["meta"] is None
        assert "description" not in answer.json["request"]
        assert {"field": "kwargs", "code": "hidden"}.items() <= answer.json["problems"][-2].items()


@pytest.mark.parametrize("args, kwargs", [
    ([], {}), ([1, "ж", None, True], {"size": 1.0, "deep": {"a": [{"b": []}]}}), ([2**63 + 1, 10**40, -0.5, 1e300], {}),
    (["\u202e \x00 \x7f \\u0041 \"'\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")], {"ключ": "😀"})])
@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_a_job_comes_back_as_the_request_for_one_like_it(web, connection, args, kwargs, serializer):
    from rq.serializers import DefaultSerializer, JSONSerializer
    kind = JSONSerializer if serializer == "json" else DefaultSerializer
    queue = Queue("images", connection=connection, serializer=kind)
    queue.enqueue(tasks.add, args=args, kwargs=kwargs, job_id="a", job_timeout=77, result_ttl=60, failure_ttl=-1, ttl=999, retry=Retry(3, interval=[5, 9]),
                  meta={"tags": ["x"], "n": 2**60 + 1})
    told = as_request(web, "a")
    assert told["problems"] == told["left_out"] == []
    description = told["request"].pop("description", None)   # The usual one is made again; some characters are shown in two ways.
    assert told["request"] == {"func": "tasks.add", "queue": "images", "serializer": serializer, "timeout": 77, "result_ttl": 60, "failure_ttl": -1, "ttl": 999,
                               "retry": {"max": 3, "intervals": [5, 9]}}
    assert "\u202e" not in told["args"] and ("ж" in told["args"]) == ("ж" in str(args))
    body = json.dumps({**told["request"], "description": description})[:-1] + "".join(f', "{name}": {told[name]}' for name in ("args", "kwargs", "meta")) + "}"
    made = http("POST", web.url + "/api/v1/jobs", body.encode())
    assert made.status == 201, made.body
    before, after = (Job.fetch(job_id, connection=connection, serializer=kind) for job_id in ("a", made.json["job_id"]))
    assert list(after.args) == list(before.args) == args and after.kwargs == before.kwargs == kwargs
    assert [type(value) for value in after.kwargs.values()] == [type(value) for value in kwargs.values()]
    for name in ("origin", "timeout", "result_ttl", "failure_ttl", "ttl", "retries_left", "retry_intervals", "meta", "description", "func_name"):
        assert getattr(after, name) == getattr(before, name), name


def test_what_a_request_cannot_have_is_said(web, queue, connection):
    queue.enqueue(tasks.add, job_id="first")
    queue.enqueue(tasks.add, datetime.date(2026, 1, 1), size=(1, 2), job_id="a", depends_on="first", on_success=Callback(print), description="mine")
    connection.hset("rq:job:a", "group_id", "g")
    told = as_request(web, "a")
    assert [(one["field"], one["code"]) for one in told["problems"]] == [("args", "not_json"), ("kwargs", "not_json")]
    assert told["args"] is told["kwargs"] is None and told["request"]["description"] == "mine"
    assert told["left_out"] == ["depends_on", "on_success", "group"]
    connection.hset("rq:job:b", mapping={"status": "queued", "origin": "\udcff".encode("utf-8", "surrogatepass"), "data": b"\x80garbage", "created_at": "x", "meta": b"\x80"})
    told = as_request(web, "b")
    assert [(one["field"], one["code"]) for one in told["problems"]] == [("args", "unreadable"), ("meta", "unreadable")] and "func" not in told["request"]
    connection.hset("rq:job:c", mapping={"origin": "q", "created_at": "2026-01-01T00:00:00Z", "data": zlib.compress(pickle.dumps(("run", {"an": "object"}, (), {})))})
    assert ("func", "instance") in [(one["field"], one["code"]) for one in as_request(web, "c")["problems"]]
    queue.enqueue(tasks.add, "x" * 300_000, job_id="d")
    assert [one["code"] for one in as_request(web, "d")["problems"]] == ["too_large"]


def test_there_is_no_request_where_nothing_may_be_enqueued(system, server, queue):
    queue.enqueue(tasks.add, job_id="a")
    web = system.serve(*QUIET, "--no-enqueue", url=server.url)
    problem(http("GET", f"{web.url}/api/v1/jobs/a/request"), 404)
    assert raw(web, "a")["fields"] and "/api/v1/jobs/{job_id}/request" not in http("GET", web.url + "/api/v1/openapi.json").json["paths"]
