"""Each window of docs/compatibility.md, forced open: processes killed and replies lost between any two commands, the
steps of one interleaved with those of another. Nothing may be lost, nothing that was committed be repeated, nothing be
stranded: tests/support/invariants.py says what that means in Redis.

Traps of tests/support/proxy.py make the moment; nothing here depends on how fast something is. What takes RQ or us
seconds by design (leases, RQ's 60 s of patience) is brought about by moving the recorded times back.
"""

import datetime
import json
import os
import signal
import sys
import threading
import time

import psutil
import pytest

pytest.importorskip("rq.webhook", reason="needs RQ 2.10; Debian's package is older")

import redis
import tasks
from conftest import BUILD, INTEROP, needs_rq2, wait_for
from driver import DriverError
from invariants import Snapshot, check, violations
from proxy import Proxy
from rq import Callback, Queue, Retry
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.scheduler import RQScheduler

pytestmark = needs_rq2
PAST = datetime.timedelta(seconds=-1)
LOCK = "rq:scheduler-lock:default"


@pytest.fixture
def proxy(system, server):
    proxy = Proxy(system.folder, server.socket)
    yield proxy
    proxy.end()


@pytest.fixture
def driver(system, server):
    return system.driver()


@pytest.fixture
def marks(system):
    return system.folder / "marks"


def status(connection, job_id):
    value = connection.hget(f"rq:job:{job_id}", "status")
    return value and value.decode()


def queued(connection, queue="default"):
    return [job_id.decode() for job_id in connection.lrange(f"rq:queue:{queue}", 0, -1)]


def runs(path):
    return path.read_text().split() if path.exists() else []


def seconds(connection):
    return int(connection.time()[0])


def kill(running):
    """At once, with all its children. For traps: the request is not passed on."""
    process = psutil.Process(running.process.pid)
    for one in [process, *process.children(recursive=True)]:
        one.kill()
    running.process.wait(10)
    return "cut"


class Victim:
    """What a trap kills, which may spring before whoever started the process knows it."""

    running = None

    def kill(self):
        return kill(wait_for(lambda: self.running))


def through(proxy):
    return redis.Redis(unix_socket_path=str(proxy.socket))


def in_background(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def let_leases_lapse(connection):
    """As if those who died had been dead for a while, and others had been there all the time."""
    for key in ("rqxx:leases", "rqxx:schedulers"):
        for name in connection.zrange(key, 0, -1):
            connection.zadd(key, {name: 1})
    now = seconds(connection) * 1_000_000
    connection.hset("rqxx:sweeper", mapping={"last": now, "since": now - 10_000_000})


def recover(system, connection, **options):
    """What any rqxx process does within 15 seconds of a death. Returns {job: what was done}."""
    let_leases_lapse(connection)
    rescuer = system.driver()
    rescuer.register("rescuer")
    done = rescuer.recover("rescuer", **options)["jobs"]
    rescuer.retire("rescuer")
    rescuer.end()
    return {job["id"]: job["what"] for job in done}


def rq_lets_executions_lapse(connection, queue="default"):
    """As if heartbeats had been missing for as long as RQ waits for them."""
    for member in connection.zrange(f"rq:wip:{queue}", 0, -1):
        job_id, execution = member.decode().split(":")
        connection.zadd(f"rq:wip:{queue}", {member: 1})
        connection.delete(f"rq:execution:{job_id}:{execution}", f"rq:executions:{job_id}")


def maintain(driver, connection, queue="default"):
    connection.delete(f"rqxx:maintained:{queue}")
    return driver.maintain(queue)


def age_intermediate(connection, job_id, queue="default"):
    """As if maintenance had first seen the id there two minutes ago, and it had been queued before that."""
    connection.hset(f"rq:job:{job_id}", "enqueued_at", "2020-01-01T00:00:00.000000Z")
    connection.set(f"rq:queue:{queue}:intermediate:first_seen:{job_id}", seconds(connection) - 120, ex=86400)


def stock_worker(system, proxy, *args):
    return system.run(sys.executable, "-m", "rq.cli", "worker", "--url", proxy.url, "--path", INTEROP, *args,
                      env={**os.environ, "PYTHONPATH": str(INTEROP)})


def work_off(system, *queues):
    """Runs a worker of ours until nothing waits."""
    worker = system.test_worker("--burst", *(queues or ("default",)))
    assert worker.wait(30) == 0, worker.log
    return worker


def idle_worker(system, proxy, *args):
    """A worker of ours that waits for jobs behind the proxy."""
    queues = [arg for arg in args if not arg.startswith("-")] or ["default"]
    worker = system.test_worker(*args, *([] if args else queues), url=proxy.url)
    wait_for(lambda: sum("blmove" in client["cmd"] for client in system.server.client.client_list()) == len(queues),
             what="an idle worker")
    return worker


# ---- sweeps: a crash at each request ----------------------------------------------------------------------------------------

#: How a run is broken off at its n-th request: what happens, and whether Redis has heard of that request.
BREAKS = {"cut_before": ("cut", False), "cut_after": ("cut", True), "killed_before": ("kill", False),
          "killed_after": ("kill", True), "redis_killed_before": ("redis", False), "redis_killed_after": ("redis", True)}
breaks = pytest.mark.parametrize("how", BREAKS)


class Sweep:
    """Runs the same thing again and again, each time broken off one request later, until it needs no more requests."""

    def __init__(self, system, how):
        self.system = system
        self.what, self.after = BREAKS[how]
        self.server = system.redis(persistent=self.what == "redis")
        self.proxy = Proxy(system.folder, self.server.socket)
        self.running = None
        self.broken_at = []

    @property
    def connection(self):
        return self.server.client

    def action(self):
        if self.what == "cut":
            return "cut"
        if self.what == "kill":
            return kill(wait_for(lambda: self.running))
        self.server.stop(signal.SIGKILL)
        return "cut"

    def steps(self):
        """Yields a trap for each request. After the run, see `mend`."""
        for number in range(1, 40):
            self.connection.flushall()
            self.running = None
            self.proxy.reset()
            trap = self.proxy.trap(number, self.action, after=self.after)
            yield trap
            if not trap.sprung.is_set():
                return
            self.broken_at.append(trap.request.name)
        raise AssertionError(f"no end of requests: {self.proxy.requests}")

    def mend(self, trap):
        """Waits for what was started to end by itself where it lives, and brings Redis back."""
        wait_for(lambda: trap.done.is_set() or self.running.process.poll() is not None)
        if trap.sprung.is_set():
            trap.done.wait(20)
            if self.what == "redis":
                self.server.start()
        self.running.process.wait(30)

    def end(self):
        self.proxy.end()


@pytest.fixture
def sweep(system, how):
    sweep = Sweep(system, how)
    yield sweep
    sweep.end()


@breaks
def test_a_worker_that_is_broken_off_anywhere_ends_each_job_once(system, sweep, how):
    for trap in sweep.steps():
        marks = system.folder / f"marks{len(system.things)}"
        q = Queue("default", connection=sweep.connection)
        parent = q.enqueue(tasks.mark, str(marks), 0, job_id="parent")
        q.enqueue(tasks.mark, str(marks), 0, job_id="child", depends_on=parent)
        sweep.running = system.test_worker("--burst", "--concurrency", "2", "default", url=sweep.proxy.url)
        sweep.mend(trap)
        connection = sweep.connection
        settled = [job_id for job_id in ("parent", "child") if status(connection, job_id) == "finished"]
        recover(system, connection)
        check(connection)
        work_off(system)
        at = f"{how} of {trap.request}, {sweep.proxy.requests}"
        assert violations(connection, workers=(2, 0)) == [], at
        for job_id in ("parent", "child"):
            assert status(connection, job_id) == "finished", at
            assert [entry["type"] for entry in Snapshot(connection).results(job_id)] == ["1"], at
            # A handler runs again only where nobody can know that it ran: its worker died before it could say so.
            most = 2 if sweep.what == "kill" and job_id not in settled else 1
            assert 1 <= runs(marks).count(job_id) <= most, at
        assert int(connection.hget("rqxx:totals", "finished|default")) == 2, at
    assert {"register_worker", "claim", "settle", "retire_worker"} <= set(sweep.broken_at)


@breaks
def test_a_failing_job_with_a_retry_is_settled_once_wherever_its_worker_is_broken_off(system, sweep, how):
    for trap in sweep.steps():
        q = Queue("default", connection=sweep.connection)
        q.enqueue(tasks.fail, "boom", job_id="a", retry=Retry(max=1))
        producer = system.driver()
        producer.enqueue("tasks.add", 1, 2, job_id="allowing", depends_on={"job_ids": ["a"], "allow_failure": True})
        producer.enqueue("tasks.add", 1, 2, job_id="waiting", depends_on={"job_ids": ["a"]})
        producer.end()
        sweep.running = system.test_worker("--burst", "--concurrency", "2", "default", url=sweep.proxy.url)
        sweep.mend(trap)
        connection = sweep.connection
        recover(system, connection)
        check(connection)
        work_off(system)
        at = f"{how} of {trap.request}, {sweep.proxy.requests}"
        assert violations(connection) == [], at
        assert [status(connection, job_id) for job_id in ("a", "allowing", "waiting")] == ["failed", "finished", "deferred"], at
        assert connection.hget("rq:job:a", "retries_left") == b"0", at
        assert [entry["type"] for entry in Snapshot(connection).results("a")] == ["2"], at
        assert int(connection.hget("rqxx:totals", "failed|default")) == 1, at
    assert sweep.broken_at.count("settle") >= 2


@breaks
def test_a_scheduler_that_is_broken_off_anywhere_promotes_each_job_once(system, sweep, how):
    for trap in sweep.steps():
        marks = system.folder / f"marks{len(system.things)}"
        q = Queue("default", connection=sweep.connection)
        for n in range(3):
            q.enqueue_in(PAST, tasks.mark, str(marks), 0, job_id=f"j{n}", ttl=600)
        sweep.running = system.test_worker("--burst", "--with-scheduler", "--concurrency", "4", "default", url=sweep.proxy.url)
        sweep.mend(trap)
        connection = sweep.connection
        settled = [job_id for job_id in ("j0", "j1", "j2") if status(connection, job_id) == "finished"]
        recover(system, connection)
        check(connection)
        again = system.test_worker("--burst", "--with-scheduler", "default")
        assert again.wait(30) == 0, again.log
        at = f"{how} of {trap.request}, {sweep.proxy.requests}"
        assert violations(connection) == [], at
        for job_id in ("j0", "j1", "j2"):
            assert status(connection, job_id) == "finished", at
            most = 2 if sweep.what == "kill" and job_id not in settled else 1
            assert 1 <= runs(marks).count(job_id) <= most, at
        assert connection.keys("rq:scheduler-lock:*") == [], at
    assert {"promote", "release_scheduler"} <= set(sweep.broken_at)


PRODUCED = [("tasks.add", "parent", {}),
            ("tasks.add", "child", {"depends_on": {"job_ids": ["parent"]}, "group": "g", "ttl": 600}),
            ("tasks.add", "allowing", {"depends_on": {"job_ids": ["parent", "child"], "allow_failure": True}}),
            ("tasks.add", "front", {"at_front": True})]


@breaks
def test_a_producer_that_is_broken_off_anywhere_may_say_it_all_again(system, sweep, how):
    for trap in sweep.steps():
        sweep.running = producer = system.driver(url=sweep.proxy.url)

        def produce(by):
            for func, job_id, options in PRODUCED:
                by.enqueue(func, 1, 2, job_id=job_id, **options)
            by.enqueue("tasks.add", 1, 2, job_id="later", in_=600)
            by.enqueue_many([{"func": "tasks.add", "args": [1, 2], "options": {"job_id": f"many{n}", "unique": True,
                              "depends_on": {"job_ids": ["parent"]} if n % 2 else None}} for n in range(4)])

        try:
            produce(producer)
        except (DriverError, EOFError, BrokenPipeError):
            assert trap.sprung.is_set()
        if trap.sprung.is_set():
            trap.done.wait(20)
            if sweep.what == "redis":
                sweep.server.start()
        connection = sweep.connection
        check(connection)
        second = system.driver()
        produce(second)
        at = f"{how} of {trap.request}, {sweep.proxy.requests}"
        assert violations(connection) == [], at
        assert queued(connection) == ["front", "parent", "many0", "many2"], at
        assert connection.zcard("rq:deferred:default") == 4 and connection.zcard("rq:scheduled:default") == 1, at
        producer.end()
        second.end()
    assert sweep.broken_at == ["enqueue"] * 9


ACTIONS = {
    "cancel": (["cancel", "parent", "--dependents", "enqueue"], {"parent": "canceled", "child": "queued"}),
    "cascade": (["cancel", "parent", "--dependents", "cascade"], {"parent": "canceled", "child": "canceled"}),
    "requeue": (["requeue", "failed", "gone"], {"failed": "queued", "gone": "queued"}),
    "delete": (["delete", "parent", "failed", "--dependents", "enqueue"], {"parent": None, "failed": None, "child": "queued"}),
    "filtered": (["requeue", "--queue", "default", "--status", "failed"], {"failed": "queued", "gone": "canceled"}),
}


@breaks
@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_that_is_broken_off_anywhere_is_done_or_not(system, sweep, how, action):
    arguments, expected = ACTIONS[action]
    for trap in sweep.steps():
        setting = system.driver()
        setting.register("w")
        setting.enqueue("tasks.add", 1, 2, job_id="failed")
        setting.settle("w", setting.claim("w")["claimed"][0]["execution"], "failure")
        setting.enqueue("tasks.add", 1, 2, job_id="parent", group="g")
        setting.enqueue("tasks.add", 1, 2, job_id="child", depends_on={"job_ids": ["parent"]})
        setting.enqueue("tasks.add", 1, 2, job_id="gone")
        setting.cancel("gone")
        setting.end()
        sweep.running = system.run(BUILD / "rqxx", "job", *arguments, "--redis-url", sweep.proxy.url)
        sweep.mend(trap)
        connection = sweep.connection
        check(connection)
        # Whoever saw an error says it again.
        if sweep.running.process.returncode != 0:
            system.rqxx("job", *arguments, "--redis-url", system.server.url)
        at = f"{how} of {trap.request}, {sweep.proxy.requests}: {sweep.running.log}"
        assert violations(connection) == [], at
        assert {job_id: status(connection, job_id) for job_id in expected} == expected, at
    assert len(sweep.broken_at) >= 1


# ---- taking jobs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before_redis_hears", "before_the_reply"])
def test_w01_a_worker_of_several_queues_killed_while_it_pops_loses_no_job(system, connection, proxy, marks, after):
    worker = idle_worker(system, proxy, "high", "default", "low")
    trap = proxy.trap("claim", lambda: kill(worker), after=after)
    Queue("default", connection=connection).enqueue(tasks.mark, str(marks), 0, job_id="a")
    trap.wait()
    worker.process.wait(10)
    assert status(connection, "a") == ("started" if after else "queued")
    check(connection)
    assert recover(system, connection) == ({"a": "requeued"} if after else {})
    work_off(system, "high", "default", "low")
    check(connection, workers=(1, 0))
    assert status(connection, "a") == "finished" and runs(marks) == ["a"]


def test_w01_a_lost_reply_to_a_claim_strands_no_job_of_a_living_worker(system, connection, proxy, marks):
    worker = idle_worker(system, proxy, "high", "default", "low")
    trap = proxy.trap("claim", "cut", after=True)
    Queue("default", connection=connection).enqueue(tasks.mark, str(marks), 0, job_id="a")
    trap.wait()
    execution = next(iter(connection.zrange("rq:wip:default", 0, -1))).decode()
    # A reply may take as long as a command may; then it is taken for lost.
    connection.hincrbyfloat(f"rq:execution:{execution}", "created_at", -20)
    wait_for(lambda: status(connection, "a") == "finished")
    assert runs(marks) == ["a"] and worker.process.poll() is None
    check(connection, workers=(1, 0))


def reading_a_hash(number):
    """The request for the `number`th hash of a large claim: those do not come with the claim's reply."""
    seen = []

    def match(request):
        if request.name == "HGETALL" and request.args[1].startswith(b"rq:job:"):
            seen.append(request.args[1])
            return len(seen) == number
        return False

    return match


def large_claim(system, connection, proxy, marks, jobs=12):
    """Jobs for one claim of a worker that is started behind the proxy; their ids."""
    Queue("default", connection=connection).enqueue_many(
        [Queue.prepare_data(tasks.mark, (str(marks), 0), job_id=f"job{n}") for n in range(jobs)])
    return [f"job{n}" for n in range(jobs)], lambda: system.test_worker("--burst", "--concurrency", "16", "default", url=proxy.url)


@pytest.mark.parametrize("after", [False, True], ids=["before_redis_hears", "before_the_reply"])
def test_w01_a_worker_killed_while_it_reads_the_hashes_of_a_large_claim_loses_no_job(system, connection, proxy, marks, after):
    ids, start = large_claim(system, connection, proxy, marks)
    victim = Victim()
    trap = proxy.trap(reading_a_hash(5), victim.kill, after=after)
    victim.running = start()
    trap.wait()
    victim.running.process.wait(10)
    check(connection)
    back = set(recover(system, connection))
    assert back >= set(ids[4:])   # The first ones came with the reply and have begun.
    work_off(system)
    check(connection, workers=(12, 0))
    assert {status(connection, job_id) for job_id in ids} == {"finished"} and set(runs(marks)) == set(ids)


@pytest.mark.parametrize("after", [False, True], ids=["before_redis_hears", "before_the_reply"])
def test_w01_a_connection_lost_while_hashes_are_read_makes_no_job_run_twice(system, connection, proxy, marks, after):
    ids, start = large_claim(system, connection, proxy, marks)
    trap = proxy.trap(reading_a_hash(5), "cut", after=after)
    worker = start()
    trap.wait()
    assert worker.process.wait(20) == 0
    assert sorted(runs(marks)) == sorted(ids)
    check(connection, workers=(12, 0))


def test_w01_what_a_worker_claimed_before_it_was_paused_for_long_it_does_not_start(system, connection, proxy, marks):
    ids, start = large_claim(system, connection, proxy, marks)
    trap = proxy.trap("claim", "hold", after=True)
    worker = start()
    trap.wait()
    worker.process.send_signal(signal.SIGSTOP)
    trap.release()
    time.sleep(10.5)   # Its lease is over; others may take the jobs.
    assert set(recover(system, connection)) == set(ids)
    work_off(system)
    assert sorted(runs(marks)) == sorted(ids)
    worker.process.send_signal(signal.SIGCONT)
    assert worker.process.wait(20) == 0
    assert sorted(runs(marks)) == sorted(ids)
    check(connection, workers=(12, 0))


def test_w01_a_job_deleted_between_a_large_claim_and_its_hash_is_not_run(system, connection, proxy, marks):
    ids, start = large_claim(system, connection, proxy, marks)
    trap = proxy.trap(reading_a_hash(5), lambda: connection.delete("rq:job:job9") and None)
    worker = start()
    trap.wait()
    assert worker.process.wait(20) == 0
    assert sorted(runs(marks)) == sorted(set(ids) - {"job9"})
    assert not connection.exists("rq:job:job9") and not connection.zcard("rq:wip:default")
    check(connection, workers=(11, 0))


@pytest.mark.parametrize("after", [False, True], ids=["before_redis_hears", "before_the_reply"])
def test_w02_a_worker_of_one_queue_killed_while_it_pops_has_its_job_back_at_the_front(system, connection, proxy, after):
    worker = idle_worker(system, proxy)
    trap = proxy.trap("claim", lambda: kill(worker), after=after)
    q = Queue("default", connection=connection)
    q.enqueue(tasks.add, 1, 2, job_id="a")
    trap.wait()
    worker.process.wait(10)
    q.enqueue(tasks.add, 1, 2, job_id="b")
    recover(system, connection)
    assert queued(connection) == ["a", "b"]
    assert connection.exists("rq:queue:default:intermediate") == 0
    work_off(system)
    check(connection, workers=(2, 0), totals={"finished|default": 2, "recovered|default": int(after)})


def test_w02_a_job_that_a_killed_stock_worker_had_popped_is_queued_again_and_not_failed(system, connection, proxy, driver):
    victim = Victim()
    trap = proxy.trap(lambda request: request.name in ("BLMOVE", "LMOVE"), victim.kill, after=True)
    victim.running = stock_worker(system, proxy, "default")
    wait_for(lambda: any("blmove" in client["cmd"] for client in connection.client_list()), what="the stock worker")
    Queue("default", connection=connection).enqueue(tasks.add, 1, 2, job_id="a")
    trap.wait()
    victim.running.wait(10)
    assert connection.lrange("rq:queue:default:intermediate", 0, -1) == [b"a"]
    assert maintain(driver, connection) == {} and connection.llen("rq:queue:default:intermediate") == 1
    age_intermediate(connection, "a")
    assert maintain(driver, connection) == {"requeued": 1}
    check(connection)
    work_off(system)
    assert status(connection, "a") == "finished"
    check(connection, totals={"finished|default": 1})


def test_w03_a_claim_leaves_no_step_between_recorded_and_started(driver, connection):
    driver.enqueue("tasks.add", 1, 2, job_id="a")
    driver.register("w")
    member = "a:" + driver.claim("w")["claimed"][0]["execution"]
    assert status(connection, "a") == "started" and connection.zrange("rq:wip:default", 0, -1) == [member.encode()]
    assert connection.exists("rq:queue:default:intermediate") == 0
    check(connection)


def test_w03_a_stock_worker_killed_between_record_and_start_leaves_a_job_that_runs_once(system, connection, proxy, driver, marks):
    victim = Victim()
    trap = proxy.trap(lambda request: request.name == "HSET" and b"current_job" in request.args, victim.kill)
    victim.running = stock_worker(system, proxy, "default")
    Queue("default", connection=connection).enqueue(tasks.mark, str(marks), 0, job_id="a")
    trap.wait()
    victim.running.wait(10)
    assert connection.lrange("rq:queue:default:intermediate", 0, -1) == [b"a"] and connection.zcard("rq:wip:default") == 1
    # As long as its execution may live, the job is left alone.
    age_intermediate(connection, "a")
    assert maintain(driver, connection) == {} and status(connection, "a") == "queued"
    rq_lets_executions_lapse(connection)
    assert recover(system, connection) == {"a": "stale"}
    assert maintain(driver, connection) == {"requeued": 1}
    work_off(system)
    assert status(connection, "a") == "finished" and runs(marks) == ["a"]
    check(connection)


def test_w03_an_id_left_in_the_intermediate_queue_does_not_judge_a_finished_job(system, connection, driver):
    driver.enqueue("tasks.add", 1, 2, job_id="a")
    work_off(system)
    connection.rpush("rq:queue:default:intermediate", "a")
    age_intermediate(connection, "a")
    assert maintain(driver, connection) == {"dropped": 1}
    assert status(connection, "a") == "finished"
    check(connection)


def test_w04_a_mark_of_an_earlier_time_judges_no_job(connection, driver):
    mark = "rq:queue:default:intermediate:first_seen:a"
    driver.enqueue("tasks.add", 1, 2, job_id="a")
    connection.set(mark, seconds(connection) - 7200, ex=86400)   # It was there once before, and was run.
    connection.lmove("rq:queue:default", "rq:queue:default:intermediate", "LEFT", "RIGHT")
    assert maintain(driver, connection) == {} and status(connection, "a") == "queued"
    assert float(connection.get(mark)) >= seconds(connection) - 5, "the mark is of this time now"
    age_intermediate(connection, "a")
    assert maintain(driver, connection) == {"requeued": 1}
    assert connection.exists(mark) == 0
    check(connection)


# ---- ending jobs ----------------------------------------------------------------------------------------------------------


def held_job(driver, worker="w", **options):
    """A job that a driven worker holds; its execution."""
    driver.enqueue("tasks.add", 1, 2, job_id="a", **options)
    driver.register(worker)
    return driver.claim(worker)["claimed"][0]["execution"]


def settle_with_lost_reply(driver, proxy, execution, outcome="success", **fields):
    """Settles, does not hear the answer, settles again. The second answer."""
    proxy.trap("settle", "cut", after=True)
    with pytest.raises(DriverError) as error:
        driver.settle("w", execution, outcome, **fields)
    assert error.value.in_doubt
    return driver.settle("w", execution, outcome, **fields)


def test_w05_a_success_whose_reply_is_lost_stays_one_success(system, server, connection, proxy, marks):
    driver = system.driver(url=proxy.url)
    execution = held_job(driver)
    driver.enqueue("tasks.mark", str(marks), 0, job_id="child", depends_on={"job_ids": ["a"]})
    assert settle_with_lost_reply(driver, proxy, execution, result=3) == "refused"
    assert driver.settle("w", execution, "failure", id="a") == "refused", "nor does an error afterwards make it a failure"
    assert status(connection, "a") == "finished" and queued(connection) == ["child"]
    driver.retire("w")
    work_off(system)
    assert runs(marks) == ["child"]
    check(connection, totals={"finished|default": 2}, workers=(2, 0))


def test_w06_dependents_that_come_while_a_job_ends_are_all_released_once(system, server, connection, marks):
    worker = system.test_worker("--concurrency", "4", "default")
    q = Queue("default", connection=connection)
    producer = system.driver()
    children = []
    for n in range(60):
        q.enqueue(tasks.add, 1, 2, job_id=f"p{n}")
        producer.send("enqueue", queue="default", func="tasks.mark", args=[str(marks), 0],
                      options={"job_id": f"ours{n}", "depends_on": {"job_ids": [f"p{n}"]}})
        q.enqueue(tasks.mark, str(marks), 0, job_id=f"theirs{n}", depends_on=f"p{n}")
        producer.receive()
        children += [f"ours{n}", f"theirs{n}"]
    wait_for(lambda: all(status(connection, child) == "finished" for child in children))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert sorted(runs(marks)) == sorted(children)
    check(connection, totals={"finished|default": 180}, workers=(180, 0))


def test_w06_a_repetition_is_counted_once_and_leaves_no_execution(system, server, connection, proxy):
    driver = system.driver(url=proxy.url)
    execution = held_job(driver, repeat={"times": 3, "intervals": [60]})
    assert settle_with_lost_reply(driver, proxy, execution) == "refused"
    assert connection.hget("rq:job:a", "repeats_left") == b"2" and status(connection, "a") == "scheduled"
    assert connection.keys("rq:execution*") == [] and Snapshot(connection).results("a")[0]["execution_id"] == execution
    check(connection, totals={"finished|default": 1})


def test_w06_an_execution_that_rq_left_of_an_ended_job_does_not_judge_it(system, connection, driver):
    driver.enqueue("tasks.add", 1, 2, job_id="finished")
    driver.enqueue("tasks.fail", "x", job_id="failed", retry={"max": 1, "intervals": [600]})
    work_off(system)
    connection.zadd("rq:wip:default", {"finished:e": 1, "failed:e": 1})    # lapsed
    connection.zadd("rq:executions:finished", {"e": seconds(connection) + 60})
    assert recover(system, connection) == {"finished": "stale", "failed": "stale"}
    assert (status(connection, "finished"), status(connection, "failed")) == ("finished", "scheduled")
    check(connection, totals={"finished|default": 1, "retried|default": 1})


def test_w07_callbacks_run_at_least_once_and_the_job_finishes_once(system, connection, proxy, marks):
    job = Queue("default", connection=connection).enqueue(tasks.add, 1, 2, job_id="a", meta={"marks": str(marks)},
                                                          on_success=Callback(tasks.on_success))
    victim = Victim()
    trap = proxy.trap("settle", victim.kill)
    victim.running = system.test_worker("default", url=proxy.url)
    trap.wait()
    victim.running.wait(10)
    assert runs(marks) == ["success", "3"] and status(connection, job.id) == "started"
    assert recover(system, connection) == {"a": "requeued"}
    work_off(system)
    assert runs(marks) == ["success", "3"] * 2   # the documented limit
    assert status(connection, "a") == "finished" and len(job.results()) == 1
    check(connection)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_w08_a_failure_and_its_dependents_survive_a_killed_redis_together_or_not_at_all(system, after):
    server = system.redis(persistent=True)
    proxy = Proxy(system.folder, server.socket)
    driver = system.driver(url=proxy.url)
    execution = held_job(driver)
    driver.enqueue("tasks.add", 1, 2, job_id="child", depends_on={"job_ids": ["a"], "allow_failure": True})
    proxy.trap("settle", lambda: server.stop(signal.SIGKILL) or "cut", after=after)
    with pytest.raises(DriverError):
        driver.settle("w", execution, "failure")
    server.start()
    expected = ("failed", "queued") if after else ("started", "deferred")
    assert (status(server.client, "a"), status(server.client, "child")) == expected
    check(server.client)
    assert driver.settle("w", execution, "failure") == ("refused" if after else "failed")
    assert (status(server.client, "a"), status(server.client, "child")) == ("failed", "queued")
    check(server.client, totals={"failed|default": 1})
    proxy.end()


def test_w08_children_that_a_killed_stock_worker_left_behind_are_released(system, connection, proxy, driver):
    q = Queue("default", connection=connection)
    q.enqueue(tasks.fail, "boom", job_id="a")
    driver.enqueue("tasks.add", 1, 2, job_id="child", depends_on={"job_ids": ["a"], "allow_failure": True})
    victim = Victim()
    trap = proxy.trap(lambda request: request.name == "WATCH" and request.args[1] == b"rq:job:a:dependents", victim.kill)
    victim.running = stock_worker(system, proxy, "default")
    trap.wait()
    victim.running.wait(10)
    assert status(connection, "a") == "failed"
    assert status(connection, "child") == "deferred"
    connection.zadd("rq:deferred:default", {"child": seconds(connection) - 120})
    assert maintain(driver, connection) == {"released": 1}
    assert maintain(driver, connection) == {}
    check(connection)
    work_off(system)
    assert status(connection, "child") == "finished"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_w09_a_failure_is_recorded_though_the_connection_breaks(system, connection, proxy, after):
    Queue("default", connection=connection).enqueue(tasks.fail, "boom", job_id="a")
    trap = proxy.trap("settle", "cut", after=after, times=1 if after else 3)
    worker = system.test_worker("--burst", "default", url=proxy.url)
    assert worker.wait() == 0
    assert trap.left == 0 and status(connection, "a") == "failed"
    check(connection, totals={"failed|default": 1}, workers=(0, 1))


# ---- scheduling -----------------------------------------------------------------------------------------------------------


def test_w10_a_job_is_scheduled_in_one_step(system, server, connection, proxy):
    driver = system.driver(url=proxy.url)
    trap = proxy.trap("enqueue", "cut", after=True)
    with pytest.raises(DriverError):
        driver.enqueue("tasks.add", 1, 2, job_id="a", in_=60)
    trap.wait()
    assert [request.name for request in proxy.requests] == ["enqueue"]
    check(connection)
    assert driver.enqueue("tasks.add", 1, 2, job_id="a", in_=60)["duplicate"]


def test_w10_our_scheduler_waits_for_the_hash_of_a_stock_producer(system, connection, proxy):
    trap = proxy.trap("MULTI", "hold")
    q = Queue("default", connection=through(proxy))
    producer = in_background(lambda: q.enqueue_in(PAST, tasks.add, 1, 2, job_id="a"))
    trap.wait()
    entered_first = connection.zrange("rq:scheduled:default", 0, -1) == [b"a"]
    connection.sadd("rq:queues", "rq:queue:default")
    first = system.test_worker("--with-scheduler", "--burst", "default")
    assert first.wait() == 0
    assert connection.zcard("rq:scheduled:default") == int(entered_first)
    trap.release()
    producer.join(20)
    second = system.test_worker("--with-scheduler", "--burst", "default")
    assert second.wait() == 0
    assert status(connection, "a") == "finished"
    check(connection, totals={"finished|default": 1})


def test_w11_a_retry_for_later_whose_reply_is_lost_is_scheduled_once(system, server, connection, proxy):
    driver = system.driver(url=proxy.url)
    execution = held_job(driver, retry={"max": 2, "intervals": [60]})
    assert settle_with_lost_reply(driver, proxy, execution, "failure") == "refused"
    assert status(connection, "a") == "scheduled" and connection.hget("rq:job:a", "retries_left") == b"1"
    check(connection, totals={"retried|default": 1})


def test_w11_a_job_that_a_killed_stock_worker_had_half_rescheduled_runs_once_more(system, connection, proxy, driver, marks):
    q = Queue("default", connection=connection)
    q.enqueue(tasks.fail, "boom", job_id="a", retry=Retry(max=1, interval=1))
    victim = Victim()
    scheduled = proxy.trap(lambda request: request.name == "ZADD" and request.args[1] == b"rq:scheduled:default",
                           victim.kill, after=True)
    victim.running = stock_worker(system, proxy, "default")
    scheduled.wait()
    victim.running.wait(20)
    assert connection.zcard("rq:scheduled:default") == 1 and connection.zcard("rq:wip:default") == 1
    wait_for(lambda: connection.zcount("rq:scheduled:default", 0, seconds(connection)) == 1)
    worker = system.test_worker("--with-scheduler", "--burst", "default")
    assert worker.wait() == 0, worker.log
    results = len(Snapshot(connection).results("a"))
    retries = connection.hget("rq:job:a", "retries_left")
    # What the dead worker left lapses: it must not make anything of the job any more.
    left = status(connection, "a"), queued(connection), connection.zcard("rq:scheduled:default")
    rq_lets_executions_lapse(connection)
    assert set(recover(system, connection).values()) <= {"stale"}
    assert (status(connection, "a"), queued(connection), connection.zcard("rq:scheduled:default")) == left
    assert (len(Snapshot(connection).results("a")), connection.hget("rq:job:a", "retries_left")) == (results, retries)
    check(connection)


def test_w11_a_job_promoted_before_a_stock_worker_has_finished_rescheduling_it_runs(system, connection, proxy):
    q = Queue("default", connection=connection)
    q.enqueue(tasks.fail, "boom", job_id="a", retry=Retry(max=1, interval=1))
    trap = proxy.trap(lambda request: request.name == "ZADD" and request.args[1] == b"rq:scheduled:default", "hold", after=True)
    stock = stock_worker(system, proxy, "default", "--burst")
    trap.wait()
    wait_for(lambda: connection.zcount("rq:scheduled:default", 0, seconds(connection)) == 1)
    scheduler = system.serve("--no-worker", url=system.server.url)
    wait_for(lambda: queued(connection) == ["a"])
    scheduler.signal(signal.SIGTERM)
    scheduler.wait()
    trap.release()
    stock.process.wait(20)     # It has written "scheduled" over it, and may have run it.
    work_off(system)
    assert status(connection, "a") == "failed" and queued(connection) == []
    check(connection)


@pytest.mark.parametrize("action", ["cancel", "delete"])
def test_w12_a_job_taken_back_while_a_scheduler_is_at_it_is_not_promoted(system, connection, proxy, driver, action):
    driver.enqueue("tasks.add", 1, 2, job_id="a", in_=1)
    driver.enqueue("tasks.add", 1, 2, job_id="b", in_=1)
    connection.zadd("rq:scheduled:default", {"a": 1, "b": 1})
    trap = proxy.trap("promote", "hold")
    worker = system.test_worker("--with-scheduler", "--burst", "default", url=proxy.url)
    trap.wait()
    getattr(driver, action)("a")
    trap.release()
    assert worker.wait() == 0
    assert status(connection, "a") == ("canceled" if action == "cancel" else None)
    assert status(connection, "b") == "finished" and queued(connection) == []
    check(connection)


def test_w12_a_stock_scheduler_gets_nothing_while_ours_has_the_lock(system, connection, driver):
    driver.enqueue("tasks.add", 1, 2, job_id="a", in_=60)
    worker = system.test_worker("--with-scheduler", "default")
    worker.wait_for_log("Scheduler has taken locks")
    stock = RQScheduler(["default"], connection=connection)
    assert stock.acquire_locks() == set()
    connection.zadd("rq:scheduled:default", {"a": 1})
    stock.enqueue_scheduled_jobs()
    wait_for(lambda: status(connection, "a") == "finished")
    check(connection, totals={"finished|default": 1})


def test_w13_a_scheduler_that_slept_through_the_loss_of_its_lock_promotes_nothing(system, connection, proxy, driver):
    driver.enqueue("tasks.add", 1, 2, job_id="a", in_=60)
    worker = system.test_worker("--with-scheduler", "default", url=proxy.url)
    worker.wait_for_log("Scheduler has taken locks")
    worker.signal(signal.SIGSTOP)
    connection.set(LOCK, "another", ex=61)     # after 61 s: the lock lapsed, and another took it
    connection.zadd("rq:scheduled:default", {"a": 1})
    held = proxy.trap("promote", "hold", after=True)
    worker.signal(signal.SIGCONT)
    held.wait()
    assert status(connection, "a") == "scheduled" and connection.get(LOCK) == b"another"
    held.release()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert connection.get(LOCK) == b"another" and status(connection, "a") == "scheduled"
    check(connection)


# ---- death and late signs of life -----------------------------------------------------------------------------------------


def test_w14_of_two_cleaners_one_acts(system, connection, driver):
    held_job(driver, retry={"max": 3})
    let_leases_lapse(connection)
    cleaners = [system.driver() for _ in range(2)]
    for n, cleaner in enumerate(cleaners):
        cleaner.register(f"cleaner{n}")
    for n, cleaner in enumerate(cleaners):
        cleaner.send("recover", worker=f"cleaner{n}", policy="requeue")
    found = [job["what"] for cleaner in cleaners for job in cleaner.receive()["jobs"]]
    assert found == ["retried"] and queued(connection) == ["a"]
    assert connection.hget("rq:job:a", "retries_left") == b"2"
    check(connection)


def test_w14_a_recovery_whose_reply_is_lost_is_one_recovery(system, server, connection, proxy):
    driver = system.driver(url=proxy.url)
    held_job(driver, retry={"max": 3})
    driver.register("cleaner")
    connection.zadd("rqxx:leases", {"w": 1})
    now = seconds(connection) * 1_000_000
    connection.hset("rqxx:sweeper", mapping={"last": now, "since": now - 10_000_000})
    proxy.trap("recover", "cut", after=True)
    with pytest.raises(DriverError):
        driver.recover("cleaner")
    assert driver.recover("cleaner")["jobs"] == []
    assert queued(connection) == ["a"] and connection.hget("rq:job:a", "retries_left") == b"2"
    check(connection)


def test_w14_a_job_that_stock_maintenance_queues_a_second_time_runs_once(system, connection, proxy, driver, marks):
    driver.enqueue("tasks.mark", str(marks), 0, job_id="a", retry={"max": 3})
    driver.register("w")
    driver.claim("w")
    rq_lets_executions_lapse(connection)
    trap = proxy.trap(lambda request: request.name == "ZREMRANGEBYSCORE" and request.args[1] == b"rq:wip:default", "hold")
    stock = in_background(lambda: StartedJobRegistry("default", connection=through(proxy)).cleanup())
    trap.wait()
    assert recover(system, connection) == {"a": "retried"}
    trap.release()
    stock.join(20)
    assert queued(connection) == ["a", "a"], "RQ has not looked again"
    work_off(system)
    assert runs(marks) == ["a"] and status(connection, "a") == "finished"
    check(connection)


def test_w15_of_a_job_taken_from_a_late_worker_only_the_second_result_counts(system, connection, driver):
    late = held_job(driver)
    assert recover(system, connection) == {"a": "requeued"}
    other = system.driver()
    other.register("other")
    execution = other.claim("other")["claimed"][0]["execution"]
    before = connection.zrange("rq:wip:default", 0, -1, withscores=True)
    assert driver.heartbeat("w")["lease_held"] is False
    driver.register("w")
    driver.heartbeat("w")
    assert connection.zrange("rq:wip:default", 0, -1, withscores=True) == before
    assert driver.settle("w", late, result=1) == "refused"
    assert other.settle("other", execution, result=2) == "finished"
    assert Job.fetch("a", connection=connection).return_value() == 2
    check(connection, totals={"finished|default": 1, "recovered|default": 1})


@pytest.mark.parametrize("by", ["rqxx", "stock"])
@pytest.mark.parametrize("way", ["canceled_and_requeued", "deleted_and_enqueued_again"])
def test_w15_a_job_set_going_again_while_its_first_run_goes_on_counts_once(system, connection, driver, way, by):
    first = held_job(driver)
    if way == "canceled_and_requeued":
        driver.cancel("a") if by == "rqxx" else Job.fetch("a", connection=connection).cancel()
        driver.requeue("a")
    else:
        driver.delete("a") if by == "rqxx" else Job.fetch("a", connection=connection).delete()
        driver.enqueue("tasks.add", 3, 4, job_id="a")
    check(connection, busy=True, stock=by == "stock")
    other = system.driver()
    other.register("other")
    second = other.claim("other")["claimed"][0]["execution"]
    assert driver.heartbeat("w")["notices"] == [{"execution": first, "canceled": False}]
    assert driver.settle("w", first, result=1) == "refused"
    assert status(connection, "a") == "started"
    assert other.settle("other", second, result=2) == "finished"
    assert Job.fetch("a", connection=connection).return_value() == 2
    check(connection, totals={"finished|default": 1})


@pytest.mark.parametrize("first_dies", [False, True], ids=["first_lives", "first_dies"])
def test_w15_what_a_canceled_run_left_does_not_hold_up_recovery(system, connection, driver, first_dies):
    held_job(driver)
    Job.fetch("a", connection=connection).cancel()   # RQ leaves the execution, and our worker has not heard of it
    driver.requeue("a")
    other = system.driver()
    other.register("other")
    other.claim("other")
    if not first_dies:
        driver.register("w")
    assert recover(system, connection)["a"] in ("requeued", "stale")
    assert status(connection, "a") == "queued" and queued(connection) == ["a"]
    work_off(system)
    check(connection, totals={"finished|default": 1, "recovered|default": 1}, busy=True, stock=True)


def test_w15_an_id_on_the_queue_of_a_started_job_that_nobody_holds_is_not_dropped(connection, driver):
    held_job(driver)
    connection.delete("rq:wip:default")              # as a stock cancel does, whose job was then saved as it was
    connection.rpush("rq:queue:default", "a")
    driver.register("other")
    assert [job["id"] for job in driver.claim("other")["claimed"]] == ["a"]


def test_w15_replies_lost_to_heartbeats_and_sweeps_cost_no_job(system, connection, proxy, marks):
    Queue("default", connection=connection).enqueue(tasks.mark, str(marks), 3.5, job_id="a")
    def second_sweep(request):
        return request.name == "recover" and sum(one.name == "recover" for one in proxy.requests) > 1

    lost = [proxy.trap(script, "cut", after=True) for script in ("heartbeat", second_sweep, "maintain")]
    worker = system.test_worker("default", url=proxy.url)
    for trap in lost:
        trap.wait()
    wait_for(lambda: status(connection, "a") == "finished")
    assert runs(marks) == ["a"] and worker.process.poll() is None
    check(connection, totals={"finished|default": 1}, workers=(1, 0))


def test_w15_stock_maintenance_and_rq_info_leave_a_paused_worker_of_ours_its_job(system, connection, marks):
    q = Queue("default", connection=connection)
    q.enqueue(tasks.mark, str(marks), 1, job_id="a")
    worker = system.test_worker("default")
    wait_for(lambda: runs(marks))
    worker.signal(signal.SIGSTOP)
    # 60 seconds without a sign of life: RQ's scores have been written 90 seconds ahead.
    member = connection.zrange("rq:wip:default", 0, -1)[0]
    connection.zincrby("rq:wip:default", -60, member)
    info = system.run(sys.executable, "-m", "rq.cli", "info", "--url", system.server.url)
    assert info.wait() == 0
    assert system.rq_worker("--burst", "default").wait() == 0
    assert StartedJobRegistry("default", connection=connection).get_job_ids() == ["a"]
    assert status(connection, "a") == "started"
    worker.signal(signal.SIGCONT)
    wait_for(lambda: status(connection, "a") == "finished")
    assert runs(marks) == ["a"]
    check(connection, totals={"finished|default": 1})


def test_w16_no_handler_outlives_its_killed_worker(system, connection, marks):
    Queue("default", connection=connection).enqueue(tasks.mark, str(marks), 30, job_id="a")
    worker = system.test_worker("default")
    wait_for(lambda: runs(marks))
    family = [psutil.Process(worker.process.pid), *psutil.Process(worker.process.pid).children(recursive=True)]
    worker.signal(signal.SIGKILL)
    worker.wait()
    psutil.wait_procs(family, timeout=5)
    assert not any(process.is_running() for process in family)
    assert recover(system, connection) == {"a": "requeued"}
    assert queued(connection) == ["a"]
    check(connection)


def test_w17_a_heartbeat_that_comes_after_the_end_brings_nothing_back(system, connection, driver):
    execution = held_job(driver)
    other = system.driver()
    other.register("w")     # the settlement overtakes the heartbeat
    assert other.settle_many("w", [{"id": "a", "execution": execution, "outcome": "success"}])[0]["code"] == "finished"
    keys = set(connection.keys("*"))
    driver.heartbeat("w")
    assert set(connection.keys("*")) == keys and connection.keys("rq:execution*") == []
    Job.fetch("a", connection=connection).delete()   # raises where a part of an execution is left
    connection.delete("rq:results:a")
    assert driver.heartbeat("w")["notices"] == [{"execution": execution, "canceled": False}]
    check(connection)
    assert connection.exists("rq:job:a") == 0


def test_w18_an_execution_lives_as_long_as_its_entry(connection, driver):
    execution = held_job(driver)
    for _ in range(2):
        score = connection.zscore("rq:executions:a", execution)
        expires = seconds(connection) + connection.ttl(f"rq:execution:a:{execution}")
        assert abs(score - expires) <= 1 and connection.ttl(f"rq:execution:a:{execution}") == connection.ttl("rq:executions:a")
        driver.heartbeat("w")
    job = Job.fetch("a", connection=connection)
    assert [one.id for one in job.get_executions()] == [execution]
    job.cancel()
    assert driver.settle("w", execution) in ("canceled", "refused") and status(connection, "a") == "canceled"
    check(connection)


@pytest.mark.parametrize("by", ["rqxx", "stock"])
@pytest.mark.parametrize("outcome", ["success", "failure", "retry", "returned"])
def test_w19_a_job_deleted_while_it_runs_does_not_come_back(connection, driver, by, outcome):
    execution = held_job(driver, retry={"max": 3})
    driver.enqueue("tasks.add", 1, 2, job_id="child", depends_on={"job_ids": ["a"]})
    if by == "rqxx":
        driver.delete("a", dependents="enqueue")
    else:
        Job.fetch("a", connection=connection).delete()
    driver.heartbeat("w")
    assert driver.settle("w", execution, outcome) in ("deleted", "refused")
    assert connection.keys("*:a*") == [], "something of it is back"
    assert status(connection, "child") == ("queued" if by == "rqxx" else "deferred")
    check(connection, gone={"a"})


# ---- actions --------------------------------------------------------------------------------------------------------------


def test_w20_a_job_canceled_before_during_or_after_the_pop_stays_canceled(connection, driver):
    driver.register("w")
    for job_id in ("before", "during", "after"):
        driver.enqueue("tasks.add", 1, 2, job_id=job_id)
    driver.cancel("before")
    connection.rpush("rq:queue:default", "before")       # a cancel that missed the list, as RQ's may
    claimed = driver.claim("w", limit=10)
    assert [job["id"] for job in claimed["claimed"]] == ["during", "after"]
    assert claimed["skipped"] == [{"id": "before", "queue": "default", "why": "it is canceled"}]
    driver.cancel("during")
    executions = [job["execution"] for job in claimed["claimed"]]
    assert {"execution": executions[0], "canceled": True} in driver.heartbeat("w")["notices"]
    assert driver.settle("w", executions[0]) in ("canceled", "refused")
    assert driver.settle("w", executions[1]) == "finished"
    driver.cancel("after")
    assert {status(connection, job_id) for job_id in ("before", "during", "after")} == {"canceled"}
    check(connection)


def test_w20_a_job_claimed_between_the_steps_of_a_stock_cancel_stays_canceled(connection, driver, proxy):
    driver.enqueue("tasks.add", 1, 2, job_id="a")
    job = Job.fetch("a", connection=through(proxy))
    trap = proxy.trap("MULTI", "hold")
    stock = in_background(job.cancel)
    trap.wait()
    driver.register("w")
    execution = driver.claim("w")["claimed"][0]["execution"]
    trap.release()
    stock.join(20)
    assert driver.heartbeat("w")["notices"] == [{"execution": execution, "canceled": True}]
    assert driver.settle("w", execution) == "canceled"
    assert status(connection, "a") == "canceled"
    check(connection, totals={})


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_w21_a_cancel_that_releases_dependents_is_one_step(system, after):
    server = system.redis(persistent=True)
    proxy = Proxy(system.folder, server.socket)
    driver = system.driver(url=proxy.url)
    driver.enqueue("tasks.add", 1, 2, job_id="a")
    for n in range(5):
        driver.enqueue("tasks.add", 1, 2, job_id=f"child{n}", depends_on={"job_ids": ["a"]})
    proxy.trap("cancel", lambda: server.stop(signal.SIGKILL) or "cut", after=after)
    with pytest.raises(DriverError):
        driver.cancel("a", dependents="enqueue")
    server.start()
    check(server.client)
    assert (status(server.client, "a"), server.client.llen("rq:queue:default")) == (("canceled", 5) if after else ("queued", 1))
    assert driver.cancel("a", dependents="enqueue")[0]["code"] == ("refused" if after else "done")
    assert sorted(queued(server.client)) == [f"child{n}" for n in range(5)]
    check(server.client)
    proxy.end()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_w22_a_requeue_is_one_step(system, server, connection, proxy, after):
    driver = system.driver(url=proxy.url)
    driver.settle("w", held_job(driver), "failure")
    proxy.trap("requeue", "cut", after=after)
    with pytest.raises(DriverError):
        driver.requeue("a")
    check(connection)
    assert status(connection, "a") == ("queued" if after else "failed")
    assert driver.requeue("a")[0]["code"] == ("refused" if after else "done")
    assert queued(connection) == ["a"]
    check(connection)


def test_w22_a_failed_job_that_a_stock_requeue_dropped_can_be_requeued(connection, driver):
    driver.settle("w", held_job(driver), "failure")
    connection.zrem("rq:failed:default", "a")    # it died after its first step
    assert driver.requeue("a")[0]["code"] == "done"
    check(connection)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_w23_a_delete_is_one_step_and_leaves_nothing(system, server, connection, proxy, after):
    driver = system.driver(url=proxy.url)
    driver.enqueue("tasks.add", 1, 2, job_id="parent")
    driver.settle("w", held_job(driver, group="g"), "failure")
    driver.enqueue("tasks.add", 1, 2, job_id="child", depends_on={"job_ids": ["parent"]}, group="g")
    proxy.trap("delete_jobs", "cut", after=after)
    with pytest.raises(DriverError):
        driver.delete("a", "child", "parent")
    check(connection)
    driver.delete("a", "child", "parent")
    assert connection.keys("rq:job*") == [] and connection.keys("rq:results*") == []
    assert connection.exists("rq:groups", "rq:queue:default", "rq:failed:default", "rq:deferred:default") == 0
    check(connection)


# ---- producers ------------------------------------------------------------------------------------------------------------


def test_w24_children_enqueued_in_bulk_while_their_parents_finish_are_queued_once(system, server, connection, marks):
    worker = system.test_worker("--concurrency", "4", "default")
    producer = system.driver()
    jobs = []
    for n in range(100):
        jobs += [{"func": "tasks.add", "args": [1, 2], "options": {"job_id": f"p{n}"}},
                 {"func": "tasks.mark", "args": [str(marks), 0],
                  "options": {"job_id": f"c{n}", "depends_on": {"job_ids": [f"p{n}"]}}}]
    assert not any(job["duplicate"] for job in producer.enqueue_many(jobs))
    wait_for(lambda: all(status(connection, f"c{n}") == "finished" for n in range(100)))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert sorted(runs(marks)) == sorted(f"c{n}" for n in range(100))
    check(connection, totals={"finished|default": 200})


@pytest.mark.parametrize("number", [1, 2, 5, 8])
def test_w24_a_bulk_broken_off_in_the_middle_is_completed_by_its_repetition(system, server, connection, proxy, number):
    driver = system.driver(url=proxy.url)
    jobs = [{"func": "tasks.add", "args": [1, 2], "options": {
        "job_id": f"j{n}", "depends_on": {"job_ids": [f"j{n - 1}"]} if n % 2 else None}} for n in range(8)]
    proxy.trap(number, "cut")
    with pytest.raises(DriverError):
        driver.enqueue_many(jobs)
    check(connection)
    assert sum(job["duplicate"] for job in driver.enqueue_many(jobs)) == number - 1
    assert sorted(queued(connection)) == ["j0", "j2", "j4", "j6"] and connection.zcard("rq:deferred:default") == 4
    check(connection)


def test_w25_a_child_that_allows_a_failure_that_has_happened_is_queued_at_once(system, connection, driver):
    driver.settle("w", held_job(driver), "failure")
    dependency = {"job_ids": ["a"], "allow_failure": True}
    assert driver.enqueue("tasks.add", 1, 2, job_id="child", depends_on=dependency)["status"] == "queued"
    check(connection)
    # RQ defers it for ever.
    from rq.job import Dependency
    Queue("default", connection=connection).enqueue(tasks.add, 1, 2, job_id="theirs",
                                                    depends_on=Dependency(jobs=["a"], allow_failure=True))
    assert status(connection, "theirs") == "deferred"
    connection.zadd("rq:deferred:default", {"theirs": seconds(connection) - 120})
    assert maintain(driver, connection) == {"released": 1}
    check(connection)
    driver.retire("w")
    work_off(system)
    assert status(connection, "child") == status(connection, "theirs") == "finished"


def test_w26_an_id_used_again_starts_clean_and_stands_on_the_queue_once(system, connection, driver):
    held_job(driver, retry={"max": 3}, meta={"old": 1}, depends_on={"job_ids": ["none"]})
    refused = driver.enqueue("tasks.add", 3, 4, job_id="a")
    assert (refused["id"], refused["duplicate"], refused["status"]) == ("a", True, "started")
    execution = Snapshot(connection).get("rq:worker:w:executions")[0].split(":")[1]
    assert driver.settle("w", execution) == "finished"
    assert driver.enqueue("tasks.add", 3, 4, job_id="a", unique=True)["duplicate"], "--unique: also of an ended one"
    assert driver.enqueue("tasks.add", 3, 4, job_id="a")["status"] == "queued"
    assert driver.enqueue("tasks.add", 3, 4, job_id="a")["duplicate"]
    job = connection.hgetall("rq:job:a")
    assert b"retries_left" not in job and b"meta" not in job and b"dependency_ids" not in job
    assert queued(connection) == ["a"]
    check(connection)


def test_w26_an_id_that_rq_queued_twice_runs_once(system, connection, marks):
    q = Queue("default", connection=connection)
    for _ in range(3):
        q.enqueue(tasks.mark, str(marks), 0, job_id="a")
    assert queued(connection) == ["a"] * 3
    worker = work_off(system)
    assert runs(marks) == ["a"] and "Job skipped: id=a" in worker.log
    check(connection)


def test_w26_a_unique_job_enqueued_again_after_an_unclear_moment_runs_once(system, connection, proxy, marks):
    arguments = ("enqueue", "tasks.mark", str(marks), ":0", "--job-id", "a", "--unique", "--redis-url")
    proxy.trap("enqueue", "cut", after=True)
    first = system.rqxx(*arguments, proxy.url)
    assert first.returncode == 1, first
    work_off(system)      # It was enqueued, and has run by the time its producer tries again.
    again = system.rqxx(*arguments, proxy.url)
    assert again.returncode == 1 and "exists already (finished)" in again.stderr
    work_off(system)
    assert runs(marks) == ["a"]
    check(connection)


def test_w27_an_expired_job_is_dropped_where_it_is_met(connection, driver):
    driver.enqueue("tasks.add", 1, 2, job_id="a", ttl=1)
    driver.enqueue("tasks.add", 1, 2, job_id="b", ttl=600)
    wait_for(lambda: not connection.exists("rq:job:a"))
    driver.register("w")
    claimed = driver.claim("w")
    assert claimed["skipped"] == [{"id": "a", "queue": "default", "why": "no such job"}]
    assert [job["id"] for job in claimed["claimed"]] == ["b"] and connection.ttl("rq:job:b") == -1
    assert connection.keys("rq:queue:default*") == []
    check(connection)


def test_w28_a_requeued_job_does_not_expire_while_it_waits(connection, driver):
    driver.settle("w", held_job(driver, failure_ttl=60), "failure")
    driver.enqueue("tasks.add", 1, 2, job_id="child", depends_on={"job_ids": ["a"]})
    assert 0 < connection.ttl("rq:job:a") <= 60
    driver.requeue("a")
    assert connection.ttl("rq:job:a") == -1 and connection.ttl("rq:job:a:dependents") == -1
    check(connection)


# ---- queues, suspension, maintenance --------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_w29_a_compaction_broken_off_anywhere_loses_no_id(system, server, connection, proxy, after):
    driver = system.driver()
    for n in range(40):
        driver.enqueue("tasks.add", 1, 2, job_id=f"j{n}")
        connection.rpush("rq:queue:default", f"ghost{n}a", f"ghost{n}b")
    for number in range(1, 10):
        proxy.reset()
        victim = Victim()
        trap = proxy.trap(number, victim.kill, after=after)
        victim.running = system.run(BUILD / "rqxx", "queue", "compact", "default", "--redis-url", proxy.url)
        victim.running.wait()
        left = [job_id for job_id in queued(connection) if job_id.startswith("j")]
        assert left == [f"j{n}" for n in range(40)]
        if not trap.sprung.is_set():
            break
    assert number > 2 and queued(connection) == left and not any(b"_compact" in key for key in connection.keys("*"))
    check(connection)


@breaks
def test_w30_emptying_a_queue_leaves_no_part_of_a_job(system, sweep, how):
    for trap in sweep.steps():
        setting = system.driver()
        setting.register("w")
        setting.enqueue("tasks.add", 1, 2, job_id="done")
        setting.settle("w", setting.claim("w", limit=1)["claimed"][0]["execution"])
        setting.enqueue("tasks.fail", "x", job_id="again", retry={"max": 1})
        setting.settle("w", setting.claim("w")["claimed"][0]["execution"], "failure")
        setting.enqueue("tasks.add", 1, 2, job_id="grouped", group="g", depends_on={"job_ids": ["done"]})
        for n in range(40):
            setting.enqueue("tasks.add", 1, 2, job_id=f"j{n}")
        setting.enqueue("tasks.add", 1, 2, job_id="child", depends_on={"job_ids": ["j1"]})
        setting.end()
        sweep.running = system.run(BUILD / "rqxx", "queue", "empty", "default", "--redis-url", sweep.proxy.url)
        sweep.mend(trap)
        connection = sweep.connection
        gone = {f"j{n}" for n in range(40)}
        check(connection, gone=gone)
        again = system.rqxx("queue", "empty", "default", "--redis-url", system.server.url)
        assert again.returncode == 0, again
        at = f"{how} of {trap.request}, {sweep.proxy.requests}"
        assert violations(connection, gone=gone) == [], at
        # `child` waits for a deleted job and stays to be seen in the deferred registry.
        assert set(Snapshot(connection).jobs) == {"done", "child"}, at
        assert connection.llen("rq:queue:default") == 0 and connection.exists("rq:groups", "rq:group:g") == 0, at


def test_w31_a_maintenance_lock_that_a_crash_left_behind_holds_nobody_up(system, connection, driver):
    connection.set("rq:clean_registries:default", 1, ex=899)     # a stock worker cleans, or has just crashed
    connection.rpush("rq:queue:default:intermediate", "gone")
    assert maintain(driver, connection) == {}
    connection.expire("rq:clean_registries:default", 860)        # nobody cleans for half a minute
    assert maintain(driver, connection) == {"dropped": 1}
    held_job(driver)
    assert recover(system, connection) == {"a": "requeued"}
    assert connection.ttl("rq:clean_registries:default") > 800, "the lock is not ours to delete"
    check(connection)


def test_w31_two_processes_do_not_maintain_a_queue_at_once(system, connection, driver):
    other = system.driver()
    connection.zadd("rq:finished:default", {"gone": 5})
    for one in (driver, other):
        one.send("maintain", queue="default")
    assert sorted([one.receive()["counts"] for one in (driver, other)], key=len) == [{}, {"expired": 1}]
    assert 0 < connection.ttl("rqxx:maintained:default") <= 10, "ends by itself, whatever becomes of who took it"


def test_w32_an_idle_worker_takes_no_job_more_after_a_suspend(system, connection, proxy, marks):
    worker = idle_worker(system, proxy)
    trap = proxy.trap("claim", "hold")
    q = Queue("default", connection=connection)
    q.enqueue(tasks.mark, str(marks), 0, job_id="a")
    trap.wait()                                   # It is awake, and about to take the job.
    connection.set("rq:suspended", 1)
    trap.release()
    wait_for(lambda: b"suspended" in {connection.hget(name, "state") for name in connection.smembers("rq:workers")})
    assert queued(connection) == ["a"] and status(connection, "a") == "queued"
    check(connection)
    connection.delete("rq:suspended")
    wait_for(lambda: status(connection, "a") == "finished")
    assert runs(marks) == ["a"] and worker.process.poll() is None


def test_w33_a_slot_whose_reply_is_lost_or_whose_process_dies_is_enqueued_once(system, connection, proxy):
    """More of this in tests/cli/test_cron.py."""
    config = system.folder / "cron.toml"
    config.write_text('[tick]\nfunc = "tasks.add"\nargs = \'[1, 2]\'\nevery = "1s"\n')
    lost = proxy.trap("cron_fire", "cut", after=True)
    first = system.run(BUILD / "rqxx", "cron", config, "--redis-url", proxy.url)
    lost.wait()
    wait_for(lambda: connection.llen("rq:queue:default") >= 2)
    killed = proxy.trap("cron_fire", lambda: kill(first), after=True)
    killed.wait()
    first.process.wait(10)
    count = connection.llen("rq:queue:default")
    for key in connection.keys("rqxx:cron:leader:*"):
        connection.delete(key)                    # its lease has run out
    second = system.run(BUILD / "rqxx", "cron", config, "--redis-url", system.server.url)
    wait_for(lambda: connection.llen("rq:queue:default") >= count + 2)
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    jobs = queued(connection)
    assert len(set(jobs)) == len(jobs) == int(connection.hget("rqxx:cron:tick", "fired"))
    check(connection)


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_w34_a_webhook_is_noted_with_the_end_of_its_job(system, server, connection, proxy, outcome):
    driver = system.driver(url=proxy.url)
    hooks = [{"url": "http://localhost:1/x", "job_status": status, "method": "POST"} for status in ("finished", "failed")]
    execution = held_job(driver, webhooks=hooks)
    assert settle_with_lost_reply(driver, proxy, execution, outcome) == "refused"
    deliveries = connection.zrange("rqxx:webhooks", 0, -1)
    assert len(deliveries) == 1
    record = connection.hgetall(b"rqxx:webhook:" + deliveries[0])
    expected = "finished" if outcome == "success" else "failed"
    assert (record[b"job_id"], record[b"job_status"].decode()) == (b"a", expected) and status(connection, "a") == expected
    check(connection)


def test_w34_a_job_given_up_by_recovery_owes_its_webhook_too(system, connection, driver):
    held_job(driver, webhooks=[{"url": "http://localhost:1/x", "job_status": "failed", "method": "POST"}])
    assert recover(system, connection, policy="fail") == {"a": "failed"}
    assert recover(system, connection, policy="fail") == {}
    assert connection.zcard("rqxx:webhooks") == 1
    check(connection)


@pytest.mark.parametrize("after", [False, True], ids=["claim_on_its_way", "reply_on_its_way"])
def test_w35_a_worker_stopped_while_it_takes_a_job_puts_it_back(system, connection, proxy, after):
    worker = idle_worker(system, proxy)
    trap = proxy.trap("claim", "hold", after=after)
    Queue("default", connection=connection).enqueue(tasks.add, 1, 2, job_id="a")
    trap.wait()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.log
    trap.release()
    wait_for(lambda: not any(client["name"] for client in connection.client_list() if "rqxx" in client["name"]))
    assert queued(connection) == ["a"] and status(connection, "a") == "queued"
    check(connection)
    work_off(system)
    assert status(connection, "a") == "finished"
    check(connection, totals={"finished|default": 1})


def test_w36_nothing_is_kept_for_ever_by_mistake(system, connection, driver):
    driver.settle("w", held_job(driver), "failure")
    assert 0 < connection.ttl("rq:results:a") <= 31536000
    driver.delete("a")
    assert connection.exists("rq:results:a") == 0
    for job_id in ("canceled", "deferred"):
        driver.enqueue("tasks.add", 1, 2, job_id=job_id, ttl=600, depends_on={"job_ids": ["p"]} if job_id == "deferred" else None)
    driver.cancel("canceled")
    connection.zadd("rq:deferred:default", {"deferred": 1})
    connection.lrem("rq:queue:default", 1, "deferred")
    connection.delete("rq:job:canceled", "rq:job:deferred")      # their time is up
    assert maintain(driver, connection) == {"dropped": 2}
    assert connection.exists("rq:canceled:default", "rq:deferred:default") == 0
    check(connection)
