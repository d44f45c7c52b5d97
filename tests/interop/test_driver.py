"""The driver by which tests step through rqxx's single transitions."""

import pytest
from conftest import wait_for
from driver import DriverError
from rq.job import Job, JobStatus


@pytest.fixture
def driver(system, server):
    return system.driver()


def test_a_job_is_taken_through_its_life_step_by_step(driver, connection):
    assert driver.enqueue("tasks.add", 1, 2, job_id="a", timeout="1h") == \
        {"id": "a", "duplicate": False, "status": "queued", "replaced": False, "repeated": False}
    assert driver.register("w", queues=["default"])["registered"]
    claimed = driver.claim("w")["claimed"]
    assert [job["id"] for job in claimed] == ["a"]
    assert Job.fetch("a", connection=connection).get_status() == JobStatus.STARTED
    assert driver.heartbeat("w") == {"lease_held": True, "notices": [], "orphans": 0}
    assert driver.settle("w", claimed[0]["execution"], result={"$tuple": [3, {"$bytes": "AAE="}]}) == "finished"
    assert Job.fetch("a", connection=connection).return_value() == (3, b"\x00\x01")
    assert driver.settle_many("w", [{"id": "a", "execution": claimed[0]["execution"]}])[0]["code"] == "refused"
    driver.retire("w")
    assert connection.smembers("rq:workers") == set()


def test_outcomes_other_than_success(driver, connection):
    driver.register("w")
    for outcome, code, options in [("failure", "failed", {}), ("failure", "retried", {"retry": {"max": 1, "intervals": [60]}}),
                                   ("stopped", "stopped", {}), ("returned", "returned", {}), ("retry", "retried", {})]:
        connection.delete("rq:queue:default")
        id = driver.enqueue("tasks.fail", "x", **options)["id"]
        execution = driver.claim("w")["claimed"][0]["execution"]
        assert driver.settle("w", execution, outcome) == code, id


def test_a_lapsed_lease_is_recovered(driver, connection):
    driver.enqueue("tasks.add", 1, 2, job_id="a")
    driver.register("w")
    driver.register("rescuer")
    driver.claim("w")
    driver.expire_lease("w")
    assert wait_for(lambda: driver.recover("rescuer")["jobs"])[0]["what"] == "requeued"
    assert connection.lrange("rq:queue:default", 0, -1) == [b"a"]


def test_actions_on_many_jobs(driver, connection):
    driver.enqueue_many([{"func": "tasks.noop", "args": [n], "options": {"job_id": f"j{n}"}} for n in range(5)])
    assert driver.for_each("cancel", {"status": "queued", "limit": 2})["done"] == 2
    assert [row["code"] for row in driver.delete("j0", "missing")] == ["done", "no such job"]
    assert driver.requeue("j1")[0]["code"] == "done"
    assert connection.llen("rq:queue:default") == 4


def test_errors_say_what_is_wrong(driver):
    with pytest.raises(DriverError, match="timeout: must be at least 1 s") as error:
        driver.enqueue("tasks.add", timeout=0)
    assert error.value.code == "usage"
    with pytest.raises(DriverError, match="nobody knows the field time_out"):
        driver.enqueue("tasks.add", time_out=5)


def test_a_server_that_is_gone_is_an_error_too(system, server):
    driver = system.driver(command_timeout_ms=300)
    driver.enqueue("tasks.add")
    server.stop()
    with pytest.raises(DriverError) as error:
        driver.enqueue("tasks.add")
    assert error.value.code in ("connection", "timeout")
