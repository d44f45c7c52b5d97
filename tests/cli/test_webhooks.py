"""Webhooks: what a job's end owes the outside world arrives, whoever dies on the way."""

import base64
import hashlib
import hmac
import http.server
import json
import re
import signal
import ssl
import threading
import time

import pytest
import tasks
from conftest import http as ask
from conftest import needs_rq2, wait_for
from rq import Queue, Retry
from test_transports import certificates  # noqa: F401

webhook = pytest.importorskip("rq.webhook", reason="needs RQ with webhooks")


class Receiver:
    """An HTTP server that keeps what it is sent. `behave(request)` gives the status, or (status, headers)."""

    def __init__(self, port=0, behave=lambda request: 204, tls=None):
        self.requests = []
        self.behave = behave
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = {"method": self.command, "path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()},
                           "body": body, "count": len(self.headers.items())}
                receiver.requests.append(request)
                result = receiver.behave(request)
                status, headers = result if isinstance(result, tuple) else (result, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST = answer

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 200

            def handle_error(self, *args):
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        scheme, host = "http", "127.0.0.1"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "redis.crt", tls / "redis.key")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme, host = "https", "localhost"
        self.port = self.server.server_address[1]
        self.url = f"{scheme}://{host}:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def paths(self):
        return sorted(request["path"] for request in self.requests)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.stop()


def hook(url, status="finished", **options):
    return webhook.Webhook(url, status, **options)


def enqueue(connection, *hooks, func=tasks.noop, args=(1,), **options):
    return Queue("default", connection=connection).enqueue(func, *args, webhooks=list(hooks), **options)


def enqueue_raw(connection, job_id, webhooks):
    """A job whose field is what it should not be."""
    job = Queue("default", connection=connection).create_job(tasks.noop, args=(1,), job_id=job_id)
    job.save()
    connection.hset(f"rq:job:{job_id}", "webhooks", webhooks if isinstance(webhooks, (bytes, str)) else json.dumps(webhooks))
    connection.rpush("rq:queue:default", job_id)
    connection.sadd("rq:queues", "rq:queue:default")
    return job


def show(system, job):
    shown = system.rqxx("job", "show", job.id, "--json", "--redis-url", system.server.url)
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)[0]["webhooks"]


def pending(connection):
    return connection.zcard("rqxx:webhooks")


def make_due(connection):
    for delivery in connection.zrange("rqxx:webhooks", 0, -1):
        connection.zadd("rqxx:webhooks", {delivery: 0})


def attempts(connection, delivery):
    return int(connection.hget(f"rqxx:webhook:{delivery}", "attempts") or -1)


def total(connection, what):
    return int(connection.hget("rqxx:totals", f"webhook_{what}|") or 0)


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00")


@needs_rq2
def test_what_is_sent_is_what_rq_sends(system, connection, receiver):
    def sent_by(worker):
        receiver.requests.clear()
        done = enqueue(connection, hook(f"{receiver.url}/done", method="POST", headers={"X-Token": "é1", "content-type": "text/x"}),
                       hook(f"{receiver.url}/get?a=b|c&d=%20#part", headers={"X-Other": "2"}), hook(f"{receiver.url}/never", "failed"))
        text = enqueue(connection, hook(f"{receiver.url}/text", method="POST"), func=tasks.echo, args=("ü",))
        bad = enqueue(connection, hook(f"{receiver.url}/bad", "failed", method="POST"), func=tasks.fail, args=("boom ü",))
        asked = enqueue(connection, hook(f"{receiver.url}/asked", "failed", method="POST"), func=tasks.ask_retry, args=(1, 0))
        assert worker().wait(60) == 0
        assert pending(connection) == 0
        seen = {}
        for request in receiver.requests:
            body = request["body"].decode()
            if body:
                assert json.dumps(json.loads(body)) == body
                body = json.loads(body)
                job = {one.id: one for one in (done, text, bad, asked)}[body["job_id"]]
                job.refresh()
                assert body["enqueued_at"] == job.enqueued_at.isoformat() and body["ended_at"] == job.ended_at.isoformat()
                assert TIME.fullmatch(body["enqueued_at"]) and TIME.fullmatch(body["ended_at"])
                if "exc_info" in body:
                    assert body["exc_info"] == (job.latest_result().exc_string or "")
                    assert ("boom ü" in body["exc_info"]) == (job is bad)
                body = [(key, value if key in ("func_name", "status") else type(value)) for key, value in body.items()]
            headers = {k: request["headers"].get(k) for k in ("content-type", "x-token", "x-other", "connection", "accept-encoding", "host")}
            seen[request["path"]] = (request["method"], headers, body)
        assert len(receiver.requests) == len(seen) == 5
        return seen

    stock = sent_by(lambda: system.rq_worker("--burst", "default"))
    ours = sent_by(lambda: system.test_worker("--burst", "--webhooks", "default"))
    # Where a URL should have been escaped, it is; and the text of a header is UTF-8.
    path = "/get?a=b|c&d=%20"
    stock[path.replace("|", "%7C")] = stock.pop(path)
    assert ours["/done"][1].pop("x-token").encode("latin-1").decode() == stock["/done"][1].pop("x-token") == "é1"
    assert ours == stock


@needs_rq2
def test_attempts_that_are_retried_and_stopped_jobs_tell_nothing(system, connection, receiver):
    from rq.command import send_stop_job_command

    hooks = [hook(f"{receiver.url}/failed", "failed"), hook(f"{receiver.url}/finished")]
    enqueue(connection, *hooks, func=tasks.fail, args=("no",), retry=Retry(max=2))
    slow = enqueue(connection, *hooks, func=tasks.slow, args=(30,))
    worker = system.test_worker("--webhooks", "default")
    wait_for(lambda: receiver.requests, what="the webhook")
    wait_for(lambda: slow.get_status() == "started", what="the job")
    send_stop_job_command(connection, slow.id)
    wait_for(lambda: slow.get_status() == "stopped", what="the stop")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert receiver.paths() == ["/failed"] and pending(connection) == 0


def test_a_receiver_that_was_down_is_told_when_it_is_back(system, connection):
    first = Receiver()
    port = first.port
    first.stop()
    web = system.serve("--no-worker", url=system.server.url)
    job = enqueue(connection, hook(f"http://127.0.0.1:{port}/back", method="POST"))
    assert system.test_worker("--burst", "default").wait() == 0
    wait_for(lambda: attempts(connection, 1) == 1, what="the first attempt")
    due = connection.zscore("rqxx:webhooks", "1") / 1e6 - time.time()
    assert 5 < due < 10.5
    waiting, tried = show(system, job)
    assert waiting["outcome"] == "pending" and waiting["attempt"] == 1 and waiting["delivery"] == tried["delivery"] == "1"
    assert tried["outcome"] == "retried" and "refused" in tried["error"] and tried["code"] is None
    text = system.rqxx("job", "show", job.id, "--redis-url", system.server.url).stdout
    assert "pending" in text and "retried" in text
    assert "Webhook failed: id=" + job.id in web.log and "attempt=1/8, next_in=10" in web.log
    assert 'rqxx_webhooks_pending 1' in ask("GET", web.url + "/metrics").body.decode()

    again = Receiver(port)
    make_due(connection)
    wait_for(lambda: pending(connection) == 0, what="the delivery")
    again.stop()
    assert again.paths() == ["/back"] and again.requests[0]["headers"]["webhook-id"].startswith("msg_1_")
    delivered, _ = show(system, job)
    assert (delivered["outcome"], delivered["attempt"], delivered["code"], delivered["error"]) == ("delivered", 2, 204, None)
    assert ask("GET", f"{web.url}/api/rq/jobs/{job.id}").json["job"]["webhooks"][0] == delivered
    metrics = ask("GET", web.url + "/metrics").body.decode()
    assert 'rqxx_webhook_deliveries_total{result="delivered"} 1' in metrics
    assert 'rqxx_webhook_deliveries_total{result="retried"} 1' in metrics
    assert connection.keys("rqxx:webhook:*") == connection.keys("rqxx:webhooks_of:*") == []
    assert 0 < connection.ttl(f"rqxx:webhook_log:{job.id}") <= 500


def test_a_worker_killed_after_the_job_owes_nothing(system, connection, receiver):
    job = enqueue(connection, hook(f"{receiver.url}/owed"))
    worker = system.test_worker("default")
    wait_for(lambda: job.get_status() == "finished", what="the job")
    worker.signal(signal.SIGKILL)
    worker.wait()
    assert receiver.requests == [] and pending(connection) == 1
    system.serve("--no-worker", url=system.server.url)
    wait_for(lambda: pending(connection) == 0, what="the delivery")
    assert receiver.paths() == ["/owed"]


def test_a_deliverer_killed_on_the_way_is_replaced(system, connection, receiver):
    receiver.behave = lambda request: time.sleep(0 if len(receiver.requests) > 1 else 30) or 204
    job = enqueue(connection, hook(f"{receiver.url}/owed", timeout=20))
    worker = system.test_worker("--webhooks", "default")
    wait_for(lambda: receiver.requests, what="the first request")
    worker.signal(signal.SIGKILL)
    worker.wait()
    system.serve("--no-worker", url=system.server.url)
    lease = connection.zscore("rqxx:webhooks", "1") / 1e6 - time.time()
    assert 70 < lease < 81
    make_due(connection)
    wait_for(lambda: pending(connection) == 0, what="the delivery")
    assert len(receiver.requests) == 2
    assert len({request["headers"]["webhook-id"] for request in receiver.requests}) == 1
    assert [entry["outcome"] for entry in show(system, job)] == ["delivered"]


def test_whose_lease_was_lost_settles_nothing(system, connection, receiver):
    release = threading.Event()
    receiver.behave = lambda request: (release.wait(20), 500)[1]
    enqueue(connection, hook(f"{receiver.url}/x", timeout=30))
    worker = system.test_worker("--webhooks", "default")
    wait_for(lambda: receiver.requests, what="the request")
    connection.hset("rqxx:webhook:1", "lease", "another's")
    release.set()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert attempts(connection, 1) == 0 and pending(connection) == 1 and total(connection, "retried") == 0


def test_what_is_on_its_way_at_a_stop_is_given_back(system, connection, receiver):
    receiver.behave = lambda request: time.sleep(30) or 204
    enqueue(connection, hook(f"{receiver.url}/x", timeout=60))
    worker = system.test_worker("--webhooks", "default")
    wait_for(lambda: receiver.requests, what="the request")
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0 and time.monotonic() - began < 9
    assert connection.zscore("rqxx:webhooks", "1") / 1e6 <= time.time() and attempts(connection, 1) == 0


def test_two_deliverers_send_each_once(system, connection, receiver):
    for i in range(150):
        enqueue(connection, hook(f"{receiver.url}/{i:03}"), hook(f"{receiver.url}/{i:03}b", method="POST"))
    servers = [system.serve("--no-worker", url=system.server.url, data_dir=system.folder / name) for name in ("a", "b")]
    assert system.test_worker("--burst", "default").wait() == 0
    wait_for(lambda: pending(connection) == 0, what="the deliveries")
    assert receiver.paths() == sorted(f"/{i:03}{end}" for i in range(150) for end in ("", "b"))
    assert total(connection, "delivered") == 300
    for server in servers:
        assert "Webhook" not in server.log


def test_a_slow_receiver_times_out_and_holds_up_no_other(system, connection, receiver):
    slow = Receiver(behave=lambda request: time.sleep(20) or 204)
    late = [enqueue(connection, hook(f"{slow.url}/{i}", timeout=3)) for i in range(150)]
    assert system.test_worker("--burst", "default").wait() == 0
    for i in range(20):
        enqueue(connection, hook(f"{receiver.url}/{i}"))
    assert system.test_worker("--burst", "default").wait() == 0
    began = time.monotonic()
    system.serve("--no-worker", url=system.server.url)
    wait_for(lambda: len(receiver.requests) == 20, what="the fast receiver")
    assert total(connection, "retried") < 20, "they waited for the slow one"
    wait_for(lambda: total(connection, "retried") >= 4, what="the time limits")
    assert total(connection, "delivered") == 20
    wait_for(lambda: any(entry["error"] == "reading: no answer in time" for entry in show(system, late[0])), what="the record")
    slow.stop()


def test_the_length_of_an_answer_does_not_matter(system, connection, receiver):
    receiver.behave = lambda request: (200, {"Content-Length": "1000000"})
    enqueue(connection, hook(f"{receiver.url}/x"))
    system.test_worker("--burst", "--webhooks", "default").wait()
    assert pending(connection) == 0 and total(connection, "delivered") == 1


HOSTILE = {
    "not_json": b"{[",
    "bytes": bytes(range(256)),
    "no_list": {"url": "http://x/", "job_status": "finished"},
    "nested": "[" * 100000,
    "numbers": [1, None, "text", [[]], {"url": 5, "job_status": "finished"}],
}
REFUSED = {
    "file": ({"url": "file:///etc/passwd"}, "neither http nor https"),
    "ftp": ({"url": "ftp://127.0.0.1/x"}, "neither http nor https"),
    "no_url": ({"url": "nonsense"}, "not a URL"),
    "empty": ({"url": ""}, "not a URL"),
    "no_host": ({"url": "http:///path"}, "host"),
    "port_0": ({"url": "http://127.0.0.1:0/"}, "port"),
    "port_big": ({"url": "http://127.0.0.1:65537/"}, "port"),
    "port_huge": ({"url": "http://127.0.0.1:99999999999999999999/"}, "port"),
    "port_text": ({"url": "http://127.0.0.1:redis/"}, "port"),
    "line_break": ({"url": "{receiver}/a\r\nX-Evil: 1"}, "not a URL"),
    "space": ({"url": "{receiver}/a HTTP/1.1\r\nHost: b\r\n\r\n"}, "not a URL"),
    "host_break": ({"url": "http://127.0.0.1%0d%0aX-Evil:1/"}, "port"),
    "host_escaped": ({"url": "http://a%0d%0ab/"}, "host"),
    "long": ({"url": "{receiver}/" + "a" * 100000}, "too long"),
    "method": ({"method": "DELETE"}, "method"),
    "method_break": ({"method": "GET / HTTP/1.1\r\nX-Evil: 1\r\n"}, "method"),
    "method_null": ({"method": None}, "method"),
    "header_value": ({"headers": {"X": "1\r\nX-Evil: 1"}}, "header X"),
    "header_name": ({"headers": {"X: 1\r\nX-Evil": "1"}}, "name of a header"),
    "header_empty": ({"headers": {"": "1"}}, "name of a header"),
    "header_list": ({"headers": ["a"]}, "not an object"),
    "header_text": ({"headers": "a"}, "not an object"),
    "header_nested": ({"headers": {"a": {"b": 1}}}, "not an object"),
    "header_length": ({"headers": {"Content-Length": "1000"}}, "Content-Length"),
    "header_chunked": ({"headers": {"transfer-encoding": "chunked"}}, "transfer-encoding"),
    "headers_many": ({"headers": {f"x-{i}": "1" for i in range(500)}}, "too many"),
    "headers_large": ({"headers": {"x": "a" * 100000}}, "too large"),
    "headers_nan": ('[{"url": "{receiver}/nan", "job_status": "finished", "headers": {"a": NaN}}]', "not an object"),
}


def test_hostile_fields_are_refused_and_recorded(system, connection, receiver):
    for name, field in HOSTILE.items():
        enqueue_raw(connection, name, field)
    for name, (field, _) in REFUSED.items():
        if isinstance(field, dict):
            field = {"url": "{receiver}/x", "job_status": "finished", "method": "POST", **field}
            field["url"] = field["url"].replace("{receiver}", receiver.url)
            field = [field]
        else:
            field = field.replace("{receiver}", receiver.url)
        enqueue_raw(connection, name, field)
    enqueue_raw(connection, "many", [{"url": f"{receiver.url}/many", "job_status": "finished"}] * 50000)
    odd = [{"url": f"{receiver.url}/timeout", "job_status": "finished", "timeout": timeout} for timeout in (-1, 1e300, "x", None, [], 0.5)]
    enqueue_raw(connection, "odd", odd)
    worker = system.test_worker("--webhooks", "default")
    everything = [*HOSTILE, *REFUSED, "many", "odd"]
    wait_for(lambda: all(connection.hget(f"rq:job:{name}", "status") == b"finished" for name in everything), what="the jobs")
    wait_for(lambda: pending(connection) == 0, what="the deliveries")
    assert worker.process.poll() is None
    shown = json.loads(system.rqxx("job", "show", *everything, "--json", "--redis-url", system.server.url).stdout)
    webhooks = {job["id"]: job["webhooks"] for job in shown}
    for name in HOSTILE:
        assert webhooks[name] == [], name
    for name, (_, reason) in REFUSED.items():
        assert [(entry["outcome"], entry["code"]) for entry in webhooks[name]] == [("failed", None)], name
        assert reason in webhooks[name][0]["error"], name
    assert receiver.paths() == ["/many"] * 20 + ["/timeout"] * 6
    assert sorted(entry["outcome"] for entry in webhooks["many"]) == ["delivered"] * 20 + ["failed"]
    assert any("at most 20" in (entry["error"] or "") for entry in webhooks["many"])
    assert all("x-evil" not in request["headers"] for request in receiver.requests)


SECRETS = {"text": ("a secret", b"a secret"), "standard": ("whsec_" + base64.b64encode(b"\x00key").decode(), b"\x00key")}


def verified(secret, headers, body):
    text = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    expected = "v1," + base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return fresh and any(hmac.compare_digest(expected, one) for one in headers["webhook-signature"].split(" "))


@pytest.mark.parametrize("how", ["file", "environment"])
def test_signatures_can_be_verified(system, connection, receiver, how):
    lines = "\n".join(line for line, _ in SECRETS.values()) + "\n"
    (system.folder / "secret").write_text(lines)
    hooks = [hook(f"{receiver.url}/post", method="POST", headers={"Webhook-Signature": "v1,forged"}), hook(f"{receiver.url}/get")]
    enqueue(connection, *hooks, func=tasks.echo, args=("ü",))
    assert system.test_worker("--burst", "default").wait() == 0
    if how == "file":
        web = system.serve("--no-worker", "--webhook-secret-file", system.folder / "secret", url=system.server.url)
    else:
        import os

        web = system.serve("--no-worker", url=system.server.url, env={**os.environ, "RQXX_WEBHOOK_SECRET": lines})
    wait_for(lambda: pending(connection) == 0, what="the deliveries")
    assert receiver.paths() == ["/get", "/post"]
    for request in receiver.requests:
        for _, secret in SECRETS.values():
            assert verified(secret, request["headers"], request["body"])
        assert not verified(b"another", request["headers"], request["body"])
        assert not verified(b"a secret", request["headers"], request["body"] + b" ")
        assert "forged" not in request["headers"]["webhook-signature"]
    assert "a secret" not in web.log and "whsec" not in web.log


def test_a_secret_that_is_none_is_refused(system, server):
    for content in ("", "\n\n", "whsec_***"):
        (system.folder / "secret").write_text(content)
        result = system.rqxx("worker", "--burst", "--redis-url", server.url, "--webhook-secret-file", system.folder / "secret")
        assert result.returncode == 2 and "--webhook-secret-file" in result.stderr


def test_after_eight_attempts_it_is_given_up(system, connection, receiver):
    receiver.behave = lambda request: 500
    job = enqueue(connection, hook(f"{receiver.url}/x"))
    assert system.test_worker("--burst", "default").wait() == 0
    web = system.serve("--no-worker", url=system.server.url)
    waits = []
    for attempt in range(1, 8):
        wait_for(lambda: attempts(connection, 1) == attempt, what=f"attempt {attempt}")
        waits.append(round(connection.zscore("rqxx:webhooks", "1") / 1e6 - time.time()))
        make_due(connection)
    wait_for(lambda: pending(connection) == 0, what="the end")
    expected = [10, 30, 90, 270, 810, 2430, 3600]
    assert all(want - 5 <= wait <= want for wait, want in zip(waits, expected)), waits
    shown = show(system, job)
    assert [(entry["attempt"], entry["outcome"], entry["code"]) for entry in shown] == \
        [(8, "failed", 500)] + [(i, "retried", 500) for i in range(7, 0, -1)]
    assert len(receiver.requests) == 8 and total(connection, "failed") == 1
    wait_for(lambda: "Webhook given up" in web.log, what="the log line")
    assert "attempt=8/8, error=the receiver answered 500" in web.log


def test_receivers_may_ask_to_wait_or_to_be_left_alone(system, connection, receiver):
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 500))
    answers = {"/gone": 410, "/later": (429, {"Retry-After": "120"}), "/date": (503, {"Retry-After": date}),
               "/never": (503, {"Retry-After": "999999999"}), "/odd": (429, {"Retry-After": "soon"}), "/soon": (429, {"Retry-After": "1"}),
               "/moved": (302, {"Location": f"{receiver.url}/else"}), "/other": (500, {"Retry-After": "200"})}
    receiver.behave = lambda request: answers[request["path"]]
    jobs = {path: enqueue(connection, hook(receiver.url + path)) for path in answers}
    assert system.test_worker("--burst", "--webhooks", "default").wait() == 0
    assert receiver.paths() == sorted(answers)
    waits = {}
    for path, job in jobs.items():
        entries = show(system, job)
        if path == "/gone":
            assert [entry["outcome"] for entry in entries] == ["failed"]
        else:
            delivery = entries[0]["delivery"]
            waits[path] = connection.zscore("rqxx:webhooks", delivery) / 1e6 - time.time()
    for path, want in {"/later": 120, "/date": 500, "/never": 3600, "/odd": 10, "/soon": 10, "/moved": 10, "/other": 10}.items():
        assert want - 9 < waits[path] < want + 1, (path, waits)


def test_passwords_of_urls_are_sent_and_shown_nowhere(system, connection, receiver):
    answers = [500, 410]
    receiver.behave = lambda request: answers.pop(0)
    job = enqueue(connection, hook(receiver.url.replace("//", "//ann:p%40ss-word@") + "/x"))
    assert system.test_worker("--burst", "default").wait() == 0
    web = system.serve("--no-worker", "--log-level", "debug", url=system.server.url)
    wait_for(lambda: attempts(connection, 1) == 1, what="the first attempt")
    shown = json.dumps(show(system, job))
    make_due(connection)
    wait_for(lambda: pending(connection) == 0, what="the second")
    assert receiver.requests[0]["headers"]["authorization"] == "Basic " + base64.b64encode(b"ann:p@ss-word").decode()
    shown += json.dumps(show(system, job))
    assert "***@127.0.0.1" in shown
    wait_for(lambda: "Webhook given up" in web.log, what="the log line")
    for text in (shown, web.log, str(connection.xrange(f"rqxx:webhook_log:{job.id}"))):
        assert "ss-word" not in text


def test_tls_is_verified(system, connection, certificates):  # noqa: F811
    import os

    secure = Receiver(tls=certificates)
    job = enqueue(connection, hook(f"{secure.url}/x", method="POST"), hook(f"https://127.0.0.1:{secure.port}/address"))
    assert system.test_worker("--burst", "default").wait() == 0
    stranger = system.serve("--no-worker", url=system.server.url)
    wait_for(lambda: total(connection, "retried") == 2, what="the refusals")
    assert secure.requests == []
    assert all("certificate" in entry["error"] for entry in show(system, job) if entry["outcome"] == "retried")
    stranger.signal(signal.SIGTERM)
    stranger.wait()
    system.serve("--no-worker", url=system.server.url, env={**os.environ, "SSL_CERT_FILE": str(certificates / "ca.crt")})
    make_due(connection)
    wait_for(lambda: pending(connection) == 0, what="the deliveries")
    assert secure.paths() == ["/address", "/x"]
    secure.stop()


def test_switched_off_it_leaves_them_alone(system, connection, receiver):
    enqueue(connection, hook(f"{receiver.url}/x"))
    web = system.serve("--no-worker", "--no-webhooks", url=system.server.url)
    assert system.test_worker("--burst", "default").wait() == 0
    assert system.rqxx("worker", "--burst", "--no-webhooks", "other", "--redis-url", system.server.url).returncode == 0
    web.signal(signal.SIGTERM)
    assert web.wait() == 0
    assert pending(connection) == 1 and receiver.requests == []
    assert system.rqxx("worker", "--burst", "other", "--redis-url", system.server.url).returncode == 0
    assert pending(connection) == 0 and receiver.paths() == ["/x"]
