"""What happened to one job, as long as it is there."""

import datetime
import signal

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue, Retry
from test_actions_api import act, queue, status, web  # noqa: F401
from test_http import problem


def timeline(web, job_id):
    answer = http("GET", f"{web.url}/api/v1/jobs/{job_id}/timeline")
    assert answer.status == 200, answer.body
    times = [event["at"] for event in answer.json["items"]]
    assert times == sorted(times)
    return answer.json["items"]


def words(web, job_id):
    return [event["event"] for event in timeline(web, job_id)]


def test_a_job_that_succeeds_is_told_of_from_what_there_is_anyway(web, queue, connection, system):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    assert words(web, "a") == ["created", "enqueued"]
    assert system.test_worker("--burst", "default").wait() == 0
    events = timeline(web, "a")
    assert [event["event"] for event in events] == ["created", "enqueued", "started", "finished"]
    assert events[2]["worker"] == events[3]["worker"] and events[2]["execution"] == events[3]["execution"]
    assert not connection.hexists("rq:job:a", "rqxx_timeline")


@pytest.mark.parametrize("worker", ["ours", "stock"])
def test_a_job_that_fails_says_with_which_error(web, queue, system, worker):  # noqa: F811
    queue.enqueue(tasks.fail, "disk full", job_id="a")
    process = system.test_worker("--burst", "default") if worker == "ours" else system.rq_worker("--burst", "default")
    process.wait()
    events = timeline(web, "a")
    assert events[-1]["event"] == "failed" and "disk full" in events[-1]["details"]


def test_each_retried_attempt_is_told_with_its_cause(web, queue, system):  # noqa: F811
    queue.enqueue(tasks.fail, "disk full", job_id="a", retry=Retry(max=2))
    assert system.test_worker("--burst", "default").wait() == 0
    events = timeline(web, "a")
    assert [e["event"] for e in events if e["event"] in ("started", "retried", "failed")] == [
        "started", "retried", "started", "retried", "started", "failed"]
    retried = [event for event in events if event["event"] == "retried"]
    assert [e["details"].split(":")[0] for e in retried] == ["retry 1 of 2, in 0 s", "retry 2 of 2, in 0 s"]
    assert all("disk full" in e["details"] and e["worker"] and e["execution"] for e in retried)
    assert len({e["execution"] for e in events if e["event"] == "started"}) == 3


def test_who_acted_on_it_is_told(web, queue, connection, system, server):  # noqa: F811
    queue.enqueue_in(datetime.timedelta(hours=1), tasks.add, 1, 2, job_id="a")
    assert "scheduled" in words(web, "a")
    act(web, "a", "run-now")
    act(web, "a", "cancel")
    assert system.rqxx("job", "requeue", "a", "--redis-url", server.url).returncode == 0
    told = [(e["event"], e["by"]) for e in timeline(web, "a") if e["by"]]
    assert [word for word, _ in told] == ["run_now", "canceled", "requeued"]
    assert told[0][1] == told[1][1] == "127.0.0.1" and "@" in told[2][1]


def test_a_job_that_is_stopped_tells_who_asked(web, queue, connection, system):  # noqa: F811
    system.test_worker("default")
    queue.enqueue(tasks.slow, 60, job_id="a")
    wait_for(lambda: status(connection, "a") == "started")
    act(web, "a", "stop")
    wait_for(lambda: status(connection, "a") == "stopped")
    events = timeline(web, "a")
    assert [e["event"] for e in events][-2:] == ["stop_requested", "stopped"] and events[-2]["by"] == "127.0.0.1"


def test_a_job_of_a_worker_that_died_is_told_to_be_recovered(web, queue, connection, system):  # noqa: F811
    worker = system.test_worker("default")
    queue.enqueue(tasks.slow, 60, job_id="a")
    wait_for(lambda: status(connection, "a") == "started")
    worker.signal(signal.SIGKILL)
    worker.wait()
    system.test_worker("other")
    wait_for(lambda: "recovered" in words(web, "a"), timeout=60)


def test_it_goes_with_the_job_and_is_bounded(web, queue, connection):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    for _ in range(40):
        act(web, "a", "cancel")
        act(web, "a", "requeue")
    told = [e for e in timeline(web, "a") if e["by"]]
    assert len(told) == 50 and told[-1]["event"] == "requeued"
    act(web, "a", "delete")
    assert problem(http("GET", f"{web.url}/api/v1/jobs/a/timeline"), 404) == "Job not found"
    assert [key for key in connection.keys("*") if b"timeline" in key] == []


@pytest.mark.parametrize("text", [b"\xff\xfe", b"{", b"[]\n{}\n", b'{"at":"x","event":"y"}', b'{"at":"2026-01-01T00:00:00Z","event":"<b>","exc_string":"%%%","by":3}',
                                  b"[" * 5000])
def test_hostile_timelines_are_shown_as_far_as_they_can_be(web, queue, connection, text):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    connection.hset("rq:job:a", "rqxx_timeline", text)
    assert {"created", "enqueued"} <= set(words(web, "a"))
