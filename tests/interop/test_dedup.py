"""Deduplication keys and idempotent requests: what each mode promises, with producers in separate processes, consumers of
both sides, crashes in between, and keys and records that somebody else has tampered with."""

import collections
import signal
import sys
import time

import pytest

pytest.importorskip("rq.webhook", reason="needs RQ 2.10; Debian's package is older")

import tasks
from conftest import BUILD, INTEROP, needs_rq2, wait_for
from driver import DriverError
from invariants import Snapshot, check
from proxy import Proxy
from rq import Queue, Worker
from rq.job import Job
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler

pytestmark = needs_rq2

PRODUCERS = 16
UNIQUE = {"mode": "unique", "key": "k"}
REPLACE = {"mode": "replace", "key": "k"}
THROTTLE = {"mode": "throttle", "key": "k", "period": 3600}
DEBOUNCE = {"mode": "debounce", "key": "k", "period": 600}
STATE = "rqxx:dedup:k"


@pytest.fixture
def driver(system, server):
    return system.driver()


@pytest.fixture
def marks(system):
    path = system.folder / "marks"
    path.touch()
    return path


def consumer(system, side, *args):
    if side == "stock":
        return system.rq_worker(*args)
    return system.run(BUILD / "rqxx", "worker", "--redis-url", system.server.url, "--python", sys.executable, "--path", INTEROP,
                      "--data-dir", system.folder / "data", "--concurrency", 4, *args)


def args_of(connection, job_id):
    return Job.fetch(job_id, connection=connection).args


def queued(connection, queue="default"):
    return [job_id.decode() for job_id in connection.lrange(f"rq:queue:{queue}", 0, -1)]


def due(connection, job_id, queue="default"):
    return connection.zscore(f"rq:scheduled:{queue}", job_id)


def now(connection):
    seconds, micros = connection.time()
    return seconds + micros / 1e6


def set_back(connection, field, seconds, key=STATE):
    """Makes a moment that a state remembers so much older."""
    connection.hincrby(key, field, -seconds * 1000000)


def jobs(connection):
    return sorted(Snapshot(connection).jobs)


# ---- many producers ---------------------------------------------------------------------------------


def at_once(drivers, rounds, dedup, marks, seconds=0, batch=0):
    """Each producer sends its jobs without waiting for answers. Returns the answers by (producer, round)."""
    for round_ in range(rounds):
        for number, driver in enumerate(drivers):
            driver.send("enqueue", func="tasks.begin_and_end", args=[str(marks), f"{number}.{round_}.{batch}", seconds],
                        options={"dedup": dedup})
    return {(number, round_): driver.receive() for number, driver in enumerate(drivers) for round_ in range(rounds)}


def begun(marks):
    return [line.split()[1] for line in marks.read_text().splitlines() if line.startswith("begin")]


@pytest.mark.parametrize("side", ["stock", "rqxx"])
@pytest.mark.parametrize("mode", ["unique", "throttle", "debounce", "replace"])
def test_of_the_jobs_of_16_producers_one_is_there_and_runs_once(system, connection, marks, mode, side):
    dedup = {"unique": UNIQUE, "throttle": THROTTLE, "debounce": {**DEBOUNCE, "period": 1}, "replace": REPLACE}[mode]
    drivers = [system.driver() for _ in range(PRODUCERS)]
    rounds = 20
    answers = at_once(drivers, rounds, dedup, marks)
    check(connection)
    first = [answer for answer in answers.values() if not answer["duplicate"] and not answer["replaced"]]
    assert len(first) == 1 and {answer["id"] for answer in answers.values()} == {first[0]["id"]}
    others = [answer for answer in answers.values() if answer is not first[0]]
    assert all(answer["duplicate" if mode in ("unique", "throttle") else "replaced"] for answer in others)
    assert jobs(connection) == [first[0]["id"]]
    assert connection.hget(STATE, "job").decode() == first[0]["id"]

    # A debounced job needs somebody who looks after what is scheduled: of either side.
    worker = consumer(system, side, "--with-scheduler", "default")
    wait_for(lambda: len(begun(marks)) == 1 and connection.hget(f"rq:job:{first[0]['id']}", "status") == b"finished")
    producer, round_, _ = map(int, begun(marks)[0].split("."))
    if mode in ("debounce", "replace"):
        assert round_ == rounds - 1, "the last one of the one who was last"
    else:
        assert answers[producer, round_] is first[0]

    # Nobody has told the key that its job has ended.
    again = at_once(drivers, 1, dedup, marks)
    if mode == "throttle":
        assert all(answer["duplicate"] and answer["id"] == first[0]["id"] for answer in again.values())
    else:
        # What comes while the new one runs may be let in after it.
        new = {answer["id"] for answer in again.values() if not answer["duplicate"]} - {first[0]["id"]}
        assert new
        wait_for(lambda: all(connection.hget(f"rq:job:{job_id}", "status") == b"finished" for job_id in new), timeout=40)
        assert len(begun(marks)) == 1 + len(new)
    worker.signal(signal.SIGTERM)
    worker.wait()
    check(connection, stock=side == "stock")


@pytest.mark.parametrize("mode", ["unique", "throttle", "debounce", "replace"])
def test_each_mode_keeps_its_promise_while_workers_of_both_sides_run(system, connection, marks, mode):
    dedup = {"unique": UNIQUE, "throttle": {**THROTTLE, "period": 1}, "debounce": {**DEBOUNCE, "period": 1, "max_delay": 2},
             "replace": REPLACE}[mode]
    workers = [consumer(system, side, "--with-scheduler", "default") for side in ("stock", "rqxx")]
    wait_for(lambda: connection.scard("rq:workers") == 2)
    drivers = [system.driver() for _ in range(PRODUCERS)]
    told, made, batch = set(), [], 0
    deadline = time.monotonic() + 60
    while len(made) < 5 and time.monotonic() < deadline:
        batch += 1
        for answer in at_once(drivers, 5, dedup, marks, 0.05, batch).values():
            told.add(answer["id"])
            if not answer["duplicate"] and not answer["replaced"]:
                made.append(answer["id"])
    ids = set(made)
    assert len(ids) == len(made) >= 5, "who was told of a new job has one"
    assert told == ids
    wait_for(lambda: all(connection.hget(f"rq:job:{job_id}", "status") == b"finished" for job_id in ids), timeout=60)
    runs = begun(marks)
    assert len(runs) == len(ids), "each job ran once"
    lines = marks.read_text().splitlines()
    if mode == "unique":
        assert all(line.startswith("begin" if n % 2 == 0 else "end") for n, line in enumerate(lines)), "one at a time"
    if mode in ("debounce", "replace"):
        assert any(run.endswith(f".4.{batch}") for run in runs), "the last one of the one who was last"
    for worker in workers:
        worker.signal(signal.SIGTERM)
    for worker in workers:
        worker.wait()
    check(connection, stock=True)


# ---- unique ---------------------------------------------------------------------------------------------


def test_a_unique_key_is_taken_until_its_job_has_ended_whoever_runs_it(system, driver, connection):
    def refused():
        answer = driver.enqueue("tasks.noop", 2, dedup=UNIQUE)
        assert not answer["duplicate"] or answer["id"] == job["id"]
        return answer["status"] if answer["duplicate"] else None

    for end in ("finished", "failed", "canceled", "deleted", "expired"):
        connection.flushall()
        driver.reset()
        driver.register()
        job = driver.enqueue("tasks.noop", 1, dedup=UNIQUE, in_=600, retry={"max": 1, "intervals": [600]})
        assert refused() == "scheduled"
        connection.zadd("rq:scheduled:default", {job["id"]: 1})
        driver.promote("default")
        assert refused() == "queued"
        execution = driver.claim()["claimed"][0]["execution"]
        assert refused() == "started"
        if end == "failed":
            driver.settle("driven", execution, "failure", error="no")
            assert refused() == "scheduled", "a retry waits"
            connection.zadd("rq:scheduled:default", {job["id"]: 1})
            driver.promote("default")
            driver.settle("driven", driver.claim()["claimed"][0]["execution"], "failure", error="no")
        elif end == "canceled":
            driver.cancel(job["id"])
        elif end == "deleted":
            driver.delete(job["id"])
        elif end == "expired":
            driver.settle("driven", execution)
            connection.delete(f"rq:job:{job['id']}")
        else:
            driver.settle("driven", execution)
        assert refused() is None, end


def test_a_unique_job_may_wait_for_others(driver, connection):
    parent = driver.enqueue("tasks.noop", 1, job_id="parent")
    child = driver.enqueue("tasks.noop", 2, dedup=UNIQUE, depends_on={"job_ids": [parent["id"]]})
    assert child["status"] == "deferred"
    assert driver.enqueue("tasks.noop", 3, dedup=UNIQUE)["status"] == "deferred"
    assert jobs(connection) == sorted([parent["id"], child["id"]])


def test_an_id_in_use_is_refused_and_leaves_the_key_free(driver, connection):
    driver.enqueue("tasks.noop", 1, job_id="a")
    refused = driver.enqueue("tasks.noop", 2, job_id="a", dedup=UNIQUE)
    assert refused["duplicate"] and refused["id"] == "a" and not connection.exists(STATE)
    assert not driver.enqueue("tasks.noop", 3, job_id="b", dedup=UNIQUE)["duplicate"]


# ---- throttle -------------------------------------------------------------------------------------------


def test_throttle_lets_the_first_in_and_tells_its_id_until_the_period_is_over(driver, connection):
    first = driver.enqueue("tasks.noop", 1, dedup=THROTTLE, in_=60)
    assert first["status"] == "scheduled" and 3595 < connection.ttl(STATE) <= 3600
    driver.delete(first["id"])
    refused = driver.enqueue("tasks.noop", 2, dedup=THROTTLE)
    assert refused["duplicate"] and refused["id"] == first["id"] and refused["status"] == "", "its job is gone, not its time"
    set_back(connection, "until", 3600)
    second = driver.enqueue("tasks.noop", 3, dedup=THROTTLE)
    assert not second["duplicate"] and jobs(connection) == [second["id"]]
    assert driver.enqueue("tasks.noop", 4, dedup={**THROTTLE, "period": 1})["duplicate"], "the period is the first one's"


def test_a_throttled_key_is_free_again_after_its_period(driver, connection):
    driver.enqueue("tasks.noop", 1, dedup={**THROTTLE, "period": 1})
    wait_for(lambda: not connection.exists(STATE))
    assert not driver.enqueue("tasks.noop", 2, dedup={**THROTTLE, "period": 1})["duplicate"]


# ---- debounce -------------------------------------------------------------------------------------------


def test_a_debounced_job_is_an_ordinary_scheduled_one_whose_start_moves(driver, connection):
    before = now(connection)
    first = driver.enqueue("tasks.add", 1, 1, dedup=DEBOUNCE, meta={"n": 1}, timeout=50)
    assert first["status"] == "scheduled" and before + 600 <= due(connection, first["id"]) <= now(connection) + 601
    connection.zincrby("rq:scheduled:default", -300, first["id"])
    before = now(connection)
    second = driver.enqueue("tasks.add", 2, 2, dedup=DEBOUNCE)
    assert second["replaced"] and second["id"] == first["id"]
    assert before + 600 <= due(connection, first["id"]) <= now(connection) + 601
    job = Job.fetch(first["id"], connection=connection)
    assert job.args == (2, 2) and job.meta == {} and job.timeout == 180 and job.get_status() == "scheduled"
    assert ScheduledJobRegistry("default", connection=connection).get_job_ids() == [job.id] and not queued(connection)
    check(connection)


def test_a_debounced_job_waits_no_longer_than_it_may(driver, connection):
    dedup = {**DEBOUNCE, "max_delay": 1000}
    job = driver.enqueue("tasks.add", 1, 1, dedup=dedup)["id"]
    set_back(connection, "first", 700)
    driver.enqueue("tasks.add", 2, 2, dedup=dedup)
    assert now(connection) + 295 < due(connection, job) <= now(connection) + 301
    set_back(connection, "first", 300)
    answer = driver.enqueue("tasks.add", 3, 3, dedup=dedup)
    assert answer["status"] == "queued" and answer["replaced"] and queued(connection) == [job] and due(connection, job) is None
    driver.enqueue("tasks.noop", 1, job_id="behind")
    assert driver.enqueue("tasks.add", 4, 4, dedup=dedup)["replaced"] and queued(connection) == [job, "behind"]
    assert args_of(connection, job) == (4, 4)
    check(connection)


def test_a_debounced_job_that_is_on_its_queue_already_waits_on(driver, connection):
    job = driver.enqueue("tasks.add", 1, 1, dedup=DEBOUNCE)["id"]
    connection.zadd("rq:scheduled:default", {job: 1})
    driver.promote("default")
    assert queued(connection) == [job]
    assert driver.enqueue("tasks.add", 2, 2, dedup=DEBOUNCE) == {"id": job, "duplicate": False, "status": "scheduled",
                                                                 "replaced": True, "repeated": False}
    assert not queued(connection) and due(connection, job) > now(connection) + 590
    check(connection)


def test_behind_a_debounced_job_that_runs_comes_a_new_one(driver, connection):
    driver.register()
    first = driver.enqueue("tasks.add", 1, 1, dedup=DEBOUNCE)["id"]
    set_back(connection, "first", 10000)
    connection.zadd("rq:scheduled:default", {first: 1})
    driver.promote("default")
    execution = driver.claim()["claimed"][0]["execution"]
    second = driver.enqueue("tasks.add", 2, 2, dedup={**DEBOUNCE, "max_delay": 700})
    assert not second["replaced"] and second["id"] != first and due(connection, second["id"]) > now(connection) + 590
    assert driver.settle("driven", execution, result=2) == "finished"
    assert driver.enqueue("tasks.add", 3, 3, dedup=DEBOUNCE)["id"] == second["id"]
    check(connection)


# ---- replace --------------------------------------------------------------------------------------------


def test_a_replaced_job_keeps_its_id_its_place_and_those_who_wait_for_it(driver, connection):
    driver.enqueue("tasks.noop", 0, job_id="before")
    job = driver.enqueue("tasks.add", 1, 1, dedup=REPLACE, group="g", ttl=50, meta={"old": True}, retry={"max": 3})["id"]
    driver.enqueue("tasks.noop", 0, job_id="after")
    child = driver.enqueue("tasks.noop", 0, job_id="child", depends_on={"job_ids": [job]})
    answer = driver.enqueue("tasks.add", 2, 2, dedup=REPLACE, group="h")
    assert answer["replaced"] and answer["id"] == job and answer["status"] == "queued"
    assert queued(connection) == ["before", job, "after"]
    fetched = Job.fetch(job, connection=connection)
    assert fetched.args == (2, 2) and fetched.meta == {} and fetched.retries_left is None
    assert connection.ttl(f"rq:job:{job}") == -1 and connection.smembers("rq:groups") == {b"h"}
    check(connection)
    driver.register()
    for claimed in driver.claim(limit=3)["claimed"]:
        driver.settle("driven", claimed["execution"], result=1)
    assert queued(connection) == [child["id"]]
    check(connection)


def test_a_waiting_job_is_replaced_wherever_it_waits(driver, connection):
    job = driver.enqueue("tasks.add", 1, 1, dedup=REPLACE, in_=600)["id"]
    at = int(now(connection)) + 1000
    assert driver.enqueue("tasks.add", 2, 2, dedup=REPLACE, at=at)["status"] == "scheduled" and due(connection, job) == at
    assert driver.enqueue("tasks.add", 3, 3, dedup=REPLACE)["status"] == "queued" and due(connection, job) is None
    assert driver.enqueue("tasks.add", 4, 4, dedup=REPLACE, queue="other")["replaced"]
    assert not queued(connection) and queued(connection, "other") == [job]
    driver.enqueue("tasks.noop", 1, job_id="parent")
    driver.enqueue("tasks.noop", 1, job_id="parent2")
    waits = driver.enqueue("tasks.add", 5, 5, dedup=REPLACE, depends_on={"job_ids": ["parent"]})
    assert waits["status"] == "deferred" and not queued(connection, "other")
    driver.enqueue("tasks.add", 6, 6, dedup=REPLACE, depends_on={"job_ids": ["parent2"]})
    assert connection.smembers(f"rq:job::{job}:dependencies") == {b"parent2"}
    check(connection)
    assert driver.enqueue("tasks.add", 7, 7, dedup=REPLACE, at_front=True)["status"] == "queued"
    assert queued(connection) == [job, "parent", "parent2"] and args_of(connection, job) == (7, 7)
    check(connection)


def test_a_job_that_a_stock_worker_has_taken_is_not_replaced(driver, connection):
    """Its status says `queued` until the worker has forked: it may have read the old arguments."""
    first = driver.enqueue("tasks.add", 1, 1, dedup=REPLACE)["id"]
    job, _ = Queue.dequeue_any([Queue("default", connection=connection), Queue("other", connection=connection)], None, connection)
    assert job.id == first and job.get_status() == "queued"
    second = driver.enqueue("tasks.add", 2, 2, dedup=REPLACE)
    assert not second["replaced"] and queued(connection) == [second["id"]]
    assert args_of(connection, first) == (1, 1)


def test_a_due_job_that_a_stock_scheduler_may_have_read_is_not_replaced(driver, connection):
    first = driver.enqueue("tasks.add", 1, 1, dedup=REPLACE, in_=600)["id"]
    connection.zadd("rq:scheduled:default", {first: 1})
    scheduler = RQScheduler([Queue("default", connection=connection)], connection=connection)
    assert scheduler.acquire_locks() == {"default"}
    second = driver.enqueue("tasks.add", 2, 2, dedup=REPLACE)
    assert not second["replaced"] and second["id"] != first
    scheduler.enqueue_scheduled_jobs()
    assert queued(connection) == [second["id"], first] and args_of(connection, first) == (1, 1)
    check(connection, stock=True)


def test_a_due_job_of_our_own_scheduler_is_replaced(driver, connection):
    job = driver.enqueue("tasks.add", 1, 1, dedup=REPLACE, in_=600)["id"]
    driver.promote("default")
    connection.zadd("rq:scheduled:default", {job: 1})
    assert driver.enqueue("tasks.add", 2, 2, dedup=REPLACE)["replaced"] and args_of(connection, job) == (2, 2)
    assert driver.promote("default")["promoted"] == 0 and queued(connection) == [job]


def test_stock_workers_run_what_took_the_place_of_another(system, driver, connection, marks):
    for text in ("first", "last"):
        job = driver.enqueue("tasks.leave", str(marks), text, dedup=REPLACE)["id"]
    assert Worker(["default"], connection=connection) and system.rq_worker("--burst", "default").wait() == 0
    assert marks.read_text() == "last\n" and Job.fetch(job, connection=connection).return_value() == "last"


# ---- keys -----------------------------------------------------------------------------------------------


def test_without_a_key_jobs_of_equal_function_and_arguments_are_the_same(driver):
    def enqueue(*args, func="tasks.echo", serializer="pickle", **kwargs):
        return driver.enqueue(func, *args, kwargs=kwargs, serializer=serializer, dedup={"mode": "unique"})

    first = enqueue(1, "1", a=[1], b={"x": None})
    assert not first["duplicate"]
    assert enqueue(1, "1", b={"x": None}, a=[1])["id"] == first["id"], "the order of keywords does not count"
    assert enqueue(1, "1", a=[1], b={"x": None}, serializer="json")["id"] == first["id"]
    different = [enqueue(1, 1, a=[1], b={"x": None}), enqueue("1", 1, a=[1], b={"x": None}), enqueue(1, "1", a=[1]),
                 enqueue(1, "1", a=[1], b={"x": None}, func="tasks.noop"), enqueue(True, "1", a=[1], b={"x": None})]
    assert not any(answer["duplicate"] for answer in different) and len({answer["id"] for answer in different}) == 5


@pytest.mark.parametrize("key", ["*", "a:b:{c}", "rq:queue:default", "' OR 1", "é✓ 🙂", "x" * 512, "until", "..", "%s%d\\"])
@pytest.mark.parametrize("mode", ["unique", "throttle", "debounce", "replace"])
def test_any_text_is_a_key(driver, connection, mode, key):
    dedup = {"mode": mode, "key": key} | ({"period": 60} if mode in ("throttle", "debounce") else {})
    first = driver.enqueue("tasks.noop", 1, dedup=dedup)
    second = driver.enqueue("tasks.noop", 2, dedup=dedup)
    assert second["id"] == first["id"] and second["duplicate"] != second["replaced"]
    assert not driver.enqueue("tasks.noop", 3, dedup={**dedup, "key": key[:-1] + "#"})["duplicate"]
    assert connection.hget(b"rqxx:dedup:" + key.encode(), "job").decode() == first["id"]


@pytest.mark.parametrize("tamper", [
    lambda connection: connection.set(STATE, "x"), lambda connection: connection.rpush(STATE, "x"),
    lambda connection: connection.hset(STATE, "job", "no such job"), lambda connection: connection.hset(STATE, "job", ""),
    lambda connection: connection.hset(STATE, mapping={"job": "\0*\n", "until": "soon", "first": "nan"}),
    lambda connection: (connection.set("rq:job:text", "x"), connection.hset(STATE, "job", "text")),
    lambda connection: connection.set("rqxx:dedups", "x")])
@pytest.mark.parametrize("dedup", [UNIQUE, REPLACE, THROTTLE, DEBOUNCE], ids=lambda dedup: dedup["mode"])
def test_a_state_that_somebody_has_spoilt_counts_for_nothing(driver, connection, dedup, tamper):
    tamper(connection)
    first = driver.enqueue("tasks.noop", 1, dedup=dedup)
    assert not first["duplicate"] and not first["replaced"]
    second = driver.enqueue("tasks.noop", 2, dedup=dedup)
    assert second["id"] == first["id"] and second["duplicate"] != second["replaced"]
    driver.maintain_dedups()


@pytest.mark.parametrize(("dedup", "field"), [
    ({"mode": "throttle", "key": "k"}, "dedup.period"), ({"mode": "debounce", "key": "k"}, "dedup.period"),
    ({"mode": "unique", "key": "k", "period": 1}, "dedup.period"), ({"mode": "replace", "key": "k", "period": 1}, "dedup.period"),
    ({**THROTTLE, "period": 0}, "dedup.period"), ({**THROTTLE, "period": -1}, "dedup.period"),
    ({**DEBOUNCE, "period": 10**9}, "dedup.period"), ({**DEBOUNCE, "max_delay": 599}, "dedup.max_delay"),
    ({**THROTTLE, "max_delay": 10000}, "dedup.max_delay"), ({**UNIQUE, "key": "x" * 513}, "dedup.key"),
    ({**UNIQUE, "key": "a\nb"}, "dedup.key"), ({**UNIQUE, "key": "a\0b"}, "dedup.key")])
def test_a_bad_deduplication_is_refused_by_name(driver, connection, dedup, field):
    with pytest.raises(DriverError, match=field) as refusal:
        driver.enqueue("tasks.noop", 1, dedup=dedup)
    assert refusal.value.code == "usage" and not connection.keys("rq*")


def test_a_debounced_job_has_no_other_time(driver, connection):
    with pytest.raises(DriverError, match="dedup"):
        driver.enqueue("tasks.noop", 1, dedup=DEBOUNCE, in_=5)
    with pytest.raises(DriverError, match="depends_on"):
        driver.enqueue("tasks.noop", 1, dedup=DEBOUNCE, depends_on={"job_ids": ["a"]})
    assert not connection.keys("rq*")


def test_many_jobs_in_one_call_are_deduplicated_too(driver, connection):
    made = driver.enqueue_many([{"func": "tasks.noop", "args": [n], "options": {"dedup": {"mode": "unique", "key": f"k{n % 3}"}}}
                                for n in range(9)] + [{"func": "tasks.noop", "args": [9]}])
    assert [job["duplicate"] for job in made] == [False] * 3 + [True] * 6 + [False] and len(queued(connection)) == 4
    assert [job["id"] for job in made[3:6]] == [job["id"] for job in made[:3]]


# ---- crashes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("dedup", [UNIQUE, REPLACE, THROTTLE, DEBOUNCE], ids=lambda dedup: dedup["mode"])
def test_a_producer_that_is_killed_in_between_leaves_a_job_with_its_key_or_neither(system, server, connection, dedup, after):
    proxy = Proxy(system.folder, server.socket)
    producer = system.driver(proxy.url)
    proxy.trap("enqueue_once", lambda: (producer.process.kill(), producer.process.wait(), "cut")[2], after=after)
    producer.send("enqueue", func="tasks.noop", args=[1], options={"dedup": dedup})
    with pytest.raises(EOFError):
        producer.receive()
    proxy.end()
    there = jobs(connection)
    assert len(there) == (1 if after else 0) and connection.exists(STATE) == len(there)
    answer = system.driver().enqueue("tasks.noop", 2, dedup=dedup)
    assert jobs(connection) == [answer["id"]] and there in ([], [answer["id"]])
    check(connection)


def test_keys_and_answers_outlive_a_redis_that_is_killed(system):
    server = system.redis(persistent=True)
    driver = system.driver()
    modes = {dedup["mode"]: {**dedup, "key": dedup["mode"]} for dedup in (UNIQUE, REPLACE, THROTTLE, DEBOUNCE)}
    made = {mode: driver.enqueue("tasks.noop", 1, dedup=dedup)["id"] for mode, dedup in modes.items()}
    request = {"key": "r", "asked": "this"}
    made["request"] = driver.enqueue("tasks.noop", 1, idempotency=request)["id"]
    server.stop(signal.SIGKILL)
    server.start()
    driver = system.driver()
    again = {mode: driver.enqueue("tasks.noop", 2, dedup=dedup) for mode, dedup in modes.items()}
    again["request"] = driver.enqueue("tasks.noop", 1, idempotency=request)
    assert {mode: answer["id"] for mode, answer in again.items()} == made
    assert {mode for mode, answer in again.items() if answer["duplicate"]} == {"unique", "throttle"}
    assert again["request"]["repeated"] and len(jobs(server.client)) == 5
    check(server.client)


def test_a_redis_that_takes_no_writes_leaves_everything_as_it_was(driver, connection):
    for dedup in (UNIQUE, REPLACE, DEBOUNCE):
        driver.enqueue("tasks.noop", 1, dedup={**dedup, "key": dedup["mode"]})
    before = Snapshot(connection).content
    connection.config_set("maxmemory", 1)
    for dedup in (REPLACE, DEBOUNCE, THROTTLE, {**UNIQUE, "key": "new"}):
        with pytest.raises(DriverError, match="OOM"):
            driver.enqueue("tasks.noop", 2, dedup={**dedup, "key": dedup["mode"] if dedup["key"] == "k" else dedup["key"]})
    with pytest.raises(DriverError, match="OOM"):
        driver.enqueue("tasks.noop", 2, dedup={**UNIQUE, "key": "unique"}, idempotency={"key": "r", "asked": "this"})
    connection.config_set("maxmemory", 0)
    assert Snapshot(connection).content == before


# ---- what is kept ---------------------------------------------------------------------------------------


def test_keys_of_ended_jobs_are_forgotten_and_others_kept(driver, connection):
    driver.register()
    made = {name: driver.enqueue("tasks.noop", 1, dedup={**UNIQUE, "key": name})["id"] for name in ("ended", "gone")}
    for claimed in driver.claim(limit=2)["claimed"]:
        driver.settle("driven", claimed["execution"])
    driver.delete(made["gone"])
    driver.enqueue("tasks.noop", 1, dedup={**UNIQUE, "key": "waits"})
    driver.enqueue("tasks.noop", 1, dedup={**DEBOUNCE, "key": "scheduled"})
    assert driver.maintain_dedups() == 0, "none is to be looked at yet"
    connection.zadd("rqxx:dedups", {name: 1 for name in ("ended", "gone", "waits", "scheduled", "never was")})
    connection.delete("rqxx:maintained:*dedups")
    assert driver.maintain_dedups() == 2
    assert {key.decode() for key in connection.keys("rqxx:dedup:*")} == {"rqxx:dedup:waits", "rqxx:dedup:scheduled"}
    assert set(connection.zrange("rqxx:dedups", 0, -1)) == {b"waits", b"scheduled"}
    assert connection.zscore("rqxx:dedups", "waits") > now(connection) + 50
    assert connection.ttl("rqxx:dedup:waits") > 29 * 86400, "whatever becomes of us, it ends"


def test_many_keys_are_forgotten_in_one_pass(driver, connection):
    driver.enqueue_many([{"func": "tasks.noop", "options": {"dedup": {"mode": "unique", "key": f"k{n}"}}} for n in range(1200)])
    connection.delete(*(f"rq:job:{job_id}" for job_id in queued(connection)))
    connection.zadd("rqxx:dedups", {f"k{n}": 1 for n in range(1200)})
    assert driver.maintain_dedups() == 1200 and not connection.keys("rqxx:dedup*")


# ---- idempotent requests --------------------------------------------------------------------------------


def test_a_repeated_request_is_answered_as_the_first_time(driver, connection):
    request = {"key": "r", "asked": "this"}
    first = driver.enqueue("tasks.noop", 1, idempotency=request, in_=60)
    assert not first["repeated"] and 86390 < connection.ttl("rqxx:idempotency:r") <= 86400
    driver.delete(first["id"])
    assert driver.enqueue("tasks.noop", 1, idempotency=request) == {**first, "repeated": True}, "also when its job is gone"
    with pytest.raises(DriverError, match="idempotency_key") as refusal:
        driver.enqueue("tasks.noop", 1, idempotency={**request, "asked": "that"})
    assert refusal.value.code == "usage" and not jobs(connection)
    connection.delete("rqxx:idempotency:r")
    assert not driver.enqueue("tasks.noop", 1, idempotency=request)["repeated"]


def test_a_refusal_is_repeated_too(driver, connection):
    first = driver.enqueue("tasks.noop", 1, dedup=UNIQUE)
    refused = driver.enqueue("tasks.noop", 2, dedup=UNIQUE, idempotency={"key": "r", "asked": "this"})
    driver.cancel(first["id"])
    again = driver.enqueue("tasks.noop", 2, dedup=UNIQUE, idempotency={"key": "r", "asked": "this"})
    assert refused["duplicate"] and again == {**refused, "repeated": True}


def test_of_16_producers_with_one_request_one_enqueues(system, connection):
    drivers = [system.driver() for _ in range(PRODUCERS)]
    for driver in drivers:
        driver.send("enqueue", func="tasks.noop", args=[1], options={"idempotency": {"key": "r", "asked": "this"}})
    answers = [driver.receive() for driver in drivers]
    assert collections.Counter(answer["repeated"] for answer in answers) == {False: 1, True: PRODUCERS - 1}
    assert {answer["id"] for answer in answers} == set(queued(connection)) and len(queued(connection)) == 1


@pytest.mark.parametrize("spoilt", [lambda c: c.set("rqxx:idempotency:r", "x"), lambda c: c.zadd("rqxx:idempotency:r", {"x": 1})])
def test_a_spoilt_record_of_a_request_counts_for_nothing(driver, connection, spoilt):
    spoilt(connection)
    first = driver.enqueue("tasks.noop", 1, idempotency={"key": "r", "asked": "this"})
    assert not first["repeated"] and driver.enqueue("tasks.noop", 1, idempotency={"key": "r", "asked": "this"})["repeated"]
