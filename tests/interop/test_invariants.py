"""The checker of tests/support/invariants.py: silent about what is sound, and not about what is broken."""

import pytest
from invariants import check, violations


@pytest.fixture
def populated(system, server):
    """A job of each status, with dependents, groups and results."""
    driver = system.driver()
    driver.register("w")
    put = lambda id, **options: driver.enqueue("tasks.add", 1, 2, job_id=id, **options)   # noqa: E731

    def run(outcome, code):
        execution = driver.claim("w")["claimed"][0]["execution"]
        assert driver.settle("w", execution, outcome) == code

    put("finished")
    run("success", "finished")
    put("failed")
    run("failure", "failed")
    put("stopped")
    run("stopped", "stopped")
    put("repeated", repeat={"times": 2, "intervals": [60]})
    run("success", "finished")
    put("canceled")
    driver.cancel("canceled")
    put("started")
    driver.claim("w")
    put("queued", group="g", ttl=60)
    put("deferred", depends_on={"job_ids": ["queued", "started"]})
    put("patient", depends_on={"job_ids": ["failed"]})
    put("child", depends_on={"job_ids": ["failed"], "allow_failure": True})
    driver.enqueue("tasks.add", 1, 2, job_id="scheduled", in_=60)
    return server.client


def test_nothing_is_said_about_sound_data(populated):
    check(populated, totals={"finished|default": 2, "failed|default": 1, "stopped|default": 1}, workers=(2, 2))


BREAKAGES = {
    "lost": (lambda r: r.lrem("rq:queue:default", 1, "queued"), "queued: is queued and stands in no place"),
    "twice": (lambda r: r.rpush("rq:queue:default", "queued"), "queued: is queued and stands in"),
    "wrong_place": (lambda r: r.hset("rq:job:finished", "status", "failed"), "finished: is failed and stands in"),
    "no_hash": (lambda r: r.delete("rq:job:queued"), "rq:queue:default: queued has no job"),
    "canceled_without_hash": (lambda r: r.delete("rq:job:canceled"), "rq:canceled:default: canceled has no job"),
    "no_result": (lambda r: r.delete("rq:results:finished"), "finished: is finished and its last result is missing"),
    "expires": (lambda r: r.expire("rq:job:started", 100), "started: expires in 100 s while it runs"),
    "never_expires": (lambda r: r.persist("rq:job:failed"), "failed: is failed and never expires"),
    "forgotten": (lambda r: r.delete("rq:job:queued:dependents"), "deferred: waits for queued, which does not know of it"),
    "stranded": (lambda r: r.hset("rq:job:failed", "status", "finished"), "patient: is deferred and nothing holds it back"),
    "no_execution": (lambda r: r.delete("rq:executions:started"), "is not in the job's executions"),
    "second_run": (lambda r: r.zadd("rq:wip:default", {"started:e": 9e9}), "started: runs 2 times at once"),
    "late_heartbeat": (lambda r: r.hset("rq:execution:finished:e", "last_heartbeat", 1), "rq:execution:finished:e: does not run"),
    "not_in_group": (lambda r: r.srem("rq:group:g", "queued"), "queued: is not in its group g"),
    "part": (lambda r: r.hset("rq:job:new", "status", "queued"), "new: is a part of a job"),
    "count": (lambda r: r.hincrby("rqxx:totals", "finished|default", 1), "rqxx:totals:"),
    "worker_count": (lambda r: r.hincrby("rq:worker:w", "failed_job_count", 1), "workers have counted (2, 3)"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_is_broken_is_found(populated, breakage):
    break_it, expected = BREAKAGES[breakage]
    break_it(populated)
    found = violations(populated, totals={"finished|default": 2, "failed|default": 1, "stopped|default": 1}, workers=(2, 2))
    assert any(expected in line for line in found), found
