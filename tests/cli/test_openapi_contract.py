"""Requests that are made up from the OpenAPI document get answers that are in it, from a server with data.

Each operation is called with values that its schema allows and such as it does not, names of things that are there and
of such as are not. No answer may be 500, of a status that the operation does not name, or of another shape than it says.
"""

import json
import random

import pytest
import tasks
from conftest import http
from rq import Queue, Retry

schemathesis = pytest.importorskip("schemathesis", reason="comes with tests/requirements.txt")
hypothesis = pytest.importorskip("hypothesis")

#: What the server itself answers before any route is asked: malformed targets and headers, bodies that are too large.
OF_THE_SERVER = {400, 408, 413, 431}
#: A stream without an end.
ENDLESS = {"/api/v1/events"}
EXAMPLES = 12


@schemathesis.serializer("application/x-ndjson")
class Lines:
    """Text as it is; anything else is one line of JSON."""

    def as_requests(self, context, value):
        return {"data": value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()}

    def as_werkzeug(self, context, value):
        return self.as_requests(context, value)


def fill(connection, system):
    queue = Queue("default", connection=connection)
    queue.enqueue(tasks.add, 1, 2, job_id="done")
    queue.enqueue(tasks.fail, "x", job_id="failed", retry=Retry(max=1))
    system.test_worker("--burst", "default").wait()
    queue.enqueue(tasks.add, 1, 2, job_id="waiting")
    queue.enqueue(tasks.add, 1, 2, job_id="child", depends_on="waiting")
    import datetime
    queue.enqueue_in(datetime.timedelta(hours=1), tasks.add, 1, 2, job_id="later")
    connection.hset("rq:job:hostile", mapping={"status": b"\xff<b>", "data": b"\x80\x04junk", "origin": b"\xff"})


def prepare(web):
    http("PUT", f"{web.url}/api/v1/limits/few", {"kind": "concurrency", "limit": 2})
    http("POST", f"{web.url}/api/v1/cron", {"name": "nightly", "func": "tasks.add", "cron": "0 3 * * *"})
    http("POST", f"{web.url}/api/v1/batches?name=load", b'{"func": "tasks.add", "args": [1, 2]}\n')


KNOWN = {"job_id": ["done", "failed", "waiting", "child", "later", "hostile"], "batch_id": ["load"]}
KNOWN_NAMES = {"limits": ["few"], "cron": ["nightly"], "queues": ["default"], "functions": ["tasks.add"], "workers": ["nobody"]}


def known_value(path, name, rng):
    if name in KNOWN:
        return rng.choice(KNOWN[name])
    part = path.split("/")[3] if path.startswith("/api/v1/") else ""
    return rng.choice(KNOWN_NAMES[part]) if part in KNOWN_NAMES and name == "name" else None


def problems_of(operation, case, response):
    """What is wrong with an answer, or nothing."""
    documented = {status for status in operation.definition.raw["responses"] if status != "default"}
    if response.status_code >= 500 and response.status_code != 503:
        return f"answered {response.status_code}"
    if str(response.status_code) not in documented and response.status_code not in OF_THE_SERVER:
        return f"answered {response.status_code}, which is not among {sorted(documented)}"
    if response.status_code >= 400:
        body = response.json()
        if response.headers["Content-Type"] != "application/problem+json" or body["status"] != response.status_code or not body["detail"]:
            return f"a problem without its parts: {response.text[:300]}"
        return None
    if response.status_code in OF_THE_SERVER:
        return None
    case.validate_response(response, checks=(schemathesis.checks.content_type_conformance, schemathesis.checks.response_schema_conformance))
    return None


@pytest.mark.timeout(600)
def test_every_answer_is_in_the_document(system, server, connection):
    fill(connection, system)
    web = system.serve("--no-worker", "--no-scheduler", "--no-sampler", "--no-maintenance", "--no-access-log", url=server.url)
    prepare(web)
    schemathesis.experimental.OPEN_API_3_1.enable()
    schema = schemathesis.from_dict(http("GET", f"{web.url}/api/v1/openapi.json").json, base_url=web.url)
    rng = random.Random(7)
    wrong, operations, calls = [], 0, 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in ENDLESS:
            continue
        operations += 1

        @hypothesis.settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
                             suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate])
        @hypothesis.given(case=operation.as_strategy(), positive=hypothesis.strategies.booleans())
        def call(case, positive):
            nonlocal calls
            calls += 1
            if positive:
                for name in list(case.path_parameters or {}):
                    value = known_value(operation.path, name, rng)
                    if value:
                        case.path_parameters[name] = value
            response = case.call(timeout=20)
            try:
                problem = problems_of(operation, case, response)
            except Exception as error:   # schemathesis' own, which name the place in the schema
                problem = str(error)[:600]
            assert not problem, f"{operation.method.upper()} {operation.path}: {problem}"

        try:
            call()
        except BaseExceptionGroup as group:
            wrong += [str(error)[:700] for error in group.exceptions]
        except Exception as error:
            wrong.append(f"{operation.method} {operation.path}: {error}"[:900])
    assert not wrong, "\n".join(wrong)
    assert operations > 45 and calls >= operations
    assert web.process.poll() is None and "Request failed" not in web.log
    assert json.loads(http("GET", f"{web.url}/healthz").body)["status"] == "ok"


def test_the_document_has_what_clients_need(system, server):
    web = system.serve("--no-worker", "--no-scheduler", "--no-sampler", "--no-maintenance", url=server.url)
    document = http("GET", f"{web.url}/api/v1/openapi.json").json
    assert document["openapi"] == "3.1.0"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            documented = set(operation["responses"])
            if path.startswith("/api/v1/") and "{" in path and method != "put" and not any(
                    word in path for word in ("/queues/{name}/pause", "/queues/{name}/resume", "/functions/")):
                assert "404" in documented, (method, path)
