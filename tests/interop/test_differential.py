"""The same scenario run by stock RQ and by rqxx must leave the same keys, types, fields and TTLs.

Differences are allowed only where `ALLOWED` names them, with the reason.
"""

import re
import tempfile

import pytest
import tasks
from conftest import System, needs_rq2
from rq import Queue, Retry
from rq.job import Dependency
from rq.serializers import JSONSerializer

#: (scenario pattern, key pattern, field or aspect) -> why the two may differ.
ALLOWED = {
    (".*", r"rqxx:.*", "key"): "rqxx's own counters and time buckets",
    (".*fail.*|retries_exhausted", r"rq:results:.*", "ttl"):
        "W36: a failed result gets the job's failure TTL; RQ keeps it for ever where the job has none",
    ("retr.*", r"rq:job:.*", "rqxx_retries"): "numbers the attempts in the log; RQ forgets how many there were",
    (".*", r"rq:worker:W", "version"): "the version of the worker",
    (".*", r"rq:worker:W", "python_version"): "the version of the worker",
    (".*", r"rq:worker:W", "ip_address"): "rqxx does not look up its own address",
}

SCENARIOS = {
    "success": lambda q: q.enqueue(tasks.add, 1, 2, job_id="a"),
    "success_with_everything": lambda q: q.enqueue(
        tasks.add, 1, 2, job_id="a", job_timeout=77, result_ttl=600, failure_ttl=700, meta={"k": [1]}, description="text"),
    "success_of_nothing": lambda q: q.enqueue(tasks.none, job_id="a"),
    "result_kept_for_ever": lambda q: q.enqueue(tasks.add, 1, 2, job_id="a", result_ttl=-1),
    "result_not_kept": lambda q: q.enqueue(tasks.add, 1, 2, job_id="a", result_ttl=0),
    "waiting_ttl": lambda q: q.enqueue(tasks.add, 1, 2, job_id="a", ttl=300),
    "failure": lambda q: q.enqueue(tasks.fail, "boom", job_id="a"),
    "failure_ttl": lambda q: q.enqueue(tasks.fail, "boom", job_id="a", failure_ttl=123),
    "failure_kept_for_ever": lambda q: q.enqueue(tasks.fail, "boom", job_id="a", failure_ttl=-1),
    "retries_exhausted": lambda q: q.enqueue(tasks.fail, "boom", job_id="a", retry=Retry(max=2)),
    "retry_later": lambda q: q.enqueue(tasks.fail, "boom", job_id="a", retry=Retry(max=2, interval=[60, 120])),
    "at_front": lambda q: [q.enqueue(tasks.add, 1, 2, job_id="a"), q.enqueue(tasks.add, 3, 4, job_id="b", at_front=True)],
    "many": lambda q: [q.enqueue(tasks.add, n, n, job_id=f"j{n}") for n in range(12)],
    "dependents": lambda q: q.enqueue(tasks.add, 3, 4, job_id="b", depends_on=q.enqueue(tasks.add, 1, 2, job_id="a")),
    "dependent_of_failure": lambda q: q.enqueue(tasks.add, 3, 4, job_id="b", depends_on=q.enqueue(tasks.fail, "x", job_id="a")),
    "allowed_failure": lambda q: q.enqueue(
        tasks.add, 3, 4, job_id="b",
        depends_on=Dependency(jobs=[q.enqueue(tasks.fail, "x", job_id="a")], allow_failure=True)),
    "two_dependencies": lambda q: q.enqueue(
        tasks.add, 3, 4, job_id="c", depends_on=[q.enqueue(tasks.add, 1, 2, job_id="a"), q.enqueue(tasks.add, 1, 2, job_id="b")]),
    "scheduled_stays": lambda q: q.enqueue_in(__import__("datetime").timedelta(hours=1), tasks.add, 1, 2, job_id="a"),
    "canceled_before_its_turn": lambda q: q.enqueue(tasks.add, 1, 2, job_id="a").cancel(),
    "unknown_fields": lambda q: q.connection.hset(q.enqueue(tasks.add, 1, 2, job_id="a").key, mapping={"new_in_3": "kept"}),
}


def dump(connection):
    """Every key: its type, TTL (in steps of 10 s) and content, with what must vary replaced by a letter."""

    def text(value):
        value = value.decode("utf-8", "backslashreplace")
        value = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", value)
        return re.sub(r"[0-9a-f]{32}", "EXECUTION", value)

    def content(key, kind):
        if kind == b"hash":
            return {text(field): value for field, value in connection.hgetall(key).items()}
        if kind == b"set":
            return sorted(connection.smembers(key))
        if kind == b"zset":
            # Scores are times; how far away they are is what counts.
            now = int(connection.time()[0])
            return sorted((member, score if abs(score) == float("inf") or score < 0 else round((score - now) / 10))
                          for member, score in connection.zrange(key, 0, -1, withscores=True))
        if kind == b"list":
            return connection.lrange(key, 0, -1)
        if kind == b"stream":
            return [fields for _, fields in connection.xrange(key)]
        return connection.get(key)

    keys = {}
    for key in connection.keys("*"):
        kind = connection.type(key)
        ttl = connection.ttl(key)
        name = re.sub(r"^rq:worker:[^:]+", "rq:worker:W", key.decode())
        keys[name] = {"type": kind, "ttl": ttl if ttl < 0 else round(ttl / 10), "content": content(key, kind)}
    return keys


VARYING = {b"worker_name", b"execution_id", b"execution_started_at", b"execution_ended_at", b"return_value", b"exc_string",
           "birth", "last_heartbeat", "death", "pid", "hostname", "worker_name", "data", "total_working_time"}


def normal(content):
    """Values that differ from run to run, reduced to whether they are there."""
    if isinstance(content, dict):
        result = {}
        for field, value in content.items():
            value = value.decode("utf-8", "backslashreplace")
            value = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", value)
            result[field] = (value != "") if field in VARYING else value
        return result
    if content and isinstance(content, list) and isinstance(content[0], dict):
        return [normal(entry) for entry in content]
    return content


def differences(scenario, stock, ours):
    def allowed(key, aspect):
        return any(re.fullmatch(where, scenario) and re.fullmatch(pattern, key) and what == aspect
                   for where, pattern, what in ALLOWED)

    found = []
    for key in sorted(set(stock) | set(ours)):
        if key not in stock or key not in ours:
            if not allowed(key, "key"):
                found.append(f"{key}: only left by {'rqxx' if key in ours else 'RQ'}")
            continue
        a, b = stock[key], ours[key]
        if a["type"] != b["type"]:
            found.append(f"{key}: type {a['type']} and {b['type']}")
        if a["ttl"] != b["ttl"] and not allowed(key, "ttl"):
            found.append(f"{key}: TTL {a['ttl']}0 and {b['ttl']}0")
        left, right = normal(a["content"]), normal(b["content"])
        if isinstance(left, dict):
            for field in sorted(set(left) | set(right)):
                if left.get(field) != right.get(field) and not allowed(key, field):
                    found.append(f"{key}.{field}: {left.get(field)!r} and {right.get(field)!r}")
        elif left != right and not allowed(key, "content"):
            found.append(f"{key}: {left} and {right}")
    return found


def run(scenario, serializer, start_worker):
    system = System(tempfile.mkdtemp(prefix="rqxx-test-"))
    try:
        server = system.redis()
        SCENARIOS[scenario](Queue("default", connection=server.client, serializer=serializer))
        worker = start_worker(system)
        assert worker.wait(60) == 0, worker.log
        return dump(server.client)
    finally:
        system.end()
        __import__("shutil").rmtree(system.folder, ignore_errors=True)


@needs_rq2
@pytest.mark.parametrize("serializer", [pytest.param(None, id="pickle"), pytest.param(JSONSerializer, id="json")])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_rqxx_leaves_what_rq_leaves(scenario, serializer):
    stock = run(scenario, serializer,
                lambda system: system.rq_worker("--burst", "default", serializer="json" if serializer else None))
    ours = run(scenario, serializer, lambda system: system.test_worker("--burst", "--concurrency", "1", "default"))
    assert differences(scenario, stock, ours) == []
