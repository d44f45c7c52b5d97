"""What the model check (test_model.py) has found, step by step."""

import time

import pytest
from conftest import needs_rq2
from rq import Queue
from rq.job import Job, JobStatus
from rq.worker import SimpleWorker

pytestmark = needs_rq2


@pytest.fixture
def driver(system, server):
    return system.driver()


def job(id, connection):
    return Job.fetch(id, connection=connection)


def die(driver, connection, worker):
    """The worker is not heard of any more, and what it ran is taken back."""
    driver.expire_lease(worker)
    connection.hset("rqxx:sweeper", mapping={"last": int(time.time() * 1e6) - 1000, "since": 0})
    return [(one["id"], one["what"]) for one in driver.recover(queues=["default"])["jobs"]]


def test_what_a_canceled_execution_leaves_behind_does_not_strand_the_next(driver, connection):
    driver.enqueue("tasks.noop", 1, job_id="a")
    for worker in ("first", "second"):
        driver.register(worker)
    driver.claim("first")
    job("a", connection).cancel()  # RQ leaves the execution's record for 150 s.
    driver.requeue("a")
    driver.claim("second")
    assert die(driver, connection, "second") == [("a", "requeued")]
    assert connection.lrange("rq:queue:default", 0, -1) == [b"a"]


def test_what_waits_for_a_job_outlives_the_ttl_with_which_that_job_waited(driver, connection):
    driver.enqueue("tasks.fail", "x", job_id="a", ttl=100, result_ttl=0, retry={"max": 1})
    driver.enqueue("tasks.noop", 1, job_id="b", depends_on={"job_ids": ["a"]})
    driver.register("w")
    driver.settle("w", driver.claim("w")["claimed"][0]["execution"], "failure")
    assert connection.ttl("rq:job:a:dependents") > 0
    execution = driver.claim("w")["claimed"][0]["execution"]
    assert connection.ttl("rq:job:a:dependents") == connection.ttl("rq:job:a") == -1
    driver.settle("w", execution)
    assert job("b", connection).get_status() == JobStatus.QUEUED


def test_a_repetition_waits_no_longer_than_its_ttl(driver, connection):
    for intervals in ([0], [60]):
        id = driver.enqueue("tasks.noop", 1, ttl=100, repeat={"times": 1, "intervals": intervals})["id"]
        driver.register("w")
        driver.settle("w", driver.claim("w")["claimed"][0]["execution"])
        assert 0 < connection.ttl("rq:job:" + id) <= 100
        connection.delete("rq:queue:default")


def test_a_job_that_takes_the_place_of_another_does_not_wait_for_what_that_waited_for(driver, connection):
    driver.enqueue("tasks.noop", 1, job_id="parent")
    driver.enqueue("tasks.noop", 1, job_id="child", depends_on={"job_ids": ["parent"]})
    driver.cancel("child")
    driver.enqueue("tasks.noop", 2, job_id="child")
    SimpleWorker([Queue(connection=connection)], connection=connection).work(burst=True, max_jobs=1)
    # P3: RQ would fail the parent over a child without dependencies, or queue the child once more.
    assert job("parent", connection).get_status() == JobStatus.FINISHED
    assert connection.lrange("rq:queue:default", 0, -1) == [b"child"]


def test_a_job_that_was_released_is_not_released_again_by_another_parent(driver, connection):
    for parent in ("a", "b"):
        driver.enqueue("tasks.noop", 1, job_id=parent)
    driver.enqueue("tasks.noop", 1, job_id="c", depends_on={"job_ids": ["a", "b"], "allow_failure": True})
    driver.register("w")
    first, second = driver.claim("w", limit=2)["claimed"]
    driver.settle("w", first["execution"], "failure")
    driver.settle("w", second["execution"])
    driver.settle("w", driver.claim("w")["claimed"][0]["execution"])
    assert job("c", connection).get_status() == JobStatus.FINISHED
    driver.requeue("a")
    SimpleWorker([Queue(connection=connection)], connection=connection).work(burst=True, max_jobs=1)
    assert job("a", connection).get_status() == JobStatus.FINISHED
    assert job("c", connection).get_status() == JobStatus.FINISHED
    assert connection.llen("rq:queue:default") == 0
