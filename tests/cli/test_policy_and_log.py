"""The optimized queue's policy at its edges, as it stands in Redis, and the event log to the letter."""

import json
import re

import pytest
from conftest import wait_for


def enqueue(system, *args):
    return system.rqxx("enqueue", "tasks.noop", ":1", *args, "--redis-url", system.server.url)


@pytest.mark.parametrize(
    ("priority", "asked", "queue", "timeout"),
    [("high", "900", "high", 600), ("high", "600", "high", 600), ("high", "599", "high", 599), ("high", None, "high", 600),
     ("high", "1", "high", 1), ("normal", None, "default", 300), ("normal", "900", "default", 900), ("normal", "10", "default", 10),
     ("low", "60", "low", 180), ("low", "180", "low", 180), ("low", "181", "low", 181), ("low", None, "low", 180),
     ("low", "1h", "low", 3600)])
def test_priority_decides_queue_and_time_limit(system, connection, priority, asked, queue, timeout):
    flags = ["--priority", priority] + (["--timeout", asked] if asked else [])
    result = enqueue(system, *flags)
    job = connection.hgetall(f"rq:job:{result.stdout.strip()}")
    assert job[b"origin"] == queue.encode()
    assert job[b"timeout"] == str(timeout).encode()
    assert job[b"result_ttl"] == b"3600"
    assert job[b"failure_ttl"] == b"86400"
    assert job[b"retries_left"] == b"2"
    assert connection.lrange(f"rq:queue:{queue}", 0, -1) == [result.stdout.strip().encode()]


@pytest.mark.parametrize(("retry", "executions"), [("0", 1), ("1", 2), ("2", 3)])
def test_retry_is_the_number_of_further_executions(system, connection, retry, executions):
    job_id = system.rqxx("enqueue", "tasks.fail", "x", "--priority", "normal", "--retry", retry, "--redis-url",
                         system.server.url).stdout.strip()
    worker = system.test_worker("--burst", "default")
    assert worker.wait() == 0
    assert worker.log.count(f"Job started: id={job_id}") == executions
    assert worker.log.count(f"Job retry: id={job_id}") == executions - 1
    assert connection.hget(f"rq:job:{job_id}", "status") == b"failed"


def test_ttls_of_ended_jobs_are_the_policys(system, connection):
    good = enqueue(system, "--priority", "normal").stdout.strip()
    bad = system.rqxx("enqueue", "tasks.fail", "x", "--priority", "normal", "--retry", "0", "--redis-url",
                      system.server.url).stdout.strip()
    assert system.test_worker("--burst", "default").wait() == 0
    assert 3590 <= connection.ttl(f"rq:job:{good}") <= 3600
    assert 3590 <= connection.ttl(f"rq:results:{good}") <= 3600
    assert 86390 <= connection.ttl(f"rq:job:{bad}") <= 86400
    assert 86390 <= connection.ttl(f"rq:results:{bad}") <= 86400


@pytest.mark.parametrize(
    ("flags", "named"),
    [(["--priority", "urgent"], "--priority"), (["--priority", "high", "--timeout", "0"], "timeout"),
     (["--priority", "high", "--timeout", "soon"], "--timeout"), (["--priority", "low", "--retry", "-1"], "retry"),
     (["--priority", "low", "--retry", "101"], "retry"), (["--priority", "low", "--retry", "x"], "--retry"),
     (["--priority", "low", "--queue", "other"], "--queue"), (["--ttl", "0"], "ttl"), (["--job-id", "a b"], "job_id"),
     (["--queue", ""], "queue"), (["--queue", "a,b"], "queue"), (["--unique"], "unique")])
def test_bad_settings_are_refused_by_name_and_change_nothing(system, connection, flags, named):
    result = enqueue(system, *flags)
    assert result.returncode == 2
    assert named in result.stderr and result.stderr.count("\n") == 1
    assert connection.keys("rq:*") == []


def test_event_log_lines_are_the_contracts(system, connection):
    enqueued = enqueue(system, "--priority", "normal")
    good = enqueued.stdout.strip()
    assert enqueued.stderr == f"INFO: Job enqueued: id={good}, queue=default, timeout=300\n"
    bad = system.rqxx("enqueue", "tasks.fail", "one\ntwo", "--priority", "low", "--retry", "1", "--redis-url",
                      system.server.url).stdout.strip()
    worker = system.test_worker("--burst", "default", "low")
    assert worker.wait() == 0
    number = r"\d+(\.\d{1,2})?"
    lines = [line for line in worker.log.splitlines() if "Job " in line]
    patterns = [rf"INFO: Job started: id={good}, queued_for={number}s", rf"INFO: Job finished: id={good}, duration={number}s",
                rf"INFO: Job started: id={bad}, queued_for={number}s",
                rf"WARNING: Job retry: id={bad}, attempt=1/1, next_in=0s, error=std::runtime_error: one\\ntwo",
                rf"ERROR: Job failed: id={bad}, error=std::runtime_error: one\\ntwo"]
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), f"{pattern} not in {lines}"
    assert len(lines) == 6


def test_session_id_stands_in_the_log_of_an_evaluation(system):
    server = system.serve("--demo", "--no-worker")
    server.wait_for_log("Job enqueued")
    assert re.search(r"^INFO: Job enqueued: id=[0-9a-f-]{36}, session_id=1, queue=default, timeout=300$", server.log, re.M)


@pytest.mark.parametrize("args", [["42", "--priority", "high"], [":42", "--priority", "high"], ["session_id=42", "--priority", "high"],
                                  ["42", "--queue", "high", "--timeout", "600"]])
def test_session_id_stands_in_the_log_of_an_evaluation_by_hand(system, server, args):
    result = system.rqxx("enqueue", "eval_worker.evaluate", *args, "--redis-url", server.url)
    assert result.stderr == f"INFO: Job enqueued: id={result.stdout.strip()}, session_id=42, queue=high, timeout=600\n"


def test_json_log_has_the_same_fields(system, connection):
    def events(text):
        lines = [json.loads(line) for line in text.splitlines()]
        for line in lines:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("time"))
        return [line for line in lines if line["event"].startswith("Job ")]

    def enqueue_logged(*args):
        result = system.rqxx("enqueue", *args, "--log-format", "json", "--redis-url", system.server.url)
        return result.stdout.strip(), events(result.stderr)

    good, enqueued = enqueue_logged("tasks.noop", ":1", "--priority", "high")
    assert enqueued == [{"level": "INFO", "event": "Job enqueued", "id": good, "queue": "high", "timeout": 600}]
    session, enqueued = enqueue_logged("eval_worker.evaluate", "42", "--priority", "normal", "--retry", "0")
    assert enqueued == [{"level": "INFO", "event": "Job enqueued", "id": session, "session_id": "42", "queue": "default", "timeout": 300}]
    bad, enqueued = enqueue_logged("tasks.fail", 'one\ntwo "é"', "--priority", "low", "--retry", "1", "--timeout", "1h")
    assert enqueued == [{"level": "INFO", "event": "Job enqueued", "id": bad, "queue": "low", "timeout": 3600}]
    worker = system.test_worker("--burst", "--json-log", "high", "low")
    assert worker.wait() == 0
    logged = events(worker.log)
    for event in logged:
        for seconds in ("queued_for", "duration"):
            if seconds in event:
                assert 0 <= event.pop(seconds) < 60
    error = 'std::runtime_error: one\ntwo "é"'
    for expected in [{"level": "INFO", "event": "Job started", "id": good}, {"level": "INFO", "event": "Job finished", "id": good},
                     {"level": "INFO", "event": "Job started", "id": bad},
                     {"level": "WARNING", "event": "Job retry", "id": bad, "attempt": "1/1", "next_in": 0, "error": error},
                     {"level": "INFO", "event": "Job started", "id": bad},
                     {"level": "ERROR", "event": "Job failed", "id": bad, "error": error}]:
        assert expected in logged
        logged.remove(expected)
    assert logged == []


def test_jobs_of_other_producers_keep_rqs_defaults(system, connection):
    import tasks
    from rq import Queue

    job = Queue("high", connection=connection).enqueue(tasks.noop, 1)
    assert system.test_worker("--burst", "high").wait() == 0
    assert 490 <= connection.ttl(job.key) <= 500
    assert connection.hget(job.key, "timeout") == b"180"
    wait_for(lambda: job.get_status() == "finished")
