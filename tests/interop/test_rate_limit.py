"""RQ 3's rate limit: the same steps through RQ 3 and rqxx leave the same keys, and workers of both share one key."""

import random
import signal
import time

import psutil
import pytest
from conftest import wait_for
from driver import DriverError
from rq3 import Refused, Rq3, needs_rq3, worker_command

ONE = {"key": "k", "concurrency": 1}
TWO = {"key": "k", "concurrency": 2}
ODD = {"key": "é:x :allowed\n", "concurrency": 1}
ENDED = {b"finished", b"failed"}


def state(connection):
    """What the limits, queues and registries hold, and each job's status; without times, and the order they make by chance."""
    def members(pattern):
        return {key.decode(): sorted(id.decode().split(":")[0] for id in connection.zrange(key, 0, -1))
                for key in connection.keys(pattern)}

    hashes = [key for key in connection.keys("rq:rl:*") if connection.type(key) == b"hash"]
    limits = {key.decode(): connection.hgetall(key) for key in hashes}
    waiting = {key: connection.zrange(key, 0, -1) for key in connection.keys("rq:rl:*:rate_limited")}
    jobs = {key.decode(): [value and value.decode() for value in connection.hmget(
                key, "status", "rate_limit_key", "rate_limit_concurrency", "enqueue_at_front", "retries_left", "repeats_left")]
            for key in connection.keys("rq:job:*") if connection.type(key) == b"hash"}
    queues = {key.decode(): connection.lrange(key, 0, -1) for key in connection.keys("rq:queue:*")}
    registries = {name: members(f"rq:{name}:*") for name in ("wip", "finished", "failed", "deferred", "scheduled", "canceled")}
    return {"keys": connection.smembers("rq:rl-keys"), "limits": limits, "slots": members("rq:rl:*:allowed"),
            "waiting": waiting, "jobs": jobs, "queues": queues, **registries}


class Stock:
    """RQ 3.0."""

    def __init__(self, system):
        self.system = system
        self.rq = Rq3(system.server.url)
        system.things.append(self.rq)

    def work(self, max_jobs=None):
        limit = ["--max-jobs", max_jobs] if max_jobs else []
        worker = self.system.run(*worker_command(self.system.server.url, "--burst", *limit, "default"))
        assert worker.wait() == 0, worker.log

    def carry_out(self, step, arguments):
        try:
            getattr(self.rq, step)(**arguments)
            return "done"
        except Refused:
            return "refused"


class Ours:
    def __init__(self, system):
        self.system = system
        self.driver = system.driver()

    def work(self, max_jobs=None):
        limit = ["--max-jobs", max_jobs] if max_jobs else []
        worker = self.system.test_worker("--burst", "--concurrency", 1, *limit, "default")
        assert worker.wait() == 0, worker.log

    def carry_out(self, step, arguments):
        try:
            getattr(self, step)(**arguments)
            return "done"
        except DriverError as error:
            assert error.code == "usage", error
            return "refused"

    def enqueue(self, func, args=(), **options):
        self.driver.enqueue(func, *args, **options)

    def cancel(self, id):
        self.driver.cancel(id)

    def delete(self, id):
        self.driver.delete(id)

    def requeue(self, id, at_front=False):
        self.driver.requeue(id, at_front=at_front)

    def promote(self):
        self.driver.promote("default")
        self.driver.release("default")

    def clean(self):
        self.system.server.client.delete("rqxx:maintained:*rate_limits")
        self.driver.maintain_rate_limits()


def job(id, limit=ONE, func="tasks.noop", args=(1,), **options):
    return "enqueue", {"func": func, "args": args, "job_id": id, "rate_limit": limit, **options}


def failing(id, limit=ONE, **options):
    return job(id, limit, "tasks.fail", ("no",), **options)


WORK, ONE_JOB, CLEAN, DUE = ("work", {}), ("work", {"max_jobs": 1}), ("clean", {}), ("due", {})
LATER = ("next_second", {})   # RQ tells apart no more.
SCENARIOS = {
    "the_others_wait_until_a_job_has_ended": [job("a"), job("b"), job("c"), ONE_JOB, WORK, CLEAN],
    "as_many_as_the_limit_says": [job("a", TWO), job("b", TWO), job("c", TWO), job("d", TWO), ONE_JOB, WORK, CLEAN],
    "each_key_has_a_limit_of_its_own": [job("a"), job("b", {"key": "l", "concurrency": 1}), job("c"),
                                        job("d", {"key": "l", "concurrency": 1}), ONE_JOB, WORK],
    "the_last_to_be_enqueued_sets_the_limit": [job("a"), job("b"), job("c"), job("d", {"key": "k", "concurrency": 3}), WORK],
    "a_lower_limit_takes_nothing_back": [job("a", TWO), job("b", TWO), job("c"), job("d"), ONE_JOB, WORK],
    "jobs_for_the_front": [job("a", TWO), job("b", TWO, at_front=True), job("c", TWO), job("d", TWO, at_front=True), ONE_JOB,
                           ONE_JOB, WORK],
    "a_failure_gives_the_slot_back": [failing("a"), failing("b"), job("c"), ONE_JOB, WORK],
    "a_retry_at_once_keeps_the_slot": [failing("a", retry={"max": 1}), job("b"), ONE_JOB, ONE_JOB, WORK],
    "a_later_retry_gives_the_slot_back": [failing("a", retry={"max": 1, "intervals": [100]}), job("b"), ONE_JOB, DUE, WORK],
    "a_retry_that_is_asked_for": [job("a", ONE, "tasks.ask_retry", (1, 0)), job("b"), ONE_JOB, WORK],
    "a_later_retry_that_is_asked_for": [job("a", ONE, "tasks.ask_retry", (1, 100)), job("b"), ONE_JOB, DUE, WORK],
    "a_repetition_at_once_keeps_the_slot": [job("a", repeat={"times": 1}), job("b"), ONE_JOB, ONE_JOB, WORK],
    "a_later_repetition_gives_the_slot_back": [job("a", repeat={"times": 1, "intervals": [100]}), job("b"), ONE_JOB, DUE, WORK],
    "a_job_that_keeps_no_result": [job("a", result_ttl=0), job("b", result_ttl=0), ONE_JOB, WORK, CLEAN],
    "a_scheduled_job_has_no_slot_until_it_is_due": [job("a", in_=3600), job("b"), job("c", in_=3600), DUE, WORK],
    "dependents_wait_for_a_slot": [job("p", None), job("a", depends_on={"job_ids": ["p"]}),
                                   job("b", depends_on={"job_ids": ["p"]}, at_front=True), job("c"), ONE_JOB, WORK],
    "dependents_of_a_job_with_the_same_key": [job("a"), job("b", depends_on={"job_ids": ["a"]}), job("c"),
                                              LATER, ONE_JOB, WORK],
    "canceling": [job("a"), job("b"), job("c"), job("d"), ("cancel", {"id": "b"}), ("cancel", {"id": "a"}), WORK, CLEAN],
    "deleting": [job("a"), job("b"), job("c"), job("d"), ("delete", {"id": "b"}), ("delete", {"id": "a"}), WORK, CLEAN],
    "canceling_a_scheduled_one": [job("a", in_=3600), job("b"), ("cancel", {"id": "a"}), WORK],
    "requeuing_goes_through_the_limit": [failing("a"), WORK, job("b"), ("requeue", {"id": "a"}), job("c"), ONE_JOB, WORK],
    "requeuing_to_the_front": [failing("a", TWO), WORK, job("b", TWO), ("requeue", {"id": "a", "at_front": True}), ONE_JOB, WORK],
    "unique_is_refused": [job("a", unique=True)],
    "an_empty_key_is_refused": [job("a", {"key": "", "concurrency": 1})],
    "no_concurrency_is_refused": [job("a", {"key": "k", "concurrency": 0}), job("b", {"key": "k", "concurrency": -1})],
    "any_text_is_a_key": [job("a", ODD), job("b", ODD), WORK, CLEAN],
    "a_slot_that_leaked": [job("a"), job("b"), ("redis", {"command": ["DEL", "rq:job:a"]}),
                           ("redis", {"command": ["LREM", "rq:queue:default", 0, "a"]}), CLEAN, WORK, CLEAN],
    "an_entry_whose_job_is_gone": [job("a"), job("b"), job("c"), ("redis", {"command": ["DEL", "rq:job:b"]}), WORK, CLEAN],
    "a_waiting_job_that_was_canceled_by_hand": [job("a"), job("b"),
                                                ("redis", {"command": ["HSET", "rq:job:b", "status", "canceled"]}), WORK, CLEAN],
}


def play(system, producer, worker, steps):
    """What each step came to, and what stood there after it."""
    connection = system.server.client
    connection.flushall()
    history = []
    for step, arguments in steps:
        came_to = "done"
        if step == "work":
            worker.work(**arguments)
        elif step == "next_second":
            time.sleep(1 - time.time() % 1)
        elif step == "redis":
            connection.execute_command(*arguments["command"])
        elif step == "due":
            for id in connection.zrange("rq:scheduled:default", 0, -1):
                connection.zadd("rq:scheduled:default", {id: 1})
            producer.carry_out("promote", {})
        else:
            came_to = producer.carry_out(step, arguments)
        history.append((step, came_to, state(connection)))
    return history


@needs_rq3
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_steps_leave_the_same_as_with_rq(system, server, scenario):
    sides = {"RQ": Stock(system), "rqxx": Ours(system)}
    wanted = play(system, sides["RQ"], sides["RQ"], SCENARIOS[scenario])
    for producer, worker in (("rqxx", "rqxx"), ("rqxx", "RQ"), ("RQ", "rqxx")):
        got = play(system, sides[producer], sides[worker], SCENARIOS[scenario])
        for n, (one, other) in enumerate(zip(wanted, got)):
            different = {what: (one[2][what], other[2][what]) for what in one[2] if one[2][what] != other[2][what]}
            assert (other[1], different) == (one[1], {}), f"step {n}, {one[0]}, enqueued by {producer}, run by {worker}"


def spans(path, kills):
    """(start, end, job id) of each run; one that a kill cut short ends with its process."""
    open_runs, closed = {}, []
    for line in path.read_text().splitlines():
        event, id, at, pid = line.split()
        if event == "+":
            open_runs[id, pid] = float(at)
        else:
            closed.append((open_runs.pop((id, pid)), float(at), id))
    return closed + [(start, kills[int(pid)], id) for (id, pid), start in open_runs.items()]


def most_at_once(runs):
    changes = sorted([(start, 1) for start, _, _ in runs] + [(end, -1) for _, end, _ in runs])
    count = most = 0
    for _, change in changes:
        count += change
        most = max(most, count)
    return most


@needs_rq3
def test_workers_of_both_sides_never_run_more_than_a_limit_allows(system, connection, tmp_path):
    chance = random.Random(5)
    limits = {"a": 1, "b": 2, "c": 4}
    stock, ours, kills = Stock(system), Ours(system), {}
    marks = {key: tmp_path / key for key in limits}
    for path in marks.values():
        path.touch()

    def start_ours():
        return system.test_worker("--concurrency", 3, "default")

    def start_stock():
        return system.run(*worker_command(system.server.url, "default"))

    def kill(process):
        process.kill()
        process.wait(10)
        kills[process.pid] = time.time()

    ours_running, stock_running = [start_ours() for _ in range(2)], [start_stock() for _ in range(2)]
    ids = []
    for n in range(150):
        key = chance.choice(list(limits))
        ids.append(f"{key}{n}")
        chance.choice([stock, ours]).carry_out("enqueue", {
            "func": "tasks.span", "args": [str(marks[key]), chance.uniform(0.01, 0.3)], "job_id": ids[-1],
            "at_front": chance.random() < 0.2, "rate_limit": {"key": key, "concurrency": limits[key]}})
        time.sleep(chance.uniform(0, 0.06))
        if n % 30 == 29:
            victim = chance.randrange(len(ours_running))
            kill(psutil.Process(ours_running[victim].process.pid))
            ours_running[victim].wait()
            ours_running[victim] = start_ours()
            # RQ's worker sees that the process of its job is gone, and fails the job.
            for horse in psutil.Process(stock_running[n % 2].process.pid).children():
                horse.send_signal(signal.SIGKILL)
                kills[horse.pid] = time.time()
    wait_for(lambda: all(connection.hget(f"rq:job:{id}", "status") in ENDED for id in ids), 120, "all jobs to end")
    for worker in ours_running + stock_running:
        worker.signal(signal.SIGTERM)
    for key, concurrency in limits.items():
        assert most_at_once(spans(marks[key], kills)) == concurrency
        assert not connection.exists(f"rq:rl:{key}:allowed", f"rq:rl:{key}:rate_limited")


@pytest.mark.parametrize("policy", ["requeue", "fail"])
def test_the_slot_of_a_killed_worker_comes_back(system, connection, tmp_path, policy):
    driver = system.driver()
    worker = system.test_worker("--concurrency", 1, "default")
    driver.enqueue("tasks.mark", str(tmp_path / "marks"), 60 if policy == "fail" else 1, job_id="a", rate_limit=ONE)
    driver.enqueue("tasks.noop", 1, job_id="b", rate_limit=ONE)
    wait_for(lambda: (tmp_path / "marks").exists(), what="the job to start")
    worker.signal(signal.SIGKILL)
    worker.wait()
    system.test_worker("--recover", policy, "default")
    wait_for(lambda: connection.hget("rq:job:b", "status") == b"finished", 40, "the next job")
    assert connection.hget("rq:job:a", "status") == (b"failed" if policy == "fail" else b"finished")
    assert not connection.exists("rq:rl:k:allowed", "rq:rl:k:rate_limited")


@pytest.mark.parametrize("action", ["cancel", "delete"])
def test_a_job_that_is_taken_away_while_it_runs_keeps_its_slot_until_it_has_ended(system, connection, tmp_path, action):
    driver = system.driver()
    system.test_worker("--concurrency", 2, "default")
    driver.enqueue("tasks.stubborn", 3, job_id="a", rate_limit=ONE)
    driver.enqueue("tasks.noop", 1, job_id="b", rate_limit=ONE)
    wait_for(lambda: connection.hget("rq:job:a", "status") == b"started", what="the job to start")
    getattr(driver, action)("a")
    assert connection.zrange("rq:rl:k:allowed", 0, -1) == [b"a"]
    assert connection.hget("rq:job:b", "status") == b"rate_limited"
    wait_for(lambda: connection.hget("rq:job:b", "status") == b"finished", 40, "the next job")
    assert not connection.exists("rq:rl:k:allowed", "rq:rl:k:rate_limited")


def test_a_job_that_was_canceled_while_it_ran_on_a_worker_that_dies_gives_its_slot_back(system, connection):
    driver = system.driver()
    driver.enqueue("tasks.noop", 1, job_id="a", rate_limit=ONE)
    driver.enqueue("tasks.noop", 1, job_id="b", rate_limit=ONE)
    driver.register()
    assert [job["id"] for job in driver.claim()["claimed"]] == ["a"]
    driver.cancel("a")
    assert connection.hget("rq:job:b", "status") == b"rate_limited"
    driver.expire_lease()
    wait_for(lambda: driver.recover() and connection.hget("rq:job:b", "status") == b"queued", what="the slot")


def test_a_result_that_comes_too_late_changes_nothing(system, connection):
    driver = system.driver()
    driver.enqueue("tasks.noop", 1, job_id="a", rate_limit=ONE)
    driver.enqueue("tasks.noop", 1, job_id="b", rate_limit=ONE)
    driver.register()
    late = driver.claim()["claimed"][0]
    driver.expire_lease()
    wait_for(lambda: driver.recover() and connection.hget("rq:job:a", "status") == b"queued", what="the recovery")
    before = state(connection)
    assert driver.settle("driven", late["execution"]) == "refused"
    assert state(connection) == before and before["slots"] == {"rq:rl:k:allowed": ["a"]}


def test_jobs_come_in_the_order_in_which_they_were_enqueued(system, connection):
    driver = system.driver()
    ids = [f"j{n}" for n in random.Random(1).sample(range(200), 100)]
    driver.enqueue_many([{"func": "tasks.noop", "args": [1], "options": {"job_id": id, "rate_limit": ONE}} for id in ids])
    assert [id.decode() for id in connection.zrange("rq:rl:k:rate_limited", 0, -1)] == ids[1:]
    assert connection.lrange("rq:queue:default", 0, -1) == [ids[0].encode()]


def test_an_id_that_waits_for_its_limit_is_in_use(system, connection):
    driver = system.driver()
    driver.enqueue("tasks.noop", 1, job_id="a", rate_limit=ONE)
    assert driver.enqueue("tasks.noop", 1, job_id="b", rate_limit=ONE)["status"] == "rate_limited"
    before = state(connection)
    assert driver.enqueue("tasks.noop", 2, job_id="b", rate_limit=ONE)["duplicate"]
    assert state(connection) == before


@pytest.mark.parametrize("op, arguments", [
    ("enqueue", {"func": "tasks.noop", "args": [1], "options": {"job_id": "c", "rate_limit": ONE}}), ("cancel", {"ids": ["a"]}),
    ("delete", {"ids": ["a"]}), ("requeue", {"ids": ["f"]}), ("maintain_rate_limits", {})])
def test_a_redis_that_takes_no_writes_changes_nothing(system, connection, op, arguments):
    driver = system.driver()
    driver.enqueue("tasks.fail", "no", job_id="f", rate_limit=ONE)
    assert system.test_worker("--burst", "default").wait() == 0
    for id in "ab":
        driver.enqueue("tasks.noop", 1, job_id=id, rate_limit=ONE)
    connection.delete("rqxx:maintained:*rate_limits")
    before = state(connection)
    connection.config_set("min-replicas-to-write", 1)
    with pytest.raises(DriverError, match="NOREPLICAS"):
        driver.call(op, **arguments)
    assert state(connection) == before
    connection.config_set("min-replicas-to-write", 0)
    driver.call(op, **arguments)
    assert state(connection) != before or op == "maintain_rate_limits"


@pytest.mark.parametrize("broken", ["rq:rl-keys", "rq:rl:k", "rq:rl:k:allowed", "rq:rl:k:rate_limited"])
def test_a_key_of_another_type_loses_no_job(system, connection, broken):
    driver = system.driver()
    connection.set(broken, "text")
    for id in "ab":
        driver.enqueue("tasks.noop", 1, job_id=id, rate_limit=ONE)
    assert system.test_worker("--burst", "default").wait() == 0
    if broken == "rq:rl:k":   # Nobody knows the limit; whoever enqueues next says it.
        connection.delete(broken)
        driver.enqueue("tasks.noop", 1, job_id="c", rate_limit=ONE)
        assert system.test_worker("--burst", "default").wait() == 0
    assert {connection.hget(f"rq:job:{id}", "status") for id in "ab"} == {b"finished"}


@pytest.mark.parametrize("fields", [{"rate_limit_key": ""}, {"rate_limit_concurrency": ""}, {"rate_limit_concurrency": "x"},
                                    {"rate_limit_concurrency": "-3"}, {"rate_limit_concurrency": "9" * 400}])
def test_a_limit_that_cannot_be_read_holds_nothing_up(system, connection, fields):
    """As RQ, which counts a job without key or concurrency as one without a limit."""
    driver = system.driver()
    driver.enqueue("tasks.noop", 1, job_id="p")
    driver.enqueue("tasks.noop", 1, job_id="a", rate_limit=ONE, depends_on={"job_ids": ["p"]})
    connection.hset("rq:job:a", mapping=fields)
    driver.register()
    driver.settle("driven", driver.claim()["claimed"][0]["execution"])
    assert connection.hget("rq:job:a", "status") == b"queued"


def test_maintenance_looks_at_some_limits_at_a_time_and_comes_to_all(system, connection):
    driver = system.driver()
    for n in range(1000):
        connection.sadd("rq:rl-keys", f"k{n}")
        connection.hset(f"rq:rl:k{n}", "concurrency", 1)
    for _ in range(40):
        connection.delete("rqxx:maintained:*rate_limits")
        driver.maintain_rate_limits()
    assert not connection.exists("rq:rl-keys") and not connection.keys("rq:rl:*")


def test_the_command_line_says_what_is_wrong_and_writes_nothing(system, connection):
    url = ["--redis-url", system.server.url]
    for text, message in (("k", '--rate-limit: "k" is not KEY=N'), ("k=x", '--rate-limit: "k=x" is not KEY=N'),
                          ("k=", '--rate-limit: "k=" is not KEY=N'), ("=1", "rate_limit: the key must not be empty"),
                          ("k=0", "rate_limit: the concurrency must be from 1 to 1000000000")):
        refused = system.rqxx("enqueue", "tasks.noop", "--rate-limit", text, *url)
        assert (refused.returncode, refused.stderr) == (2, f"rqxx: {message}\n")
    refused = system.rqxx("enqueue", "tasks.noop", "--rate-limit", "k=1", "--unique", "--job-id", "a", *url)
    assert (refused.returncode, refused.stderr) == (2, "rqxx: rate_limit: does not go with unique\n")
    assert not connection.keys("*")


def test_jobs_that_wait_for_their_limit_are_shown(system, connection):
    import json

    from conftest import http

    url = ["--redis-url", system.server.url]
    for id in "ab":
        assert system.rqxx("enqueue", "tasks.noop", ":1", "--job-id", id, "--rate-limit", "api=x=1", *url).stdout == f"{id}\n"
    limit = {"key": "api=x", "concurrency": 1, "allowed": 1, "rate_limited": 1}
    assert json.loads(system.rqxx("info", "--json", *url).stdout)["rate_limits"] == [limit]
    assert "api=x" in system.rqxx("info", *url).stdout
    shown = json.loads(system.rqxx("job", "show", "b", "--json", *url).stdout)[0]
    assert shown["status"] == "rate_limited" and shown["rate_limit"] == {"key": "api=x", "concurrency": 1}
    web = system.serve("--no-worker", url=system.server.url)
    assert http("GET", f"{web.url}/api/rq/stats").json["rate_limits"] == [limit]
    waiting = http("GET", f"{web.url}/api/rq/jobs/recent?status=rate_limited").json["jobs"]
    assert [job["id"] for job in waiting] == ["b"]
