"""Python RQ and rqxx on the same jobs, both ways and with both serializers."""

import subprocess
import sys

import pytest
import tasks
from conftest import INTEROP, needs_rq2, wait_for
from rq import Queue, Retry, Worker
from rq.job import Job, JobStatus
from rq.registry import DeferredJobRegistry, FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

SERIALIZERS = [pytest.param(None, id="pickle"), pytest.param(JSONSerializer, id="json")]


def queue(connection, serializer, name="default"):
    return Queue(name, connection=connection, serializer=serializer)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_job_of_python_runs_natively_and_python_sees_its_result(system, connection, serializer):
    q = queue(connection, serializer)
    job = q.enqueue(tasks.echo, 1, "é", None, [1.5, True], key={"a": [1, 2]})
    assert system.test_worker("--burst", "default").wait() == 0
    job.refresh()
    assert job.get_status() == JobStatus.FINISHED
    assert job.return_value() == [[1, "é", None, [1.5, True]], {"key": {"a": [1, 2]}}]
    result = job.latest_result()
    assert result.type == result.Type.SUCCESSFUL
    assert result.return_value == job.return_value()
    assert FinishedJobRegistry(queue=q).get_job_ids() == [job.id]
    assert StartedJobRegistry(queue=q).count == 0
    assert job.started_at <= job.ended_at
    assert job.worker_name


@needs_rq2
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_job_of_rqxx_runs_on_a_stock_worker_and_rqxx_shows_its_result(system, connection, serializer):
    name = "json" if serializer else "pickle"
    enqueued = system.rqxx("enqueue", "tasks.echo", "text", ":[1, null, 2.5]", "key:={\"a\": \"ü\"}", "--redis-url",
                           system.server.url, "--serializer", name)
    assert enqueued.returncode == 0, enqueued.stderr
    job_id = enqueued.stdout.strip()
    assert system.rq_worker("--burst", "default", serializer=name if serializer else None).wait() == 0
    job = Job.fetch(job_id, connection=connection, serializer=serializer)
    assert job.return_value() == [["text", [1, None, 2.5]], {"key": {"a": "ü"}}]
    shown = system.rqxx("job", "show", job_id, "--json", "--redis-url", system.server.url)
    import json

    detail = json.loads(shown.stdout)[0]
    assert detail["status"] == "finished"
    assert detail["result"] == [["text", [1, None, 2.5]], {"key": {"a": "ü"}}]
    assert detail["executions"][0]["outcome"] == "successful"


def test_a_failing_job_carries_the_fields_of_a_traceback(system, connection):
    q = queue(connection, None)
    job = q.enqueue(tasks.fail, "boom\nsecond line")
    assert system.test_worker("--burst", "default").wait() == 0
    job.refresh()
    assert job.get_status() == JobStatus.FAILED
    result = job.latest_result()
    assert result.type == result.Type.FAILED
    assert result.exc_string.startswith("Traceback (most recent call last):\n")
    assert "boom\nsecond line" in result.exc_string
    assert job.exc_info == result.exc_string
    assert FailedJobRegistry(queue=q).get_job_ids() == [job.id]


def test_a_job_that_returns_nothing_has_a_result_without_value(system, connection):
    job = queue(connection, None).enqueue(tasks.none)
    assert system.test_worker("--burst", "default").wait() == 0
    assert job.latest_result().return_value is None
    assert job.get_status() == JobStatus.FINISHED


def test_a_job_without_a_native_handler_fails_with_a_clear_message(system, connection):
    job = queue(connection, None).enqueue("no.such.function")
    assert system.test_worker("--burst", "default").wait() == 0
    assert "no native handler is registered for no.such.function" in job.latest_result().exc_string


def test_retries_are_used_up_and_then_the_job_fails(system, connection):
    job = queue(connection, None).enqueue(tasks.fail, "again", retry=Retry(max=2))
    worker = system.test_worker("--burst", "default")
    assert worker.wait() == 0
    job.refresh()
    assert job.get_status() == JobStatus.FAILED
    assert job.retries_left == 0
    assert worker.log.count("Job started: ") == 3
    assert f"WARNING: Job retry: id={job.id}, attempt=1/2, next_in=0s, error=std::runtime_error: again" in worker.log
    assert f"WARNING: Job retry: id={job.id}, attempt=2/2, next_in=0s, error=std::runtime_error: again" in worker.log


def test_dependents_are_released_when_their_parent_finishes(system, connection):
    q = queue(connection, None)
    parent = q.enqueue(tasks.add, 1, 2)
    child = q.enqueue(tasks.add, 3, 4, depends_on=parent)
    grandchild = q.enqueue(tasks.add, 5, 6, depends_on=[child, parent])
    assert DeferredJobRegistry(queue=q).count == 2
    assert system.test_worker("--burst", "default").wait() == 0
    assert [job.return_value() for job in (parent, child, grandchild)] == [3, 7, 11]
    assert DeferredJobRegistry(queue=q).count == 0


def test_dependents_of_a_failed_parent_run_only_where_allowed(system, connection):
    from rq.job import Dependency

    q = queue(connection, None)
    parent = q.enqueue(tasks.fail, "no")
    strict = q.enqueue(tasks.add, 1, 1, depends_on=parent)
    lenient = q.enqueue(tasks.add, 2, 2, depends_on=Dependency(jobs=[parent], allow_failure=True))
    assert system.test_worker("--burst", "default").wait() == 0
    assert strict.get_status() == JobStatus.DEFERRED
    assert lenient.get_status() == JobStatus.FINISHED


def test_mixed_workers_run_every_job_exactly_once(system, connection, tmp_path):
    q = queue(connection, None)
    marks = tmp_path / "marks"
    jobs = [q.enqueue(tasks.mark, str(marks), 0.002) for _ in range(300)]
    workers = [system.test_worker("--burst", "--concurrency", "4", "default"), system.rq_worker("--burst", "default"),
               system.test_worker("--burst", "--concurrency", "2", "default")]
    for worker in workers:
        assert worker.wait(120) == 0
    assert sorted(marks.read_text().split()) == sorted(job.id for job in jobs)
    assert all(job.get_status() == JobStatus.FINISHED for job in jobs)
    by = {Job.fetch(job.id, connection=connection).worker_name for job in jobs}
    assert len(by) >= 2, "one worker did everything; the test showed nothing"


@needs_rq2
def test_rq_info_and_worker_all_show_the_worker(system, connection):
    worker = system.test_worker("--name", "native-1", "high", "default")
    worker.wait_for_log("Worker started")
    job = queue(connection, None).enqueue(tasks.slow, 30)
    wait_for(lambda: job.get_status() == JobStatus.STARTED)
    workers = Worker.all(connection=connection)
    assert [w.name for w in workers] == ["native-1"]
    assert workers[0].queue_names() == ["high", "default"]
    assert workers[0].get_state() == "busy"
    assert workers[0].get_current_job_id() == job.id
    info = subprocess.run([sys.executable, "-m", "rq.cli", "info", "--url", system.server.url], capture_output=True, text=True,
                          timeout=30)
    assert "native-1" in info.stdout and "1 workers" in info.stdout, info.stdout + info.stderr
    assert [execution.job_id for execution in job.get_executions()] == [job.id]


def test_a_worker_that_ends_leaves_no_trace_among_the_living(system, connection):
    assert system.test_worker("--burst", "--name", "gone", "default").wait() == 0
    assert Worker.all(connection=connection) == []
    assert 0 < connection.ttl("rq:worker:gone") <= 60
    assert connection.exists("rq:worker:gone:executions") == 0
    assert connection.zcard("rqxx:leases") == 0


@needs_rq2
def test_enqueue_of_python_and_rqxx_write_the_same_fields(system, connection):
    q = queue(connection, None)
    theirs = q.enqueue("tasks.add", 1, 2, job_id="theirs", job_timeout=90, result_ttl=77, failure_ttl=88, ttl=99,
                       retry=Retry(max=3), description="text")
    ours = system.rqxx("enqueue", "tasks.add", ":1", ":2", "--job-id", "ours", "--timeout", "90", "--result-ttl", "77",
                       "--failure-ttl", "88", "--ttl", "99", "--retry", "3", "--description", "text", "--redis-url",
                       system.server.url)
    assert ours.stdout == "ours\n", ours.stderr
    a = connection.hgetall("rq:job:theirs")
    b = connection.hgetall("rq:job:ours")
    assert set(a) == set(b)
    varying = {b"created_at", b"enqueued_at", b"data"}
    assert {k: v for k, v in a.items() if k not in varying} == {k: v for k, v in b.items() if k not in varying}
    job = Job.fetch("ours", connection=connection)
    assert (job.func_name, job.args, job.kwargs) == (theirs.func_name, theirs.args, theirs.kwargs)
    assert connection.lrange("rq:queue:default", 0, -1) == [b"theirs", b"ours"]
    assert 0 < connection.ttl("rq:job:ours") <= 99
