"""Functions that a server runs: what it is sent, what its answers become, and what happens when it misbehaves."""

import base64
import datetime
import decimal
import hashlib
import hmac
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import uuid

import pytest
import python_jobs
from conftest import BUILD, needs_rq2, wait_for
from rq import Queue, Retry
from rq.command import send_kill_horse_command, send_stop_job_command
from rq.job import Callback, Job
from rq.serializers import JSONSerializer

pytestmark = needs_rq2


def json_answer(value, status=200, **headers):
    return status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


class Service:
    """An HTTP server with kept connections. `behave(request)` gives status, headers and body, or None for no answer at all."""

    def __init__(self, behave=lambda request: json_answer("done"), tls=None, host="127.0.0.1"):
        self.requests = []
        self.connections = 0
        self.open = set()
        self.behave = behave
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                service.connections += 1
                service.open.add(self.connection)

            def finish(self):
                service.open.discard(self.connection)
                try:
                    super().finish()
                except OSError:
                    pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "raw": body,
                           "body": json.loads(body), "connection": self.connection}
                service.requests.append(request)
                answer = service.behave(request)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, body = answer
                self.send_response(status)
                headers = {"Content-Length": str(len(body)), **headers}
                for name, value in headers.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 200

            def handle_error(self, *args):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def drop_connections(self):
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.stop()


def worker(system, *args, env=None):
    return system.run(BUILD / "rqxx", "worker", "--redis-url", system.server.url, "--data-dir", system.folder / "data", *args,
                      env={**os.environ, **(env or {})})


def work_off(system, *args, env=None):
    done = worker(system, "--burst", "default", *args, env=env)
    assert done.wait(60) == 0, done.log
    return done


def queue(connection, **options):
    return Queue("default", connection=connection, **options)


def enqueue(connection, function="far.run", *args, **options):
    return queue(connection).enqueue(function, args=args, **options)


def status(job):
    value = job.connection.hget(job.key, "status")
    return value and value.decode()


def error_of(job):
    return Job.fetch(job.id, connection=job.connection).latest_result().exc_string


def one_error(system, connection, service, answer, **options):
    """What a job's error is when the service answers so."""
    service.behave = lambda request: answer
    job = enqueue(connection, "far.run", **options)
    work_off(system, "--http", f"far.*={service.url}/run")
    assert status(job) == "failed"
    return error_of(job)


# ---- what is sent, and what comes back ----------------------------------------------------------------------------------------------


def test_a_request_says_all_of_the_job(system, connection, service):
    service.behave = lambda request: json_answer({"area": [6, None, 1.5], "ü": True})
    job = enqueue(connection, "far.run", 2, "drei", job_timeout=77, meta={"user": "ann"}, kwargs={"deep": {"list": [1, 2]}})
    work_off(system, "--http", f"far.*={service.url}/run?mode=fast")
    [request] = service.requests
    body, headers = request["body"], request["headers"]
    result = job.latest_result()
    assert request["path"] == "/run?mode=fast"
    assert body == {"job_id": job.id, "execution_id": body["execution_id"], "function": "far.run", "args": [2, "drei"],
                    "kwargs": {"deep": {"list": [1, 2]}}, "meta": {"user": "ann"}, "queue": "default", "attempt": 1, "timeout": 77,
                    "enqueued_at": body["enqueued_at"]}
    assert datetime.datetime.fromisoformat(body["enqueued_at"].replace("Z", "+00:00")) == Job.fetch(job.id, connection=connection).enqueued_at
    assert headers["content-type"] == "application/json" and headers["user-agent"].startswith("rqxx/")
    assert headers["rq-job-id"] == job.id and headers["idempotency-key"] == body["execution_id"]
    assert headers["host"] == f"127.0.0.1:{service.port}"
    assert "authorization" not in headers and "webhook-signature" not in headers and "connection" not in headers
    assert result.return_value == {"area": [6, None, 1.5], "ü": True} and result.type == result.Type.SUCCESSFUL
    assert status(job) == "finished"


def test_values_that_json_lacks_are_labelled(system, connection, service):
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5)
    arguments = (b"\x00\xff", 2**70, float("nan"), (1, 2), {3}, {1: "one"}, moment, decimal.Decimal("1.10"), uuid.UUID(int=5),
                 python_jobs.Account(7), "\ud800")
    enqueue(connection, "far.run", *arguments, kwargs={"none": None})
    work_off(system, "--http", f"far.*={service.url}/")
    body = service.requests[0]["body"]
    assert body["kwargs"] == {"none": None} and body["meta"] == {}
    account = body["args"].pop(9)
    assert account["$opaque"] == "python_jobs.Account" and {"balance": 7} in account["parts"]
    assert body["args"] == [{"$bytes": "AP8="}, {"$int": str(2**70)}, {"$float": "nan"}, [1, 2], [3], {"$dict": [[1, "one"]]},
                            {"$datetime": moment.isoformat()}, {"$decimal": "1.10"}, {"$uuid": str(uuid.UUID(int=5))}, "\ufffd"]


ANSWERS = {
    "json": ((200, {"Content-Type": "application/json; charset=utf-8"}, b' {"a": [1, 2.5, "x"]} '), {"a": [1, 2.5, "x"]}),
    "json_of_its_own_kind": ((201, {"Content-Type": "Application/Problem+JSON"}, b"[1]"), [1]),
    "json_null": ((200, {"Content-Type": "application/json"}, b"null"), None),
    "large_number": ((200, {"Content-Type": "application/json"}, str(2**80).encode()), 2**80),
    "nothing": ((204, {"Content-Length": None}, b""), None),
    "an_empty_body": ((200, {"Content-Type": "application/json"}, b""), None),
    "text": ((200, {"Content-Type": "text/plain"}, "1 → 2\n".encode()), "1 → 2\n"),
    "no_type": ((202, {}, b"as it is"), "as it is"),
    "bytes": ((200, {"Content-Type": "image/png"}, b"\x89PNG"), b"\x89PNG"),
    "chunks": ((200, {"Content-Type": "application/json", "Content-Length": None, "Transfer-Encoding": "chunked"},
                b"2\r\n[1\r\n3\r\n, 2\r\n1\r\n]\r\n0\r\n\r\n"), [1, 2]),
    "until_the_end": ((200, {"Content-Type": "text/plain", "Content-Length": None, "Connection": "close"}, b"until the end"), "until the end"),
}


def test_an_answer_becomes_the_result(system, connection, service):
    service.behave = lambda request: ANSWERS[request["body"]["args"][0]][0]
    made = {name: enqueue(connection, "far.run", name) for name in ANSWERS}
    as_json = Queue("default", connection=connection, serializer=JSONSerializer).enqueue("far.run", "json")
    work_off(system, "--http", f"far.run={service.url}/")
    for name, job in made.items():
        assert status(job) == "finished", name
        value = job.return_value()
        assert value == ANSWERS[name][1] and type(value) is type(ANSWERS[name][1]), name
    stored = connection.xrevrange(f"rq:results:{as_json.id}", count=1)[0][1][b"return_value"]
    assert json.loads(base64.b64decode(stored)) == ANSWERS["json"][1]


def test_the_first_function_that_fits_counts_and_others_go_elsewhere(system, connection, service):
    made = {name: enqueue(connection, name) for name in ("far.run", "far.other", "fargo", "eval_worker.evaluate", "python_jobs.plain")}
    method = queue(connection).enqueue(python_jobs.Account(3).grown)
    work_off(system, "--http", f"far.run={service.url}/first", "--http", f"far.*={service.url}/second", "--http",
             f"eval_worker.*={service.url}/third", "--http", f"grown={service.url}/never")
    assert sorted((r["path"], r["body"]["function"]) for r in service.requests) == [
        ("/first", "far.run"), ("/second", "far.other"), ("/third", "eval_worker.evaluate")]
    for name in ("fargo", "python_jobs.plain"):
        assert error_of(made[name]).rstrip().endswith(f"rqxx.UnknownFunction: no native handler is registered for {name}")
    assert status(method) == "failed"


def test_python_runs_what_does_not_go_to_a_server(system, connection, service):
    import sys

    far = enqueue(connection, "far.run")
    near = queue(connection).enqueue(python_jobs.keywords, 1)
    opaque = queue(connection).enqueue(python_jobs.length, [[0]] * 600_000 + [[1] for _ in range(600_000)])
    work_off(system, "--http", f"far.*={service.url}/", "--python", sys.executable, "--path", os.path.dirname(python_jobs.__file__))
    assert far.return_value() == "done" and status(near) == "finished" and status(opaque) == "finished"
    assert len(service.requests) == 1


def test_a_payload_that_cannot_be_read_fails_before_any_request(system, connection, service):
    job = enqueue(connection, "far.run")
    connection.hset(job.key, "data", b"\x80\x05 no pickle")
    work_off(system, "--http", f"*={service.url}/")
    assert status(job) == "failed" and "rqxx.DeserializationError: data" in error_of(job) and service.requests == []


# ---- failures -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 404, 500, 502])
def test_an_error_is_told_with_the_beginning_of_the_body(system, connection, service, code):
    text = one_error(system, connection, service, (code, {"Content-Type": "text/html"}, "\n <b>ü\x00\x1b[31m\u202e</b>\r\n\tx".encode() + b"y" * 900))
    assert text == f"rqxx.HttpError: POST {service.url}/run answered {code}: <b>ü [31m </b> x{'y' * 184}\n"


def test_a_failure_uses_a_retry(system, connection, service):
    service.behave = lambda request: (500, {}, b"no") if len(service.requests) < 3 else json_answer(request["body"]["attempt"])
    job = enqueue(connection, "far.run", retry=Retry(max=2))
    done = work_off(system, "--http", f"far.*={service.url}/run")
    assert job.return_value() == 3 and len({r["body"]["execution_id"] for r in service.requests}) == 3
    assert "Job retry: id=" + job.id in done.log and "answered 500: no" in done.log


def test_json_that_is_none(system, connection, service):
    text = one_error(system, connection, service, (200, {"Content-Type": "application/json"}, b"{'a': 1}"))
    assert text.startswith(f"rqxx.HttpError: POST {service.url}/run answered 200 with what is not JSON (") and text.endswith(": {'a': 1}\n")


@pytest.mark.parametrize("location, shown", [
    ("https://ann:secret@elsewhere.example/x?token=secret", "https://elsewhere.example/x"), ("/there?token=secret", "/there"),
    ("//ann:secret@elsewhere.example/x", "http://elsewhere.example/x"), ("ann:secret@x", "another place")])
def test_redirects_are_not_followed(system, connection, service, location, shown):
    text = one_error(system, connection, service, (302, {"Location": location}, b""))
    assert text == f"rqxx.HttpError: POST {service.url}/run answered 302: a redirect to {shown}, which is not followed\n"
    assert len(service.requests) == 1


def test_a_refused_connection_and_an_unknown_name(system, connection, service):
    service.stop()
    refused = enqueue(connection, "far.run")
    unknown = enqueue(connection, "near.run")
    work_off(system, "--http", f"far.*={service.url}/run", "--http", "near.*=http://nowhere.invalid/run")
    assert error_of(refused) == f"rqxx.HttpError: POST {service.url}/run: connecting: Connection refused\n"
    assert error_of(unknown).startswith("rqxx.HttpError: POST http://nowhere.invalid/run: resolving the name: ")


def test_who_does_not_speak_http(system, connection):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def talk():
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                accepted.recv(65536)
                accepted.sendall(b"220 mail.example ESMTP\r\n")
                accepted.close()

        threading.Thread(target=talk, daemon=True).start()
        job = enqueue(connection, "far.run")
        work_off(system, "--http", f"far.*=http://127.0.0.1:{listener.getsockname()[1]}/")
    assert error_of(job).startswith("rqxx.HttpError: POST http://127.0.0.1") and ": reading: " in error_of(job)


def test_bodies_that_are_too_large_or_not_whole(system, connection, service):
    def behave(request):
        name = request["body"]["args"][0]
        if name == "announced":
            return 200, {"Content-Length": str(20 << 20)}, b"x"
        if name == "chunked":
            piece = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
            return 200, {"Content-Length": None, "Transfer-Encoding": "chunked"}, piece * 17 + b"0\r\n\r\n"
        if name == "cut":
            return 200, {"Content-Length": "100", "Connection": "close"}, b"half"
        if name == "error":
            return 500, {"Content-Length": str(20 << 20)}, b"x"
        return 200, {"Content-Type": "text/plain"}, b"x" * (16 << 20)

    service.behave = behave
    made = {name: enqueue(connection, "far.run", name) for name in ("announced", "chunked", "cut", "error", "fits")}
    work_off(system, "--http", f"far.*={service.url}/run")
    begin = f"rqxx.HttpError: POST {service.url}/run answered 200, and the answer is not whole: "
    for name in ("announced", "chunked"):
        assert error_of(made[name]) == f"{begin}it is larger than 16777216 bytes\n"
    assert error_of(made["cut"]).startswith(begin) and error_of(made["error"]).endswith("answered 500\n")
    assert len(made["fits"].return_value()) == 16 << 20


# ---- later ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_puts_a_job_off_without_using_an_attempt(system, connection, service, code):
    service.behave = lambda request: (code, {"Retry-After": "2"}, b"later") if len(service.requests) == 1 else json_answer("then")
    job = enqueue(connection, "far.run", retry=Retry(max=1))
    running = worker(system, "--with-scheduler", "default", "--http", f"far.*={service.url}/run")
    wait_for(lambda: status(job) == "scheduled", what="the wait")
    due = connection.zscore("rq:scheduled:default", job.id) - time.time()
    assert 0 < due < 2.1 and connection.hget(job.key, "retries_left") == b"1"
    wait_for(lambda: status(job) == "finished", what="the second run")
    assert job.return_value() == "then" and [r["body"]["attempt"] for r in service.requests] == [1, 1]
    assert f"Job postponed: id={job.id}, next_in=2s, reason=POST {service.url}/run answered {code}" in running.log
    assert connection.hget(job.key, "retries_left") == b"1" and "Job retry" not in running.log


WAITS = {
    "0": (0.5, 1), "00007": (6, 7), "999999": (3500, 3600), "9" * 40: (3500, 3600),
    "date": (57, 60), "rfc850": (57, 60), "past": (0.5, 1),
}


def test_how_long_a_job_is_put_off(system, connection, service):
    def header(name):
        moment = time.gmtime(time.time() + (-100 if name == "past" else 60))
        if name in ("date", "past"):
            return time.strftime("%a, %d %b %Y %H:%M:%S GMT", moment)
        return time.strftime("%A, %d-%b-%y %H:%M:%S GMT", moment) if name == "rfc850" else name

    service.behave = lambda request: (429, {"Retry-After": header(request["body"]["args"][0])}, b"")
    made = {name: enqueue(connection, "far.run", name) for name in WAITS}
    ended = worker(system, "--burst", "default", "--http", f"far.*={service.url}/run")
    assert ended.wait(30) == 0, ended.log
    for name, job in made.items():
        low, high = WAITS[name]
        assert status(job) == "scheduled", name
        due = connection.zscore("rq:scheduled:default", job.id) - time.time()
        assert low - 5 < due <= high, (name, due)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"Retry-After": "-5"}, {"Retry-After": ""}])
def test_without_a_time_it_is_a_failure(system, connection, service, headers):
    assert one_error(system, connection, service, (429, headers, b"slow down")).endswith("answered 429: slow down\n")


# ---- time limit, stop, cancel ---------------------------------------------------------------------------------------------------------


def hold(release):
    def behave(request):
        release.wait(30)
        return None if request["path"] == "/silent" else json_answer("late")
    return behave


@pytest.fixture
def held(service):
    release = threading.Event()
    service.behave = hold(release)
    yield service
    release.set()


def is_closed(connection):
    """Whether the other side has closed."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def wait_until_it_runs(connection, service):
    wait_for(lambda: service.requests, what="the request")
    wait_for(lambda: connection.pubsub_channels("rq:pubsub:*"), what="a worker that listens")


def test_a_silent_server_meets_the_time_limit_and_holds_up_nobody(system, connection, held):
    fast = Service()
    slow = [enqueue(connection, "far.run", job_timeout=2) for _ in range(7)]
    quick = [enqueue(connection, "fast.run") for _ in range(50)]
    running = worker(system, "--concurrency", "8", "default", "--http", f"far.*={held.url}/silent", "--http", f"fast.*={fast.url}/")
    wait_for(lambda: all(status(job) == "finished" for job in quick), timeout=1.9, what="the fast ones")
    wait_for(lambda: all(status(job) == "failed" for job in slow), what="the time limit")
    fast.stop()
    for job in slow:
        result = connection.xrevrange(f"rq:results:{job.id}", count=1)[0][1]
        assert error_of(job) == "rq.timeouts.JobTimeoutException: Task exceeded maximum timeout value (2 seconds)\n"
        assert result[b"cause"] == b"time limit (soft)"
        assert job.latest_result().created_at - Job.fetch(job.id, connection=connection).started_at < datetime.timedelta(seconds=4)
    assert "ignores" not in running.log


def test_half_an_answer_meets_the_time_limit_as_well(system, connection):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def talk():
            accepted, _ = listener.accept()
            kept.append(accepted)
            accepted.recv(65536)
            accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

        threading.Thread(target=talk, daemon=True).start()
        job = enqueue(connection, "far.run", job_timeout=1)
        work_off(system, "--http", f"far.*=http://127.0.0.1:{listener.getsockname()[1]}/")
    assert "JobTimeoutException" in error_of(job)


def test_a_stopped_job_ends_at_once(system, connection, held):
    job = enqueue(connection, "far.run")
    worker(system, "default", "--http", f"far.*={held.url}/run")
    wait_until_it_runs(connection, held)
    began = time.monotonic()
    send_stop_job_command(connection, job.id)
    wait_for(lambda: status(job) == "stopped", what="the stop")
    assert time.monotonic() - began < 1.5
    assert error_of(job) == "Job stopped by user, work-horse terminated."
    wait_for(lambda: is_closed(held.requests[0]["connection"]), what="the end of the request")


def test_kill_horse(system, connection, held):
    job = enqueue(connection, "far.run")
    running = worker(system, "--name", "w", "default", "--http", f"far.*={held.url}/run")
    wait_until_it_runs(connection, held)
    send_kill_horse_command(connection, "w")
    wait_for(lambda: status(job) == "failed", what="the end")
    assert "Work-horse terminated unexpectedly" in error_of(job) and running.process.poll() is None


def test_a_canceled_job_ends_its_request(system, connection, held):
    job = enqueue(connection, "far.run")
    running = worker(system, "default", "--http", f"far.*={held.url}/run")
    wait_for(lambda: held.requests, what="the request")
    assert system.rqxx("job", "cancel", job.id, "--redis-url", system.server.url).returncode == 0
    wait_for(lambda: is_closed(held.requests[0]["connection"]), what="the end of the request")
    wait_for(lambda: f"Job canceled: id={job.id}" in running.log, what="the log")
    assert status(job) == "canceled"


def test_a_shutdown_puts_back_what_takes_too_long(system, connection, held):
    job = enqueue(connection, "far.run")
    waiting = [enqueue(connection, "far.run") for _ in range(3)]
    running = worker(system, "--concurrency", "1", "--grace", "1s", "default", "--http", f"far.*={held.url}/run")
    wait_for(lambda: held.requests, what="the request")
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 1
    assert status(job) == "queued" and connection.lindex("rq:queue:default", 0).decode() == job.id
    assert all(status(one) == "queued" for one in waiting)


@pytest.mark.parametrize("kind", ["on_success", "on_failure", "on_stopped"])
def test_callbacks_are_refused_or_skipped(system, connection, service, kind):
    options = {kind: Callback("tasks.done")}
    refused = enqueue(connection, "far.run", **options)
    work_off(system, "--http", f"far.*={service.url}/")
    assert error_of(refused).startswith("rqxx.UnsupportedCallback: tasks.done would not be called") and service.requests == []
    skipped = enqueue(connection, "far.run", **options)
    done = work_off(system, "--http", f"far.*={service.url}/", "--callbacks", "skip")
    assert skipped.return_value() == "done" and f"Callback skipped: id={skipped.id}, callback=tasks.done" in done.log


# ---- connections ----------------------------------------------------------------------------------------------------------------------


def test_connections_are_used_again(system, connection, service):
    made = [enqueue(connection, "far.run") for _ in range(100)]
    work_off(system, "--concurrency", "4", "--http", f"far.*={service.url}/")
    assert all(job.return_value() == "done" for job in made)
    assert len(service.requests) == 100 and service.connections <= 4


def test_a_server_that_does_not_keep_connections(system, connection, service):
    service.behave = lambda request: json_answer("done", Connection="close")
    made = [enqueue(connection, "far.run") for _ in range(10)]
    work_off(system, "--concurrency", "2", "--http", f"far.*={service.url}/")
    assert all(job.return_value() == "done" for job in made) and service.connections == 10


def test_a_server_that_says_for_how_short_it_keeps_them(system, connection, service):
    service.behave = lambda request: json_answer("done", **{"Keep-Alive": "max=5, timeout=1"})
    made = [enqueue(connection, "far.run") for _ in range(5)]
    work_off(system, "--concurrency", "1", "--http", f"far.*={service.url}/")
    assert all(job.return_value() == "done" for job in made) and service.connections == 5


def test_kept_connections_do_not_keep_a_worker_from_ending(system, connection, service):
    job = enqueue(connection, "far.run")
    running = worker(system, "default", "--http", f"far.*={service.url}/")
    wait_for(lambda: status(job) == "finished", what="the job")
    assert len(service.open) == 1
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 0 and time.monotonic() - began < 2


def test_idle_connections_that_the_server_closes(system, connection, service):
    running = worker(system, "--concurrency", "4", "default", "--http", f"far.*={service.url}/")
    for _ in range(3):
        made = [enqueue(connection, "far.run") for _ in range(8)]
        wait_for(lambda: all(status(job) == "finished" for job in made), what="the jobs")
        service.drop_connections()
    assert "failed" not in running.log.replace("failed=", "")


def test_a_connection_closed_just_then_is_replaced_once(system, connection, service):
    """The race of kept connections: the server closes while the request is on its way."""
    def behave(request):
        # The second request on each connection gets no answer.
        return None if service.requests.count(request) == 0 or seen(request) > 1 else json_answer("done")

    def seen(request):
        return sum(1 for one in service.requests if one["connection"] is request["connection"])

    service.behave = behave
    made = [enqueue(connection, "far.run") for _ in range(4)]
    work_off(system, "--concurrency", "1", "--http", f"far.*={service.url}/")
    assert all(job.return_value() == "done" for job in made)
    keys = [request["headers"]["idempotency-key"] for request in service.requests]
    assert len(set(keys)) == 4 and len(keys) == 7, "each but the first was sent twice, with the same key"


def test_a_new_connection_that_is_closed_without_an_answer_is_a_failure(system, connection, service):
    text = one_error(system, connection, service, None)
    assert text == f"rqxx.HttpError: POST {service.url}/run: reading: end of stream\n"
    assert len(service.requests) == 1


def test_a_request_is_not_repeated_when_a_part_of_the_answer_came(system, connection):
    """Also on a connection that was used before."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def talk():
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                taken.append(accepted.recv(65536))
                accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                taken.append(accepted.recv(65536))
                accepted.sendall(b"HTTP/1.1 2")
                accepted.close()

        threading.Thread(target=talk, daemon=True).start()
        first = enqueue(connection, "far.run")
        second = enqueue(connection, "far.run")
        work_off(system, "--concurrency", "1", "--http", f"far.*=http://127.0.0.1:{listener.getsockname()[1]}/")
    assert first.return_value() == "ok" and status(second) == "failed" and len(taken) == 2


# ---- TLS ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority, and certificates of localhost: good, expired, and of another name."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test ca", "-keyout", "ca.key", "-out", "ca.crt")
    (folder / "ca.cnf").write_text("[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n"
                                   "policy=p\nunique_subject=no\n[p]\ncommonName=supplied\n")
    (folder / "index.txt").write_text("")
    (folder / "serial").write_text("01\n")
    for name, host, dates in (("good", "localhost", ()), ("other", "other.example", ()),
                              ("expired", "localhost", ("-startdate", "20200101000000Z", "-enddate", "20210101000000Z"))):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text(f"subjectAltName=DNS:{host}\n")
        openssl("ca", "-batch", "-config", "ca.cnf", "-cert", "ca.crt", "-keyfile", "ca.key", "-in", f"{name}.csr", "-out", f"{name}.crt",
                "-extfile", "names", "-notext", *(dates or ("-days", "2")))
    return folder


@pytest.mark.parametrize("which, trusted, expected", [
    ("good", True, None), ("good", False, "self-signed certificate in certificate chain|unable to get local issuer certificate"),
    ("expired", True, "certificate has expired"), ("other", True, "hostname mismatch")])
def test_certificates_are_verified(system, connection, authority, which, trusted, expected):
    service = Service(tls=(authority / f"{which}.crt", authority / f"{which}.key"), host="localhost")
    made = [enqueue(connection, "far.run") for _ in range(5)]
    env = {"SSL_CERT_FILE": str(authority / "ca.crt")} if trusted else {}
    work_off(system, "--concurrency", "1", "--http", f"far.*={service.url}/run", env=env)
    service.stop()
    if expected is None:
        assert all(job.return_value() == "done" for job in made) and service.connections == 1
        return
    assert service.requests == []
    for job in made:
        text = error_of(job)
        assert text.startswith(f"rqxx.HttpError: POST {service.url}/run: TLS: ") and any(one in text for one in expected.split("|")), text


def test_a_kept_connection_with_tls_that_the_server_closes(system, connection, authority):
    service = Service(tls=(authority / "good.crt", authority / "good.key"), host="localhost")
    worker(system, "--concurrency", "1", "default", "--http", f"far.*={service.url}/", env={"SSL_CERT_FILE": str(authority / "ca.crt")})
    for count in (1, 2):
        made = [enqueue(connection, "far.run") for _ in range(3)]
        wait_for(lambda: all(status(job) == "finished" for job in made), what="the jobs")
        assert service.connections == count
        service.drop_connections()
    # Without the peek that finds such a connection: closed as the request comes.
    service.behave = lambda request: None if len(service.requests) == 8 else json_answer("done")
    made = [enqueue(connection, "far.run") for _ in range(3)]
    wait_for(lambda: all(status(job) in ("finished", "failed") for job in made), what="the jobs")
    assert [status(job) for job in made] == ["finished"] * 3 and len(service.requests) == 10
    service.stop()


# ---- secrets --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_password_is_sent_and_never_shown(system, connection, service, level):
    where = f"far.*=http://ann:p%40ssw0rd@127.0.0.1:{service.port}/run?token=t0ken"
    good = enqueue(connection, "far.run")
    logs = work_off(system, "--log-level", level, "--http", where).log
    assert service.requests[0]["headers"]["authorization"] == "Basic " + base64.b64encode(b"ann:p@ssw0rd").decode()
    assert good.return_value() == "done"
    errors = []
    for answer in ((500, {}, b"no"), (302, {"Location": "/x"}, b""), (200, {"Content-Type": "application/json"}, b"{"), None,
                   (503, {"Retry-After": "100"}, b"")):
        service.behave = lambda request, answer=answer: answer
        job = enqueue(connection, "far.run")
        ended = worker(system, "--burst", "default", "--log-level", level, "--http", where)
        ended.wait(30)
        logs += ended.log
        if answer is None or answer[0] != 503:
            errors.append(error_of(job))
    service.stop()
    refused = enqueue(connection, "far.run")
    logs += work_off(system, "--log-level", level, "--http", where).log
    errors.append(error_of(refused))
    assert all(f"POST http://127.0.0.1:{service.port}/run" in text for text in errors)
    for text in [logs, *errors]:
        for secret in ("p@ssw0rd", "p%40ssw0rd", "t0ken", base64.b64encode(b"ann:p@ssw0rd").decode()):
            assert secret not in text


def verified(secret, headers, body):
    text = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    expected = "v1," + base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return fresh and any(hmac.compare_digest(expected, one) for one in headers["webhook-signature"].split(" "))


@pytest.mark.parametrize("how", ["file", "environment"])
def test_signatures_can_be_verified(system, connection, service, how):
    lines = "a secret\nwhsec_" + base64.b64encode(b"\x00key").decode() + "\n"
    (system.folder / "secret").write_text(lines)
    enqueue(connection, "far.run", "ü")
    args = ["--http-secret-file", system.folder / "secret"] if how == "file" else []
    done = work_off(system, "--http", f"far.*={service.url}/", *args, env={} if how == "file" else {"RQXX_HTTP_SECRET": lines})
    [request] = service.requests
    for secret in (b"a secret", b"\x00key"):
        assert verified(secret, request["headers"], request["raw"])
    assert not verified(b"another", request["headers"], request["raw"])
    assert request["headers"]["webhook-id"] == request["body"]["execution_id"]
    assert "a secret" not in done.log and "whsec" not in done.log


@pytest.mark.parametrize("value, said", [
    ("nothing", "FUNC=URL"), ("=http://h/", "FUNC=URL"), ("http://h/?a=b", "FUNC=URL"), ("f=", "not a URL"), ("f=ftp://h/", "neither http nor https"),
    ("f=http://ann:s3cret@h:0/", "port"), ("f=http://ann:s3cret@/", "host")])
def test_what_is_no_function_with_a_url_is_refused(system, server, value, said):
    result = system.rqxx("worker", "--burst", "--redis-url", server.url, "--http", value)
    assert result.returncode == 2 and "--http" in result.stderr and said in result.stderr and "s3cret" not in result.stderr


def test_a_secret_that_is_none_is_refused(system, server):
    (system.folder / "secret").write_text("\n")
    result = system.rqxx("worker", "--burst", "--redis-url", server.url, "--http", "f=http://h/", "--http-secret-file", system.folder / "secret")
    assert result.returncode == 2 and "--http-secret-file" in result.stderr


def test_the_settings_file_takes_several(system, connection, service):
    (system.folder / "rqxx.toml").write_text(f'[worker]\nhttp = ["far.*={service.url}/a?x=1", "near.*={service.url}/b"]\n')
    enqueue(connection, "far.run")
    enqueue(connection, "near.run")
    work_off(system, "--config", system.folder / "rqxx.toml")
    assert sorted(request["path"] for request in service.requests) == ["/a?x=1", "/b"]
