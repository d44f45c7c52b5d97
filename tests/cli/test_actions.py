"""`rqxx job cancel|delete|requeue|stop`, `rqxx queue empty|requeue-failed|compact`, and what `rqxx enqueue` takes."""

import json
import signal
import threading
import time

import pytest
import tasks
from conftest import needs_rq2, wait_for
from rq import Queue, Retry
from rq.job import Job
from rq.registry import CanceledJobRegistry, DeferredJobRegistry, FailedJobRegistry, ScheduledJobRegistry


@pytest.fixture
def rqxx(system, server):
    def run(*args, code=0):
        result = system.rqxx(*args, "--redis-url", server.url)
        assert result.returncode == code, result.stderr
        return result
    return run


@pytest.fixture
def queue(connection):
    return Queue("default", connection=connection)


def status(connection, job_id):
    value = connection.hget(f"rq:job:{job_id}", "status")
    return value and value.decode()


def keys(connection):
    return {key: connection.dump(key) for key in connection.keys("*")}


# ---- jobs by id --------------------------------------------------------------------------------------

def test_cancel_keeps_a_job_from_being_run(rqxx, queue, connection):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    assert rqxx("job", "cancel", "a").stdout == "a canceled\n"
    assert Job.fetch("a", connection=connection).is_canceled
    assert queue.job_ids == [] and CanceledJobRegistry(queue=queue).get_job_ids() == ["a"]
    refused = rqxx("job", "cancel", "a", "nope", code=1)
    assert refused.stderr == "rqxx: job a cannot be canceled: it is canceled\nrqxx: there is no job nope\n"


@pytest.mark.parametrize("dependents, states, told", [
    ("leave", ("deferred", "deferred"), "a canceled, 1 dependent left deferred (see --dependents)\n"),
    ("enqueue", ("queued", "deferred"), "a canceled, 1 dependent released\n"),
    ("cascade", ("canceled", "canceled"), "a canceled, with 2 dependents\n"),
])
def test_dependents_of_a_canceled_job_do_as_asked(rqxx, queue, connection, dependents, states, told):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    queue.enqueue(tasks.add, 1, 2, job_id="b", depends_on="a")
    queue.enqueue(tasks.add, 1, 2, job_id="c", depends_on="b")
    assert rqxx("job", "cancel", "a", "--dependents", dependents).stdout == told
    assert (status(connection, "b"), status(connection, "c")) == states
    assert len(DeferredJobRegistry(queue=queue)) == states.count("deferred")


def test_delete_leaves_nothing_of_a_job(rqxx, queue, connection, system):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    assert system.test_worker("--burst", "default").wait() == 0
    queue.enqueue(tasks.add, 1, 2, job_id="b")
    assert rqxx("job", "delete", "a", "b").stdout == "a deleted\nb deleted\n"
    assert [key for key in connection.keys("*") if b"job" in key or b"result" in key or b"execution" in key] == []
    assert queue.job_ids == [] and connection.zcard("rq:finished:default") == 0


def test_requeue_puts_a_failed_job_back_for_good(rqxx, queue, connection, system):
    queue.enqueue(tasks.fail, "x", job_id="a", failure_ttl=60)
    assert system.test_worker("--burst", "default").wait() == 0
    assert rqxx("job", "requeue", "a").stdout == "a requeued\n"
    assert queue.job_ids == ["a"] and FailedJobRegistry(queue=queue).get_job_ids() == []
    assert connection.ttl("rq:job:a") == -1        # W28: it must not expire while it waits.
    assert rqxx("job", "requeue", "a", code=1).stderr == "rqxx: job a cannot be requeued: it is queued\n"


def test_stop_ends_a_running_job_as_stopped(rqxx, queue, connection, system):
    system.test_worker("default")
    queue.enqueue(tasks.slow, 60, job_id="a")
    wait_for(lambda: status(connection, "a") == "started")
    assert rqxx("job", "stop", "a").stdout == "a stopped\n"
    job = Job.fetch("a", connection=connection)
    assert job.is_stopped and FailedJobRegistry(queue=queue).get_job_ids() == ["a"]
    assert rqxx("job", "stop", "a", code=1).stderr == "rqxx: job a cannot be stopped: it is stopped\n"


@needs_rq2
def test_stop_works_with_a_stock_worker(rqxx, queue, connection, system):
    system.rq_worker("default")
    queue.enqueue(tasks.slow, 60, job_id="a")
    wait_for(lambda: connection.hget("rq:job:a", "worker_name") and status(connection, "a") == "started")
    assert rqxx("job", "stop", "a").stdout == "a stopped\n"


def test_a_job_whose_worker_does_not_listen_is_not_called_stopped(rqxx, queue, connection):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    connection.hset("rq:job:a", mapping={"status": "started", "worker_name": "gone"})
    assert "its worker does not listen" in rqxx("job", "stop", "a", code=1).stderr


def running_at(connection, job_id):
    wait_for(lambda: status(connection, job_id) == "started")
    return wait_for(lambda: connection.zrange(f"rq:executions:{job_id}", 0, -1))[0].decode()


def test_a_request_to_stop_is_found_without_its_message(rqxx, queue, connection, system):
    worker = system.test_worker("default")
    queue.enqueue(tasks.slow, 60, job_id="a", retry=Retry(max=3))
    execution = running_at(connection, "a")
    begin = time.monotonic()
    connection.hset(f"rq:execution:a:{execution}", "stop", "asked")    # As if the message had been lost.
    wait_for(lambda: status(connection, "a") == "stopped", timeout=5)
    assert time.monotonic() - begin < 5 and "Job stopped" in worker.log


def test_a_cut_subscription_does_not_keep_a_job_from_being_stopped(rqxx, queue, connection, system):
    system.test_worker("default")
    queue.enqueue(tasks.slow, 60, job_id="a")
    running_at(connection, "a")
    done = threading.Event()

    def cut():
        while not done.wait(0.001):
            connection.client_kill_filter(_type="pubsub")
    cutter = threading.Thread(target=cut)
    cutter.start()
    begin = time.monotonic()
    try:
        assert rqxx("job", "stop", "a").stdout == "a stopped\n"
    finally:
        done.set()
        cutter.join()
    assert time.monotonic() - begin < 5.5


def test_a_stop_is_acknowledged_before_the_job_has_stopped(rqxx, queue, connection, system):
    # Its handler does not listen: it is given up after two seconds.
    system.test_worker("default")
    queue.enqueue("tasks.stubborn", 20, job_id="a")
    execution = running_at(connection, "a")
    begin = time.monotonic()
    assert rqxx("job", "stop", "a", "--no-wait").stdout == "a stopping\n"
    wait_for(lambda: connection.hget(f"rq:execution:a:{execution}", "stop") == b"acknowledged", timeout=1)
    assert time.monotonic() - begin < 1, "the message makes it immediate"
    shown = json.loads(rqxx("job", "show", "a", "--json").stdout)[0]["executions"][0]
    assert (shown["id"], shown["stop"]) == (execution, "acknowledged")
    result = rqxx("job", "stop", "a")
    assert result.stdout == "a stopped\n" and result.stderr == "a acknowledged\n"


def test_a_job_that_is_to_stop_does_not_come_back_when_its_worker_shuts_down(rqxx, queue, connection, system):
    worker = system.test_worker("--grace", "0", "default")
    queue.enqueue("tasks.stubborn", 20, job_id="a")
    running_at(connection, "a")
    rqxx("job", "stop", "a", "--no-wait")
    worker.signal(signal.SIGTERM)
    wait_for(lambda: status(connection, "a") != "started")
    assert status(connection, "a") == "stopped" and queue.job_ids == []


def test_stopping_as_json_says_how_far_it_got(rqxx, queue, connection, system):
    system.test_worker("default")
    queue.enqueue(tasks.slow, 60, job_id="a")
    running_at(connection, "a")
    row = {"id": "a", "outcome": "done", "status_before": "started", "dependents": 0, "stop": "stopped"}
    assert json.loads(rqxx("job", "stop", "a", "--json").stdout) == [row]
    refused = json.loads(rqxx("job", "stop", "a", "--json", code=1).stdout)[0]
    assert (refused["outcome"], refused["stop"]) == ("refused", None)
    queue.enqueue(tasks.slow, 60, job_id="b")
    running_at(connection, "b")
    assert json.loads(rqxx("job", "stop", "b", "--json", "--no-wait").stdout) == [{**row, "id": "b", "stop": "stopping"}]


@needs_rq2
def test_records_of_stock_workers_are_not_marked(rqxx, queue, connection, system):
    system.rq_worker("default")
    queue.enqueue(tasks.slow, 60, job_id="a")
    execution = running_at(connection, "a")
    wait_for(lambda: connection.hget("rq:job:a", "worker_name"))
    rqxx("job", "stop", "a", "--no-wait")
    assert connection.hget(f"rq:execution:a:{execution}", "stop") is None


def test_actions_as_json(rqxx, queue):
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    result = json.loads(rqxx("job", "cancel", "a", "nope", "--json", code=1).stdout)
    assert result == [{"id": "a", "outcome": "done", "status_before": "queued", "dependents": 0},
                      {"id": "nope", "outcome": "no such job", "status_before": "", "dependents": 0}]


# ---- many jobs ---------------------------------------------------------------------------------------

def test_a_filter_chooses_by_queue_status_and_function(rqxx, queue, connection):
    for n in range(30):
        queue.enqueue(tasks.add if n % 2 else tasks.noop, n, job_id=f"j{n}")
    Queue("other", connection=connection).enqueue(tasks.add, 1, 2)
    chosen = ("--queue", "default", "--status", "queued", "--func", "tasks.a*")
    before = keys(connection)
    assert rqxx("job", "cancel", *chosen, "--dry-run").stdout == "15 jobs would be canceled\n"
    assert keys(connection) == before
    assert rqxx("job", "cancel", *chosen, "--limit", "5").stdout == "5 jobs canceled\n"
    assert json.loads(rqxx("job", "cancel", *chosen, "--json").stdout) == {
        "looked_at": 25, "matched": 10, "done": 10, "refused": 0, "dry_run": False}
    assert queue.job_ids == [f"j{n}" for n in range(0, 30, 2)]
    assert rqxx("job", "requeue", "--queue", "default", "--status", "canceled").stdout == "15 jobs requeued\n"
    assert len(queue.job_ids) == 30 and connection.llen("rq:queue:other") == 1


def test_failed_jobs_are_requeued_by_error(rqxx, queue, connection, system):
    for n in range(6):
        queue.enqueue(tasks.fail, "timeout" if n % 2 else "refused", job_id=f"j{n}")
    assert system.test_worker("--burst", "default").wait() == 0
    assert rqxx("queue", "requeue-failed", "default", "--error", "timeout", "--dry-run").stdout == "3 jobs would be requeued\n"
    assert rqxx("queue", "requeue-failed", "default", "--error", "timeout").stdout == "3 jobs requeued\n"
    assert sorted(queue.job_ids) == ["j1", "j3", "j5"]
    assert rqxx("queue", "requeue-failed", "default").stdout == "3 jobs requeued\n"


def test_empty_and_compact_a_queue(rqxx, queue, connection):
    for n in range(10):
        queue.enqueue(tasks.add, n, n, job_id=f"j{n}")
    for n in range(5):
        connection.delete(f"rq:job:j{n}")
    before = keys(connection)
    assert rqxx("queue", "compact", "default", "--dry-run").stdout == "5 ids without a job would be removed\n"
    assert keys(connection) == before
    assert rqxx("queue", "compact", "default").stdout == "5 ids without a job removed\n"
    assert queue.job_ids == [f"j{n}" for n in range(5, 10)]
    assert rqxx("queue", "empty", "default").stdout == "5 jobs deleted\n"
    assert queue.job_ids == [] and connection.keys("rq:job:*") == []


@pytest.mark.parametrize("args, named", [
    (["job", "cancel"], "ID"),
    (["job", "cancel", "a", "--queue", "q"], "ID"),
    (["job", "delete", "--status", "failed"], "--queue"),
    (["job", "requeue", "--queue", "q"], "--status"),
    (["job", "cancel", "--queue", "q", "--status", "odd"], "status"),
    (["job", "cancel", "a", "--dependents", "odd"], "--dependents"),
    (["job", "explode", "a"], "explode"),
    (["queue", "empty"], "NAME"),
])
def test_bad_actions_are_refused_by_name(rqxx, connection, args, named):
    result = rqxx(*args, code=2)
    assert named in result.stderr and result.stderr.count("\n") == 1
    assert connection.keys("*") == []


# ---- what enqueue takes ------------------------------------------------------------------------------

@needs_rq2
def test_python_reads_every_option_of_enqueue(rqxx, queue, connection):
    rqxx("enqueue", "tasks.add", ":1", ":2", "--job-id", "parent")
    rqxx("enqueue", "tasks.add", ":1", ":2", "--job-id", "a", "--depends-on", "parent", "--allow-failure", "--retry", "3",
         "--retry-interval", "10s", "--retry-interval", "1m", "--retry-at-front", "--on-success", "tasks.on_success@30s",
         "--on-failure", "tasks.on_failure", "--repeat", "2", "--repeat-interval", "5", "--group", "g", "--meta", '{"k": [1, "é"]}',
         "--webhook", "failed=https://example.com/hook", "--ttl", "1h")
    job = Job.fetch("a", connection=connection)
    assert job.get_status() == "deferred" and job.dependency_ids == ["parent"] and job.allow_dependency_failures
    assert (job.retries_left, job.retry_intervals, job.enqueue_at_front_on_retry) == (3, [10, 60], True)
    assert (job.repeats_left, job.repeat_intervals, job.group_id, job.meta) == (2, [5], "g", {"k": [1, "é"]})
    assert job.success_callback is tasks.on_success and job.success_callback_timeout == 30
    assert job.failure_callback is tasks.on_failure and job.failure_callback_timeout == 60
    assert [(hook.url, hook.job_status, hook.method) for hook in job.webhooks] == [("https://example.com/hook", "failed", "POST")]
    assert 0 < connection.ttl("rq:job:a") <= 3600


@pytest.mark.parametrize("flags, due", [
    (["--at", "2033-05-18T03:33:20Z"], 2000000000),
    (["--at", "2033-05-18T06:33:20.5+03:00"], 2000000000),
    (["--at", "2000000000"], 2000000000),
    (["--in", "1h"], None),
])
def test_jobs_for_later_wait_in_the_scheduled_registry(rqxx, queue, connection, flags, due):
    rqxx("enqueue", "tasks.add", ":1", ":2", "--job-id", "a", *flags)
    assert status(connection, "a") == "scheduled" and queue.job_ids == []
    assert ScheduledJobRegistry(queue=queue).get_job_ids() == ["a"]
    expected = due or time.time() + 3600
    assert abs(connection.zscore("rq:scheduled:default", "a") - expected) <= 5


@pytest.mark.parametrize("flags, named", [
    (["--at", "tomorrow"], "--at"), (["--at", "2000000000", "--in", "5s"], "--at"), (["--in", "soon"], "--in"),
    (["--depends-on", "not an id"], "depends_on"), (["--depends-on", "a", "--in", "5s"], "depends_on"),
    (["--retry-interval", "5s"], "--retry"), (["--retry", "1", "--retry-interval", "x"], "--retry-interval"),
    (["--repeat", "0"], "repeat"), (["--webhook", "http://x"], "--webhook"), (["--webhook", "finished=ftp://x"], "webhooks"),
    (["--meta", "[1]"], "--meta"), (["--on-success", "f@never"], "--on-success"), (["--allow-failure"], "--allow-failure"),
    (["--priority", "high", "--in", "5s"], "--priority"),
])
def test_bad_options_of_enqueue_are_refused_by_name(rqxx, connection, flags, named):
    result = rqxx("enqueue", "tasks.add", ":1", ":2", *flags, code=2)
    assert named in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert connection.keys("*") == []


def test_an_id_that_waits_or_runs_is_refused_and_one_that_has_ended_makes_way(rqxx, queue, connection, system):
    rqxx("enqueue", "tasks.add", ":1", ":2", "--job-id", "a")
    assert "exists already (queued)" in rqxx("enqueue", "tasks.add", ":5", ":5", "--job-id", "a", code=1).stderr
    assert queue.job_ids == ["a"]
    assert system.test_worker("--burst", "default").wait() == 0
    rqxx("enqueue", "tasks.add", ":5", ":5", "--job-id", "a")
    assert queue.job_ids == ["a"] and connection.zcard("rq:finished:default") == 0
