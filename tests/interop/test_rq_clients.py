"""RQ's own commands and classes, and rq-dashboard, on what rqxx writes and on rqxx workers that run."""

import subprocess
import sys
import time

import pytest
from conftest import needs_rq2, wait_for
from rq import Queue, Worker
from rq.command import send_kill_horse_command, send_shutdown_command, send_stop_job_command
from rq.group import Group
from rq.job import Dependency, Job, JobStatus
from rq.registry import (CanceledJobRegistry, DeferredJobRegistry, FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry,
                         StartedJobRegistry)

pytestmark = needs_rq2


@pytest.fixture
def driver(system, server):
    return system.driver()


def rq(system, *args):
    done = subprocess.run([sys.executable, "-m", "rq.cli", *args, "--url", system.server.url], capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fetch(connection, id):
    return Job.fetch(id, connection=connection)


def status(connection, id):
    return fetch(connection, id).get_status()


def wait_for_status(connection, id, wanted, timeout=20):
    wait_for(lambda: status(connection, id) == wanted, timeout, f"{id} to be {wanted}")


def start_worker(system, *args):
    worker = system.test_worker("--name", "native", *args, "default")
    worker.wait_for_log("Worker started")
    return worker


#: A job of each status, named by it.
STATUSES = ["queued", "started", "finished", "failed", "stopped", "deferred", "scheduled", "canceled"]


@pytest.fixture
def a_job_of_each(system, driver, connection):
    """By rqxx alone; the worker goes on."""
    for id, func, argument in [("finished", "tasks.noop", 7), ("failed", "tasks.fail", "boom"), ("stopped", "tasks.slow", 60),
                               ("started", "tasks.slow", 60)]:
        driver.enqueue(func, argument, job_id=id, meta={"kind": id})
    worker = start_worker(system, "--concurrency", "2")
    wait_for_status(connection, "started", JobStatus.STARTED)
    wait_for(lambda: driver.stop("stopped")["code"] == "done", what="a worker that listens")
    wait_for_status(connection, "stopped", JobStatus.STOPPED)
    driver.enqueue("tasks.noop", 1, job_id="deferred", depends_on={"job_ids": ["started"]})
    driver.enqueue("tasks.noop", 1, job_id="scheduled", in_=3600)
    driver.enqueue("tasks.noop", 1, job_id="canceled", queue="other")
    driver.cancel("canceled")
    driver.enqueue("tasks.noop", 1, job_id="queued", queue="other")
    assert [status(connection, id).value for id in STATUSES] == STATUSES
    return worker


def test_rq_info_shows_queues_and_workers(system, connection, a_job_of_each):
    shown = rq(system, "info", "--raw")
    assert "queue default 0, 1 executing, 1 finished, 2 failed" in shown
    assert "queue other 1, 0 executing, 0 finished, 0 failed" in shown
    worker = Worker.all(connection=connection)[0]
    assert f"worker native ({worker.hostname} unknown {worker.pid}) busy default. jobs: 1 finished, 2 failed" in shown
    assert "default: native (busy)" in rq(system, "info", "-R", "default")
    assert "1 workers, 2 queues" in rq(system, "info")
    # Looking made no difference to what runs.
    assert status(connection, "started") == JobStatus.STARTED


def test_rq_empty_takes_away_what_rqxx_enqueued(system, driver, connection):
    driver.enqueue_many([{"func": "tasks.noop", "args": [n]} for n in range(20)])
    assert "20 jobs removed from default queue" in rq(system, "empty", "default")
    assert connection.keys("rq:job:*") == []
    start_worker(system)
    driver.enqueue("tasks.noop", 1, job_id="next")
    wait_for_status(connection, "next", JobStatus.FINISHED)


def test_rq_requeue_all_runs_failed_jobs_again(system, driver, connection, tmp_path):
    marks = tmp_path / "marks"
    for n in range(5):
        driver.enqueue("tasks.flaky", str(marks), 5, job_id=f"j{n}")
    worker = start_worker(system, "--concurrency", "1")
    registry = FailedJobRegistry("default", connection=connection)
    wait_for(lambda: registry.count == 5, what="the failures")
    assert "Requeueing 5 jobs from failed queue" in rq(system, "requeue", "--all", "--queue", "default")
    for n in range(5):
        wait_for_status(connection, f"j{n}", JobStatus.FINISHED)
    assert registry.count == 0
    assert worker.log.count("Job started: ") == 10


def test_rq_suspend_and_resume_hold_and_release_a_worker(system, driver, connection):
    start_worker(system)
    rq(system, "suspend")
    driver.enqueue("tasks.noop", 1, job_id="held")
    wait_for(lambda: Worker.all(connection=connection)[0].get_state() == "suspended", what="the worker to say so")
    assert "suspended" in rq(system, "info", "-W")
    assert status(connection, "held") == JobStatus.QUEUED
    rq(system, "resume")
    wait_for_status(connection, "held", JobStatus.FINISHED)
    rq(system, "suspend", "--duration", "1")
    driver.enqueue("tasks.noop", 1, job_id="held_a_second")
    wait_for_status(connection, "held_a_second", JobStatus.FINISHED)


def test_groups_of_rqxx_are_groups(system, driver, connection):
    driver.enqueue_many([{"func": "tasks.noop", "args": [n], "options": {"job_id": f"j{n}", "group": "g"}} for n in range(4)])
    group = Group.fetch("g", connection=connection)
    assert [one.name for one in Group.all(connection=connection)] == ["g"]
    assert sorted(job.id for job in group.get_jobs()) == ["j0", "j1", "j2", "j3"]
    assert {job.group_id for job in group.get_jobs()} == {"g"}
    fetch(connection, "j0").delete()
    driver.delete("j1")
    group.delete_job("j2")
    assert [job.id for job in group.get_jobs()] == ["j3"]
    assert system.test_worker("--burst", "default").wait() == 0
    assert status(connection, "j3") == JobStatus.FINISHED
    fetch(connection, "j3").delete()
    Group.clean_registries(connection=connection)
    assert Group.all(connection=connection) == []


def test_dependencies_go_both_ways(system, driver, connection):
    queue = Queue(connection=connection)
    driver.enqueue("tasks.fail", "x", job_id="ours")
    theirs = queue.enqueue("tasks.noop", 1, depends_on=Dependency(jobs=["ours"], allow_failure=True))
    strict = queue.enqueue("tasks.noop", 2, depends_on=fetch(connection, "ours"))
    driver.enqueue("tasks.noop", 3, job_id="last", depends_on={"job_ids": [theirs.id, "ours"], "allow_failure": True})
    assert sorted(fetch(connection, "ours").dependent_ids) == sorted([theirs.id, strict.id, "last"])
    last = fetch(connection, "last")
    assert {job.id for job in last.fetch_dependencies()} == {theirs.id, "ours"}
    assert last.allow_dependency_failures and not last.dependencies_are_met()
    assert sorted(DeferredJobRegistry(queue=queue).get_job_ids()) == sorted([theirs.id, strict.id, "last"])
    assert system.test_worker("--burst", "default").wait() == 0
    assert (theirs.get_status(), last.get_status(), strict.get_status()) == (
        JobStatus.FINISHED, JobStatus.FINISHED, JobStatus.DEFERRED)


def test_a_stop_command_stops_a_running_job(system, driver, connection, tmp_path):
    marks = tmp_path / "marks"
    driver.enqueue("tasks.slow", 60, job_id="long", retry={"max": 3}, meta={"marks": str(marks)},
                   on_stopped={"name": "tasks.on_stopped"}, on_failure={"name": "tasks.on_failure"})
    worker = start_worker(system)
    wait_for_status(connection, "long", JobStatus.STARTED)
    before = time.monotonic()
    wait_for(lambda: connection.pubsub_numsub("rq:pubsub:native")[0][1], what="a worker that listens")
    send_stop_job_command(connection, "long")
    wait_for_status(connection, "long", JobStatus.STOPPED, timeout=5)
    assert time.monotonic() - before < 5
    job = fetch(connection, "long")
    assert job.is_stopped and not job.get_executions()
    assert FailedJobRegistry("default", connection=connection).get_job_ids() == ["long"]
    assert StartedJobRegistry("default", connection=connection).count == 0
    assert job.latest_result().exc_string == "Job stopped by user, work-horse terminated."
    assert marks.read_text() == "stopped\n"
    assert "Job stopped: id=long" in worker.log
    driver.enqueue("tasks.noop", 1, job_id="next")
    wait_for_status(connection, "next", JobStatus.FINISHED)


@pytest.mark.parametrize("retries, ends", [(0, JobStatus.FAILED), (1, JobStatus.SCHEDULED)])
def test_a_kill_horse_command_fails_the_attempt(system, driver, connection, retries, ends):
    retry = {"max": retries, "intervals": [60]} if retries else None
    driver.enqueue("tasks.slow", 60, job_id="long", retry=retry)
    start_worker(system)
    wait_for_status(connection, "long", JobStatus.STARTED)
    wait_for(lambda: connection.pubsub_numsub("rq:pubsub:native")[0][1], what="a worker that listens")
    send_kill_horse_command(connection, "native")
    wait_for_status(connection, "long", ends, timeout=5)
    if not retries:
        assert fetch(connection, "long").latest_result().exc_string.startswith("Work-horse terminated unexpectedly")


def test_a_shutdown_command_lets_the_running_job_finish(system, driver, connection):
    driver.enqueue("tasks.stubborn", 1, job_id="long")
    driver.enqueue_many([{"func": "tasks.stubborn", "args": [1]} for _ in range(3)])
    worker = start_worker(system, "--concurrency", "1")
    wait_for_status(connection, "long", JobStatus.STARTED)
    wait_for(lambda: connection.pubsub_numsub("rq:pubsub:native")[0][1], what="a worker that listens")
    send_shutdown_command(connection, "native")
    wait_for(lambda: connection.hexists("rq:worker:native", "shutdown_requested_date"), what="the note for monitors")
    assert worker.wait() == 0
    assert status(connection, "long") == JobStatus.FINISHED
    assert Queue(connection=connection).count == 3
    assert Worker.all(connection=connection) == []


def test_worker_objects_know_what_a_worker_does(system, connection, a_job_of_each):
    worker = Worker.find_by_key("rq:worker:native", connection=connection)
    assert [one.name for one in Worker.all(queue=Queue("default", connection=connection))] == ["native"]
    assert Worker.count(connection=connection) == 1
    assert worker.get_state() == "busy"
    assert worker.get_current_job().id == "started"
    assert worker.birth_date <= worker.last_heartbeat
    assert (worker.successful_job_count, worker.failed_job_count) == (1, 2)
    assert worker.total_working_time > 0
    assert worker.pid == a_job_of_each.process.pid
    execution = fetch(connection, "started").get_executions()[0]
    assert (execution.job_id, execution.composite_key in StartedJobRegistry(
        "default", connection=connection).get_job_and_execution_ids()) or execution.job_id == "started"


def test_python_acts_on_jobs_of_every_status(system, driver, connection, a_job_of_each):
    """cancel, then delete, through RQ's Job: nothing of the jobs is left, and the worker takes no harm."""
    for id in STATUSES:
        job = fetch(connection, id)
        if id not in ("canceled",):
            job.cancel()
        assert status(connection, id) == JobStatus.CANCELED
    wait_for(lambda: "Job canceled: id=started" in a_job_of_each.log, what="the worker to notice")
    for id in STATUSES:
        fetch(connection, id).delete()
    for registry in (StartedJobRegistry, FinishedJobRegistry, FailedJobRegistry, DeferredJobRegistry, ScheduledJobRegistry,
                     CanceledJobRegistry):
        for queue in ("default", "other"):
            assert registry(queue, connection=connection).get_job_ids() == []
    assert connection.keys("rq:job:*") + connection.keys("rq:execution*") == []
    driver.enqueue("tasks.noop", 1, job_id="next")
    wait_for_status(connection, "next", JobStatus.FINISHED)


# ---- rq-dashboard -----------------------------------------------------------------------------------


@pytest.fixture
def dashboard(server):
    cli = pytest.importorskip("rq_dashboard.cli", reason="rq-dashboard is not installed", exc_type=ImportError)
    app = cli.make_flask_app(None, None, None, "")
    app.config["RQ_DASHBOARD_REDIS_URL"] = server.url
    cli.setup_rq_connection(app)
    app.testing = True
    return app.test_client()


def test_rq_dashboard_shows_jobs_of_every_status(dashboard, connection, a_job_of_each):
    for page in ("/", "/0/view/workers", "/0/view/jobs", *[f"/0/view/job/{id}" for id in STATUSES]):
        assert dashboard.get(page).status_code == 200, page
    queues = {queue["name"]: queue for queue in dashboard.get("/0/data/queues.json").json["queues"]}
    assert {"count": 1, "canceled_job_registry_count": 1}.items() <= queues["other"].items()
    assert {"count": 0, "started_job_registry_count": 1, "finished_job_registry_count": 1, "failed_job_registry_count": 2,
            "deferred_job_registry_count": 1, "scheduled_job_registry_count": 1}.items() <= queues["default"].items()
    for id in STATUSES:
        if id != "deferred":
            shown = dashboard.get(f"/0/data/job/{id}.json").json
            assert (shown["id"], shown["status"]) == (id, id)
        queue = "other" if id in ("queued", "canceled") else "default"
        registry = "failed" if id == "stopped" else id
        listed = dashboard.get(f"/0/data/jobs/{queue}/{registry}/8/asc/1.json")
        assert id in [job["id"] for job in listed.json["jobs"]], id
        assert dashboard.get(f"/0/view/jobs/{queue}/{registry}/8/asc/1").status_code == 200
    # rq-dashboard 0.9 takes dependency ids for bytes, whoever enqueued the job.
    Queue("other", connection=connection).enqueue("tasks.noop", 1, job_id="theirs", depends_on="started")
    for id in ("deferred", "theirs"):
        with pytest.raises(AttributeError, match="decode"):
            dashboard.get(f"/0/data/job/{id}.json")
    finished = dashboard.get("/0/data/job/finished.json").json
    assert (finished["result"], finished["metadata"]) == (7, '{"kind": "finished"}')
    assert "boom" in dashboard.get("/0/data/job/failed.json").json["exc_info"]
    worker = dashboard.get("/0/data/workers.json").json["workers"][0]
    assert (worker["name"], worker["queues"], worker["current_job"]["job_id"]) == ("native", ["default"], "started")


def test_rq_dashboard_acts_on_jobs(dashboard, driver, connection, a_job_of_each):
    assert dashboard.post("/job/failed/requeue").json == {"status": "OK"}
    wait_for_status(connection, "failed", JobStatus.FAILED)
    assert dashboard.post("/requeue/default").json["status"] == "OK"
    for id in ("queued", "finished", "scheduled", "canceled"):
        assert dashboard.post(f"/job/{id}/delete").json == {"status": "OK"}
        assert not connection.exists(f"rq:job:{id}")
    assert dashboard.post("/queue/other/queued/empty").json == {"status": "OK"}
    driver.enqueue("tasks.noop", 1, queue="other")
    connection.rpush("rq:queue:other", "ghost")
    assert dashboard.post("/queue/other/compact").json == {"status": "OK"}
    assert connection.llen("rq:queue:other") == 1
