"""The programs of examples/ do what the README says."""

import signal

from conftest import BUILD, wait_for
from rq import Queue


def test_producer_and_worker_work_with_each_other_and_with_python(system, connection):
    worker = system.run(BUILD / "example_worker", system.server.url)
    producer = system.run(BUILD / "example_producer", system.server.url)
    assert producer.wait() == 0
    assert "result 7.0" in producer.out
    job = Queue("default", connection=connection).enqueue("geometry.area", 2, 2.5)
    wait_for(lambda: job.get_status(refresh=True) == "finished")
    assert job.return_value() == 5.0
    bad = Queue("default", connection=connection).enqueue("geometry.area", "wide", 1)
    wait_for(lambda: bad.get_status(refresh=True) == "failed")
    assert "argument 1: a number expected, not 'wide'" in bad.latest_result().exc_string
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "2 jobs finished" in worker.out


def test_an_unreachable_redis_is_reported(system):
    producer = system.run(BUILD / "example_producer", "unix:///nowhere/redis.sock")
    assert producer.wait() == 1 and "/nowhere/redis.sock" in producer.log
