"""POST /api/v1/jobs: what each field does, each bad field, requests that are repeated; and the same of `rqxx enqueue`."""

import concurrent.futures
import json
import shutil
import signal
import tempfile
import threading

import pytest

pytest.importorskip("rq.webhook", reason="needs RQ 2.10; Debian's package is older")

from conftest import System, http, needs_rq2, wait_for
from invariants import check
from proxy import Proxy
from rq import Queue
from rq.group import Group
from rq.job import Job
from test_http import problem

pytestmark = needs_rq2
QUIET = ["--no-worker", "--no-sampler", "--no-scheduler", "--no-index", "--no-maintenance"]


@pytest.fixture
def web(system, server):
    return system.serve(*QUIET, url=server.url)


def post(web, body, key=None, **headers):
    if key is not None:
        headers["Idempotency-Key"] = key
    return http("POST", web.url + "/api/v1/jobs", body, headers)


def fetch(connection, answer):
    assert answer.status == 201, answer.body
    return Job.fetch(answer.json["job_id"], connection=connection)


def queued(connection, queue="default"):
    return [job_id.decode() for job_id in connection.lrange(f"rq:queue:{queue}", 0, -1)]


# ---- what it enqueues -----------------------------------------------------------------------------------


def test_a_job_is_enqueued_and_can_be_followed(web, system, connection):
    answer = post(web, {"func": "tasks.add", "args": [1], "kwargs": {"b": 2}})
    job = fetch(connection, answer)
    assert answer.json == {"job_id": job.id, "status": "queued", "duplicate": False, "replaced": False}
    assert answer.headers["Location"] == f"/api/v1/jobs/{job.id}"
    assert http("GET", web.url + answer.headers["Location"]).json["job"]["status"] == "queued"
    assert f"INFO: Job enqueued: id={job.id}, queue=default, timeout=180" in web.log
    assert job.description == "tasks.add(1, b=2)" and job.timeout == 180 and queued(connection) == [job.id]
    check(connection)
    assert system.rq_worker("--burst", "default").wait() == 0
    assert http("GET", web.url + f"/api/jobs/{job.id}").json == {"status": "finished", "result": 3}


def test_every_field_arrives_as_rq_reads_it(web, connection):
    job = fetch(connection, post(web, {
        "func": "tasks.echo", "args": [None, True, -1, 2.5, "é", [1], {"a": [2]}, 2**70], "kwargs": {"ключ": {"x": None}},
        "queue": "other", "timeout": 50, "retry": {"max": 3, "intervals": [10, "1m"], "at_front": True}, "result_ttl": "1h",
        "failure_ttl": -1, "ttl": "2d", "meta": {"note": [1, "é"]}, "description": "text", "job_id": "my-id", "group": "g"}))
    assert job.args == (None, True, -1, 2.5, "é", [1], {"a": [2]}, 2**70) and job.kwargs == {"ключ": {"x": None}}
    assert (job.id, job.origin, job.timeout, job.retries_left, job.retry_intervals) == ("my-id", "other", 50, 3, [10, 60])
    assert (job.result_ttl, job.failure_ttl, job.ttl, job.meta, job.description) == (3600, -1, 172800, {"note": [1, "é"]}, "text")
    assert job.enqueue_at_front_on_retry and connection.ttl("rq:job:my-id") > 172000
    assert [member.id for member in Group.fetch("g", connection=connection).get_jobs()] == ["my-id"]
    assert fetch(connection, post(web, {"func": "f", "retry": 2, "timeout": -1})).retries_left == 2
    plain = connection.hget("rq:job:" + post(web, {"func": "f", "serializer": "json"}).json["job_id"], "data")
    assert plain and post(web, {"func": "f", **dict.fromkeys(["args", "queue", "retry", "at", "dedup", "unique"])}).status == 201
    check(connection)


def test_when_and_where_a_job_is_to_run(web, connection):
    def due(body):
        answer = post(web, {"func": "f", **body})
        assert answer.json["status"] == "scheduled"
        return connection.zscore("rq:scheduled:default", answer.json["job_id"])

    assert due({"at": "2033-05-18T03:33:20Z"}) == due({"at": "2033-05-18T05:33:20+02:00"}) == due({"at": 2000000000}) == 2e9
    assert abs(due({"in": "1h"}) - connection.time()[0] - 3600) <= 2
    first, front = (post(web, {"func": "f", "at_front": front}).json["job_id"] for front in (False, True))
    assert queued(connection) == [front, first]
    for body in ({"depends_on": first}, {"depends_on": [first, front]},
                 {"depends_on": {"job_ids": [first], "allow_failure": True}}):
        answer = post(web, {"func": "f", **body})
        assert answer.json["status"] == "deferred"
        assert set(fetch(connection, answer)._dependency_ids) <= {first, front}
    job = fetch(connection, post(web, {"func": "f", "priority": "high", "timeout": 900, "retry": 1}))
    assert (job.origin, job.timeout, job.retries_left, job.result_ttl) == ("high", 600, 1, 3600)
    check(connection)


def test_a_duplicate_is_a_conflict_that_names_the_job_in_the_way(web, connection):
    for body in ({"job_id": "a", "unique": True}, {"dedup": {"mode": "unique"}}, {"dedup": {"mode": "throttle", "period": "1h"}},
                 {"priority": "low", "dedup": {"mode": "unique", "key": "of the policy"}}):
        first = post(web, {"func": "f", **body})
        assert first.status == 201
        second = post(web, {"func": "f", **body})
        problem(second, 409)
        assert second.json["code"] == "duplicate" and second.json["duplicate"] is True
        assert second.json["job_id"] == first.json["job_id"] and second.json["job_status"] == "queued"
        assert second.headers["Location"] == first.headers["Location"]
        assert second.json["instance"] == "/api/v1/jobs" and second.json["request_id"]
    assert web.log.count("Job enqueued") == 4


def test_a_job_that_takes_the_place_of_another_says_so(web, connection):
    for mode in ({"mode": "replace"}, {"mode": "debounce", "period": "1h", "max_delay": "2h"}):
        dedup = {"key": "k" + mode["mode"], **mode}
        first, second = (post(web, {"func": "tasks.noop", "args": [n], "dedup": dedup}) for n in (1, 2))
        assert second.status == 201 and second.json == {**first.json, "replaced": True}
        assert fetch(connection, second).args == (2,)
    assert web.log.count("Job enqueued") == 2 and web.log.count("Job replaced") == 2


# ---- what it refuses ------------------------------------------------------------------------------------

BAD = [
    ({}, "func"), ({"func": ""}, "func"), ({"func": 1}, "func"), ({"func": None}, "func"), ({"args": {}}, "args"),
    ({"args": "x"}, "args"),
    ({"kwargs": []}, "kwargs"), ({"queue": ""}, "queue"), ({"queue": "a,b"}, "queue"), ({"queue": 5}, "queue"),
    ({"priority": "urgent"}, "priority"), ({"priority": 1}, "priority"), ({"priority": "high", "queue": "x"}, "queue"),
    ({"priority": "high", "ttl": 5}, "priority"), ({"priority": "low", "dedup": {"mode": "debounce", "period": 5}}, "priority"),
    ({"priority": "low", "retry": 101}, "retry"), ({"serializer": "yaml"}, "serializer"), ({"timeout": 0}, "timeout"),
    ({"timeout": 1.5}, "timeout"), ({"timeout": "soon"}, "timeout"), ({"timeout": -2}, "timeout"),
    ({"timeout": 10**12}, "timeout"),
    ({"timeout": [1]}, "timeout"), ({"timeout": True}, "timeout"), ({"retry": -1}, "retry"), ({"retry": "x"}, "retry"),
    ({"retry": 10**7}, "retry"), ({"retry": {}}, "retry.max"), ({"retry": {"max": 1, "intervals": [-5]}}, "retry"),
    ({"retry": {"max": 1, "intervals": ["x"]}}, "retry.intervals"), ({"retry": {"max": 1, "at_front": 1}}, "retry.at_front"),
    ({"retry": {"max": 1, "often": 1}}, "retry.often"), ({"result_ttl": -2}, "result_ttl"), ({"failure_ttl": -2}, "failure_ttl"),
    ({"ttl": 0}, "ttl"), ({"at": "tomorrow"}, "at"), ({"at": True}, "at"), ({"at": 1e300}, "at"),
    ({"at": "2026-13-01T00:00:00Z"}, "at"),
    ({"in": -1}, "in"), ({"in": "x"}, "in"), ({"at": 2000000000, "in": 5}, "at"), ({"meta": []}, "meta"), ({"meta": "x"}, "meta"),
    ({"depends_on": 5}, "depends_on"), ({"depends_on": [5]}, "depends_on"), ({"depends_on": "a b"}, "depends_on"),
    ({"depends_on": {}}, "depends_on.job_ids"), ({"depends_on": {"job_ids": "a", "x": 1}}, "depends_on.x"),
    ({"depends_on": "a", "in": 5}, "depends_on"), ({"depends_on": "a", "job_id": "a"}, "depends_on"),
    ({"at_front": "yes"}, "at_front"),
    ({"unique": True}, "unique"), ({"unique": 1}, "unique"), ({"description": 1}, "description"), ({"job_id": "a b"}, "job_id"),
    ({"job_id": "x" * 513}, "job_id"), ({"group": 1}, "group"), ({"dedup": "unique"}, "dedup"), ({"dedup": {}}, "dedup.mode"),
    ({"dedup": {"mode": "often"}}, "dedup.mode"), ({"dedup": {"mode": "unique", "key": ""}}, "dedup.key"),
    ({"dedup": {"mode": "unique", "key": "a\nb"}}, "dedup.key"), ({"dedup": {"mode": "unique", "key": 1}}, "dedup.key"),
    ({"dedup": {"mode": "throttle"}}, "dedup.period"), ({"dedup": {"mode": "throttle", "period": 0}}, "dedup.period"),
    ({"dedup": {"mode": "replace", "period": 5}}, "dedup.period"),
    ({"dedup": {"mode": "debounce", "period": 5}, "in": 5}, "dedup"),
    ({"dedup": {"mode": "debounce", "period": 5, "max_delay": 4}}, "dedup.max_delay"),
    ({"dedup": {"mode": "unique", "ttl": 5}}, "dedup.ttl"),
    ({"function": "f"}, "function"), ({"on_success": "f"}, "on_success")]


@pytest.fixture(scope="module")
def shared_web():
    """One server for all that is refused: nothing of it may leave anything."""
    folder = tempfile.mkdtemp(prefix="rqxx-test-")
    system = System(folder)
    server = system.redis()
    web = system.serve(*QUIET, url=server.url)
    web.connection = server.client
    yield web
    system.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("body", "field"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_field_is_refused_by_name_and_changes_nothing(shared_web, body, field):
    if "func" not in body and body:
        body = {"func": "f", **body}
    detail = problem(post(shared_web, body, key="the same for all"), 422)
    assert detail.startswith(field + ":"), detail
    assert shared_web.connection.keys("*") == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"5", b'"x"', b'{"func": "f"} x', b'{"func": "\xff"}', b"[" * 1000])
def test_a_body_that_is_no_job_is_refused(shared_web, body):
    problem(post(shared_web, body), 422)
    assert shared_web.connection.keys("*") == []


def test_a_body_that_is_too_large_is_refused(shared_web):
    assert post(shared_web, {"func": "f", "args": ["x" * 2_000_000]}).status == 413
    assert shared_web.connection.keys("*") == []


@pytest.mark.parametrize("key", ["", '""', "x" * 256, '"open', '"a" b', "é", "a\tb"])
def test_a_bad_idempotency_key_is_refused(shared_web, key):
    assert "Idempotency-Key" in problem(post(shared_web, {"func": "f"}, key=key), 422)
    assert shared_web.connection.keys("*") == []


def test_who_may_not_enqueue_does_not(system, server, connection):
    web = system.serve(*QUIET, url=server.url)
    assert http("PUT", web.url + "/api/v1/jobs").status == 405
    problem(post(web, {"func": "f"}, Origin="http://elsewhere.example"), 403)
    token = system.folder / "token"
    token.write_text("secret\n")
    guarded = system.serve(*QUIET, "--token-file", token, url=server.url, data_dir=system.folder / "guarded")
    problem(post(guarded, {"func": "f"}), 401)
    assert connection.keys("*") == []
    assert post(guarded, {"func": "f"}, Authorization="Bearer secret").status == 201


def test_what_may_be_enqueued_over_http_can_be_limited(system, server, connection):
    web = system.serve(*QUIET, "--allow-func", "app.*", "--allow-func", "tasks.add", url=server.url)
    for func in ("os.system", "tasks.add2", "xapp.f", ""):
        assert post(web, {"func": func}).status == (403 if func else 422)
    assert problem(post(web, {"func": "os.system"}), 403).startswith("func:") and connection.keys("*") == []
    for line in ({"func": "os.system"}, {"func": "app.f", "on_success": "os.system"}, {"func": "app.f", "on_failure": "os.system"},
                 {"func": "app.f", "on_stopped": "os.system"}):
        answer = http("POST", web.url + "/api/v1/batches", json.dumps(line).encode(), {"Content-Type": "application/x-ndjson"})
        assert answer.status in (403, 422) and f"{list(line)[-1]}: \"os.system\" may not" in json.dumps(answer.json).replace("\\\"", "\""), answer.json
    assert connection.keys("rq:*") == []
    assert post(web, {"func": "app.f"}).status == post(web, {"func": "tasks.add"}).status == 201
    none = system.serve(*QUIET, "--no-enqueue", url=server.url, data_dir=system.folder / "none")
    assert post(none, {"func": "app.f"}).status == 405


def test_the_api_document_tells_of_it(web):
    operation = http("GET", web.url + "/api/v1/openapi.json").json["paths"]["/api/v1/jobs"]["post"]
    assert set(operation["responses"]) >= {"201", "409", "422", "503"}
    told = [(param["name"], param["in"], param["required"]) for param in operation["parameters"]]
    assert told == [("Idempotency-Key", "header", False)]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) >= {field for _, field in BAD if "." not in field} - {"function", "on_success"}


# ---- requests that are repeated -------------------------------------------------------------------------


def test_the_same_key_and_body_are_answered_the_same_without_a_second_job(web, connection):
    body = {"func": "f", "args": [1], "in": 60}
    first = post(web, body, key='"8e03978e-40d5-43dd-bc93-6894a57f9324"')
    again = post(web, body, key="8e03978e-40d5-43dd-bc93-6894a57f9324")
    assert first.status == again.status == 201 and first.json == again.json
    assert first.headers["Location"] == again.headers["Location"]
    assert first.headers["Idempotent-Replayed"] is None and again.headers["Idempotent-Replayed"] == "true"
    assert connection.zcard("rq:scheduled:default") == 1 and web.log.count("Job enqueued") == 1
    other = post(web, {**body, "args": [2]}, key="8e03978e-40d5-43dd-bc93-6894a57f9324")
    assert "idempotency_key" in problem(other, 422) and connection.zcard("rq:scheduled:default") == 1
    assert post(web, body, key='"with \\"quotes\\" and \\\\"').json != first.json
    assert post(web, body).json["job_id"] != post(web, body).json["job_id"], "without a key nothing is remembered"


def test_a_refused_request_is_answered_the_same(web, connection):
    body = {"func": "f", "dedup": {"mode": "unique"}}
    in_the_way = post(web, body).json["job_id"]
    first = post(web, body, key="k")
    connection.delete(f"rq:job:{in_the_way}")
    again = post(web, body, key="k")
    assert first.status == again.status == 409 and first.json["job_id"] == again.json["job_id"] == in_the_way
    assert post(web, body).status == 201


def test_requests_that_come_at_once_enqueue_one_job(system, server, connection):
    servers = [system.serve(*QUIET, url=server.url, data_dir=system.folder / f"data{n}") for n in range(2)]
    gate = threading.Barrier(16)

    def send(number):
        gate.wait()
        return post(servers[number % 2], {"func": "f", "args": [1]}, key="at once")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(16)))
    assert {answer.status for answer in answers} == {201} and len({answer.body for answer in answers}) == 1
    assert sum(answer.headers["Idempotent-Replayed"] is None for answer in answers) == 1
    assert queued(connection) == [answers[0].json["job_id"]]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_request_may_be_repeated_after_the_server_was_killed_around_the_script(system, server, connection, after):
    proxy = Proxy(system.folder, server.socket)
    web = system.serve(*QUIET, url=proxy.url)
    proxy.trap("enqueue_once", lambda: (web.process.kill(), web.process.wait(), "cut")[2], after=after)
    with pytest.raises(OSError):
        post(web, {"func": "f", "args": [1]}, key="k")
    proxy.end()
    there = queued(connection)
    assert len(there) == (1 if after else 0)
    answer = post(system.serve(*QUIET, url=server.url, data_dir=system.folder / "next"), {"func": "f", "args": [1]}, key="k")
    assert answer.status == 201 and answer.json["status"] == "queued"
    assert queued(connection) == [answer.json["job_id"]] and there in ([], queued(connection))
    check(connection)


def test_a_request_whose_answer_redis_did_not_give_may_be_repeated(system, server, connection):
    proxy = Proxy(system.folder, server.socket)
    web = system.serve(*QUIET, url=proxy.url)
    proxy.trap("enqueue_once", "cut", after=True)
    lost = post(web, {"func": "f"}, key="k")
    problem(lost, 503)
    assert lost.headers["Retry-After"]
    answer = wait_for(lambda: (lambda a: a if a.status == 201 else None)(post(web, {"func": "f"}, key="k")))
    assert answer.headers["Idempotent-Replayed"] == "true" and queued(connection) == [answer.json["job_id"]]
    proxy.end()


def test_without_redis_the_answer_is_503_and_nothing_waits(system, server, web):
    server.stop(signal.SIGKILL)
    wait_for(lambda: http("GET", web.url + "/readyz").status == 503)
    problem(post(web, {"func": "f"}), 503)


# ---- the command line -----------------------------------------------------------------------------------


def enqueue(system, *args):
    return system.rqxx("enqueue", *args, "--redis-url", system.server.url)


def test_the_command_line_has_every_mode(system, connection):
    for flags in (["--throttle", "10m"], ["--unique-call"], ["--unique-call", "--dedup-key", "k"]):
        first, second = enqueue(system, "f", *flags), enqueue(system, "f", *flags)
        assert first.returncode == 0 and second.returncode == 1 and not second.stdout
        assert first.stdout.strip() in second.stderr and "nothing was enqueued" in second.stderr
        connection.flushall()
    for flags in (["--debounce", "30s", "--debounce-max", "5m"], ["--replace"]):
        first, second = (json.loads(enqueue(system, "f", "--json", "--dedup-key", "k", *flags).stdout) for _ in range(2))
        assert second == {**first, "replaced": True} and first["duplicate"] is False
        connection.flushall()
    enqueue(system, "f", "--unique-call", "--priority", "low")
    told = enqueue(system, "f", "--unique-call", "--json")
    assert told.returncode == 1 and json.loads(told.stdout)["duplicate"] and json.loads(told.stdout)["status"] == "queued"
    assert Queue("low", connection=connection).count == 1


@pytest.mark.parametrize(("flags", "named"), [
    (["--throttle", "0"], "dedup.period"), (["--throttle", "soon"], "--throttle"), (["--debounce", "x"], "--debounce"),
    (["--debounce", "5s", "--debounce-max", "4s"], "dedup.max_delay"), (["--debounce-max", "5s"], "--debounce-max"),
    (["--throttle", "5s", "--replace"], "--throttle"), (["--replace", "--unique-call"], "--replace"),
    (["--dedup-key", "k"], "--dedup-key"),
    (["--debounce", "5s", "--in", "5s"], "dedup"), (["--replace", "--dedup-key", "x" * 513], "dedup.key"),
    (["--debounce", "5s", "--depends-on", "a"], "depends_on"), (["--debounce", "5s", "--priority", "low"], "--priority"),
    (["--at", "2026-01-01T00:00:00+aa:00"], "--at")])
def test_bad_flags_are_refused_by_name_and_change_nothing(system, connection, flags, named):
    result = enqueue(system, "f", *flags)
    assert result.returncode == 2 and named in result.stderr and result.stderr.count("\n") == 1
    assert connection.keys("rq*") == []
