"""Pitfalls P1 to P20 of RQ's wire format: what rqxx writes never triggers them, and what others write never harms rqxx."""

import json
import pathlib
import pickle
import shutil
import tempfile
import time
import zlib

import pytest
from conftest import RedisServer, needs_rq2, wait_for
from pitfalls import clean_up_as_rq, pitfalls
from rq import Queue
from rq.job import Job, JobStatus
from scenarios import SCENARIOS
from two_sides import Stage

pytestmark = needs_rq2

# ---- ours -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage():
    # Not pytest's own folder: unix socket paths must be short.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rqxx-test-"))
    server = RedisServer(folder)
    stage = Stage(server, folder)
    yield stage
    stage.end()
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


#: Steps in which a third party writes what must not be there.
OWN_SCENARIOS = [name for name, steps in SCENARIOS.items() if not any(what == "redis" for what, _ in steps)]


@pytest.mark.parametrize("scenario", OWN_SCENARIOS)
def test_what_rqxx_writes_is_sound_after_each_step(stage, scenario):
    found = []

    def look(step):
        found.extend(f"after {step}: {pitfall}" for pitfall in pitfalls(stage.connection))

    stage.run(SCENARIOS[scenario], ("rqxx",), ("rqxx",), "pickle", after_step=look)
    before = stage.connection.keys("rq:job:*")
    clean_up_as_rq(stage.connection)
    look("RQ's maintenance")
    assert found == []
    assert set(stage.connection.keys("rq:job:*")) == set(before)


@pytest.fixture
def driver(system, server):
    return system.driver()


def status(connection, id):
    return Job.fetch(id, connection=connection).get_status()


def test_running_jobs_stay_out_of_reach_of_rqs_maintenance(system, driver, connection):
    """P7, P11, P15, P16: for as long as they run."""
    driver.enqueue_many([{"func": "tasks.slow", "args": [60], "options": {"job_id": f"j{n}"}} for n in range(3)])
    worker = system.test_worker("--name", "native", "default", "other")
    worker.wait_for_log("Worker started")
    wait_for(lambda: connection.zcard("rq:wip:default") == 3, what="the jobs to start")
    first = min(score for _, score in connection.zrange("rq:wip:default", 0, -1, withscores=True))
    wait_for(lambda: min(score for _, score in connection.zrange("rq:wip:default", 0, -1, withscores=True)) > first,
             what="a heartbeat")
    clean_up_as_rq(connection)
    assert pitfalls(connection) == []
    assert connection.zcard("rq:wip:default") == 3
    assert [connection.ttl(f"rq:job:j{n}") for n in range(3)] == [-1, -1, -1]
    assert connection.pubsub_numsub("rq:pubsub:native") == [(b"rq:pubsub:native", 1)]


def test_commands_that_rqxx_sends_are_json(driver, connection):
    """P19."""
    pubsub = connection.pubsub()
    pubsub.subscribe("rq:pubsub:w")
    driver.register("w")
    driver.enqueue("tasks.noop", 1, job_id="a")
    driver.claim("w")
    assert driver.stop("a")["code"] == "done"
    wait_for(lambda: pubsub.get_message(ignore_subscribe_messages=False)["type"] == "subscribe")
    message = wait_for(lambda: pubsub.get_message(ignore_subscribe_messages=True), what="the command")
    assert json.loads(message["data"]) == {"command": "stop-job", "job_id": "a"}


def test_a_worker_whose_record_has_expired_does_not_leave_a_part_of_it(driver, connection):
    """P18."""
    driver.register("w")
    driver.enqueue("tasks.noop", 1, job_id="a")
    execution = driver.claim("w")["claimed"][0]["execution"]
    connection.delete("rq:worker:w")
    assert driver.settle("w", execution) == "finished"
    assert driver.heartbeat("w")["lease_held"] is False
    assert connection.exists("rq:worker:w") == 0
    assert driver.register("w")["registered"]
    assert pitfalls(connection) == []


# ---- theirs -----------------------------------------------------------------------------------------


def short(value):
    return repr(value)[:30]


def data(func="tasks.noop", *args):
    return zlib.compress(pickle.dumps((func, None, args or (1,), {})))


def put(connection, id="bad", func="tasks.noop", args=(1,), queue="default", push=True, **fields):
    """A job as RQ writes it, but for the fields given; None leaves a field out."""
    now = "2026-11-23T17:47:37.728246Z"
    job = {"data": data(func, *args), "status": "queued", "origin": queue, "created_at": now, "enqueued_at": now,
           "started_at": "", "ended_at": "", "last_heartbeat": "", "worker_name": "", "timeout": 180, "group_id": "",
           "success_callback_name": "", "failure_callback_name": "", "stopped_callback_name": "", **fields}
    connection.sadd("rq:queues", f"rq:queue:{queue}")
    connection.hset(f"rq:job:{id}", mapping={field: value for field, value in job.items() if value is not None})
    if push:
        connection.rpush(f"rq:queue:{queue}", id)


def work(system, *args):
    """A worker until all is done. It must end well, and a sound job behind the others must run."""
    put(system.server.client, "good")
    worker = system.test_worker("--burst", "--name", "native", *(args or ("default",)))
    assert worker.wait(30) == 0, worker.log
    assert status(system.server.client, "good") == JobStatus.FINISHED
    for command in (["info", "--json"], ["queue", "list", "--json"], ["job", "show", "bad", "--json"]):
        shown = system.rqxx(*command, "--redis-url", system.server.url)
        assert shown.returncode == 0 or "job bad was not found" in shown.stderr, shown.stderr
    return worker


def test_p1_a_job_without_last_heartbeat_gets_one_when_it_starts(system, driver, connection):
    put(connection, last_heartbeat=None)
    driver.register("w")
    execution = driver.claim("w")["claimed"][0]["execution"]
    assert connection.hexists("rq:job:bad", "last_heartbeat")
    driver.settle("w", execution)
    work(system)


BAD_FIELDS = {"status": "odd", "created_at": "yesterday", "enqueued_at": "2026-11-23T17:47:37+00:00", "timeout": "1h",
              "result_ttl": "1.5", "ttl": "soon", "enqueue_at_front": "", "success_callback_timeout": "",
              "failure_callback_timeout": "x", "retries_left": "two", "meta": b"\x80junk", "webhooks": "{",
              "dependency_ids": "no list", "repeat_intervals": "[null]", "repeats_left": "many"}


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_p2_a_field_that_kills_rqs_workers_ends_its_job_at_most(system, connection, field):
    put(connection, **{field: BAD_FIELDS[field]})
    work(system)
    assert connection.hget("rq:job:bad", "status") in (b"finished", b"failed")
    assert connection.zcard("rq:wip:default") == 0


def test_p2_ids_that_no_job_can_have_are_dropped(system, connection):
    for id in ("with space", "with:colon", "ünï", "", "a" * 600):
        connection.rpush("rq:queue:default", id)
    worker = work(system)
    assert worker.log.count("Job skipped") >= 4
    assert connection.llen("rq:queue:default") == 0


def test_p2_a_broken_dependent_does_not_harm_its_parent(system, connection):
    for n, fields in enumerate([{"status": "odd"}, {"created_at": "x"}, {"ttl": "soon"}, {"origin": None}]):
        put(connection, f"child{n}", push=False, dependency_ids='["bad"]', **({"status": "deferred"} | fields))
        connection.sadd("rq:job:bad:dependents", f"child{n}")
    connection.sadd("rq:job:bad:dependents", "missing", "no id")
    put(connection)
    work(system)
    assert status(connection, "bad") == JobStatus.FINISHED


def test_p3_a_dependent_that_names_no_dependencies_does_not_fail_its_parent(system, connection):
    put(connection, "child", push=False, status="deferred")
    connection.sadd("rq:job:bad:dependents", "child")
    connection.zadd("rq:deferred:default", {"child": 1})
    put(connection)
    work(system)
    assert (status(connection, "bad"), status(connection, "child")) == (JobStatus.FINISHED, JobStatus.FINISHED)


def test_p4_a_dependent_without_its_set_of_dependencies_is_released(system, connection):
    put(connection, "child", push=False, status="deferred", dependency_ids='["bad"]')
    connection.sadd("rq:job:bad:dependents", "child")
    connection.zadd("rq:deferred:default", {"child": 1})
    put(connection)
    work(system)
    assert status(connection, "child") == JobStatus.FINISHED


@pytest.mark.parametrize("intervals, used", [("[]", True), ("", True), ("[-5]", True), ("{}", False), ("[null]", False),
                                             ('["x"]', False), ("[" * 1000, False), ("no list", False)], ids=short)
def test_p5_odd_retry_intervals_do_not_end_a_worker(system, connection, intervals, used):
    """No interval is no wait; what is no list of numbers fails the job."""
    put(connection, func="tasks.fail", args=("x",), retries_left=2, retry_intervals=intervals)
    work(system)
    assert connection.hmget("rq:job:bad", "status", "retries_left") == [b"failed", b"0" if used else b"2"]


def recovered(driver, worker="rescuer"):
    """Everything that a sweep finds, once sweeps may judge."""
    driver.register(worker)
    return {job["id"]: job["what"] for job in wait_for(lambda: driver.recover(worker)["jobs"], what="a sweep")}


def test_p6_p7_p10_odd_entries_of_started_jobs_do_no_harm(system, driver, connection):
    """Lapsed entries that are bare, have too many colons, belong to ended jobs or to none."""
    execution = "0" * 32
    put(connection, "bare", push=False, status="started")
    put(connection, "ended", push=False, status="finished")
    put(connection, "again", push=False, status="failed", retries_left=3)
    put(connection, "lost", push=False, status="started")
    connection.zadd("rq:wip:default", {"bare": 1, "a:b:c": 1, f"ended:{execution}": 1, f"again:{execution}": 1,
                                       f"missing:{execution}": 1, f"lost:{execution}": 1, "no id:x": 1, ":": 1})
    connection.zadd("rq:executions:ended", {execution: time.time() + 100})
    assert "lost" in recovered(driver)
    assert connection.zcard("rq:wip:default") == 0
    assert (status(connection, "ended"), status(connection, "again")) == (JobStatus.FINISHED, JobStatus.FAILED)
    assert (status(connection, "lost"), status(connection, "bare")) == (JobStatus.QUEUED, JobStatus.QUEUED)
    work(system)
    assert status(connection, "lost") == JobStatus.FINISHED


def test_p8_an_id_left_in_the_intermediate_queue_does_not_change_an_ended_job(system, connection):
    put(connection, push=False, status="finished")
    connection.rpush("rq:queue:default:intermediate", "bad", "missing")
    work(system)
    assert status(connection, "bad") == JobStatus.FINISHED


def test_p9_a_job_on_another_queue_than_its_own_runs_and_leaves_nothing(system, connection):
    put(connection, push=False)
    connection.hset("rq:job:bad", "origin", "elsewhere")
    connection.rpush("rq:queue:default", "bad")
    work(system)
    assert status(connection, "bad") == JobStatus.FINISHED
    assert connection.zscore("rq:finished:elsewhere", "bad")
    assert connection.keys("*:intermediate") + connection.keys("rq:wip:*") == []


def test_p10_executions_without_records_do_not_stop_cancel_and_delete(system, driver, connection):
    for id in ("bad", "worse"):
        put(connection, id, push=False, status="started", worker_name="gone")
        connection.zadd(f"rq:executions:{id}", {"0" * 32: time.time() + 100})
        connection.zadd("rq:wip:default", {f"{id}:{'0' * 32}": time.time() + 100})
    connection.hset(f"rq:execution:worse:{'0' * 32}", "last_heartbeat", "odd")
    assert [row["code"] for row in driver.cancel("bad", "worse")] == ["done", "done"]
    assert [row["code"] for row in driver.delete("bad", "worse")] == ["done", "done"]
    assert connection.keys("rq:execution*") + connection.keys("rq:wip:*") + connection.keys("rq:job:*") == []


def test_p11_a_worker_that_lost_its_entry_does_not_add_it_again(driver, connection):
    driver.register("w")
    driver.enqueue("tasks.noop", 1, job_id="a")
    execution = driver.claim("w")["claimed"][0]["execution"]
    connection.delete("rq:wip:default")   # as RQ's maintenance would, had it taken the job for abandoned
    assert driver.heartbeat("w")["notices"] == [{"execution": execution, "canceled": False}]
    assert connection.exists("rq:wip:default") == 0
    assert driver.settle("w", execution) == "refused"


def test_p12_a_job_of_a_group_that_is_gone_ends_and_can_be_deleted(system, driver, connection):
    put(connection, group_id="gone", result_ttl=0)
    put(connection, "kept", group_id="gone")
    work(system)
    assert connection.exists("rq:job:bad") == 0
    assert connection.hget("rq:worker:native", "failed_job_count") is None
    assert driver.delete("kept")[0]["code"] == "done"


BAD_RESULTS = {"no_type": {"worker_name": "w"}, "unknown_type": {"type": 9}, "no_number": {"type": "x"},
               "bad_base64": {"type": 1, "return_value": "%%%"}, "bad_zlib": {"type": 2, "exc_string": "AAAA"},
               "bad_pickle": {"type": 1, "return_value": "gASV"}, "bad_time": {"type": 1, "execution_started_at": "noon"}}


@pytest.mark.parametrize("entry", BAD_RESULTS)
def test_p13_results_that_cannot_be_read_do_not_stop_anything(system, connection, entry):
    put(connection)
    connection.xadd("rq:results:bad", BAD_RESULTS[entry])
    work(system)
    assert status(connection, "bad") == JobStatus.FINISHED
    connection.xadd("rq:results:bad", BAD_RESULTS[entry])
    assert system.rqxx("job", "show", "bad", "--redis-url", system.server.url).returncode == 0


def test_p14_p15_odd_workers_and_queues_do_not_stop_anything(system, connection):
    connection.hset("rq:worker:odd", mapping={"pid": "x", "birth": "yesterday", "successful_job_count": "many",
                                              "total_working_time": "long", "queues": "default", "state": b"\xff"})
    connection.sadd("rq:workers", "rq:worker:odd", "no-prefix", "rq:worker:missing")
    connection.sadd("rq:workers:default", "rq:worker:odd", "no-prefix")
    connection.sadd("rq:queues", "no-prefix", "rq:queue:")
    put(connection)
    work(system)
    info = json.loads(system.rqxx("info", "--json", "--redis-url", system.server.url).stdout)
    assert "odd" in [worker["name"] for worker in info["workers"]]


def test_p16_a_started_job_without_a_worker_cannot_be_stopped(driver, connection):
    put(connection, push=False, status="started")
    assert driver.stop("bad")["code"] == "refused"
    put(connection, push=False, status="started", worker_name="nobody listens")
    assert driver.stop("bad")["code"] == "refused"


def test_p17_a_job_that_vanishes_while_it_runs_is_not_brought_back(driver, connection):
    driver.register("w")
    driver.enqueue("tasks.noop", 1, job_id="a")
    driver.enqueue("tasks.noop", 1, job_id="b", depends_on={"job_ids": ["a"]})
    execution = driver.claim("w")["claimed"][0]["execution"]
    connection.delete("rq:job:a")
    assert driver.settle("w", execution) == "deleted"
    assert connection.exists("rq:job:a") == 0
    assert connection.keys("rq:execution*") + connection.keys("rq:wip:*") == []


@pytest.mark.parametrize("message", ["no json", "{", "[]", "null", '"stop-job"', "{}", '{"command": 5}',
                                     '{"command": "stop-job"}', '{"command": "stop-job", "job_id": {}}', b"\xff\x00",
                                     "[" * 100000, '{"command": "unknown"}'], ids=short)
def test_p19_a_worker_hears_commands_after_a_message_that_is_none(system, driver, connection, message):
    worker = system.test_worker("--name", "native", "default")
    driver.enqueue("tasks.slow", 60, job_id="a")
    wait_for(lambda: status(connection, "a") == JobStatus.STARTED)
    wait_for(lambda: connection.publish("rq:pubsub:native", message), what="a worker that listens")
    assert driver.stop("a")["code"] == "done"
    wait_for(lambda: status(connection, "a") == JobStatus.STOPPED, what="the stop")
    assert worker.process.poll() is None


@pytest.mark.parametrize("policy, ends", [("require", JobStatus.FAILED), ("skip", JobStatus.FINISHED)])
def test_p20_a_callback_that_cannot_run_is_told_of(system, connection, policy, ends):
    put(connection, success_callback_name="elsewhere.callback", success_callback_timeout=60)
    worker = work(system, "--callbacks", policy, "default")
    assert status(connection, "bad") == ends
    assert "elsewhere.callback" in worker.log


def test_python_jobs_in_every_state_pass_the_same_audit(connection):
    """The audit itself: what RQ writes is sound, too."""
    queue = Queue(connection=connection)
    parent = queue.enqueue("tasks.noop", 1)
    queue.enqueue("tasks.noop", 1, depends_on=parent)
    queue.enqueue("tasks.noop", 1).cancel()
    assert pitfalls(connection) == []
    connection.hset(parent.key, "timeout", "1h")
    connection.rpush("rq:queue:default:intermediate", "x")
    assert [text[:3] for text in pitfalls(connection)] == ["P2:", "P2:", "P8:"]
