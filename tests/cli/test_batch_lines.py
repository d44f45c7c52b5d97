"""Jobs as lines: what each may say, what bad ones are told, over HTTP and on the command line."""

import json
import socket
import subprocess

import pytest
from conftest import BUILD, http, wait_for

GOOD = [{"func": "f", "args": [1, "a"], "kwargs": {"k": None}, "queue": "q", "timeout": "5m", "retry": 2, "retry_intervals": [1, "2s"],
         "result_ttl": 60, "failure_ttl": -1, "meta": {"m": 1}, "description": "d", "job_id": "one"},
        {"func": "g", "depends_on": ["one"], "allow_failure": True, "at_front": True},
        {"func": "h", "priority": "high", "timeout": 900}, {"func": "i", "in": "1h", "job_id": "later"},
        {"func": "j", "repeat": 2, "on_success": "cb@5s", "webhooks": [{"url": "http://localhost/x", "job_status": "failed"}]}]

BAD = [("nonsense", "not JSON"), ("[1]", "object"), ("{}", "func"), ('{"func": ""}', "func"), ('{"func": 5}', "func"),
       ('{"func": "f", "timeout": 0}', "timeout"), ('{"func": "f", "timeout": "soon"}', "timeout"), ('{"func": "f", "args": 5}', "args"),
       ('{"func": "f", "args": {"a": 1}}', "args"), ('{"func": "f", "kwargs": []}', "kwargs"), ('{"func": "f", "retry": -1}', "retry"),
       ('{"func": "f", "retry": "2"}', "retry"), ('{"func": "f", "retry_intervals": [1]}', "retry"), ('{"func": "f", "what": 1}', "what"),
       ('{"func": "f", "queue": "a,b"}', "queue"), ('{"func": "f", "job_id": "a b"}', "job_id"), ('{"func": "f", "meta": 1}', "meta"),
       ('{"func": "f", "priority": "urgent"}', "priority"), ('{"func": "f", "priority": "low", "queue": "q"}', "queue"),
       ('{"func": "f", "at": "tomorrow"}', "at"), ('{"func": "f", "at": 1, "in": 1}', "at"), ('{"func": "f", "in": -5}', "in"),
       ('{"func": "f", "at_front": 1}', "at_front"), ('{"func": "f", "ttl": 0}', "ttl"), ('{"func": "f", "result_ttl": -2}', "result_ttl"),
       ('{"func": "f", "depends_on": "one"}', "depends_on"), ('{"func": "f", "depends_on": ["x"], "in": 5}', "depends_on"),
       ('{"func": "f", "webhooks": [{"url": "ftp://x"}]}', "webhooks"), ('{"func": "\\ud800"', "not JSON"),
       ('{"func": "f", "args": [' + "[" * 5000 + "]" * 5000 + "]}", "not JSON"), ('{"func": "f", "x": "' + "x" * (1 << 20) + '"}', "longer")]


def text(jobs):
    return "".join(json.dumps(job) + "\n" for job in jobs)


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", "--no-scheduler", url=server.url)


def test_a_line_says_what_enqueue_takes(system, connection):
    (system.folder / "jobs").write_text(text(GOOD) + "\n  \n")
    done = system.rqxx("enqueue", "--batch", "jobs", "--redis-url", system.server.url, "--batch-name", "b")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "b\n" and "jobs=5" in done.stderr
    one = connection.hgetall("rq:job:one")
    assert one[b"timeout"] == b"300" and one[b"retries_left"] == b"2" and one[b"retry_intervals"] == b"[1, 2]"
    assert one[b"origin"] == b"q" and one[b"group_id"] == b"b" and one[b"failure_ttl"] == b"-1" and one[b"description"] == b"d"
    assert connection.lrange("rq:queue:q", 0, -1) == [b"one"]
    assert connection.zcard("rq:deferred:default") == 1 and connection.zcard("rq:scheduled:default") == 1
    high = connection.hgetall(b"rq:job:" + connection.lindex("rq:queue:high", 0))
    assert high[b"timeout"] == b"600" and high[b"retries_left"] == b"2"
    assert connection.hget("rqxx:batch:b", "total") == b"5" and connection.scard("rq:group:b") == 5
    # Once more: those with ids are left out.
    again = system.rqxx("enqueue", "--batch", "jobs", "--redis-url", system.server.url)
    assert again.returncode == 0 and "2 left out" in again.stderr
    assert connection.hget("rq:job:one", "group_id") == b"b"


def test_from_stdin(system, connection):
    done = subprocess.run([BUILD / "rqxx", "enqueue", "--batch", "-", "--redis-url", system.server.url, "--queue", "q"],
                          input='{"func": "f"}\n{"func": "g"}', capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and connection.llen("rq:queue:q") == 2, done.stderr


@pytest.mark.parametrize(("line", "named"), BAD, ids=lambda value: value[:40])
def test_a_bad_line_is_named_and_nothing_is_enqueued(system, connection, line, named):
    (system.folder / "jobs").write_text('{"func": "f"}\n\n' + line + '\n{"func": "g"}\n')
    done = system.rqxx("enqueue", "--batch", "jobs", "--redis-url", system.server.url)
    assert done.returncode == 2 and done.stdout == ""
    assert "jobs:3: " in done.stderr and named in done.stderr.splitlines()[0], done.stderr
    assert connection.dbsize() == 0


def test_the_first_ten_bad_lines_are_shown_and_partial_takes_the_others(system, web, connection):
    body = ('{"func": "f"}\n' + "bad\n") * 15
    answer = http("POST", web.url + "/api/v1/batches", body.encode())
    assert answer.status == 422 and answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["bad_lines"] == 15 and [error["line"] for error in answer.json["errors"]] == list(range(2, 22, 2))
    assert "Line 2" in answer.json["detail"] and not connection.keys("rq:queue*")
    answer = http("POST", web.url + "/api/v1/batches?partial=true&name=part", body.encode())
    assert answer.status == 201 and answer.json["jobs"] == 15 and answer.json["bad_lines"] == 15 and len(answer.json["errors"]) == 10
    assert answer.headers["Location"] == "/api/v1/batches/part" and answer.json["batch"]["total"] == 15
    (system.folder / "jobs").write_text(body)
    done = system.rqxx("enqueue", "--batch", "jobs", "--redis-url", system.server.url)
    assert done.returncode == 2 and done.stderr.count("jobs:") == 10 and "5 more bad lines" in done.stderr
    done = system.rqxx("enqueue", "--batch", "jobs", "--partial", "--redis-url", system.server.url)
    assert done.returncode == 0 and connection.llen("rq:queue:default") == 30


def test_a_job_must_come_after_what_it_waits_for(system, connection):
    (system.folder / "jobs").write_text(text([{"func": "f", "depends_on": ["x"]}, {"func": "g", "job_id": "x"}]))
    done = system.rqxx("enqueue", "--batch", "jobs", "--redis-url", system.server.url)
    assert done.returncode == 2 and "jobs:2: job_id" in done.stderr and connection.dbsize() == 0


@pytest.mark.parametrize("query", ["name=a:b", "name=a%0ab", "name=" + "x" * 201, "queue=a,b", "queue=", "partial=maybe", "ttl=soon", "ttl=0",
                                   "parent=nobody", "parent=a:b", "serializer=xml", "nmae=b", "follow_queue=a,b"])
def test_bad_parameters_are_named(web, connection, query):
    answer = http("POST", f"{web.url}/api/v1/batches?{query}", b'{"func": "f"}\n')
    assert answer.status == 422 and query.split("=")[0] in answer.json["detail"], answer.body
    assert not connection.keys("rq:queue*") and not connection.keys("rqxx:batch:*")


@pytest.mark.parametrize(("flags", "named"), [
    (["f"], "FUNC"), (["--timeout", "5"], "--timeout"), (["--job-id", "x"], "--job-id"), (["--batch-name", "a:b"], "name"),
    (["--parent", "nobody"], "parent"), (["--queue", "a,b"], "queue")])
def test_bad_flags_are_named(system, connection, flags, named):
    (system.folder / "jobs").write_text('{"func": "f"}\n')
    done = system.rqxx("enqueue", *flags, "--batch", "jobs", "--redis-url", system.server.url)
    assert done.returncode == 2 and named in done.stderr and done.stderr.count("\n") == 1 and connection.dbsize() == 0
    missing = system.rqxx("enqueue", "--batch", "nowhere", "--redis-url", system.server.url)
    assert missing.returncode == 2 and "nowhere" in missing.stderr
    alone = system.rqxx("enqueue", "f", "--partial", "--redis-url", system.server.url)
    assert alone.returncode == 2 and "--partial" in alone.stderr


def test_the_api_shows_lists_cancels_and_retries(web, connection):
    for name in ("a", "b"):
        assert http("POST", f"{web.url}/api/v1/batches?name={name}&on_complete=done", text([{"func": "f"}] * 3).encode()).status == 201
    assert http("POST", f"{web.url}/api/v1/batches?name=a", b"").status == 422
    listed = http("GET", web.url + "/api/v1/batches?limit=10").json
    assert listed["count"] == 2 and [batch["id"] for batch in listed["batches"]] == ["b", "a"]
    assert http("GET", web.url + "/api/v1/batches?limit=1&offset=1").json["batches"][0]["id"] == "a"
    for path in ("/api/v1/batches/a", "/api/rq/batches/a"):
        shown = http("GET", web.url + path).json
        assert shown["status"] == "ok" and shown["batch"]["state"] == "running" and shown["batch"]["pending"] == 3
    canceled = http("POST", web.url + "/api/v1/batches/a/cancel").json
    assert canceled["canceled"] == 3 and canceled["batch"]["state"] == "complete"
    assert http("POST", web.url + "/api/v1/batches/a/cancel").status == 409
    assert http("POST", web.url + "/api/v1/batches/b/retry-failed").json["requeued"] == 0
    for method, path in (("GET", "/x"), ("POST", "/x/cancel"), ("POST", "/x/retry-failed"), ("GET", "/a%3Apending"), ("GET", "/%0a")):
        assert http(method, web.url + "/api/v1/batches" + path).status == 404, path
    assert http("GET", web.url + "/api/v1/batches?limit=0").status == 422
    assert http("PUT", web.url + "/api/v1/batches").status == 405


def test_bodies_arrive_in_any_pieces(web, connection):
    """Chunked, announced, cut in the middle of a character; and what comes behind them on the connection is answered."""
    host, port = web.url.removeprefix("http://").split(":")
    body = text([{"func": "f", "args": ["ü" * 50]}] * 200).encode()
    with socket.create_connection((host, int(port)), timeout=20) as conn:
        conn.sendall(f"POST /api/v1/batches?name=c HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n"
                     "Expect: 100-continue\r\n\r\n".encode())
        assert conn.recv(1000).startswith(b"HTTP/1.1 100")
        for at in range(0, len(body), 777):
            piece = body[at:at + 777]
            conn.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        conn.sendall(b"0\r\n\r\n" + f"GET /api/v1/batches/c HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        answers = b""
        while piece := conn.recv(65536):
            answers += piece
    assert answers.count(b"HTTP/1.1 201") == 1 and answers.count(b"HTTP/1.1 200") == 1
    assert connection.llen("rq:queue:default") == 200


def test_a_body_that_breaks_off_enqueues_nothing(web, connection):
    host, port = web.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as conn:
        conn.sendall(f"POST /api/v1/batches HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000\r\n\r\n".encode() + b'{"func": "f"}\n')
        conn.shutdown(socket.SHUT_WR)
        conn.recv(65536)
    assert not connection.keys("rq:queue*") and not connection.keys("rqxx:batch:*")


def test_other_routes_keep_their_limit_and_batches_have_a_larger_one(web, connection):
    assert http("POST", web.url + "/api/reviewer/sessions", b" " * (2 << 20)).status == 413
    line = json.dumps({"func": "f", "args": ["x" * 100_000]}).encode() + b"\n"
    assert http("POST", web.url + "/api/v1/batches", line * 50).status == 201
    host, port = web.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as conn:
        conn.sendall(f"POST /api/v1/batches HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {2 << 30}\r\n\r\n".encode())
        assert b" 413 " in conn.recv(65536)


def test_a_token_is_asked_for_before_the_body(system, server):
    web = system.serve("--no-worker", "--token", "secret", url=server.url)
    host, port = web.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as conn:
        conn.sendall(f"POST /api/v1/batches HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 100000\r\n"
                     "Expect: 100-continue\r\n\r\n".encode())
        assert conn.recv(65536).startswith(b"HTTP/1.1 401")


def test_show_and_list_for_people(system, connection):
    url = ("--redis-url", system.server.url)
    (system.folder / "jobs").write_text(text([{"func": "tasks.noop", "args": [1]}] * 3))
    system.rqxx("enqueue", "--batch", "jobs", "--batch-name", "b", *url)
    assert "0 of 3 done" in system.rqxx("batch", "show", "b", *url).stdout
    assert "running" in system.rqxx("batch", "list", *url).stdout
    follows = system.run(BUILD / "rqxx", "batch", "show", "b", "--follow", "--json", *url)
    assert system.test_worker("--burst", "default").wait() == 0
    assert follows.wait() == 0 and json.loads(follows.out)["successful"]
    gone = system.rqxx("batch", "show", "nobody", *url)
    assert gone.returncode == 1 and "nobody" in gone.stderr
    hostile = system.rqxx("batch", "show", "a:b", *url)
    assert hostile.returncode == 2 and "batch" in hostile.stderr
    wait_for(lambda: json.loads(system.rqxx("batch", "list", "--json", *url).stdout)[0]["state"] == "complete")
