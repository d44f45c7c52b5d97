"""`rqxx doctor`: a corpus of broken data, one case per finding; healthy data, quiet or moving; hostile data."""

import json
import re
import time
import zlib
from datetime import timedelta

import pytest

pytest.importorskip("rq.webhook", reason="needs RQ 2.10; Debian's package is older")

import tasks
from click.testing import CliRunner
from conftest import BUILD, ROOT, needs_rq2, wait_for
from rq import Queue, Retry, Worker
from rq.cli.cli import main as rq_command_line
from rq.group import Group
from rq.job import Dependency, Job, JobStatus
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)

pytestmark = needs_rq2

REGISTRIES = [CanceledJobRegistry, DeferredJobRegistry, FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry,
              StartedJobRegistry]
QUIET = {"no-persistence", "no-worker"}   # true of every test's Redis


def examine(system, *args, code=None, recheck="0s"):
    done = system.rqxx("doctor", "--redis-url", system.server.url, "--recheck", recheck, "--json", *args)
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["healthy"] else 1)
    report["by_code"] = {finding["code"]: finding for finding in report["findings"]}
    return report


def found(report):
    """Codes of what is there now."""
    return {finding["code"] for finding in report["findings"] if finding["left"]} - QUIET


def dump(connection):
    """All data, and which of it expires."""
    pipeline = connection.pipeline(transaction=False)
    keys = sorted(connection.keys("*"))
    for key in keys:
        pipeline.type(key).expiretime(key)
    kinds = pipeline.execute()
    for key, kind in zip(keys, kinds[::2]):   # DUMP has hashes and sets in any order.
        {b"hash": pipeline.hgetall, b"set": pipeline.smembers}.get(kind, pipeline.dump)(key)
    return dict(zip(keys, zip(kinds[1::2], pipeline.execute())))


def key(job):
    return f"rq:job:{job if isinstance(job, str) else job.id}"


class Data:
    """What the cases break: queue "q" of real RQ."""

    def __init__(self, connection):
        self.connection = connection
        self.queue = Queue("q", connection=connection)
        self.now = int(time.time())

    def queued(self, *args, **options):
        return self.queue.enqueue(tasks.add, *(args or (1, 2)), **options)

    def ended(self, status="finished", **options):
        """Has been run by a worker of RQ."""
        job = self.queued(*((1, 2) if status == "finished" else (1, "x")), **options)
        self.connection.lrem("rq:queue:q", 0, job.id)
        self.connection.hset(key(job), mapping={"status": status, "ended_at": "2026-11-23T17:47:37.728246Z"})
        if status == "finished":
            self.connection.expire(key(job), 500)
            self.connection.zadd("rq:finished:q", {job.id: self.now + 500})
        elif status in ("failed", "stopped"):
            self.connection.expire(key(job), 31536000)
            self.connection.zadd("rq:failed:q", {job.id: self.now + 31536000})
        elif status == "canceled":
            self.connection.zadd("rq:canceled:q", {job.id: self.now})
        return job

    def started(self, score=90, **options):
        job = self.queued(**options)
        self.connection.lrem("rq:queue:q", 0, job.id)
        execution = "0123456789abcdef0123456789abcdef"
        self.connection.hset(key(job), mapping={"status": "started", "started_at": "2026-11-23T17:47:37.728246Z",
                                                "worker_name": "w"})
        self.connection.zadd("rq:wip:q", {f"{job.id}:{execution}": self.now + score})
        if score > 0:
            self.connection.zadd(f"rq:executions:{job.id}", {execution: self.now + score + 60})
            self.connection.expire(f"rq:executions:{job.id}", score + 60)
            self.connection.hset(f"rq:execution:{job.id}:{execution}",
                                 mapping={"id": execution, "created_at": self.now, "last_heartbeat": self.now})
            self.connection.expire(f"rq:execution:{job.id}:{execution}", score + 60)
        return job, execution


CASES = {}


def case(code, stays=False, drains=True, name=None):
    """`stays`: --repair leaves it to a person. `drains`: a stock worker can be let loose afterwards."""

    def add(make):
        CASES[name or make.__name__] = (code, make, stays, drains)
        return make

    return add


# Each returns what must be true after the repair, or None.

@case("ghost-id")
def ghost_on_a_queue(data):
    data.queued()
    data.connection.rpush("rq:queue:q", "ghost", "ghost-2")
    return lambda: data.connection.llen("rq:queue:q") == 1


@case("ghost-id")
def ghost_in_a_registry(data):
    data.queued()
    data.connection.zadd("rq:scheduled:q", {"ghost": data.now - 5})
    data.connection.zadd("rq:failed:q", {"ghost": data.now + 5000})
    data.connection.zadd("rq:canceled:q", {"ghost": data.now})
    data.connection.zadd("rq:wip:q", {"ghost:0123": data.now - 1})
    return lambda: not data.connection.exists("rq:scheduled:q", "rq:failed:q", "rq:canceled:q", "rq:wip:q")


@case("ghost-id")
def ghost_in_the_intermediate_queue(data):
    data.queued()
    data.connection.rpush("rq:queue:q:intermediate", "ghost")
    return lambda: not data.connection.exists("rq:queue:q:intermediate")


@case("ghost-in-group")
def ghost_in_a_group(data):
    data.connection.sadd("rq:groups", "g")
    data.connection.sadd("rq:group:g", "ghost")
    return lambda: not data.connection.exists("rq:groups", "rq:group:g")


@case("expired-entry")
def entry_that_expired_long_ago(data):
    data.connection.zadd("rq:finished:q", {"gone": data.now - 4000})
    return lambda: not data.connection.exists("rq:finished:q")


@case("bad-id")
def entry_that_is_no_id(data):
    data.queued()
    data.connection.rpush("rq:queue:q", "no id", "a:b", b"\xff\xfe")
    data.connection.zadd("rq:scheduled:q", {"no id": data.now - 5})
    return lambda: data.connection.llen("rq:queue:q") == 1


@case("lost-queued")
def queued_nowhere(data):
    first, second = data.queued(), data.queued()
    assert data.connection.lpop("rq:queue:q").decode() == first.id
    return lambda: [id.decode() for id in data.connection.lrange("rq:queue:q", 0, -1)] == [first.id, second.id]


@case("lost-deferred")
def deferred_nowhere(data):
    parent = data.queued()
    child = data.queued(depends_on=parent)
    data.connection.zrem("rq:deferred:q", child.id)
    return lambda: data.connection.zscore("rq:deferred:q", child.id)


@case("orphaned-dependent")
def deferred_nowhere_and_free(data):
    parent = data.queued()
    child = data.queued(depends_on=parent)
    data.connection.delete("rq:deferred:q", "rq:queue:q")
    data.connection.hset(key(parent), "status", "finished")
    data.connection.zadd("rq:finished:q", {parent.id: data.now + 500})
    return lambda: data.connection.hget(key(child), "status") == b"queued"


@case("lost-scheduled")
def scheduled_nowhere(data):
    job = data.queued()
    data.connection.lrem("rq:queue:q", 0, job.id)
    data.connection.hset(key(job), "status", "scheduled")
    return lambda: data.connection.zscore("rq:scheduled:q", job.id) <= time.time()




for word in ("finished", "failed", "stopped", "canceled"):
    @case("lost-ended", name=f"{word}_nowhere")
    def ended_nowhere(data, word=word):
        job = data.ended(word)
        data.connection.delete("rq:finished:q", "rq:failed:q", "rq:canceled:q")
        registry = {"finished": "finished", "canceled": "canceled"}.get(word, "failed")
        return lambda: data.connection.zscore(f"rq:{registry}:q", job.id)


@case("lost-ended")
def finished_nowhere_and_for_ever(data):
    job = data.ended("finished")
    data.connection.delete("rq:finished:q")
    data.connection.persist(key(job))
    return lambda: 0 < data.connection.ttl(key(job)) <= 500


@case("stray-entry")
def finished_and_in_failed(data):
    job = data.ended("finished")
    data.connection.zadd("rq:failed:q", {job.id: data.now + 5000})
    return lambda: not data.connection.exists("rq:failed:q") and data.connection.zcard("rq:finished:q") == 1


@case("stray-entry")
def finished_and_in_canceled(data):
    job = data.ended("finished")
    data.connection.zadd("rq:canceled:q", {job.id: data.now})
    return lambda: not data.connection.exists("rq:canceled:q")


@case("stray-entry")
def queued_and_in_finished(data):
    job = data.queued()
    data.connection.zadd("rq:finished:q", {job.id: data.now + 500})
    return lambda: data.connection.llen("rq:queue:q") == 1 and not data.connection.exists("rq:finished:q")


@case("stray-entry")
def finished_and_on_the_queue(data):
    job = data.ended("finished")
    data.connection.rpush("rq:queue:q", job.id)
    return lambda: not data.connection.exists("rq:queue:q")


@case("stray-entry")
def in_the_registry_of_another_queue(data):
    job = data.ended("failed")
    data.connection.zadd("rq:failed:other", {job.id: data.now + 5000})
    data.connection.zrem("rq:failed:q", job.id)
    return lambda: not data.connection.exists("rq:failed:other") and data.connection.zscore("rq:failed:q", job.id)


@case("duplicate-id")
def twice_on_a_queue(data):
    job, other = data.queued(), data.queued()
    data.connection.rpush("rq:queue:q", job.id)
    return lambda: [id.decode() for id in data.connection.lrange("rq:queue:q", 0, -1)] == [job.id, other.id]


@case("duplicate-id")
def on_two_queues(data):
    job = data.queued()
    for other in ("a", "z"):
        data.connection.sadd("rq:queues", f"rq:queue:{other}")
        data.connection.rpush(f"rq:queue:{other}", job.id)
    return lambda: data.connection.llen("rq:queue:q") == 1 and not data.connection.exists("rq:queue:a", "rq:queue:z")


@case("dead-started")
def started_and_lapsed(data):
    job, _ = data.started(score=-5)
    return lambda: data.connection.hget(key(job), "status") == b"queued" and not data.connection.exists("rq:wip:q")


@case("dead-started")
def started_and_lapsed_with_retries(data):
    job, _ = data.started(score=-5, retry=Retry(max=2))
    return lambda: data.connection.hmget(key(job), "status", "retries_left") == [b"queued", b"1"]


@case("dead-started")
def started_and_lapsed_once_too_often(data):
    job, _ = data.started(score=-5)
    data.connection.hset(key(job), "rqxx_recoveries", 1)
    return lambda: data.connection.hget(key(job), "status") == b"failed" and data.connection.zscore("rq:failed:q", job.id)


@case("dead-started")
def started_nowhere(data):
    job, _ = data.started(score=-5)
    data.connection.delete("rq:wip:q")
    return lambda: data.connection.hget(key(job), "status") == b"queued"


@case("dead-started")
def started_by_a_worker_whose_lease_is_gone(data):
    job, _ = data.started()
    data.connection.zadd("rqxx:leases", {"w": (data.now - 60) * 1000000})
    return lambda: data.connection.hget(key(job), "status") == b"queued"


@case("orphaned-dependent")
def deferred_though_all_is_finished(data):
    parents = [data.queued(), data.queued()]
    child = data.queued(depends_on=parents)
    data.connection.delete("rq:queue:q")
    for parent in parents:
        data.connection.hset(key(parent), "status", "finished")
        data.connection.zadd("rq:finished:q", {parent.id: data.now + 500})
    return lambda: data.connection.hget(key(child), "status") == b"queued" and data.connection.llen("rq:queue:q") == 1


@case("orphaned-dependent")
def deferred_though_failure_is_allowed(data):
    parent = data.ended("failed")
    child = data.queued(depends_on=Dependency([parent], allow_failure=True))
    if child.get_status(refresh=True) != JobStatus.DEFERRED:   # W25
        pytest.skip("this RQ queues it")
    return lambda: data.connection.hget(key(child), "status") == b"queued"


@case("waits-for-gone", stays=True)
def deferred_for_one_that_is_gone(data):
    parent = data.queued()
    data.queued(depends_on=parent)
    data.connection.delete(key(parent), "rq:queue:q")


@case("waits-for-failed", stays=True)
def deferred_for_one_that_failed(data):
    parent = data.ended("failed")
    data.queued(depends_on=parent)


@case("missing-dependencies")
def no_dependencies_set(data):
    parent = data.queued()
    child = data.queued(depends_on=parent)
    data.connection.delete(f"rq:job::{child.id}:dependencies")
    return lambda: data.connection.smembers(f"rq:job::{child.id}:dependencies") == {parent.id.encode()}


@case("missing-dependencies")
def no_dependents_set(data):
    parent = data.queued()
    child = data.queued(depends_on=parent)
    data.connection.delete(f"rq:job:{parent.id}:dependents")
    return lambda: data.connection.smembers(f"rq:job:{parent.id}:dependents") == {child.id.encode()}


@case("missing-dependencies")
def no_dependency_ids(data):
    parent = data.queued()
    child = data.queued(depends_on=parent)
    data.connection.hdel(key(child), "dependency_ids", "dependency_id")
    return lambda: json.loads(data.connection.hget(key(child), "dependency_ids")) == [parent.id]


@case("stray-dependent")
def listed_as_waiting_but_is_not(data):
    parent, other = data.queued(), data.queued()
    data.connection.sadd(f"rq:job:{parent.id}:dependents", other.id)
    return lambda: not data.connection.exists(f"rq:job:{parent.id}:dependents")


@case("stray-dependent")
def waits_and_does_not_say_so(data):
    parent = data.queued()
    child = data.queued(depends_on=parent)
    data.connection.hdel(key(child), "dependency_ids", "dependency_id")
    data.connection.delete(f"rq:job::{child.id}:dependencies")
    return lambda: json.loads(data.connection.hget(key(child), "dependency_ids")) == [parent.id]


@case("stale-dependent")
def a_ghost_waits(data):
    parent = data.queued()
    data.connection.sadd(f"rq:job:{parent.id}:dependents", "ghost")
    return lambda: not data.connection.exists(f"rq:job:{parent.id}:dependents")


@case("leftover-set")
def sets_of_a_job_that_is_gone(data):
    data.connection.sadd("rq:job::gone:dependencies", "x")
    data.connection.sadd("rq:job:gone:dependents", "y")
    return lambda: not data.connection.exists("rq:job::gone:dependencies", "rq:job:gone:dependents")


@case("orphaned-execution")
def execution_of_a_finished_job(data):
    job = data.ended("finished")
    data.connection.zadd(f"rq:executions:{job.id}", {"0123": data.now + 100})
    data.connection.hset(f"rq:execution:{job.id}:0123", "last_heartbeat", data.now)
    return lambda: not data.connection.exists(f"rq:executions:{job.id}", f"rq:execution:{job.id}:0123")


@case("orphaned-execution")
def record_of_an_execution_that_is_not_listed(data):
    data.connection.hset("rq:execution:gone:0123", "last_heartbeat", data.now)
    return lambda: not data.connection.exists("rq:execution:gone:0123")


@case("broken-execution", drains=False)
def execution_without_times(data):
    job, execution = data.started()
    data.connection.hdel(f"rq:execution:{job.id}:{execution}", "created_at")
    return lambda: Job.fetch(job.id, connection=data.connection).get_executions()


@case("stray-wip")
def finished_and_in_wip(data):
    job = data.ended("finished")
    data.connection.zadd("rq:wip:q", {f"{job.id}:0123": data.now + 50})
    return lambda: not data.connection.exists("rq:wip:q")


@case("stray-wip")
def queued_nowhere_and_in_wip(data):
    job = data.queued()
    data.connection.delete("rq:queue:q")
    data.connection.zadd("rq:wip:q", {f"{job.id}:0123": data.now - 5})
    return lambda: not data.connection.exists("rq:wip:q") and data.connection.llen("rq:queue:q") == 1


@case("malformed-wip")
def two_colons_in_wip(data):
    data.queued()
    data.connection.zadd("rq:wip:q", {"a:b:c": data.now + 50, "no id:b": data.now + 50})
    return lambda: not data.connection.exists("rq:wip:q")


@case("mixed-versions", stays=True, drains=False)
def bare_id_in_wip(data):
    job, execution = data.started()
    data.connection.zadd("rq:wip:q", {job.id: data.now + 50})


@case("stuck-intermediate")
def popped_and_not_started(data):
    job, other = data.queued(), data.queued()
    data.connection.lmove("rq:queue:q", "rq:queue:q:intermediate", "LEFT", "RIGHT")
    data.connection.set(f"rq:queue:q:intermediate:first_seen:{job.id}", data.now - 100)
    return lambda: [id.decode() for id in data.connection.lrange("rq:queue:q", 0, -1)] == [job.id, other.id]


@case("stuck-intermediate")
def finished_and_in_the_intermediate_queue(data):
    job = data.ended("finished")
    data.connection.rpush("rq:queue:q:intermediate", job.id)
    return lambda: data.connection.hget(key(job), "status") == b"finished"


@case("stale-mark")
def mark_of_a_job_that_went_on(data):
    job = data.ended("finished")
    data.connection.set(f"rq:queue:q:intermediate:first_seen:{job.id}", data.now - 100)
    return lambda: not data.connection.exists(f"rq:queue:q:intermediate:first_seen:{job.id}")


@case("lost-limited")
def rate_limited_and_nowhere(data):
    lost = data.queued()
    data.connection.lrem("rq:queue:q", 0, lost.id)
    data.connection.hset(key(lost), mapping={"status": "rate_limited", "rate_limit_key": "k", "rate_limit_concurrency": 1})
    return lambda: data.connection.zrange("rq:rl:k:allowed", 0, -1) == [lost.id.encode()] and data.connection.llen("rq:queue:q") == 1


@case("leaked-slot", drains=False)
def slot_of_a_finished_job(data):
    done, waiting = data.ended("finished"), data.queued()
    data.connection.lrem("rq:queue:q", 0, waiting.id)
    data.connection.hset(key(waiting), "status", "rate_limited")
    data.connection.sadd("rq:rl-keys", "k")
    data.connection.hset("rq:rl:k", "concurrency", 1)
    data.connection.zadd("rq:rl:k:allowed", {done.id: data.now})
    data.connection.zadd("rq:rl:k:rate_limited", {waiting.id: data.now})
    return lambda: data.connection.zrange("rq:rl:k:allowed", 0, -1) == [waiting.id.encode()] and data.connection.llen("rq:queue:q") == 1


@case("kept-for-ever", stays=True)
def failed_for_ever(data):
    job = data.ended("failed")
    data.connection.persist(key(job))
    data.connection.zadd("rq:failed:q", {job.id: -1})


@case("large-registry", stays=True)
def a_large_registry(data):
    pipeline = data.connection.pipeline(transaction=False)
    for i in range(100001):
        pipeline.zadd("rq:canceled:q", {f"j{i}": data.now})
        pipeline.hset(f"rq:job:j{i}", mapping={"status": "canceled", "origin": "q", "data": b"x"})
        if i % 5000 == 0:
            pipeline.execute()
    pipeline.execute()


@case("leftover-results")
def results_without_a_job(data):
    data.connection.xadd("rq:results:gone", {"type": 2})
    return lambda: not data.connection.exists("rq:results:gone")


@case("bad-result")
def results_that_cannot_be_read(data):
    job = data.ended("finished")
    for fields in ({"worker_name": "w"}, {"type": 9}, {"type": 2, "exc_string": "no base64"}, {"type": 2, "exc_string": "AAAA"},
                   {"type": 1, "return_value": "%%%%"}):
        data.connection.xadd(f"rq:results:{job.id}", fields)
    return lambda: Job.fetch(job.id, connection=data.connection).results() == []


@case("eviction-policy", stays=True)
def evicting(data):
    data.connection.config_set("maxmemory-policy", "allkeys-lru")


@case("old-fields", stays=True)
def fields_of_rq_1(data):
    job = data.ended("failed")
    data.connection.hset(key(job), mapping={"exc_info": "Traceback (most recent call last)", "result": b"\x80\x05K\x03."})


@case("unknown-status", stays=True, drains=False)
def a_status_of_somebody_else(data):
    data.connection.hset(key(data.queued()), "status", "sleeping")


@case("bad-field")
def fields_that_kill_python_workers(data):
    jobs = [data.queued() for _ in range(9)]
    bad = [("timeout", "1h"), ("enqueue_at_front", ""), ("success_callback_timeout", ""), ("failure_callback_timeout", ""),
           ("stopped_callback_timeout", ""), ("retry_intervals", "[]"), ("created_at", "yesterday"),
           ("enqueued_at", "2026-11-23T17:47:37.728246+00:00"), ("result_ttl", "1.5")]
    for job, (field, value) in zip(jobs, bad):
        data.connection.hset(key(job), mapping={field: value, "retries_left": 1})
    return lambda: [data.connection.hget(key(job), field) for job, (field, _) in zip(jobs, bad)] == [
        b"3600", None, None, None, None, b"[0]", b"", b"", None]


@case("bad-field")
def dependency_ids_that_are_no_json(data):
    parent, other = data.queued(), data.queued()
    child = data.queued(depends_on=parent)
    data.connection.hset(key(child), "dependency_ids", "[")
    data.connection.hset(key(other), "dependency_ids", "[")
    return lambda: (json.loads(data.connection.hget(key(child), "dependency_ids")) == [parent.id] and
                    not data.connection.hexists(key(other), "dependency_ids"))


@case("missing-group")
def group_without_a_set(data):
    job = data.queued(result_ttl=0)
    data.connection.hset(key(job), "group_id", "g")
    return lambda: data.connection.smembers("rq:group:g") == {job.id.encode()}


@case("no-data", stays=True)
def half_a_hash(data):
    data.connection.hset("rq:job:half", "last_heartbeat", "2026-11-23T17:47:37.728246Z")


@case("no-origin", stays=True)
def no_queue(data):
    job = data.ended("finished")
    data.connection.hdel(key(job), "origin")


@case("foreign-member")
def foreign_members(data):
    data.queued()
    data.connection.sadd("rq:queues", "q", "other:q")
    data.connection.sadd("rq:workers", "w")
    data.connection.sadd("rq:workers:q", "w")
    return lambda: data.connection.smembers("rq:queues") == {b"rq:queue:q"} and not data.connection.exists("rq:workers")


@case("gone-worker")
def worker_whose_record_has_expired(data):
    data.connection.sadd("rq:workers", "rq:worker:w")
    data.connection.sadd("rq:workers:q", "rq:worker:w")
    return lambda: not data.connection.exists("rq:workers", "rq:workers:q")


@case("bad-worker")
def worker_that_cannot_be_read(data):
    data.connection.hset("rq:worker:w", mapping={"pid": "one", "birth": "today", "queues": "q", "total_working_time": "x"})
    data.connection.expire("rq:worker:w", 480)
    data.connection.sadd("rq:workers", "rq:worker:w")
    data.connection.sadd("rq:workers:q", "rq:worker:w")
    return lambda: data.connection.hkeys("rq:worker:w") == [b"queues"]


@case("stale-lock")
def maintenance_lock_left_behind(data):
    data.connection.set("rq:clean_registries:q", 1, ex=700)
    return lambda: not data.connection.exists("rq:clean_registries:q")


@case("dead-scheduler")
def lock_of_a_dead_scheduler(data):
    data.connection.set("rq:scheduler-lock:q", "gone", ex=40)
    return lambda: not data.connection.exists("rq:scheduler-lock:q")


@case("compact-leftover")
def compaction_that_ended_half_way(data):
    jobs = [data.queued() for _ in range(50)]
    data.connection.rename("rq:queue:q", "rq:queue:_compact:1234")
    data.connection.rpush("rq:queue:_compact:1234", "ghost")
    jobs.append(data.queued())
    return lambda: [id.decode() for id in data.connection.lrange("rq:queue:q", 0, -1)] == [job.id for job in jobs]


@case("unregistered-queue")
def queue_that_is_not_registered(data):
    data.queued()
    data.connection.delete("rq:queues")
    return lambda: data.connection.smembers("rq:queues") == {b"rq:queue:q"}


@case("suspended", stays=True, drains=False)
def suspended(data):
    data.connection.set("rq:suspended", 1)


@case("wrong-type", stays=True, drains=False)
def key_of_another_type(data):
    data.connection.set("rq:failed:q", "text")


def stock_reads_everything(connection, url):
    """What raises on broken data: classes and commands of RQ."""
    Worker.all(connection=connection)
    for queue in Queue.all(connection=connection):
        queue.get_jobs()
        for registry in REGISTRIES:
            registry(queue=queue).get_job_ids(cleanup=False)
            registry(queue=queue).count
    info = CliRunner().invoke(rq_command_line, ["info", "--url", url])
    assert info.exit_code == 0, info.output


def drain(system, connection, ours):
    worker = system.test_worker("--burst", "q") if ours else system.rq_worker("--burst", "q")
    assert worker.wait() == 0, worker.log
    assert connection.llen("rq:queue:q") == 0


@pytest.mark.parametrize("name", CASES)
def test_finds_and_mends(system, connection, name):
    code, make, stays, drains = CASES[name]
    check = make(Data(connection))
    before = dump(connection)
    report = examine(system)
    assert code in found(report), report["findings"]
    finding = report["by_code"][code]
    assert finding["examples"] and finding["found"] == finding["left"] and finding["repaired"] == 0
    assert report["healthy"] == all(f["severity"] == "info" for f in report["findings"])
    assert dump(connection) == before, "a dry run changes nothing"
    repaired = examine(system, "--repair")
    again = examine(system)
    assert found(again) == found(repaired)
    if stays:
        assert found(again) == found(report), again["findings"]
        assert dump(connection) == before, "left to a person"
    else:
        assert repaired["by_code"][code]["repaired"] == finding["found"], repaired["findings"]
        assert again["healthy"] and not found(again), again["findings"]
    if check is not None:
        assert check(), dump(connection)
    if drains:
        stock_reads_everything(connection, system.server.url)
        drain(system, connection, ours=len(name) % 3 == 0)
        assert stays or not found(examine(system)), examine(system)["findings"]


def enqueue_all_kinds(connection, queue):
    """A job in each status, by real RQ: run `rq worker --burst` for the ended ones."""
    done = [queue.enqueue(tasks.add, 1, 2), queue.enqueue(tasks.add, 1, 2, result_ttl=-1), queue.enqueue(tasks.fail, "no"),
            queue.enqueue(tasks.fail, "no", failure_ttl=3600), queue.enqueue(tasks.none, result_ttl=3600)]
    return done, queue.enqueue(tasks.add, 1, 2, depends_on=done[:2])


def test_is_silent_on_healthy_data(system, connection):
    queue = Queue("q", connection=connection)
    done, released = enqueue_all_kinds(connection, queue)
    assert system.rq_worker("--burst", "q").wait() == 0
    enqueue_all_kinds(connection, queue)
    assert system.test_worker("--burst", "q").wait() == 0
    waiting = [queue.enqueue(tasks.add, i, 1) for i in range(30)]
    queue.enqueue(tasks.add, 1, 2, depends_on=waiting[:3])
    queue.enqueue(tasks.add, 1, 2, depends_on=waiting[3], ttl=600)
    queue.enqueue(tasks.add, 1, 2, depends_on=Dependency([waiting[4], done[2]], allow_failure=True))
    queue.enqueue_in(timedelta(hours=1), tasks.add, 1, 2)
    queue.enqueue(tasks.add, 1, 2, at_front=True, retry=Retry(max=3, interval=[1, 2]), meta={"a": 1})
    waiting[7].cancel()
    Group.create(connection).enqueue_many(queue, [Queue.prepare_data(tasks.add, (1, 2)), Queue.prepare_data(tasks.add, (3, 4))])
    queue.enqueue_many([Queue.prepare_data(tasks.add, (1, i)) for i in range(5)])
    Job.create(tasks.add, (1, 2), connection=connection).save()
    Queue("sync", connection=connection, is_async=False).enqueue(tasks.add, 1, 2)
    running = system.rq_worker("slow")
    ours = system.test_worker("slow")
    slow = Queue("slow", connection=connection)
    jobs = [slow.enqueue(tasks.slow, 8) for _ in range(2)]
    wait_for(lambda: all(job.get_status(refresh=True) == JobStatus.STARTED for job in jobs), what="the slow jobs")
    before = {key: value for key, value in dump(connection).items() if b"q" in key}
    for args in ((), ("--queue", "q"), ("--queue", "nothing"), ("--repair",)):
        report = examine(system, *args, recheck="1s")
        assert not found(report), report["findings"]
    assert {key: value for key, value in dump(connection).items() if b"q" in key} == before
    assert report["jobs"] >= 50 and report["queues"] >= 1
    running.signal(15), ours.signal(15)


def test_is_silent_under_load(system, connection):
    queues = [Queue(name, connection=connection) for name in ("a", "b")]
    aside = Queue("aside", connection=connection)
    workers = [system.test_worker("--with-scheduler", "a", "b"), system.rq_worker("a", "b"), system.rq_worker("a"),
               system.test_worker("b")]
    end = time.monotonic() + 20
    runs = []
    doctor = None
    number = 0
    while time.monotonic() < end or doctor is not None:
        if doctor is None and time.monotonic() < end:
            doctor = system.run(BUILD / "rqxx", "doctor", "--redis-url", system.server.url, "--recheck", "1s", "--json",
                                *(["--repair"] if len(runs) % 2 else []))
        if doctor is not None and doctor.process.poll() is not None:
            runs.append(json.loads(doctor.out))
            doctor = None
        for queue in queues:
            number += 1
            if queue.count > 300:
                time.sleep(0.02)
                continue
            queue.enqueue(tasks.add, number, 1, result_ttl=number % 3 * 20)
            # Not at once: RQ leaves a finished job in the started registry when one that depends on it comes just then (W6).
            later = queue.enqueue_in(timedelta(seconds=1), tasks.add, 1, 1)
            queue.enqueue(tasks.add, 1, 1, depends_on=later)
            queue.enqueue(tasks.fail, "no", retry=Retry(max=1), failure_ttl=30)
            # On a queue of their own: RQ's races with a worker leave what the doctor is there for (W19, W20).
            if number % 7 == 0:
                aside.enqueue(tasks.add, 1, 1).cancel()
            if number % 11 == 0:
                aside.enqueue(tasks.add, 1, 1).delete()
    assert len(runs) >= 5
    for report in runs:
        bad = [finding for finding in report["findings"] if finding["severity"] != "info" and finding["found"]]
        assert not bad, bad
    for worker in workers:
        worker.signal(15)


def test_takes_nothing_from_a_pushed_and_popped_queue_that_is_long(system, connection):
    """Longer than one window, and than what the script searches."""
    data = Data(connection)
    ids = [f"j{i}" for i in range(30000)]
    pipeline = connection.pipeline(transaction=False)
    for id in ids:
        pipeline.hset(f"rq:job:{id}", mapping={"status": "queued", "origin": "q", "data": zlib.compress(b"x")})
    pipeline.rpush("rq:queue:q", *ids)
    pipeline.sadd("rq:queues", "rq:queue:q")
    pipeline.execute()
    assert not found(examine(system))
    connection.lrem("rq:queue:q", 1, "j15000")
    connection.linsert("rq:queue:q", "BEFORE", "j14000", "j15001")
    connection.linsert("rq:queue:q", "BEFORE", "j14000", "ghost")
    report = examine(system, "--limit", "1")
    assert found(report) == {"lost-queued", "duplicate-id", "ghost-id"}
    assert report["by_code"]["lost-queued"]["examples"] == [{"subject": "j15000", "key": "", "note": ""}]
    assert all(finding["found"] == 1 for finding in report["findings"] if finding["code"] not in QUIET)
    examine(system, "--repair")
    assert not found(examine(system))
    now = [id.decode() for id in connection.lrange("rq:queue:q", 0, -1)]
    assert now[0] == "j15000" and len(now) == 30000 and set(now) == set(ids)


def test_looks_at_one_queue_when_asked_to(system, connection):
    data = Data(connection)
    data.queued()
    connection.lpop("rq:queue:q")
    connection.rpush("rq:queue:other", "ghost")
    assert found(examine(system, "--queue", "q")) == {"lost-queued"}
    assert found(examine(system, "--queue", "other")) == {"ghost-id", "unregistered-queue"}
    examine(system, "--queue", "other", "--repair")
    assert found(examine(system)) == {"lost-queued"}


def test_leaves_a_job_that_a_worker_may_be_about_to_start(system, connection):
    data = Data(connection)
    job = data.queued()
    connection.lmove("rq:queue:q", "rq:queue:q:intermediate", "LEFT", "RIGHT")
    connection.hset("rq:worker:w", "state", "idle")
    connection.sadd("rq:workers", "rq:worker:w")
    connection.sadd("rq:workers:q", "rq:worker:w")
    mark = f"rq:queue:q:intermediate:first_seen:{job.id}"
    assert not found(examine(system, "--repair")), "nobody has marked it yet"
    connection.set(mark, data.now - 100)
    assert not found(examine(system, "--repair")), "the mark is of another time"
    connection.hset(key(job), "enqueued_at", "2026-11-23T17:47:37.728246Z")
    assert found(examine(system)) == {"stuck-intermediate"}
    examine(system, "--repair")
    assert connection.lrange("rq:queue:q", 0, -1) == [job.id.encode()] and not connection.exists(mark)


TYPES = {"string": lambda c, k: c.set(k, "text"), "list": lambda c, k: c.rpush(k, "a", "b"), "set": lambda c, k: c.sadd(k, "a"),
         "hash": lambda c, k: c.hset(k, "f", "v"), "zset": lambda c, k: c.zadd(k, {"a": 1}),
         "stream": lambda c, k: c.xadd(k, {"f": "v"})}
KEYS = ["rq:queues", "rq:workers", "rq:workers:q", "rq:worker:w", "rq:queue:q", "rq:queue:q:intermediate", "rq:queue:_compact:1",
        "rq:queue:q:intermediate:first_seen:a", "rq:wip:q", "rq:finished:q", "rq:failed:q", "rq:deferred:q", "rq:scheduled:q",
        "rq:canceled:q", "rq:job:a", "rq:job:b", "rq:job:a:dependents", "rq:job::b:dependencies", "rq:results:a", "rq:results:gone",
        "rq:executions:a", "rq:execution:a:1", "rq:groups", "rq:group:g", "rq:clean_registries:q", "rq:scheduler-lock:q",
        "rq:scheduler:a", "rq:suspended", "rq:rl-keys", "rq:rl:k:allowed", "rq:rl:k:rate_limited", "rq:rl:k", "rq:ready:q", "rqxx:leases", "rqxx:schedulers", "rq:", "rq:job:",
        "rq:job::", "rq:queue:", "rq:execution:", "rq:results:", "rq:job:\xff\n:x"]


@pytest.mark.parametrize("what", TYPES)
def test_survives_keys_of_any_type(system, connection, what):
    for name in KEYS:
        TYPES[what](connection, name)
    for args in ((), ("--repair",), ("--repair", "--queue", "q")):
        examine(system, *args)


@pytest.mark.parametrize("target", KEYS)
def test_survives_one_key_of_any_type_in_sound_data(system, connection, target):
    for make in TYPES.values():
        connection.flushall()
        data = Data(connection)
        parent = data.queued(job_id="a")
        data.queued(job_id="b", depends_on=parent)
        data.started()
        data.ended("failed")
        data.ended("finished")
        connection.delete(target)
        make(connection, target)
        examine(system, "--repair")
        examine(system)


def test_survives_junk_in_every_field(system, connection):
    data = Data(connection)
    for status in ("queued", "started", "deferred", "scheduled", "finished", "failed", "canceled"):
        for junk in (b"", b"\xff\x00\n", b"[", b"[1, null, {}]", b"-1", b"9" * 400, b"nan", b"a" * 100000):
            job = data.queued()
            fields = [field for field in connection.hkeys(key(job)) if field not in (b"data", b"status")]
            fields += [b"dependency_ids", b"dependency_id", b"ttl", b"failure_ttl", b"retries_left", b"repeats_left", b"group_id",
                       b"result_ttl", b"retry_intervals", b"webhooks", b"enqueue_at_front"]
            connection.hset(key(job), mapping={**{field: junk for field in fields}, "status": status})
            connection.hset(key(data.queued()), mapping={**{field: junk for field in fields if field != b"origin"}, "status": status})
    for registry in ("wip", "finished", "failed", "deferred", "scheduled", "canceled"):
        connection.zadd(f"rq:{registry}:q", {b"\xff:\x00": "-inf", b"": "inf", b":": 0, b"a:": 1e300})
    connection.rpush("rq:queue:q", b"", b":", b"\x00")
    connection.xadd(b"rq:results:\xff", {b"": b""})
    connection.sadd("rq:queues", b"", b"rq:queue:", b"\xff")
    examine(system, "--repair")
    after = examine(system)
    left = [after["by_code"][code] for code in found(after) if after["by_code"][code]["repair"]]
    # What a job waits for cannot be made up.
    assert all("dependency_ids=" in example["note"] for finding in left for example in finding["examples"]), left


def test_tells_people(system, connection):
    data = Data(connection)
    job = data.queued()
    connection.lpop("rq:queue:q")
    done = system.rqxx("doctor", "--redis-url", system.server.url, "--recheck", "0s")
    assert done.returncode == 1 and not done.stderr
    assert f"error lost-queued: 1\n  what: a job is queued and on no queue\n  why: nobody runs it\n  --repair: puts it at the front of its queue\n  - {job.id}\n" in done.stdout
    assert done.stdout.endswith("1 job in 0 queues: not healthy; --repair mends what can be mended\n")
    done = system.rqxx("doctor", "--redis-url", system.server.url, "--recheck", "0s", "--repair")
    assert done.returncode == 0 and "lost-queued: 1 mended\n" in done.stdout
    assert done.stdout.endswith("1 job in 1 queue: healthy\n")
    for args in (["--recheck", "soon"], ["--limit", "x"], ["--nonsense"], ["extra"]):
        assert system.rqxx("doctor", "--redis-url", system.server.url, *args).returncode == 2, args


def test_the_json_is_complete(system, connection):
    data = Data(connection)
    for _ in range(3):
        data.queued()
    connection.delete("rq:queue:q")
    report = examine(system, "--limit", "2")
    del report["by_code"]
    assert set(report) == {"healthy", "repair", "keys", "jobs", "queues", "findings"}
    assert report["jobs"] == 3 and report["healthy"] is False and report["repair"] is False
    finding = next(finding for finding in report["findings"] if finding["code"] == "lost-queued")
    assert set(finding) == {"code", "severity", "found", "repaired", "left", "what", "why", "repair", "examples"}
    assert finding["found"] == finding["left"] == 3 and len(finding["examples"]) == 2
    assert set(finding["examples"][0]) == {"subject", "key", "note"}


def test_the_documentation_lists_every_code():
    codes = re.findall(r'^    \{"([a-z-]+)", (error|warning|info)', (ROOT / "src/ops/doctor_kinds.cpp").read_text(), re.M)
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning|info) \|", (ROOT / "docs/operations.md").read_text(), re.M)
    assert rows == codes
    looked_at = set(re.findall(r"look\['([a-z-]+)'\]", (ROOT / "lua/doctor.lua").read_text()))
    facts = {"old-redis", "eviction-policy", "no-persistence", "suspended", "no-worker", "large-registry", "kept-for-ever"}
    assert {code for code, _ in codes} == looked_at | facts
