"""Jobs for later: Python enqueues them, rqxx moves them to their queues in time, beside stock schedulers and dead ones."""

import datetime
import os
import shutil
import signal
import tempfile
import threading
import time

import pytest
import tasks
from conftest import BUILD, System, http, needs_rq2, wait_for
from rq import Queue, Retry
from rq.job import Job
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

LOCK = "rq:scheduler-lock:default"
PAST = datetime.timedelta(seconds=-1)


def start_scheduler(system, *args):
    return system.serve("--no-worker", "--no-sampler", *args, url=system.server.url,
                        data_dir=system.folder / f"data{len(system.things)}")


def start_holding_scheduler(system):
    """A scheduler that has the lock of `default`."""
    system.server.client.sadd("rq:queues", "rq:queue:default")
    scheduler = start_scheduler(system)
    wait_for(lambda: holder(system) == scheduler.process.pid, what="the lock")
    return scheduler


def holder(system):
    """The process that has the lock of `default`, by what RQ's schedulers write about themselves."""
    connection = system.server.client
    name = connection.get(LOCK)
    pid = name and connection.hget(b"rq:scheduler:" + name, "pid")
    return pid and int(pid)


def metric(scheduler, name):
    line = next(line for line in http("GET", f"{scheduler.url}/metrics").body.decode().splitlines() if line.startswith(name + " "))
    return float(line.split()[1])


def status(connection, job_id):
    value = connection.hget(f"rq:job:{job_id}", "status")
    return value and value.decode()


def seconds(connection):
    return int(connection.time()[0])


def due(connection, job_id, ago=1, queue="default"):
    """Makes a scheduled job due `ago` seconds ago."""
    connection.zadd(f"rq:scheduled:{queue}", {job_id: seconds(connection) - ago})


def queued(connection, queue="default"):
    return [job_id.decode() for job_id in connection.lrange(f"rq:queue:{queue}", 0, -1)]


def time_of(connection, job_id):
    return datetime.datetime.fromisoformat(connection.hget(b"rq:job:" + job_id, "enqueued_at").decode()).timestamp()


def schedule_many(connection, count, queue="default", ahead=0):
    """Jobs like those of enqueue_in, all due at one second, entered at once. Returns that second."""
    q = Queue(queue, connection=connection)
    pattern = q.enqueue_in(datetime.timedelta(hours=1), tasks.noop, 1)
    fields = connection.hgetall(pattern.key)
    pattern.delete()
    for start in range(0, count, 5000):
        pipeline = connection.pipeline(transaction=False)
        for n in range(start, min(start + 5000, count)):
            pipeline.hset(f"rq:job:{queue}-{n}", mapping=fields)
        pipeline.zadd("staged", {f"{queue}-{n}": 1 for n in range(start, min(start + 5000, count))})
        pipeline.execute()
    at = seconds(connection) + ahead
    connection.zunionstore(f"rq:scheduled:{queue}", {"staged": at})
    connection.delete("staged")
    return at


@pytest.mark.parametrize("serializer", [pytest.param(None, id="pickle"), pytest.param(JSONSerializer, id="json")])
def test_a_job_enqueued_for_later_runs_then(system, connection, serializer):
    q = Queue("default", connection=connection, serializer=serializer)
    system.test_worker("--with-scheduler", "default").wait_for_log("Scheduler has taken locks: queues=default")
    job = q.enqueue_in(datetime.timedelta(seconds=2), tasks.add, 1, 2)
    assert status(connection, job.id) == "scheduled"
    wait_for(lambda: status(connection, job.id) == "finished")
    job.refresh()
    assert job.return_value() == 3
    assert ScheduledJobRegistry(queue=q).count == 0
    # RQ drops the fraction of a due time.
    assert job.started_at - job.created_at > datetime.timedelta(seconds=1)


def test_jobs_are_promoted_in_time_and_not_before(system, connection):
    start_holding_scheduler(system)
    q = Queue("default", connection=connection)
    jobs = [q.enqueue_in(datetime.timedelta(seconds=n), tasks.add, 1, 2) for n in (2, 3, 4)]
    times = [connection.zscore("rq:scheduled:default", job.id) for job in jobs]
    wait_for(lambda: len(queued(connection)) == 3)
    late = sorted(Job.fetch(job.id, connection=connection).enqueued_at.timestamp() - time for job, time in zip(jobs, times))
    print(f"late: {late}")
    assert 0 <= late[0] < 1, late       # Not before its time; how late is for a quiet machine to tell.


@needs_rq2
def test_rq_sees_who_schedules(system, connection):
    q = Queue("default", connection=connection)
    q.enqueue_in(datetime.timedelta(hours=1), tasks.add, 1, 2)
    scheduler = start_holding_scheduler(system)
    assert q.scheduler_pid == scheduler.process.pid
    record = RQScheduler.fetch(connection.get(LOCK).decode(), connection)
    assert record.pid == scheduler.process.pid and record._queue_names == {"default"}
    assert abs(record.created_at - record.last_heartbeat) < datetime.timedelta(seconds=20)
    assert 50 < connection.ttl(record.key) <= 61 and 50 < connection.ttl(LOCK) <= 61
    wait_for(lambda: record.last_heartbeat < RQScheduler.fetch(record.name, connection).last_heartbeat)
    assert metric(scheduler, "rqxx_scheduler_locks") == 1
    scheduler.signal(signal.SIGTERM)
    assert scheduler.wait() == 0
    assert connection.keys("rq:scheduler*") == [] and connection.zcard("rqxx:schedulers") == 0


def test_serve_finds_new_queues(system, connection):
    start_scheduler(system)
    job = Queue("brand new", connection=connection).enqueue_in(PAST, tasks.add, 1, 2)
    wait_for(lambda: status(connection, job.id) == "queued")
    assert queued(connection, "brand new") == [job.id]


def test_schedulers_can_be_switched_off(system, connection):
    job = Queue("default", connection=connection).enqueue_in(PAST, tasks.add, 1, 2)
    web = start_scheduler(system, "--no-scheduler")
    assert "rqxx_scheduler_locks" not in http("GET", f"{web.url}/metrics").body.decode()
    assert system.rqxx("worker", "default", "--burst", "--redis-url", system.server.url).returncode == 0
    assert status(connection, job.id) == "scheduled" and connection.get(LOCK) is None


def test_a_burst_worker_with_scheduler_takes_what_is_due(system, connection):
    q = Queue("default", connection=connection)
    later = q.enqueue_in(datetime.timedelta(hours=1), tasks.add, 1, 2)
    schedule_many(connection, 1500)
    due(connection, later.id, -3600)
    result = system.rqxx("worker", "default", "--burst", "--with-scheduler", "--redis-url", system.server.url)
    assert result.returncode == 0, result.stderr
    assert status(connection, later.id) == "scheduled"
    assert connection.zcard("rq:scheduled:default") == 1 and queued(connection) == []
    assert connection.zcard("rq:failed:default") == 1500   # this worker has no such function
    assert connection.keys("rq:scheduler*") == []


# ---- the same as RQ leaves it --------------------------------------------------------------------------------------------


def failed_once(system, retry, **options):
    q = Queue("default", connection=system.server.client)
    q.enqueue(tasks.fail, "boom", job_id="a", retry=retry, **options)
    assert system.rq_worker("--name", "worker", "--burst", "default").wait() == 0


SCENARIOS = {
    "plain": lambda q, system: q.enqueue_in(PAST, tasks.add, 1, 2, job_id="a"),
    "everything": lambda q, system: q.enqueue_in(
        PAST, tasks.add, 1, 2, job_id="a", job_timeout=77, result_ttl=600, failure_ttl=700, ttl=300, meta={"k": [1]},
        description="text", retry=Retry(max=2, interval=[3, 4])),
    "at": lambda q, system: q.enqueue_at(datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), tasks.add, 1, 2, job_id="a"),
    "ttl": lambda q, system: q.enqueue_in(PAST, tasks.add, 1, 2, job_id="a", ttl=300),
    "ttl_with_dependent": lambda q, system: q.enqueue(
        tasks.add, 3, 4, job_id="b", depends_on=q.enqueue_in(PAST, tasks.add, 1, 2, job_id="a", ttl=300)),
    "dependency_is_not_awaited": lambda q, system: q.enqueue_in(
        PAST, tasks.add, 3, 4, job_id="b", ttl=300, depends_on=q.enqueue(tasks.add, 1, 2, job_id="a")),
    "in_the_order_of_time": lambda q, system: [
        q.enqueue_in(datetime.timedelta(seconds=-n), tasks.add, 1, 2, job_id=f"j{n}") for n in (3, 9, 1, 7)],
    "at_front": lambda q, system: [
        q.enqueue_in(datetime.timedelta(seconds=-n), tasks.add, 1, 2, job_id=f"j{n}", at_front=n % 2 == 0) for n in range(1, 7)],
    "behind_others": lambda q, system: [q.enqueue(tasks.add, 1, 2, job_id="x"), q.enqueue_in(PAST, tasks.add, 1, 2, job_id="a")],
    "not_due": lambda q, system: q.enqueue_in(datetime.timedelta(hours=1), tasks.add, 1, 2, job_id="a"),
    "retry_later": lambda q, system: [
        failed_once(system, Retry(max=2, interval=60)), q.enqueue(tasks.add, 1, 2, job_id="x"), due(q.connection, "a")],
    "retry_later_at_front": lambda q, system: [
        failed_once(system, Retry(max=2, interval=60, enqueue_at_front=True)), q.enqueue(tasks.add, 1, 2, job_id="x"),
        due(q.connection, "a")],
    "first_try_not_at_front": lambda q, system: [
        q.enqueue(tasks.add, 1, 2, job_id="x"),
        q.enqueue_in(PAST, tasks.add, 1, 2, job_id="a", retry=Retry(max=2, interval=60, enqueue_at_front=True))],
    "many": lambda q, system: [q.enqueue_in(PAST, tasks.add, n, n, job_id=f"j{n}") for n in range(30)],
    "unknown_fields": lambda q, system: q.connection.hset(
        q.enqueue_in(PAST, tasks.add, 1, 2, job_id="a").key, mapping={"new_in_3": "kept"}),
    "saved_and_registered_by_hand": lambda q, system: (
        lambda job: [job.save(), ScheduledJobRegistry(queue=q).schedule(job, datetime.datetime.fromtimestamp(1, datetime.timezone.utc))])(
            Job.create(tasks.add, (1, 2), id="a", origin="default", timeout=180, connection=q.connection)),
}


def run(scenario, promote):
    system = System(tempfile.mkdtemp(prefix="rqxx-test-"))
    try:
        server = system.redis()
        SCENARIOS[scenario](Queue("default", connection=server.client), system)
        promote(system)
        from remains import keys_of

        return keys_of(server.client)
    finally:
        system.end()
        shutil.rmtree(system.folder, ignore_errors=True)


def differences(scenario, stock, ours):
    from remains import difference
    from test_differential import allowed

    return {path: how for path, how in difference(stock, ours).items()
            if not path.endswith("ip_address") and not allowed(scenario, "python_to_rqxx", path, how)}


def promote_with_rq(system):
    scheduler = RQScheduler(["default"], connection=system.server.client)
    assert scheduler.acquire_locks() == {"default"}
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()


def promote_with_rqxx(system):
    connection = system.server.client
    scheduler = start_holding_scheduler(system)
    wait_for(lambda: connection.zcount("rq:scheduled:default", 0, seconds(connection)) == 0)
    scheduler.signal(signal.SIGTERM)
    assert scheduler.wait() == 0


@needs_rq2
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_promotion_leaves_what_rq_leaves(scenario):
    stock, ours = run(scenario, promote_with_rq), run(scenario, promote_with_rqxx)
    # A promotion of RQ does not make the queue known.
    stock |= {path: value for path, value in ours.items() if path.startswith("rq:queues ")}
    assert differences(scenario, stock, ours) == {}


@needs_rq2
@pytest.mark.parametrize("scenario", ["plain", "everything", "at_front", "ttl", "many", "not_due"])
def test_a_burst_worker_with_scheduler_leaves_what_rq_leaves(scenario):
    def work(start):
        def promote(system):
            worker = start(system)
            assert worker.wait(60) == 0, worker.log
        return promote

    stock = run(scenario, work(lambda system: system.rq_worker("--name", "worker", "--with-scheduler", "--burst", "default")))
    ours = run(scenario, work(lambda system: system.test_worker(
        "--name", "worker", "--with-scheduler", "--burst", "--concurrency", "1", "default")))
    assert differences(scenario, stock, ours) == {}


# ---- what must not be promoted -------------------------------------------------------------------------------------------


def test_jobs_canceled_or_deleted_after_their_time_stay_so(system, connection):
    q = Queue("default", connection=connection)
    canceled, deleted, good = [q.enqueue_in(PAST, tasks.add, 1, 2) for _ in range(3)]
    # What a scheduler that reads first and writes then would have in hand (W12).
    canceled.cancel()
    deleted.delete()
    for job in (canceled, deleted):
        due(connection, job.id)
    due(connection, "old-ghost", ago=61)
    start_scheduler(system)
    wait_for(lambda: status(connection, good.id) == "queued")
    assert queued(connection) == [good.id]
    assert status(connection, canceled.id) == "canceled" and connection.exists(deleted.key) == 0
    # An entry without a hash is kept for a minute.
    assert connection.zrange("rq:scheduled:default", 0, -1) == [deleted.id.encode()]
    due(connection, deleted.id, ago=61)
    wait_for(lambda: connection.zcard("rq:scheduled:default") == 0)
    assert connection.exists(deleted.key) == 0


def test_cancels_that_race_with_promotion_win(system, connection):
    schedule_many(connection, 400, ahead=3600)
    q = Queue("default", connection=connection)
    jobs = Job.fetch_many([f"default-{n}" for n in range(400)], connection=connection)
    start_scheduler(system)
    for n, job in enumerate(jobs):
        due(connection, job.id, ago=0)
        if n % 3 == 0:
            wait_for(lambda: status(connection, job.id) == "queued")
        job.cancel()
    assert {status(connection, job.id) for job in jobs} == {"canceled"}
    assert queued(connection) == [] and q.scheduled_job_registry.count == 0


def test_an_entry_whose_hash_comes_late_is_promoted(system, connection):
    q = Queue("default", connection=connection)
    job = q.enqueue_in(PAST, tasks.add, 1, 2)
    fields = connection.hgetall(job.key)
    connection.delete(job.key)
    start_holding_scheduler(system)
    marker = q.enqueue_in(PAST, tasks.add, 1, 2)
    wait_for(lambda: status(connection, marker.id) == "queued")
    connection.hset(job.key, mapping=fields)   # RQ writes the entry first (W10)
    wait_for(lambda: queued(connection) == [marker.id, job.id])


def test_thousands_of_entries_without_a_job_hold_nobody_up(system, connection):
    connection.zadd("rq:scheduled:default", {f"ghost-{n:05}": seconds(connection) - 30 for n in range(5000)})
    q = Queue("default", connection=connection)
    start_scheduler(system)
    for _ in range(3):
        job = q.enqueue_in(PAST, tasks.add, 1, 2)
        wait_for(lambda: status(connection, job.id) == "queued", timeout=5)
    assert connection.zcard("rq:scheduled:default") == 5000


def test_broken_data_stops_nobody(system, connection):
    q = Queue("default", connection=connection)
    connection.zadd("rq:scheduled:default", {"no id": 1, b"\xff\x00": 2, "a:b": 3, "x" * 100000: 4, "string": 5, "list": 5})
    connection.set("rq:job:string", "text")
    connection.rpush("rq:job:list", "text")
    connection.sadd("rq:queues", "rq:queue:broken", "nonsense", "rq:queue:", "rq:queue:\x00")
    connection.set("rq:scheduled:broken", "text")
    junk = [q.enqueue_in(PAST, tasks.add, 1, 2) for _ in range(5)]
    for job, field, value in zip(junk, ("ttl", "enqueue_at_front", "ended_at", "timeout", "enqueue_at_front_on_retry"),
                                 ("-1e999", "", "never", "1h", "\xff")):
        connection.hset(job.key, field, value)
    elsewhere = q.enqueue_in(PAST, tasks.add, 1, 2)
    connection.hset(elsewhere.key, "origin", "text")
    connection.set("rq:queue:text", "no list")
    start_scheduler(system)
    job = q.enqueue_in(PAST, tasks.add, 1, 2)
    wait_for(lambda: set(queued(connection)) == {job.id, *(one.id for one in junk)})
    # Its queue is broken, so it waits where it is, whole.
    assert status(connection, elsewhere.id) == "scheduled"
    assert connection.zrange("rq:scheduled:default", 0, -1) == [elsewhere.id.encode()]
    connection.delete("rq:queue:text")
    wait_for(lambda: queued(connection, "text") == [elsewhere.id])


# ---- one at a time -------------------------------------------------------------------------------------------------------


@needs_rq2
def test_a_stock_scheduler_that_has_the_lock_keeps_it(system, connection):
    q = Queue("default", connection=connection)
    marks = system.folder / "marks"
    system.rq_worker("--with-scheduler", "default")
    stock = wait_for(lambda: q.scheduler_pid, what="the stock scheduler")
    web = start_scheduler(system)
    os.kill(stock, signal.SIGSTOP)
    try:
        owner = connection.get(LOCK)
        job = q.enqueue_in(PAST, tasks.mark, str(marks), 0)
        marker = Queue("other", connection=connection).enqueue_in(datetime.timedelta(seconds=2), tasks.add, 1, 2)
        wait_for(lambda: status(connection, marker.id) == "queued")
        assert status(connection, job.id) == "scheduled" and connection.get(LOCK) == owner
    finally:
        os.kill(stock, signal.SIGCONT)
    wait_for(lambda: status(connection, job.id) == "finished")
    assert marks.read_text().split() == [job.id]
    assert metric(web, "rqxx_scheduler_promoted_total") == 1 and metric(web, "rqxx_scheduler_locks") == 1


@needs_rq2
def test_a_stock_scheduler_leaves_our_lock_alone(system, connection):
    q = Queue("default", connection=connection)
    marks = system.folder / "marks"
    q.enqueue_in(datetime.timedelta(hours=1), tasks.add, 1, 2)
    web = start_holding_scheduler(system)
    owner = connection.get(LOCK)
    assert RQScheduler(["default"], connection=connection).acquire_locks() == set()
    system.rq_worker("--with-scheduler", "default")
    wait_for(lambda: connection.scard("rq:workers") == 1)
    job = q.enqueue_in(PAST, tasks.mark, str(marks), 0)
    wait_for(lambda: status(connection, job.id) == "finished")
    assert marks.read_text().split() == [job.id] and connection.get(LOCK) == owner
    assert metric(web, "rqxx_scheduler_promoted_total") == 1
    assert 1 <= metric(web, "rqxx_scheduler_lag_seconds") < 5


def test_a_killed_scheduler_is_replaced_within_15_seconds(system, connection):
    q = Queue("default", connection=connection)
    marks = system.folder / "marks"
    first, second = [system.test_worker("--with-scheduler", "default") for _ in range(2)]
    pid = wait_for(lambda: holder(system))
    second = second if pid == first.process.pid else first
    second.wait_for_log("Worker started")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    job = q.enqueue_in(PAST, tasks.mark, str(marks), 0)
    wait_for(lambda: status(connection, job.id) == "finished", timeout=30)
    assert time.monotonic() - killed < 15
    assert holder(system) == second.process.pid and "Scheduler has taken over from one that died" in second.log
    assert marks.read_text().split() == [job.id]


def test_a_paused_scheduler_promotes_nothing_twice(system, connection):
    paused = start_holding_scheduler(system)
    other = start_scheduler(system)
    paused.signal(signal.SIGSTOP)
    schedule_many(connection, 3000)
    wait_for(lambda: holder(system) == other.process.pid, timeout=15, what="the takeover")
    paused.signal(signal.SIGCONT)
    schedule_many(connection, 3000, queue="more")
    wait_for(lambda: connection.zcard("rq:scheduled:default") + connection.zcard("rq:scheduled:more") == 0)
    paused.signal(signal.SIGTERM)
    assert paused.wait() == 0
    assert sorted(queued(connection)) == sorted(f"default-{n}" for n in range(3000))
    assert sorted(queued(connection, "more")) == sorted(f"more-{n}" for n in range(3000))
    assert holder(system) == other.process.pid


def test_two_schedulers_promote_each_job_once(system, connection):
    names = ["default", "a", "b"]
    for name in names:
        schedule_many(connection, 4000, queue=name)
    stop = threading.Event()

    def take_locks_away():
        while not stop.wait(0.005):
            connection.delete(*(f"rq:scheduler-lock:{name}" for name in names))

    thread = threading.Thread(target=take_locks_away)
    thread.start()
    try:
        both = [start_scheduler(system) for _ in range(2)]
        wait_for(lambda: sum(connection.zcard(f"rq:scheduled:{name}") for name in names) == 0, timeout=60)
    finally:
        stop.set()
        thread.join()
    for name in names:
        assert sorted(queued(connection, name)) == sorted(f"{name}-{n}" for n in range(4000))
    assert sum(metric(scheduler, "rqxx_scheduler_promoted_total") for scheduler in both) == 12000


def test_stopping_gives_up_own_locks_only(system, connection):
    connection.sadd("rq:queues", "rq:queue:default", "rq:queue:other")
    scheduler = start_holding_scheduler(system)
    wait_for(lambda: connection.get("rq:scheduler-lock:other"))
    connection.set(LOCK, "somebody", ex=61)
    scheduler.signal(signal.SIGTERM)
    assert scheduler.wait() == 0
    assert connection.get(LOCK) == b"somebody" and connection.get("rq:scheduler-lock:other") is None


def test_a_worker_that_is_stopped_gives_up_its_locks_at_once(system, connection):
    worker = system.run(BUILD / "rqxx", "worker", "default", "--with-scheduler", "--redis-url", system.server.url)
    wait_for(lambda: holder(system) == worker.process.pid)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.log
    assert connection.keys("rq:scheduler*") == [] and connection.zcard("rqxx:schedulers") == 0
    worker = system.test_worker("--with-scheduler", "default")
    wait_for(lambda: holder(system) == worker.process.pid, timeout=5)


def test_scheduling_goes_on_after_an_outage_of_redis(system):
    server = system.redis(persistent=True)
    q = Queue("default", connection=server.client)
    marks = system.folder / "marks"
    worker = system.test_worker("--with-scheduler", "default")
    wait_for(lambda: holder(system))
    job = q.enqueue_in(datetime.timedelta(seconds=2), tasks.mark, str(marks), 0)
    server.stop()
    time.sleep(2)   # the job's time comes meanwhile
    server.start()
    wait_for(lambda: status(server.client, job.id) == "finished")
    again = Queue("default", connection=server.client).enqueue_in(PAST, tasks.mark, str(marks), 0)
    wait_for(lambda: status(server.client, again.id) == "finished")
    assert marks.read_text().split() == [job.id, again.id]
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0 and holder(system) is None


@pytest.mark.parametrize("count", [20000, pytest.param(1000000, marks=pytest.mark.skipif(
    not os.environ.get("RQXX_FULL"), reason="takes minutes; set RQXX_FULL=1"))])
def test_jobs_due_in_the_same_second_are_promoted_once_each(system, connection, count):
    start_holding_scheduler(system)
    connection.config_set("slowlog-log-slower-than", 10000)
    connection.slowlog_reset()
    at = schedule_many(connection, count, ahead=3 + count // 50000)
    wait_for(lambda: connection.zcard("rq:scheduled:default") == 0, timeout=count / 5000 + 10)
    ids = connection.lrange("rq:queue:default", 0, -1)
    assert len(ids) == count and len(set(ids)) == count
    first, last, p99 = (Job.fetch(ids[n].decode(), connection=connection).enqueued_at.timestamp() - at
                        for n in (0, -1, count * 99 // 100))
    slow = [entry["duration"] for entry in connection.slowlog_get(128) if entry["command"].startswith(b"EVALSHA")]
    print(f"{count} jobs, {count / (last - first):.0f}/s, late: first {first:.3f} s, p99 {p99:.3f} s, last {last:.3f} s; "
          f"calls of more than 10 ms: {slow}")
    assert first >= 0


def test_ten_thousand_due_among_a_million_are_promoted_once_each_though_their_scheduler_dies(system, connection):
    connection.sadd("rq:queues", "rq:queue:default")
    at = schedule_many(connection, 10000, ahead=15)
    later = connection.register_script("""
        for n = 1, 1000 do
            local entries = {}
            for i = 1, 1000, 100 do
                for k = i, i + 99 do entries[2 * (k - i) + 1], entries[2 * (k - i) + 2] = ARGV[1] + n, 'later-' .. n .. '-' .. k end
                redis.call('ZADD', KEYS[1], unpack(entries, 1, 200))
            end
        end""")
    later(keys=["rq:scheduled:default"], args=[at + 86400])
    assert connection.zcard("rq:scheduled:default") == 1010000
    both = {scheduler.process.pid: scheduler for scheduler in (start_scheduler(system), start_scheduler(system))}
    dying = wait_for(lambda: holder(system))
    wait_for(lambda: connection.llen("rq:queue:default") > 0, timeout=30)
    both[dying].signal(signal.SIGKILL)
    wait_for(lambda: connection.zcard("rq:scheduled:default") == 1000000, timeout=30)
    ids = connection.lrange("rq:queue:default", 0, -1)
    assert len(ids) == 10000 and len(set(ids)) == 10000
    wait_for(lambda: holder(system) in both and holder(system) != dying, timeout=30, what="the takeover")
    late = sorted(time_of(connection, job_id) - at for job_id in ids)
    print(f"late: first {late[0]:.3f} s, p99 {late[9899]:.3f} s, last {late[-1]:.3f} s")
    assert late[0] >= 0
