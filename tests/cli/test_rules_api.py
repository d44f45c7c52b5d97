"""Limits, pauses and suspending over HTTP: good, missing, malformed, forbidden."""

import datetime
import json
import urllib.parse

import pytest
from conftest import http, wait_for
from rq import Queue
from test_http import problem

BUCKET = {"kind": "token-bucket", "limit": 10, "per": 0.5, "burst": 3, "queue": "default", "key": "args[0]"}


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", "--no-scheduler", "--no-sampler", "--no-maintenance", url=server.url)


def limits(web):
    return {limit["name"]: limit for limit in http("GET", web.url + "/api/v1/limits").json["limits"]}


def test_a_limit_is_set_shown_changed_and_removed(web, system):
    answer = http("GET", web.url + "/api/v1/limits")
    assert answer.status == 200 and answer.json == {"status": "ok", "limits": [], "faults": []}
    answer = http("PUT", web.url + "/api/v1/limits/gentle", BUCKET)
    assert answer.status == 200, answer.body
    assert answer.json["limit"] == {**BUCKET, "name": "gentle", "points": 1, "scope": "cluster"}
    http("PUT", web.url + "/api/v1/limits/few", {"kind": "concurrency", "limit": 2, "scope": "worker"})
    assert set(limits(web)) == {"gentle", "few"}
    listed = json.loads(system.rqxx("limit", "list", "--json", "--redis-url", system.server.url).stdout)
    assert listed == list(http("GET", web.url + "/api/v1/limits").json["limits"])
    http("PUT", web.url + "/api/v1/limits/gentle", {**BUCKET, "limit": 20})
    assert limits(web)["gentle"]["limit"] == 20
    assert http("DELETE", web.url + "/api/v1/limits/gentle").json == {"status": "ok", "name": "gentle"}
    assert problem(http("DELETE", web.url + "/api/v1/limits/gentle"), 404) == "Limit not found"
    assert set(limits(web)) == {"few"}


@pytest.mark.parametrize("name, body, told", [
    ("x", b"", "JSON"),
    ("x", b"{", ""),
    ("x", b"[]", "must be an object"),
    ("x", {}, "kind: is missing"),
    ("x", {**BUCKET, "kind": "leak"}, "kind: must be"),
    ("x", {**BUCKET, "kind": 3}, "kind: must be text"),
    ("x", {**BUCKET, "limit": 0}, "limit: must be from 1"),
    ("x", {**BUCKET, "limit": "10"}, "limit: must be a whole number"),
    ("x", {**BUCKET, "per": -1}, "per: must be"),
    ("x", {**BUCKET, "per": None}, "per: must be"),
    ("x", {**BUCKET, "burst": 0}, "burst: must be"),
    ("x", {**BUCKET, "key": "argv"}, "key: must begin with"),
    ("x", {**BUCKET, "points": 4}, "points: must be from 1 to 3"),
    ("x", {**BUCKET, "scope": "planet"}, "scope: must be worker or cluster"),
    ("x", {**BUCKET, "speed": 1}, "speed: is not known"),
    ("x", {**BUCKET, "queue": "a\nb"}, "queue: control characters"),
    ("a b", BUCKET, "name: must have"),
    ("a:b", BUCKET, "name: must have"),
    ("\xff", BUCKET, "name: must have"),
    ("x" * 201, BUCKET, "name: must have"),
])
def test_bad_limits_are_refused_and_change_nothing(web, connection, name, body, told):
    version = connection.get("rqxx:rules:version")
    answer = http("PUT", f"{web.url}/api/v1/limits/{urllib.parse.quote(name, safe='', encoding='latin-1')}", body)
    assert told in problem(answer, 422)
    assert not connection.exists("rqxx:rules") and connection.get("rqxx:rules:version") == version


@pytest.mark.parametrize("kind, name", [("queues", "a/b"), ("queues", "50%"), ("functions", "pkg.a/b%20c"), ("queues", "grün 1")])
def test_names_with_slashes_and_percent_signs_are_paused_and_resumed(web, system, connection, kind, name):
    path = f"{web.url}/api/v1/{kind}/{urllib.parse.quote(name, safe='')}"
    what = kind[:-1]
    assert http("POST", path + "/pause").json == {"status": "ok", what: name, "state": "paused", "changed": True}
    assert http("POST", path + "/pause").json["changed"] is False
    (limit,) = limits(web).values()
    assert limit["kind"] == "pause" and limit[what] == name
    # Its own name works in a path as well.
    quoted = urllib.parse.quote(limit["name"], safe="")
    assert http("PUT", f"{web.url}/api/v1/limits/{quoted}", {"kind": "pause", what: name}).status == 200
    assert http("POST", path + "/resume").json == {"status": "ok", what: name, "state": "running", "changed": True}
    assert http("POST", path + "/resume").json["changed"] is False
    assert not limits(web)


@pytest.mark.parametrize("path", ["queues/a%2Cb/pause", "queues/a%0Ab/pause", "functions/a%00b/pause", "functions/" + "x" * 201 + "/pause"])
def test_bad_names_are_refused(web, connection, path):
    problem(http("POST", f"{web.url}/api/v1/{path}"), 422)
    assert not connection.exists("rqxx:rules")


@pytest.mark.parametrize("method, path, status", [
    ("POST", "queues/pause", 405), ("POST", "queues//pause", 404), ("POST", "queues/a/b/pause", 404), ("GET", "queues/a/pause", 405),
    ("POST", "limits/x", 405), ("GET", "suspend", 405), ("DELETE", "limits/a%20b", 404), ("POST", "functions/%zz/pause", 400),
])
def test_what_is_not_there_is_not_found(web, method, path, status):
    problem(http(method, f"{web.url}/api/v1/{path}"), status)


def test_a_paused_queue_starts_nothing_and_is_shown(web, system, connection):
    worker = system.test_worker("default")
    worker.wait_for_log("Worker started")
    http("POST", web.url + "/api/v1/queues/default/pause")
    http("PUT", web.url + "/api/v1/limits/each", {"kind": "concurrency", "limit": 1, "key": "args[0]"})
    queue = Queue("default", connection=connection)
    jobs = [queue.enqueue("tasks.noop", n) for n in range(3)]
    Queue("other", connection=connection).enqueue("tasks.noop", 1)
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"3")
    body = http("GET", web.url + "/api/rq/stats").json
    shown = {queue["queue_name"]: (queue["queued"], queue["paused"], queue["waiting_under_limits"]) for queue in body["queues"]}
    assert shown == {"default": (3, True, 3), "other": (1, False, 0)}
    assert "paused" not in body["stats"] and "paused" not in body["totals"]
    url = ("--redis-url", system.server.url)
    for command in (["queue", "list"], ["info"]):
        listed = json.loads(system.rqxx(*command, "--json", *url).stdout)
        queues = listed["queues"] if command == ["info"] else listed
        assert {queue["queue_name"]: (queue["paused"], queue["waiting_under_limits"]) for queue in queues} == {
            "default": (True, 3), "other": (False, 0)}
        table = [line.split() for line in system.rqxx(*command, *url).stdout.splitlines()]
        assert table[0][-2:] == ["LIMITED", "STATE"]
        assert table[1][0] == "default" and table[1][-2:] == ["3", "paused"]
    http("POST", web.url + "/api/v1/queues/default/resume")
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs))


def test_a_limit_is_pushed_back(web, connection):
    http("PUT", web.url + "/api/v1/limits/api", {"kind": "token-bucket", "limit": 10, "per": 1})
    http("PUT", web.url + "/api/v1/limits/tenant", {**BUCKET})
    answer = http("POST", web.url + "/api/v1/limits/api/push-back", {"seconds": 600})
    assert answer.json == {"status": "ok", "name": "api", "key": "", "seconds": 600}
    until = limits(web)["api"]["limiters"][0]["pushed_back_until"]
    left = datetime.datetime.fromisoformat(until.replace("Z", "+00:00")) - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(minutes=9) < left < datetime.timedelta(minutes=11)
    http("POST", web.url + "/api/v1/limits/tenant/push-back", {"seconds": 600, "key": "a%20b"})
    assert [one["key"] for one in limits(web)["tenant"]["limiters"] if one["pushed_back_until"]] == ["a%20b"]
    http("POST", web.url + "/api/v1/limits/api/push-back", {"seconds": 0})
    assert limits(web)["api"]["limiters"][0]["pushed_back_until"] is None


@pytest.mark.parametrize("name, body, status, told", [
    ("none", {"seconds": 1}, 404, "there is no such limit"),
    ("pause-queue-default", {"seconds": 1}, 404, "there is no such limit"),
    ("api", b"", 422, "seconds: is missing"),
    ("api", b"[1]", 422, "object"),
    ("api", {"seconds": -1}, 422, "seconds: must be"),
    ("api", {"seconds": 1.5}, 422, "seconds: must be"),
    ("api", {"seconds": "1"}, 422, "seconds: must be"),
    ("api", {"seconds": 10 ** 20}, 422, "seconds: must be"),
    ("api", {"seconds": 1, "minutes": 1}, 422, "minutes: is not known"),
    ("api", {"seconds": 1, "key": "a"}, 422, "key: this limit has none"),
    ("tenant", {"seconds": 1}, 422, "key: is needed"),
    ("tenant", {"seconds": 1, "key": 3}, 422, "key: must be text"),
    ("tenant", {"seconds": 1, "key": "a b"}, 422, "key: must be as"),
    ("each", {"seconds": 1}, 422, "each worker"),
])
def test_a_limit_that_cannot_be_pushed_back(web, connection, name, body, status, told):
    http("PUT", web.url + "/api/v1/limits/api", {"kind": "token-bucket", "limit": 10, "per": 1})
    http("PUT", web.url + "/api/v1/limits/tenant", {**BUCKET})
    http("PUT", web.url + "/api/v1/limits/each", {"kind": "concurrency", "limit": 1, "scope": "worker"})
    http("POST", web.url + "/api/v1/queues/default/pause")
    assert told in problem(http("POST", f"{web.url}/api/v1/limits/{name}/push-back", body), status)
    assert not connection.exists("rqxx:limits:until")


def test_workers_are_suspended_and_resumed(web, connection):
    assert http("POST", web.url + "/api/v1/suspend").json == {"status": "ok", "state": "suspended", "changed": True}
    assert connection.get("rq:suspended") == b"1" and connection.ttl("rq:suspended") == -1
    assert http("POST", web.url + "/api/v1/suspend", {"seconds": 600}).json["changed"] is False
    assert 590 <= connection.ttl("rq:suspended") <= 600
    assert http("POST", web.url + "/api/v1/suspend", {"seconds": None}).status == 200
    assert connection.ttl("rq:suspended") == -1
    assert http("POST", web.url + "/api/v1/resume").json == {"status": "ok", "state": "running", "changed": True}
    assert http("POST", web.url + "/api/v1/resume").json["changed"] is False
    for body in ({"seconds": 0}, {"seconds": "long"}, {"duration": 1}, b"3"):
        problem(http("POST", web.url + "/api/v1/suspend", body), 422)
    assert not connection.exists("rq:suspended")


ROUTES = [("GET", "/limits"), ("PUT", "/limits/x"), ("DELETE", "/limits/x"), ("POST", "/limits/x/push-back"),
          ("POST", "/queues/x/pause"), ("POST", "/queues/x/resume"), ("POST", "/functions/x/pause"),
          ("POST", "/functions/x/resume"), ("POST", "/suspend"), ("POST", "/resume"), ("GET", "/jobs/x/why")]


def test_nothing_is_done_without_the_token_or_for_another_site(system, server, connection):
    guarded = system.serve("--no-worker", "--no-scheduler", "--no-maintenance", "--no-sampler", "--token", "secret", url=server.url)
    for method, path in ROUTES:
        answer = http(method, f"{guarded.url}/api/v1{path}", BUCKET if method == "PUT" else None)
        problem(answer, 401)
        if method != "GET":
            foreign = {"Authorization": "Bearer secret", "Origin": "https://evil.example"}
            problem(http(method, f"{guarded.url}/api/v1{path}", BUCKET if method == "PUT" else None, foreign), 403)
    assert not connection.exists("rqxx:rules", "rqxx:rules:version", "rq:suspended")
    answer = http("PUT", guarded.url + "/api/v1/limits/x", BUCKET, {"Authorization": "Bearer secret"})
    assert answer.status == 200


def test_the_routes_are_documented(web):
    paths = http("GET", web.url + "/api/v1/openapi.json").json["paths"]
    for method, path in ROUTES:
        documented = [known for known in paths if known.startswith("/api/v1/") and method.lower() in paths[known]
                      and [a if not a.startswith("{") else "x" for a in known.split("/")[3:]] == path.split("/")[1:]]
        assert documented, (method, path)
        assert paths[documented[0]][method.lower()]["summary"]


def test_rules_that_nobody_can_read_are_told_as_faults(web, connection):
    connection.hset("rqxx:rules", mapping={"broken": "{", "odd": '{"kind":"leak"}', b"\xff": "[]"})
    body = http("GET", web.url + "/api/v1/limits").json
    assert body["limits"] == [] and {"broken", "odd"} < {fault["name"] for fault in body["faults"]}


def test_without_redis_the_answer_is_503(web, system):
    system.server.stop()
    for method, path in ROUTES:
        problem(http(method, f"{web.url}/api/v1{path}", BUCKET if method == "PUT" else None), 503)


def test_changes_of_limits_can_be_bound_to_what_was_read(web, connection):
    first = http("PUT", web.url + "/api/v1/limits/few", {"kind": "concurrency", "limit": 2}).headers["ETag"]
    shown = http("GET", web.url + "/api/v1/limits/few")
    assert shown.headers["ETag"] == first and shown.json["limit"]["limit"] == 2
    second = http("PUT", web.url + "/api/v1/limits/few", {"kind": "concurrency", "limit": 3}, headers={"If-Match": first})
    assert second.status == 200 and second.headers["ETag"] != first
    version = connection.get("rqxx:rules:version")
    assert problem(http("PUT", web.url + "/api/v1/limits/few", {"kind": "concurrency", "limit": 4}, headers={"If-Match": first}), 412)
    assert problem(http("PUT", web.url + "/api/v1/limits/new", {"kind": "concurrency", "limit": 4}, headers={"If-Match": first}), 412)
    assert problem(http("DELETE", web.url + "/api/v1/limits/few", headers={"If-Match": first}), 412)
    assert problem(http("DELETE", web.url + "/api/v1/limits/few", headers={"If-Match": "odd"}), 422)
    assert problem(http("PUT", web.url + "/api/v1/limits/new", {"kind": "concurrency", "limit": 4}, headers={"If-Match": '"new"'}), 412)
    taken = http("PUT", web.url + "/api/v1/limits/few", {"kind": "concurrency", "limit": 4}, headers={"If-None-Match": "*"})
    assert problem(taken, 412) and taken.json["code"] == "exists"
    for headers in ({"If-None-Match": first}, {"If-None-Match": "*", "If-Match": first}):
        assert problem(http("PUT", web.url + "/api/v1/limits/few", {"kind": "concurrency", "limit": 4}, headers=headers), 422)
    assert limits(web)["few"]["limit"] == 3 and f'"{limits(web)["few"]["etag"]}"' == second.headers["ETag"]
    assert connection.get("rqxx:rules:version") == version and limits(web)["few"]["limit"] == 3
    assert http("DELETE", web.url + "/api/v1/limits/few", headers={"If-Match": second.headers["ETag"]}).status == 200
    assert http("PUT", web.url + "/api/v1/limits/other", {"kind": "concurrency", "limit": 4}, headers={"If-None-Match": "*"}).status == 200
    assert problem(http("GET", web.url + "/api/v1/limits/few"), 404) == "Limit not found"
