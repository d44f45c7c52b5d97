"""Who may do what over HTTP: tokens, scopes, queues, sessions, hostile requests. Routes come from the OpenAPI document."""

import contextlib
import json
import pickle
import re
import socket
import ssl
import subprocess
import time

import pytest
from conftest import http, raw_http, wait_for
from rq import Queue, Worker

SCOPES = ["read", "operate", "admin"]
#: What must be reachable for who has nothing: it says nothing of any job.
OPEN = {("get", "/healthz"), ("get", "/readyz"), ("post", "/api/v1/session"), ("delete", "/api/v1/session")}


class Access:
    """A server that asks for tokens, and tokens for it. Nothing secret may come into its logs."""

    def __init__(self, system, server):
        self.system, self.server = system, server
        self.secrets = []
        self.webs = []

    def serve(self, *args, **options):
        args = args if "--no-worker" in args or "--read-only" in args else ("--no-worker", *args)
        web = self.system.serve("--auth", "--log-level", "debug", *args, url=self.server.url,
                                data_dir=self.system.folder / f"data{len(self.webs)}", **options)
        self.webs.append(web)
        return web

    def token(self, *args, name="somebody"):
        made = self.system.rqxx("token", "create", name, "--redis-url", self.server.url, *args)
        assert made.returncode == 0, made.stderr
        token = made.stdout.strip()
        self.secrets.append(token.rsplit("_", 1)[1])
        return token

    def login(self, web, token, **headers):
        answer = http("POST", web.url + "/api/v1/session", {"token": token}, headers)
        assert answer.status == 200, answer.body
        cookie = answer.headers["Set-Cookie"].split(";")[0]
        self.secrets.append(cookie.split("=")[1])
        return cookie

    def check_logs(self):
        for web in self.webs:
            for secret in self.secrets:
                assert secret not in web.log + web.out


@pytest.fixture
def access(system, server):
    access = Access(system, server)
    yield access
    access.check_logs()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def of_page(web, cookie):
    return {"Cookie": cookie, "Origin": web.url, "Sec-Fetch-Site": "same-origin"}


def problem(answer, status, code=None):
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    if code:
        assert answer.json["code"] == code
    return answer.json


def all_keys(client):
    return {key: client.dump(key) for key in client.keys("*")}


def keys_and_values(client):
    """But what a server keeps for itself all the time."""
    own = (b"rqxx:changes", b"rqxx:index:", b"rqxx:history:", b"rqxx:metrics:", b"rqxx:sampler")
    return {key: value for key, value in all_keys(client).items() if not key.startswith(own)}


def routes(web, token):
    """(method, path with something in place of parameters, scope) of every route of the document."""
    document = http("GET", web.url + "/api/v1/openapi.json", headers=bearer(token)).json
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            scopes = {scope for way in operation["security"] for names in way.values() for scope in names}
            assert len(scopes) <= 1
            yield method, path, re.sub(r"\{\w+\}", "nothing", path), scopes.pop() if scopes else None, operation


def first_status(url, method, path, headers):
    """Of an answer that may have no end. Bodies are no JSON, so that nothing is changed by those who may."""
    host, port = url.removeprefix("http://").split(":")
    lines = [f"{method.upper()} {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close", "Content-Length: 1",
             *[f"{name}: {value}" for name, value in headers.items()]]
    with socket.create_connection((host, int(port)), timeout=20) as conn:
        conn.sendall("\r\n".join(lines).encode() + b"\r\n\r\n{")
        received = b""
        while b"\r\n" not in received:
            received += conn.recv(1000)
    return int(received.split(b" ")[1])


def test_every_route_lets_in_whom_its_scope_says(access, connection):
    web = access.serve()
    tokens = {scope: access.token("--scope", scope) for scope in SCOPES}
    everything = list(routes(web, tokens["admin"]))
    assert len(everything) > 30
    assert {(method, pattern) for method, pattern, _, scope, _ in everything if scope is None} == OPEN
    assert {scope for *_, scope, _ in everything} == {None, *SCOPES}
    for method, pattern, path, scope, operation in everything:
        if scope is None:
            if pattern != "/api/v1/session":
                assert http(method.upper(), web.url + path).status == 200, pattern
            continue
        assert {"401", "403"} <= set(operation["responses"]), pattern
        if method != "get":
            assert scope != "read", pattern
        assert first_status(web.url, method, path, {}) == 401, pattern
        for name, token in tokens.items():
            status = first_status(web.url, method, path, bearer(token))
            if SCOPES.index(name) < SCOPES.index(scope):
                assert status == 403, (method, pattern, name)
            else:
                assert status not in (401, 403), (method, pattern, name)


def test_a_wrong_token_opens_no_route(access):
    web = access.serve()
    admin = access.token("--scope", "admin")
    wrong = admin[:-1] + ("0" if admin[-1] != "0" else "1")
    seen = set()
    for method, pattern, path, scope, _ in routes(web, admin):
        if scope:
            seen.add(first_status(web.url, method, path, bearer(wrong)))
    assert seen == {401, 429}   # Who is wrong often is not asked any more.


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "bearer {}", "Basic {}", "Bearer  {}", "{}", "Bearer {} x", "Bearer rqxx__",
                                    "Bearer rqxx_{}"])
def test_what_is_not_exactly_a_token_is_refused(access, header):
    web = access.serve()
    token = access.token()
    problem(http("GET", web.url + "/api/rq/stats", headers={"Authorization": header.format(token)}), 401)
    assert http("GET", web.url + "/api/rq/stats", headers=bearer(token)).status == 200


def test_unknown_paths_and_methods_say_nothing_to_strangers(access):
    web = access.serve()
    for method, path in [("GET", "/nothing"), ("DELETE", "/api/rq/stats"), ("OPTIONS", "/api/rq/stats"), ("GET", "/assets/../x")]:
        problem(http(method, web.url + path), 401)
    assert http("GET", web.url + "/").status == 200


# ---- tokens ----------------------------------------------------------------------------------------

def test_tokens_are_stored_hashed_listed_without_secrets_and_revoked_within_two_seconds(access, connection):
    web = access.serve()
    admin, other = access.token("--scope", "admin", name="root"), access.token(name="other")
    stored = b"".join(connection.hgetall("rqxx:tokens").values()).decode()
    assert all(secret not in stored for secret in access.secrets)
    listed = http("GET", web.url + "/api/v1/tokens", headers=bearer(admin)).json["tokens"]
    assert [(one["name"], one["scope"], one["queues"]) for one in listed] == [("root", "admin", ["*"]), ("other", "read", ["*"])]
    shown = access.system.rqxx("token", "list", "--json", "--redis-url", access.server.url)
    assert json.loads(shown.stdout) == listed
    assert all(secret not in shown.stdout for secret in access.secrets)
    assert http("GET", web.url + "/api/rq/stats", headers=bearer(other)).status == 200
    begun = time.monotonic()
    assert access.system.rqxx("token", "revoke", listed[1]["id"], "--redis-url", access.server.url).returncode == 0
    wait_for(lambda: http("GET", web.url + "/api/rq/stats", headers=bearer(other)).status == 401, timeout=2.5)
    assert time.monotonic() - begun < 2.5
    assert access.system.rqxx("token", "revoke", listed[1]["id"], "--redis-url", access.server.url).returncode == 1


def test_tokens_are_made_and_revoked_over_http(access):
    web = access.serve()
    admin = access.token("--scope", "admin")
    made = http("POST", web.url + "/api/v1/tokens", {"name": "ci é", "scopes": ["read", "operate"], "queues": ["mail*"], "expires_in": "30d"},
                bearer(admin))
    assert made.status == 201
    token, details = made.json["token"], made.json["details"]
    access.secrets.append(token.rsplit("_", 1)[1])
    assert details["scope"] == "operate" and details["name"] == "ci é" and details["queues"] == ["mail*"] and details["expires_at"]
    who = http("GET", web.url + "/api/v1/session", headers=bearer(token)).json
    assert who == {"name": "ci é", "scopes": ["read", "operate"], "queues": ["mail*"], "read_only": False, "redact": False, "auth": "token"}
    assert http("DELETE", f"{web.url}/api/v1/tokens/{details['id']}", headers=bearer(admin)).status == 200
    problem(http("GET", web.url + "/api/v1/session", headers=bearer(token)), 401)
    problem(http("DELETE", f"{web.url}/api/v1/tokens/{details['id']}", headers=bearer(admin)), 404)


@pytest.mark.parametrize(("body", "field"), [
    ({}, "name"), ({"name": ""}, "scope"), ({"name": "", "scope": "read"}, "name"), ({"name": "a\r\nb", "scope": "read"}, "name"),
    ({"name": "a" * 101, "scope": "read"}, "name"), ({"name": 1, "scope": "read"}, "name"), ({"name": "a", "scope": "root"}, "scope"),
    ({"name": "a", "scopes": []}, "scopes"), ({"name": "a", "scope": "read", "scopes": ["read"]}, "scope"),
    ({"name": "a", "scope": "read", "queues": []}, "queues"), ({"name": "a", "scope": "read", "queues": "all"}, "queues"),
    ({"name": "a", "scope": "admin", "queues": ["mail"]}, "queues"), ({"name": "a", "scope": "read", "expires_in": 0}, "expires_in"),
    ({"name": "a", "scope": "read", "expires_in": "soon"}, "expires_in"), ({"name": "a", "scope": "read", "redact": "yes"}, "redact"),
    ({"name": "a", "scope": "read", "more": 1}, "more")])
def test_bad_tokens_are_refused_with_the_field_that_is_wrong(access, connection, body, field):
    web = access.serve()
    admin = access.token("--scope", "admin")
    assert problem(http("POST", web.url + "/api/v1/tokens", body, bearer(admin)), 422)["detail"].startswith(f"{field}: ")
    assert connection.hlen("rqxx:tokens") == 1


def test_an_expired_token_lets_nobody_in(access):
    web = access.serve()
    token = access.token("--expires-in", "2s")
    cookie = access.login(web, token)
    wait_for(lambda: http("GET", web.url + "/api/rq/stats", headers=bearer(token)).status == 401, timeout=10)
    problem(http("GET", web.url + "/api/rq/stats", headers={"Cookie": cookie}), 401)


@pytest.mark.parametrize("stored", ["", "{", "[]", "{}", '{"name":"x","sha256":"","scope":"admin","queues":["*"],"redact":false}'])
def test_what_nobody_of_us_has_stored_lets_nobody_in(access, connection, stored):
    web = access.serve()
    token = access.token("--scope", "admin")
    connection.hset("rqxx:tokens", token.split("_")[1], stored)
    problem(http("GET", web.url + "/api/rq/stats", headers=bearer(token)), 401)


def test_without_redis_nobody_gets_in_but_with_the_token_of_the_server(access, server):
    (access.system.folder / "token").write_text("s3cret-of-the-options\n")
    access.secrets.append("s3cret-of-the-options")
    web = access.serve("--token-file", access.system.folder / "token")
    token = access.token("--scope", "admin")
    assert http("GET", web.url + "/api/v1/openapi.json", headers=bearer(token)).status == 200
    server.stop()
    wait_for(lambda: http("GET", web.url + "/api/v1/openapi.json", headers=bearer(token)).status == 503)
    assert http("GET", web.url + "/api/v1/openapi.json", headers=bearer("s3cret-of-the-options")).status == 200
    problem(http("POST", web.url + "/api/v1/session", {"token": token}), 503)


def test_a_public_address_is_open_to_tokens_of_redis(access):
    web = access.serve("--host", "0.0.0.0")
    url = web.url.replace("0.0.0.0", "127.0.0.1")
    problem(http("GET", url + "/api/rq/stats"), 401)
    assert http("GET", url + "/api/rq/stats", headers=bearer(access.token())).status == 200


def test_without_auth_everybody_on_this_machine_is_an_administrator(system, server):
    web = system.serve("--no-worker", url=server.url)
    who = http("GET", web.url + "/api/v1/session", headers=bearer("whatever")).json
    assert who == {"name": "local", "scopes": SCOPES, "queues": ["*"], "read_only": False, "redact": False, "auth": "none"}


# ---- sessions --------------------------------------------------------------------------------------

def test_a_session_does_what_its_token_may_until_it_is_ended(access, connection):
    web = access.serve()
    answer = http("POST", web.url + "/api/v1/session", {"token": access.token("--scope", "operate", name="ann")})
    assert answer.json["auth"] == "session" and answer.json["scopes"] == ["read", "operate"]
    cookie = answer.headers["Set-Cookie"]
    assert re.fullmatch(r"rqxx_session=[0-9a-f]{48}; Path=/; HttpOnly; SameSite=Strict", cookie)
    value = cookie.split(";")[0]
    access.secrets.append(value.split("=")[1])
    assert not any(value.split("=")[1].encode() in key for key in connection.keys("*"))
    assert 0 < connection.ttl(connection.keys("rqxx:session:*")[0]) <= 12 * 3600
    assert http("GET", web.url + "/api/v1/session", headers={"Cookie": value}).json["name"] == "ann"
    assert http("POST", web.url + "/api/v1/queues/a/pause", headers=of_page(web, value)).status == 200
    second = access.serve()
    assert http("GET", second.url + "/api/v1/session", headers={"Cookie": value}).json["name"] == "ann"
    out = http("DELETE", web.url + "/api/v1/session", headers=of_page(web, value))
    assert out.status == 204 and "Max-Age=0" in out.headers["Set-Cookie"]
    problem(http("GET", web.url + "/api/v1/session", headers={"Cookie": value}), 401)
    wait_for(lambda: http("GET", second.url + "/api/v1/session", headers={"Cookie": value}).status == 401, timeout=2.5)
    assert connection.keys("rqxx:session:*") == []


def test_a_login_begins_a_new_session_and_ends_the_one_that_was_there(access):
    web = access.serve()
    token = access.token()
    planted = "rqxx_session=" + "a" * 48
    first = access.login(web, token, Cookie=planted)
    assert first != planted
    problem(http("GET", web.url + "/api/v1/session", headers={"Cookie": planted}), 401)
    second = access.login(web, token, Cookie=first)
    assert second != first
    problem(http("GET", web.url + "/api/v1/session", headers={"Cookie": first}), 401)
    # Two of that name: one may be planted, and nobody knows which.
    problem(http("GET", web.url + "/api/v1/session", headers={"Cookie": f"{second}; {planted}"}), 401)
    assert http("GET", web.url + "/api/v1/session", headers={"Cookie": f"a=b; {second}; c"}).status == 200


def test_revoking_a_token_ends_its_sessions_and_streams(access):
    web = access.serve()
    token = access.token()
    cookie = access.login(web, token)
    host, port = web.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        stream.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n".encode())
        received = b""
        while b"event: overview" not in received:
            received += stream.recv(65536)
        access.system.rqxx("token", "revoke", token.split("_")[1], "--redis-url", access.server.url)
        wait_for(lambda: http("GET", web.url + "/api/v1/session", headers={"Cookie": cookie}).status == 401, timeout=2.5)
        while piece := stream.recv(65536):   # It ends; else this times out.
            received += piece


def test_a_session_of_the_servers_token_is_known_to_all_servers_that_have_it(access):
    (access.system.folder / "token").write_text("a rather long secret\n")
    access.secrets.append("a rather long secret")
    one, two = (access.serve("--token-file", access.system.folder / "token") for _ in range(2))
    cookie = access.login(one, "a rather long secret")
    assert http("GET", two.url + "/api/v1/session", headers={"Cookie": cookie}).json["name"] == "admin"
    other = access.serve()
    problem(http("GET", other.url + "/api/v1/session", headers={"Cookie": cookie}), 401)


def test_a_cookie_changes_nothing_for_other_sites(access, connection):
    web = access.serve()
    admin = access.token("--scope", "admin")
    cookie = access.login(web, admin)
    before = keys_and_values(connection)
    for headers in [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Sec-Fetch-Site": "same-site"}, {"Origin": web.url, "Sec-Fetch-Site": "cross-site"},
                    {"Origin": web.url.rsplit(":", 1)[0] + ":1"}]:
        for method, _, path, scope, _ in routes(web, admin):
            if method != "get" and scope:
                assert first_status(web.url, method, path, {"Cookie": cookie, **headers}) == 403, (path, headers)
    for headers in [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]:
        problem(http("POST", web.url + "/api/v1/session", {"token": admin}, headers), 403, "cross_site")
        problem(http("DELETE", web.url + "/api/v1/session", headers={"Cookie": cookie, **headers}), 403, "cross_site")
        problem(http("POST", web.url + "/api/v1/suspend", headers={**bearer(admin), **headers}), 403, "cross_site")
    assert keys_and_values(connection) == before


def test_who_is_wrong_too_often_has_to_wait_but_not_who_was_right(access):
    web = access.serve("--trust-proxy")
    good = access.token()
    assert http("GET", web.url + "/api/rq/stats", headers={**bearer(good), "X-Forwarded-For": "10.0.0.1"}).status == 200
    statuses = [http("POST", web.url + "/api/v1/session", {"token": f"guess {n}"}, {"X-Forwarded-For": "9.9.9.9, 10.0.0.1"}).status
                for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    late = http("GET", web.url + "/api/rq/stats", headers={**bearer("guess"), "X-Forwarded-For": "10.0.0.1"})
    problem(late, 429, "too_many_failures")
    assert 0 < int(late.headers["Retry-After"]) <= 6
    problem(http("POST", web.url + "/api/v1/session", {"token": access.token()}, {"X-Forwarded-For": "10.0.0.1"}), 429)
    assert http("GET", web.url + "/api/rq/stats", headers={**bearer(good), "X-Forwarded-For": "10.0.0.1"}).status == 200
    problem(http("GET", web.url + "/api/rq/stats", headers={**bearer("guess"), "X-Forwarded-For": "10.0.0.2"}), 401)


def test_what_a_client_says_of_its_address_counts_only_behind_a_trusted_proxy(access):
    web = access.serve()
    statuses = [http("GET", web.url + "/api/rq/stats", headers={**bearer("guess"), "X-Forwarded-For": f"10.0.0.{n}"}).status
                for n in range(11)]
    assert statuses == [401] * 10 + [429]


# ---- queues ----------------------------------------------------------------------------------------

def test_a_token_for_some_queues_sees_and_changes_nothing_of_others(access, connection):
    web = access.serve()
    mine, other = Queue("mail-in", connection=connection), Queue("bank", connection=connection)
    jobs = [mine.enqueue("tasks.add", 1, 1), other.enqueue("tasks.add", 2, 2)]
    mail_worker, both = Worker([mine], connection=connection, name="mine"), Worker([mine, other], connection=connection, name="both")
    bank = Worker([other], connection=connection, name="bank")
    for worker in (mail_worker, both, bank):
        worker.register_birth()
    for name in ("mail-in", "bank"):
        assert access.system.rqxx("queue", "pause", name, "--redis-url", access.server.url).returncode == 0
    token = bearer(access.token("--scope", "operate", "--queue", "mail*"))

    def get(path, status=200):
        answer = http("GET", web.url + path, headers=token)
        assert answer.status == status, (path, answer.body)
        return answer.json

    stats = get("/api/rq/stats?queue=bank")
    assert [queue["queue_name"] for queue in stats["queues"]] == ["mail-in"]
    assert stats["stats"]["queued"] == 0 and stats["totals"]["queued"] == 1
    assert [job["id"] for job in get("/api/rq/jobs/recent")["jobs"]] == [jobs[0].id]
    assert get("/api/rq/jobs/recent?queue=bank")["jobs"] == []
    workers = {worker["name"]: worker["queues"] for worker in get("/api/rq/workers")["workers"]}
    assert workers == {"mine": ["mail-in"], "both": ["mail-in"]}
    assert [limit["queue"] for limit in get("/api/v1/limits")["limits"]] == ["mail-in"]
    before = keys_and_values(connection)
    for path in ["/api/rq/jobs/{}", "/api/v1/jobs/{}", "/api/jobs/{}", "/api/v1/jobs/{}/output", "/api/v1/jobs/{}/why",
                 "/api/v1/jobs/{}/timeline"]:
        get(path.format(jobs[0].id))
        assert get(path.format(jobs[1].id), 404)["detail"] == get(path.format("absent"), 404)["detail"] == "Job not found"
    problem(http("POST", web.url + "/api/v1/queues/bank/resume", headers=token), 404)
    for body in [{"func": "tasks.add", "queue": "bank"}, {"func": "tasks.add"}, {"func": "tasks.add", "priority": "high"},
                 {"func": "tasks.add", "queue": "mail-in", "dedup": {"mode": "replace", "key": "k"}}]:
        problem(http("POST", web.url + "/api/v1/jobs", body, token), 403, "queue_not_allowed")
    problem(http("POST", web.url + "/api/v1/jobs", {"func": "tasks.add", "queue": "mail-in", "job_id": jobs[1].id}, token), 409)
    assert keys_and_values(connection) == before
    assert http("POST", web.url + "/api/v1/jobs", {"func": "tasks.add", "queue": "mail-in"}, token).status == 201
    assert http("POST", web.url + "/api/v1/queues/mail-in/resume", headers=token).status == 200


def test_jobs_and_queues_of_others_are_as_if_they_were_not_there(access, connection):
    web = access.serve()
    token = bearer(access.token("--scope", "operate", "--queue", "mail*"))
    for queue in ("mail", "bank"):
        Queue(queue, connection=connection).enqueue("tasks.add", 1, 1, job_id=f"{queue}-job")
    Queue("bank", connection=connection).enqueue("tasks.add", 1, 1, job_id="child", depends_on=["mail-job", "bank-job"])
    before = keys_and_values(connection)
    for verb in ("cancel", "requeue", "stop", "run-now"):
        problem(http("POST", f"{web.url}/api/v1/jobs/bank-job/{verb}", headers=token), 404)
    problem(http("DELETE", f"{web.url}/api/v1/jobs/bank-job", headers=token), 404)
    for path in ("timeline", "dependencies", "raw", "request"):
        problem(http("GET", f"{web.url}/api/v1/jobs/bank-job/{path}", headers=token), 404)
    for path in ("empty", "requeue-failed"):
        problem(http("POST", f"{web.url}/api/v1/queues/bank/{path}", headers=token), 404)
    problem(http("GET", web.url + "/api/v1/queues/bank", headers=token), 404)
    problem(http("GET", web.url + "/api/v1/jobs?queue=bank", headers=token), 404)
    problem(http("GET", web.url + "/api/v1/jobs?queue=b*", headers=token), 422)
    assert keys_and_values(connection) == before
    assert [one["name"] for one in http("GET", web.url + "/api/v1/queues", headers=token).json["items"]] == ["mail"]
    wait_for(lambda: [job["id"] for job in http("GET", web.url + "/api/v1/jobs", headers=token).json.get("items", [])] == ["mail-job"],
             what="the index to have the job")
    graph = http("GET", web.url + "/api/v1/jobs/mail-job/dependencies", headers=token).json["graph"]
    assert [node["id"] for node in graph["nodes"]] == ["mail-job"] and graph["edges"] == []
    assert http("POST", web.url + "/api/v1/jobs/mail-job/cancel", headers=token).json["result"]["code"] == "done"


def failed_job(connection, queue, job_id, error, worker="w", func="tasks.fail"):
    """A failed job as RQ leaves it."""
    job = Queue(queue, connection=connection).enqueue(func, error, job_id=job_id)
    connection.lrem(f"rq:queue:{queue}", 1, job_id)
    connection.hset(job.key, mapping={"status": "failed", "worker_name": worker, "ended_at": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
                                      "exc_info": f'Traceback (most recent call last):\n  File "tasks.py", line 3, in fail\n    raise\nValueError: {error}'})
    connection.zadd(f"rq:failed:{queue}", {job_id: 2e9})


def test_failures_for_some_queues_tell_nothing_of_others(access, connection):
    web = access.serve()
    admin = bearer(access.token("--scope", "admin"))
    token = bearer(access.token("--scope", "operate", "--queue", "mail*"))
    for n in range(3):   # The first of the group is of another queue, and there are more of it.
        failed_job(connection, "bank", f"bank-{n}", f"order {n} of 'secret customer'", worker="bank-worker", func="bank.pay")
    failed_job(connection, "mail-in", "mail-1", "order 17 of 'ann'")
    failed_job(connection, "bank", "bank-3", "the vault is open", func="bank.pay")

    def get(path, headers=token):
        answer = http("GET", web.url + path, headers=headers)
        assert answer.status == 200, answer.body
        return answer.json

    wait_for(lambda: http("GET", web.url + "/api/v1/failures", headers=admin).status == 200, what="the index")
    groups = wait_for(lambda: len(items := get("/api/v1/failures?sort=count", admin).get("items", [])) == 2 and items[0]["count"] == 4 and items)
    answer = http("GET", web.url + "/api/v1/failures", headers=token)
    assert b"bank" not in answer.body and b"secret" not in answer.body and b"vault" not in answer.body
    [group] = answer.json["items"]
    assert group["id"] == groups[0]["id"] and group["count"] == 1 and group["sample_job_ids"] == ["mail-1"] and sum(group["spark"]) == 1
    assert group["queues"] == [{"name": "mail-in", "count": 1}] and group["functions"] == [{"name": "tasks.fail", "count": 1}]
    assert "ann" in group["title"] and group["first_seen"] == group["last_seen"] and answer.json["index"]["jobs"] is None
    one = http("GET", f"{web.url}/api/v1/failures/{group['id']}", headers=token)
    assert b"bank" not in one.body and b"secret" not in one.body and "ann" in one.json["failure"]["traceback"]
    problem(http("GET", f"{web.url}/api/v1/failures/{groups[1]['id']}", headers=token), 404)
    assert get("/api/v1/failures?queue=bank")["items"] == get("/api/v1/failures?func=bank.*")["items"] == []
    assert get("/api/v1/failures?queue=*&func=tasks.*&sort=count&limit=1")["items"] == [group]
    problem(http("POST", f"{web.url}/api/v1/failures/{group['id']}/mute", headers=token), 403, "all_queues")
    failed_job(connection, "mail-in", "mail-2", "another")
    failed_job(connection, "mail-out", "mail-3", "and another")
    wait_for(lambda: len(get("/api/v1/failures")["items"]) == 3)
    page, seen = get("/api/v1/failures?limit=2"), []
    seen += [item["id"] for item in page["items"]] + [item["id"] for item in get(f"/api/v1/failures?limit=2&cursor={page['next']}")["items"]]
    assert len(seen) == len(set(seen)) == 3
    assert problem(http("GET", f"{web.url}/api/v1/failures?limit=2&cursor={page['next']}", headers=admin), 422)


def test_actions_on_many_keep_to_the_queues_of_a_token(access, connection):
    web = access.serve()
    admin = bearer(access.token("--scope", "admin"))
    token, other = (bearer(access.token("--scope", "operate", "--queue", queue)) for queue in ("mail*", "bank"))
    for queue in ("mail", "bank"):
        for n in range(3):
            failed_job(connection, queue, f"{queue}-{n}", "same")
        Queue(queue, connection=connection).enqueue("tasks.add", 1, 1, job_id=f"{queue}-waits")
    Queue("bank", connection=connection).enqueue("tasks.add", 1, 1, job_id="child", depends_on="mail-waits")
    connection.zadd("rq:failed:mail", {"bank-2": 2e9})   # What somebody left in a wrong place.
    wait_for(lambda: len(http("GET", web.url + "/api/v1/jobs?status=failed", headers=admin).json.get("items", [])) == 6)
    connection.delete("rqxx:audit")   # It has the tokens that were made.
    before = keys_and_values(connection)

    def bulk(headers=token, **body):
        return http("POST", web.url + "/api/v1/jobs/bulk", {"action": "requeue", **body}, headers)

    for queue, code in [("bank", 403), ("ma*", 422), ("*", 422)]:
        answer = problem(bulk(filter={"queue": queue, "status": "failed"}), code)
        assert "filter.queue" in answer["detail"] and ("bank" in answer["detail"] or code == 422)
    refused = problem(bulk(action="cancel", ids=["mail-waits"], dependents="cascade"), 403, "all_queues")
    assert "dependents" in refused["detail"]
    problem(http("POST", web.url + "/api/v1/jobs/mail-waits/cancel", {"dependents": "cascade"}, token), 403, "all_queues")
    problem(http("DELETE", web.url + "/api/v1/jobs/mail-waits?dependents=enqueue", headers=token), 403, "all_queues")
    preview = bulk(filter={"status": "failed"}, dry_run=True).json
    assert sorted(preview["sample"]) == ["mail-0", "mail-1", "mail-2"]
    assert bulk(filter={"status": "failed", "id": "bank"}, dry_run=True).json["matched"] == 0
    results = bulk(ids=["bank-0", "mail-0", "absent"], dry_run=True).json
    assert [result["code"] for result in results["results"]] == ["no_such_job", "done", "no_such_job"] and results["done"] == 1
    assert results["results"][0] | {"job_id": ""} == results["results"][2] | {"job_id": ""}
    connection.delete("rqxx:audit")   # It has what was refused.
    assert keys_and_values(connection) == before

    assert bulk(ids=["bank-0", "mail-0"]).json["done"] == 1

    def operation(**body):
        begun = bulk(**body)
        assert begun.status == 202, begun.body
        path = web.url + begun.headers["Location"]
        problem(http("GET", path, headers=other), 404)
        problem(http("POST", path + "/cancel", headers=other), 404)
        assert begun.json["operation_id"] not in http("GET", web.url + "/api/v1/operations", headers=other).body.decode()
        return wait_for(lambda: (one := http("GET", path, headers=token).json["operation"])["state"] == "done" and one)

    assert operation(filter={"status": "failed", "id": "mail-1"})["done"] == 1   # By the index.
    assert operation(filter={"status": "failed"})["done"] == 1                  # By RQ's places.
    assert connection.lrange("rq:queue:mail", 0, -1) == [b"mail-waits", b"mail-0", b"mail-1", b"mail-2"]
    assert connection.lrange("rq:queue:bank", 0, -1) == [b"bank-waits"]
    assert {connection.hget(f"rq:job:bank-{n}", "status") for n in range(3)} == {b"failed"}
    assert len(http("GET", web.url + "/api/v1/operations", headers=token).json["items"]) == 2
    begun = bulk(headers=admin, filter={"status": "failed", "id": "nothing"})
    problem(http("GET", web.url + begun.headers["Location"], headers=token), 404)
    assert operation(action="cancel", filter={"queue": "mail", "status": "queued"})["done"] == 4


def test_routes_that_do_not_keep_to_queues_are_closed_to_who_may_see_some_only(access, connection):
    web = access.serve()
    admin = access.token("--scope", "admin")
    token = bearer(access.token("--scope", "operate", "--queue", "mail"))
    Queue("bank", connection=connection).enqueue("tasks.add", 1, 1, job_id="bank-job")
    kept = {"/api/rq/stats", "/api/rq/jobs/recent", "/api/rq/jobs/{job_id}", "/api/v1/jobs/{job_id}", "/api/jobs/{job_id}",
            "/api/v1/jobs/{job_id}/output", "/api/v1/jobs/{job_id}/why", "/api/v1/jobs/{job_id}/raw", "/api/v1/jobs/{job_id}/request", "/api/v1/jobs", "/api/rq/workers", "/api/v1/limits",
            "/api/v1/queues/{name}/pause", "/api/v1/queues/{name}/resume", "/api/v1/queues", "/api/v1/queues/{name}",
            "/api/v1/failures", "/api/v1/failures/{group_id}", "/api/v1/jobs/bulk", "/api/v1/operations", "/api/v1/operations/{operation_id}",
            "/api/v1/operations/{operation_id}/cancel", "/api/v1/queues/{name}/empty", "/api/v1/queues/{name}/requeue-failed", "/api/v1/jobs/{job_id}/timeline",
            "/api/v1/jobs/{job_id}/dependencies", *(f"/api/v1/jobs/{{job_id}}/{verb}" for verb in ("cancel", "requeue", "stop", "run-now")),
            "/api/v1/session", "/api/v1/openapi.json", "/api/v1/history", "/api/v1/history/queues", "/api/v1/operations/{operation_id}",
            "/api/v1/operations/{operation_id}/cancel"}
    for method, pattern, path, scope, _ in routes(web, admin):
        # Events are tested with what they tell, in test_live_topics.py.
        if scope in ("read", "operate") and pattern not in kept and pattern != "/api/v1/events":
            assert first_status(web.url, method, path, token) == 403, pattern
    for path in kept:
        if "{" not in path and "history" not in path:
            assert b"bank" not in http("GET", web.url + path, headers=token).body.replace(b"jobs/bank", b"") or "openapi" in path


def test_what_was_going_on_is_shown_of_the_queues_of_a_token(access, connection):
    web = access.serve()
    token = bearer(access.token("--queue", "mail*"))
    for queue in ("mail", "bank"):
        Queue(queue, connection=connection).enqueue("tasks.add", 1, 1)
    history = f"{web.url}/api/v1/history"
    problem(http("GET", history, headers=token), 403, "all_queues")
    problem(http("GET", history + "?queue=bank", headers=token), 404)
    problem(http("GET", history + "/queues?queues=bank", headers=token), 404)
    assert http("GET", history + "?queue=mail", headers=token).json["series"].keys() >= {"queued", "finished"}
    assert list(http("GET", history + "/queues?queues=bank,mail", headers=token).json["queues"]) == ["mail"]


def test_who_may_see_the_same_queues_sees_and_ends_an_operation(access, connection):
    web = access.serve()
    token = bearer(access.token("--scope", "operate", "--queue", "mail*", name="ann"))
    fellow, other = (bearer(access.token("--scope", "operate", "--queue", queue, name=name)) for queue, name in (("mail*", "bob"), ("bank", "ann")))
    pipeline = connection.pipeline()
    for n in range(20_000):
        pipeline.hset(f"rq:job:m-{n}", mapping={"status": "queued", "origin": "mail", "created_at": "2026-01-01T00:00:00.000000Z"})
        pipeline.rpush("rq:queue:mail", f"m-{n}")
    pipeline.sadd("rq:queues", "rq:queue:mail")
    pipeline.execute()
    begun = http("POST", f"{web.url}/api/v1/queues/mail/empty", headers=token)
    assert begun.status == 202
    place = web.url + begun.headers["Location"]
    problem(http("GET", place, headers=other), 404)
    problem(http("POST", place + "/cancel", headers=other), 404)
    for seeing in (token, fellow):
        assert http("GET", place, headers=seeing).json["operation"]["by"] == "ann"
    answer = http("POST", place + "/cancel", headers=token)
    assert answer.status == 200 or answer.json["detail"].endswith("it is done")
    wait_for(lambda: http("GET", place, headers=token).json["operation"]["state"] in ("canceled", "done"), what="the end of the operation")
    by_admin = http("POST", f"{web.url}/api/v1/jobs/bulk", {"action": "cancel", "filter": {"status": "failed"}}, bearer(access.token("--scope", "admin")))
    problem(http("GET", web.url + by_admin.headers["Location"], headers=token), 404)


# ---- hostile requests ------------------------------------------------------------------------------

@pytest.mark.parametrize("path", ["/assets/../../etc/passwd", "/assets/..%2f..%2fetc%2fpasswd", "/assets/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
                                  "/assets/....//etc/passwd", "/assets/app.js%00.html", "/..", "/%2e%2e/%2e%2e", "/assets//etc/passwd"])
def test_paths_lead_nowhere_but_to_routes(access, path):
    web = access.serve()
    token = access.token("--scope", "admin")
    raw = raw_http(web.url, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode())
    assert int(raw.split(b" ")[1]) in (400, 404) and b"root:" not in raw


@pytest.mark.parametrize("path", ["/api/v1/jobs/a%0d%0aSet-Cookie:%20x=1", "/api/v1/limits/a%0d%0aX-Evil:1", "/api/v1/tokens/%0d%0aX-Evil:1",
                                  "/api/v1/queues/a%0d%0aX-Evil:1/pause", "/api/v1/batches?name=a%0d%0aX-Evil:1"])
def test_line_breaks_in_names_make_no_headers(access, path):
    web = access.serve()
    token = access.token("--scope", "admin")
    for method, body in [("GET", b""), ("POST", b""), ("DELETE", b""), ("PUT", b'{"kind":"pause"}')]:
        raw = raw_http(web.url, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
                       f"X-Request-Id: a\tb\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        head = raw.split(b"\r\n\r\n")[0].lower()
        assert b"\r\nx-evil" not in head and b"x=1" not in head


def test_a_job_id_with_a_line_break_makes_no_location(access):
    web = access.serve()
    token = access.token("--scope", "operate")
    answer = http("POST", web.url + "/api/v1/jobs", {"func": "f", "job_id": "a\r\nX-Evil: 1"}, bearer(token))
    problem(answer, 422)
    assert "X-Evil" not in answer.headers


def test_two_thousand_idle_connections_leave_room_for_those_who_ask(access):
    web = access.serve()
    token = access.token()
    host, port = web.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        for n in range(2000):
            conn = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            if n % 2:
                conn.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert conn.recv(1000).startswith(b"HTTP/1.1 200")
        for _ in range(20):
            assert http("GET", web.url + "/api/rq/stats", headers=bearer(token)).status == 200
    assert http("GET", web.url + "/healthz").status == 200


def test_requests_that_never_end_are_given_up(access):
    web = access.serve()
    host, port = web.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as conn:
        conn.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        received = b""
        while piece := conn.recv(1000):
            received += piece
    assert received.startswith(b"HTTP/1.1 408")


def test_answers_forbid_frames_sniffing_and_caching(access):
    web = access.serve()
    page = http("GET", web.url + "/")
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"] and page.headers["X-Frame-Options"] == "DENY"
    answer = http("GET", web.url + "/api/rq/stats", headers=bearer(access.token()))
    assert answer.headers["Cache-Control"] == "no-store"
    for headers in (page.headers, answer.headers):
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers


# ---- a server that changes nothing -----------------------------------------------------------------

def test_a_read_only_server_changes_nothing_in_redis(access, connection):
    Queue("default", connection=connection).enqueue("tasks.add", 1, 1, job_id="waits")
    admin = access.token("--scope", "admin")
    before = all_keys(connection)
    web = access.serve("--read-only")
    everything = list(routes(web, admin))
    cookie = access.login(web, admin)
    who = http("GET", web.url + "/api/v1/session", headers={"Cookie": cookie}).json
    assert who["read_only"] and who["auth"] == "session"
    for method, pattern, path, scope, _ in everything:
        if scope and (method != "get" or scope == "operate"):
            answer = http(method.upper(), web.url + path, {}, of_page(web, cookie))
            problem(answer, 403, "read_only")
        elif scope:
            first_status(web.url, method, path.replace("nothing", "waits"), bearer(admin))
    assert http("DELETE", web.url + "/api/v1/session", headers=of_page(web, cookie)).status == 204
    problem(http("GET", web.url + "/api/v1/session", headers={"Cookie": cookie}), 401)
    time.sleep(3)   # A scheduler, sampler or janitor would have written by now.
    assert all_keys(connection) == before


def test_samples_and_a_read_only_server_do_not_go_together(system, server):
    refused = system.rqxx("serve", "--read-only", "--demo", "--redis-url", server.url, "--port", "0")
    assert refused.returncode == 2 and "--demo" in refused.stderr


# ---- other queues ----------------------------------------------------------------------------------

@pytest.mark.parametrize("word", ["cascade", "enqueue"])
def test_a_token_for_some_queues_does_not_reach_what_waits_in_others(access, connection, word):
    web, token = access.serve(), bearer(access.token("--scope", "operate", "--queue", "mail*"))
    first = Queue("mail", connection=connection).enqueue("tasks.add", 1, 1, job_id="first")
    Queue("billing", connection=connection).enqueue("tasks.add", 1, 1, job_id="second", depends_on=first)
    for method, path, body in (("DELETE", f"first?dependents={word}", None), ("POST", "first/cancel", {"dependents": word})):
        problem(http(method, f"{web.url}/api/v1/jobs/{path}", body, token), 403, "all_queues")
    assert connection.hget("rq:job:second", "status") == b"deferred" and connection.hget("rq:job:first", "status") == b"queued"
    assert http("DELETE", web.url + "/api/v1/jobs/first", headers=token).status == 200


# ---- what is hidden --------------------------------------------------------------------------------

SECRET = "hunter2-very-secret"


@pytest.fixture
def secretive(connection):
    """Jobs that hold the secret wherever a job may hold one under a name."""
    queue = Queue("default", connection=connection)
    ids = [queue.enqueue("tasks.echo", {"user": "ann", "DB_Password": SECRET}, meta={"password": SECRET}).id,
           queue.enqueue("tasks.echo", [{"deep": [{"password": [SECRET]}]}]).id,
           queue.enqueue("tasks.echo", {1: {"password": SECRET}, "password_too": SECRET}).id,
           queue.enqueue("tasks.echo", password=SECRET).id]
    Worker([queue], connection=connection).work(burst=True, max_jobs=3)
    return ids


@pytest.fixture
def keyed(connection):
    """The secret as what jobs report, as keys of limits, and as a tag."""
    connection.hset("rq:job:keyed", mapping={"status": "failed", "origin": "default", "created_at": "2026-01-01T00:00:00.000000Z",
                                             "rate_limit_key": SECRET, "rate_limit_concurrency": 1, "rate_limit_allowed": 1})
    connection.hset("rq:job:keyed", "meta", pickle.dumps({"tags": [SECRET]}))
    connection.zadd("rq:failed:default", {"keyed": 1e10})
    connection.sadd("rq:queues", "rq:queue:default")
    connection.hset("rqxx:rules", "each", json.dumps({"kind": "concurrency", "limit": 1, "key": "args[0]"}))
    connection.zadd(f"rqxx:limit:concurrency:each:{SECRET}", {"w|a:b": 1})
    connection.zadd("rqxx:limits:until", {f"each:{SECRET}": 4e15})
    connection.sadd("rqxx:waiting", f"each:{SECRET}")
    connection.hset("rq:rl:" + SECRET, "concurrency", 1)
    connection.sadd("rq:rl-keys", SECRET)
    connection.hset("rq:job:reports", mapping={"status": "started", "origin": "default", "created_at": "2026-01-01T00:00:00.000000Z",
                                               "started_at": "2026-01-01T00:00:01.000000Z", "worker_name": "w"})
    connection.zadd("rq:wip:default", {"reports:e": 4e9})
    connection.zadd("rq:executions:reports", {"e": 4e9})
    connection.hset("rq:execution:reports:e", mapping={"id": "e", "job_id": "reports", "worker_name": "w", "created_at": 1767225601,
                                                       "progress": json.dumps({"now": SECRET})})
    return ["keyed", "reports"]


def every_answer(web, headers, ids):
    for path in ["/api/rq/jobs/recent", "/api/rq/stats", "/api/rq/workers", "/api/v1/limits", "/api/v1/limits/each",
                 "/api/v1/suggest?field=tag", "/api/v1/jobs"]:
        yield http("GET", web.url + path, headers=headers).body.decode()
    for path in ["/api/rq/jobs/{}", "/api/v1/jobs/{}", "/api/jobs/{}", "/api/v1/jobs/{}/output", "/api/v1/jobs/{}/why",
                 "/api/v1/jobs/{}/timeline", "/api/v1/jobs/{}/raw?bytes=65536", "/api/v1/jobs/{}/request"]:
        for job_id in ids:
            yield http("GET", web.url + path.format(job_id), headers=headers).body.decode()
    host, port = web.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        stream.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode())
        received = b""
        while not re.search(rb"event: overview\r?\ndata: [^\n]*\n", received):
            received += stream.recv(65536)
    yield received.decode()


def test_values_under_hidden_names_are_in_no_answer(system, server, secretive):
    shown = system.serve("--no-worker", url=server.url)
    assert SECRET in "".join(every_answer(shown, {}, secretive))
    web = system.serve("--no-worker", "--redact", "*PASSWORD*", "--redact", "token", url=server.url, data_dir=system.folder / "two")
    assert SECRET not in "".join(every_answer(web, {}, secretive))
    job = http("GET", f"{web.url}/api/v1/jobs/{secretive[0]}").json["job"]
    assert job["args"] == [{"user": "ann", "DB_Password": "[redacted]"}] and job["meta"] == {"password": "[redacted]"}
    assert job["result"] == [job["args"], {}] and job["description"] == "[redacted]"
    assert job["func_name"] == "tasks.echo" and job["executions"][0]["result"] == job["result"]


def test_a_token_may_hide_all_data(access, secretive):
    web = access.serve()
    hiding, seeing = bearer(access.token("--redact")), bearer(access.token())
    assert SECRET in "".join(every_answer(web, seeing, secretive))
    answers = "".join(every_answer(web, hiding, secretive))
    assert SECRET not in answers and "ann" not in answers
    job = http("GET", f"{web.url}/api/v1/jobs/{secretive[0]}", headers=hiding).json["job"]
    assert job["args"] == job["kwargs"] == job["result"] == job["meta"] == job["description"] == "[redacted]"
    assert job["status"] == "finished" and job["func_name"] == "tasks.echo"
    assert http("GET", web.url + "/api/v1/session", headers=hiding).json["redact"]


def test_keys_tags_and_reports_are_hidden_with_all_data(access, keyed):
    web = access.serve()
    hiding, seeing = bearer(access.token("--redact")), bearer(access.token())
    wait_for(lambda: http("GET", web.url + "/api/v1/jobs?tag=" + SECRET, headers=seeing).json.get("items"))
    found = [SECRET in answer for answer in every_answer(web, seeing, keyed)]
    assert sum(found) >= 8, "stats, limits, limit, suggest, jobs, job, timeline, events have it"
    for answer in every_answer(web, hiding, keyed):
        assert SECRET not in answer
    # Nobody finds out by trying, either.
    problem(http("GET", web.url + "/api/v1/jobs?tag=" + SECRET, headers=hiding), 422)


def test_a_server_may_hide_all_data(system, server, secretive):
    web = system.serve("--no-worker", "--redact-all", url=server.url)
    answers = "".join(every_answer(web, {}, secretive))
    assert SECRET not in answers and "tasks.echo" in answers


# ---- the page --------------------------------------------------------------------------------------

def test_a_read_only_token_logs_in_sees_everything_and_can_change_nothing(browser, access, connection):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")
    web = access.serve("--no-worker", "--no-scheduler")   # Which writes down all the time that it is alive.
    Queue("default", connection=connection).enqueue("tasks.add", 1, 1, job_id="waits")
    reader, operator = access.token(name="reader"), access.token("--scope", "operate", name="operator")
    context = browser.new_context(base_url=web.url, locale="en-US")
    page = context.new_page()

    def log_in(token):
        page.get_by_label("token").fill(token)
        page.keyboard.press("Enter")
        playwright.expect(page.locator("#live")).to_have_text("Live", timeout=10_000)

    page.goto("/#/queues/default")
    log_in(reader)
    playwright.expect(page.locator("#who")).to_have_text("reader")
    playwright.expect(page.locator("main")).to_contain_text("tasks.add", timeout=10_000)
    assert page.get_by_role("button", name="Pause queue").count() == 0
    # Nothing that a script could read holds the token or the session.
    kept = page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])")
    assert not any(secret in kept for secret in access.secrets) and "rqxx_session" not in kept
    before = keys_and_values(connection)
    for method, path in [("POST", "/api/v1/queues/default/pause"), ("POST", "/api/v1/suspend"), ("POST", "/api/v1/jobs"),
                         ("DELETE", "/api/v1/limits/x"), ("POST", "/api/v1/tokens")]:
        status = page.evaluate("([method, path]) => fetch(path, {method, body: '{\"func\": \"f\"}'}).then((answer) => answer.status)", [method, path])
        assert status == 403, path
    assert page.evaluate("fetch('/api/v1/tokens').then((answer) => answer.status)") == 403
    assert keys_and_values(connection) == before
    page.reload()
    playwright.expect(page.locator("#who")).to_have_text("reader")   # The cookie stays.
    for cookie in context.cookies():
        access.secrets.append(cookie["value"])
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"

    page.get_by_role("button", name="Log out").click()
    playwright.expect(page.get_by_label("token")).to_be_visible()
    assert "tasks.add" not in page.locator("body").inner_text() and context.cookies() == []
    log_in(operator)
    page.get_by_role("button", name="Pause queue").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    wait_for(lambda: http("GET", web.url + "/api/v1/limits", headers=bearer(reader)).json["limits"])
    context.close()


def test_a_token_for_some_queues_has_a_page_that_works(browser, access, connection):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")
    web = access.serve()
    for queue in ("mail", "bank"):
        Queue(queue, connection=connection).enqueue("tasks.add", 1, 1)
    context = browser.new_context(base_url=web.url, locale="en-US")
    page = context.new_page()
    cookie = access.login(web, access.token("--queue", "mail*"))
    context.add_cookies([{"name": "rqxx_session", "value": cookie.split("=")[1], "url": web.url, "httpOnly": True, "sameSite": "Strict"}])
    main = page.locator("main")
    with page.expect_response(lambda answer: "/api/v1/alerts" in answer.url or "/api/v1/history" in answer.url):
        page.goto("/#/")
    playwright.expect(main).to_contain_text("mail", timeout=20_000)
    playwright.expect(page.locator("#live")).to_have_text("Live", timeout=20_000)
    page.goto("/#/queues")
    playwright.expect(page.locator("main tbody tr")).to_have_count(1, timeout=20_000)
    page.goto("/#/queues/mail")
    playwright.expect(page.locator(".charts .chart").first).to_be_visible(timeout=20_000)
    page.goto("/#/redis")
    playwright.expect(main).to_contain_text("Your token may not see this", timeout=20_000)
    playwright.expect(page.locator("#live")).to_have_text("Live", timeout=20_000)
    context.close()


def test_a_slow_browser_asks_for_the_token_however_soon_the_server_has_refused(browser, access):
    """The server's answers come between the first drawing and what follows it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")
    web = access.serve()
    context = browser.new_context(base_url=web.url, locale="en-US")
    page = context.new_page()
    page.add_init_script("""
        const { setTimeout: after } = window;
        window.requestAnimationFrame = (draw) => after(draw, 1000);
        window.setTimeout = (what, ms = 0, ...more) => after(what, ms + 1000, ...more);
    """)
    page.goto("/#/queues/default")
    playwright.expect(page.get_by_label("token")).to_be_visible(timeout=10_000)
    context.close()


def test_a_refusal_from_before_the_log_in_does_not_log_out(browser, access, connection):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")
    web = access.serve()
    Queue("default", connection=connection).enqueue("tasks.add", 1, 1)
    context = browser.new_context(base_url=web.url, locale="en-US")
    page = context.new_page()
    held = []

    def delay_the_first(route):
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    page.route("**/api/rq/stats", delay_the_first)
    page.goto("/#/")
    page.get_by_label("token").fill(access.token())
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#live")).not_to_have_text("Token needed", timeout=20_000)
    route, refusal = held[0]
    assert refusal.status == 401
    route.fulfill(response=refusal)
    playwright.expect(page.locator("#live")).to_have_text("Live", timeout=20_000)
    assert page.get_by_label("token").count() == 0
    context.close()


def test_another_sites_page_gets_and_changes_nothing(browser, access, connection):
    """Its pages run in the browser that holds the cookie."""
    web = access.serve()
    cookie = access.login(web, access.token("--scope", "admin"))
    evil = access.system.serve("--no-worker", url=access.server.url, data_dir=access.system.folder / "evil")
    context = browser.new_context()
    context.add_cookies([{"name": "rqxx_session", "value": cookie.split("=")[1], "url": web.url, "httpOnly": True, "sameSite": "Strict"}])
    page = context.new_page()
    page.route("**/attack", lambda route: route.fulfill(content_type="text/html", body=f"""
        <form method="post" enctype="text/plain" action="{web.url}/api/v1/suspend"><input name="a" value="b"></form>
        <script>document.forms[0].submit()</script>"""))
    before = keys_and_values(connection)
    with page.expect_response(web.url + "/api/v1/suspend") as answer:
        page.goto(evil.url.replace("127.0.0.1", "localhost") + "/attack")
    assert answer.value.status == 403
    assert keys_and_values(connection) == before
    context.close()


# ---- TLS, and a proxy in front ---------------------------------------------------------------------

def certificate(folder, name):
    """(certificate, key, the former as DER) of a certificate that signs itself."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
                   check=True, capture_output=True)
    return cert, key, ssl.PEM_cert_to_DER_cert(cert.read_text())


def tls_request(url, data, context):
    """(what comes back, the server's certificate, the protocol)."""
    host, port = url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain, context.wrap_socket(plain, server_hostname=host) as conn:
        conn.sendall(data)
        received = b""
        while piece := conn.recv(65536):
            received += piece
        return received, conn.getpeercert(binary_form=True), conn.version()


def test_our_own_port_speaks_tls(access):
    cert, key, der = certificate(access.system.folder, "one")
    web = access.serve("--tls-cert", cert, "--tls-key", key)
    assert web.url.startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=cert)
    token = access.token()
    get = f"GET /api/rq/stats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode()
    raw, shown, version = tls_request(web.url, get, context)
    assert raw.startswith(b"HTTP/1.1 200") and shown == der and version in ("TLSv1.2", "TLSv1.3")
    assert b"\r\nStrict-Transport-Security: max-age=" in raw
    body = json.dumps({"token": token}).encode()
    raw, *_ = tls_request(web.url, b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                          + body, context)
    cookie = re.search(rb"Set-Cookie: (rqxx_session=(\w+); .*)\r\n", raw)
    access.secrets.append(cookie[2].decode())
    assert cookie[1].endswith(b"HttpOnly; SameSite=Strict; Secure")
    # A large answer, and one without an end.
    raw, *_ = tls_request(web.url, b"GET /assets/app.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", context)
    head, body = raw.split(b"\r\n\r\n", 1)
    assert len(body) == int(re.search(rb"Content-Length: (\d+)", head)[1]) > 10_000
    old = ssl.create_default_context(cafile=cert)
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        tls_request(web.url, get, old)
    assert not raw_http(web.url.replace("https", "http"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP")
    assert tls_request(web.url, get, context)[0].startswith(b"HTTP/1.1 200")


def test_a_new_certificate_is_used_without_a_restart_and_a_broken_one_is_not(access):
    cert, key, first = certificate(access.system.folder, "one")
    web = access.serve("--tls-cert", cert, "--tls-key", key)
    anything = ssl._create_unverified_context()
    get = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert tls_request(web.url, get, anything)[1] == first
    new_cert, new_key, second = certificate(access.system.folder, "two")
    new_cert.replace(cert)
    new_key.replace(key)
    web.signal(1)   # SIGHUP; it would see it by itself, too.
    wait_for(lambda: tls_request(web.url, get, anything)[1] == second)
    cert.write_text("nonsense")
    wait_for(lambda: tls_request(web.url, get, anything)[1] == second and "the old one stays" in web.log)


def test_bad_certificates_are_said_at_the_start(system, server):
    cert, key, _ = certificate(system.folder, "one")
    other = certificate(system.folder, "two")[1]
    for args, words in [(["--tls-cert", cert], "--tls-key"), (["--tls-cert", key, "--tls-key", key], "--tls-cert"),
                        (["--tls-cert", cert, "--tls-key", other], "--tls-key")]:
        refused = system.rqxx("serve", "--redis-url", server.url, "--port", "0", *args)
        assert refused.returncode == 2 and words in refused.stderr, refused.stderr


def test_events_flow_through_tls(access):
    cert, key, _ = certificate(access.system.folder, "one")
    web = access.serve("--tls-cert", cert, "--tls-key", key)
    host, port = web.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain, \
            ssl.create_default_context(cafile=cert).wrap_socket(plain, server_hostname=host) as conn:
        conn.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {access.token()}\r\n\r\n".encode())
        received = b""
        while b"event: unchanged" not in received:
            received += conn.recv(65536)
    assert b"event: overview" in received


def test_behind_a_proxy_everything_is_below_the_prefix(browser, access, connection):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")
    web = access.serve("--path-prefix", "/tools/rqxx", "--trust-proxy")
    assert web.url.endswith("/tools/rqxx")
    root = web.url.removesuffix("/tools/rqxx")
    token = access.token("--scope", "operate", name="operator")
    assert http("GET", web.url + "/api/rq/stats", headers=bearer(token)).status == 200
    made = http("POST", web.url + "/api/v1/jobs", {"func": "tasks.add", "args": [1, 2]}, bearer(token))
    assert made.headers["Location"] == f"/tools/rqxx/api/v1/jobs/{made.json['job_id']}"
    # A proxy may as well take the prefix away.
    assert http("GET", root + "/api/rq/stats", headers=bearer(token)).status == 200
    problem(http("GET", root + "/tools/rqxxx/api/rq/stats", headers=bearer(token)), 404)
    raw = raw_http(root, b"GET /tools/rqxx HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 308") and b"\r\nLocation: /tools/rqxx/\r\n" in raw
    answer = http("POST", web.url + "/api/v1/session", {"token": token}, {"X-Forwarded-Proto": "https"})
    access.secrets.append(re.search("=(\\w+);", answer.headers["Set-Cookie"])[1])
    assert answer.headers["Set-Cookie"].endswith("; Path=/tools/rqxx/; HttpOnly; SameSite=Strict; Secure")

    context = browser.new_context(locale="en-US")
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(web.url + "/")
    page.get_by_label("token").fill(token)
    page.keyboard.press("Enter")
    playwright.expect(page.locator("main")).to_contain_text("tasks.add", timeout=10_000)
    playwright.expect(page.locator("#live")).to_have_text("Live")
    access.secrets += [cookie["value"] for cookie in context.cookies()]
    assert all(url.startswith(web.url + "/") for url in asked) and len(asked) > 4
    context.close()


@pytest.mark.parametrize("prefix", ["rqxx", "/", "/rqxx/", "/a b", "//a", "/a\r\nb"])
def test_a_bad_prefix_is_said_at_the_start(system, server, prefix):
    refused = system.rqxx("serve", "--redis-url", server.url, "--port", "0", f"--path-prefix={prefix}")
    assert refused.returncode == 2 and "--path-prefix" in refused.stderr
