"""Limits across workers: what Redis saw claimed, under random arrivals, with workers killed at random."""

import json
import random
import sys
import threading
import time

import pytest
import rq
from claims import Claims, most_at_once, most_in_any_window, spans
from conftest import BUILD, INTEROP, wait_for
from test_priorities import finished, make_jobs, rqxx, set_rule

SEED = random.SystemRandom().randrange(1 << 32)


def executions(claims):
    return [when for when, _, _ in claims]


def check_token_bucket(times, limit, per, burst):
    for begin in range(len(times)):
        for end in range(begin, len(times)):
            allowed = burst + (times[end] - times[begin]) * limit / per
            assert end - begin + 1 <= allowed + 1e-3, (begin, end, times[begin], times[end])


def check_leaky_bucket(times, limit, per):
    """One at a time; a quarter of the time between two may be made up for."""
    check_token_bucket(times, limit, per, 1.25)


def check_fixed_window(times, limit, per):
    windows = {}
    for when in times:
        windows[int(round(when * 1e6)) // int(per * 1e6)] = windows.get(int(round(when * 1e6)) // int(per * 1e6), 0) + 1
    assert max(windows.values()) <= limit, windows


def check_sliding_window(times, limit, per):
    assert most_in_any_window([int(round(when * 1e6)) for when in times], int(per * 1e6)) <= limit


KINDS = {
    "token-bucket": (["--limit", "20", "--per", "500ms", "--burst", "8"], lambda times: check_token_bucket(times, 20, 0.5, 8)),
    "leaky-bucket": (["--limit", "20", "--per", "500ms"], lambda times: check_leaky_bucket(times, 20, 0.5)),
    "fixed-window": (["--limit", "20", "--per", "500ms"], lambda times: check_fixed_window(times, 20, 0.5)),
    "sliding-window": (["--limit", "20", "--per", "500ms"], lambda times: check_sliding_window(times, 20, 0.5)),
}


@pytest.mark.parametrize("keyed", [False, True], ids=["queue", "key"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_window_exceeds_the_limit_whoever_dies(system, connection, kind, keyed):
    """Random arrivals, three workers, one of which is killed and replaced again and again."""
    dice = random.Random(SEED)
    print("seed", SEED)
    arguments, check = KINDS[kind]
    set_rule(system, "test", "--kind", kind, *arguments, "--queue", "default", *(["--key", "args[0]"] if keyed else []))
    claims = Claims(system.server)
    workers = [system.test_worker("default") for _ in range(3)]
    stop = threading.Event()

    def kill():
        while not stop.wait(dice.uniform(0.3, 1.0)):
            victim = dice.randrange(3)
            workers[victim].signal(9)
            workers[victim].wait()
            workers[victim] = system.test_worker("default")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        made = 0
        while made < 150:
            count = min(dice.randrange(1, 30), 150 - made)
            for n in range(made, made + count):
                make_jobs(connection, "default", 1, args=(n % 2 if keyed else 0,), prefix=f"job{n}k{n % 2 if keyed else 0}")
            made += count
            time.sleep(dice.uniform(0, 0.4))
        wait_for(lambda: connection.zcard("rq:finished:default") > 100, 60)
    finally:
        stop.set()
        killer.join()
    # Those of killed workers come back within 15 s, and nothing is lost.
    wait_for(lambda: connection.zcard("rq:finished:default") == 150, 60)
    seen = claims.end()
    for key in ["k0", "k1"] if keyed else ["k0"]:
        times = [when for when, job, _ in seen if job.split("-")[0].endswith(key)]
        assert len(times) >= 75
        check(times)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saturated_limit_is_used_to_95_percent(system, connection, kind):
    # Of a leaky bucket a quarter of the time between two jobs may be made up for: what waking up takes on a busy machine.
    limit = 10 if kind == "leaky-bucket" else 50
    burst = ["--burst", "5"] if kind == "token-bucket" else []
    set_rule(system, "test", "--kind", kind, "--limit", str(limit), "--per", "1s", *burst, "--function", "tasks.noop")
    make_jobs(connection, "default", 1000)
    claims = Claims(system.server)
    for _ in range(2):
        system.test_worker("default")
    wait_for(lambda: connection.zcard("rq:finished:default") >= limit * 5.2, 30)
    times = executions(claims.end())
    # Whole windows from the first claim on; what goes on in the last one does not count.
    begin = times[0] if kind != "fixed-window" else int(times[0]) + 1
    whole = int(times[-1] - begin)
    counted = len([when for when in times if begin <= when < begin + whole])
    assert counted >= 0.95 * limit * whole, (counted, whole)


def test_a_limit_on_how_many_run_holds_across_workers_and_comes_back_from_the_dead(system, connection):
    set_rule(system, "few", "--kind", "concurrency", "--limit", "3", "--function", "tasks.timed")
    path = system.folder / "spans"
    queue = rq.Queue("default", connection=connection)
    jobs = [queue.enqueue("tasks.timed", str(path), "x", 0.2) for _ in range(40)]
    workers = [system.test_worker("--concurrency", "4", "default") for _ in range(3)]
    killed = {}
    wait_for(lambda: path.exists() and len(path.read_text().splitlines()) > 20, 30)
    for victim in (0, 1):
        workers[victim].signal(9)
        workers[victim].wait()
        killed[workers[victim].process.pid] = time.time()
    assert connection.zcard("rqxx:limit:concurrency:few") <= 3
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs), 60)
    runs = spans(path, killed)
    assert most_at_once(runs) == 3
    wait_for(lambda: not connection.exists("rqxx:limit:concurrency:few"))
    assert not list(connection.scan_iter("rqxx:holds:*"))


def test_slots_of_a_killed_worker_come_back_within_15_seconds(system, connection):
    set_rule(system, "one", "--kind", "concurrency", "--limit", "1", "--queue", "default")
    queue = rq.Queue("default", connection=connection)
    first = queue.enqueue("tasks.slow", 60)
    worker = system.test_worker("default")
    wait_for(lambda: first.get_status() == "started")
    second = queue.enqueue("tasks.noop", 2)
    system.test_worker("default").wait_for_log("Worker started")
    time.sleep(0.5)
    assert second.get_status() == "queued"
    worker.signal(9)
    died = time.time()
    connection.hset("rq:job:" + first.id, "timeout", "1")
    wait_for(lambda: connection.hget("rq:job:" + first.id, "rqxx_recoveries") == b"1", 20)
    assert time.time() - died <= 15
    wait_for(lambda: second.get_status() == "finished", 20)


def test_keys_overtake_each_other_and_keep_their_own_order(system, connection):
    set_rule(system, "each", "--kind", "token-bucket", "--limit", "4", "--per", "1s", "--burst", "1", "--key", "args[0]",
             "--queue", "default")
    queue = rq.Queue("default", connection=connection)
    ids = {}
    for key in ["a"] * 8 + ["b"] * 4 + ["c"]:
        ids.setdefault(key, []).append(queue.enqueue("tasks.noop", 1).id if key == "x" else queue.enqueue("tasks.echo", key).id)
    claims = Claims(system.server)
    assert system.test_worker("--burst", "default").wait(60) == 0
    order = [job for _, job, _ in claims.end()]
    for key in "abc":
        assert [job for job in order if job in ids[key]] == ids[key]
    assert order.index(ids["c"][0]) < order.index(ids["a"][1])


def test_several_limits_hold_at_once_with_points(system, connection):
    set_rule(system, "all", "--kind", "sliding-window", "--limit", "30", "--per", "1s", "--queue", "default")
    set_rule(system, "heavy", "--kind", "sliding-window", "--limit", "10", "--per", "1s", "--function", "tasks.echo",
             "--points", "kwargs.weight")
    set_rule(system, "tenant", "--kind", "token-bucket", "--limit", "10", "--per", "1s", "--burst", "2", "--key", "kwargs.tenant")
    queue = rq.Queue("default", connection=connection)
    weights, tenants = {}, {}
    for n in range(40):
        weight, tenant = n % 4 + 1, "ab"[n % 2]
        job = queue.enqueue("tasks.echo", weight=weight, tenant=tenant)
        weights[job.id], tenants[job.id] = weight, tenant
    claims = Claims(system.server)
    for worker in [system.test_worker("--burst", "default") for _ in range(2)]:
        assert worker.wait(60) == 0
    seen = claims.end()
    assert len(seen) == 40
    micro = [int(round(when * 1e6)) for when, _, _ in seen]
    check_sliding_window([when for when, _, _ in seen], 30, 1)
    points = [at for at, (_, job, _) in zip(micro, seen) for _ in range(weights[job])]
    assert most_in_any_window(points, 1_000_000) <= 10
    for tenant in "ab":
        check_token_bucket([when for when, job, _ in seen if tenants[job] == tenant], 10, 1, 2)


def test_a_wide_window_keeps_little_more_than_what_counts(system, connection):
    set_rule(system, "wide", "--kind", "sliding-window", "--limit", "10000", "--per", "1s", "--queue", "default")
    queue = rq.Queue("default", connection=connection)
    for _ in range(4):
        queue.enqueue_many([rq.Queue.prepare_data("tasks.noop", (n,)) for n in range(100)])
        assert system.test_worker("--burst", "default").wait(60) == 0
        kept = connection.llen("rqxx:limit:sliding-window:wide")
        assert 100 <= kept < 100 + 64, kept
        time.sleep(1.1)   # All have left the window, and the key is still there.


def test_a_limit_is_edited_and_removed_while_jobs_wait(system, connection):
    set_rule(system, "slow", "--kind", "token-bucket", "--limit", "1", "--per", "1h", "--burst", "1", "--function", "tasks.noop")
    queue = rq.Queue("default", connection=connection)
    jobs = [queue.enqueue("tasks.noop", n) for n in range(20)]
    system.test_worker("default")
    wait_for(lambda: sum(job.get_status() == "finished" for job in jobs) == 1)
    time.sleep(0.5)
    assert sum(job.get_status() == "finished" for job in jobs) == 1
    set_rule(system, "slow", "--kind", "concurrency", "--limit", "1", "--function", "tasks.noop")
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs))
    set_rule(system, "slow", "--kind", "fixed-window", "--limit", "1", "--per", "1h", "--function", "tasks.noop")
    jobs = [queue.enqueue("tasks.noop", n) for n in range(20)]
    wait_for(lambda: sum(job.get_status() == "finished" for job in jobs) >= 1)
    rqxx(system, "limit", "remove", "slow")
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs))
    assert connection.exists("rqxx:lanes:default", "rqxx:sorted", "rqxx:waiting") == 0


def test_a_limit_that_is_pushed_back_lets_nothing_pass_until_then(system, connection):
    set_rule(system, "api", "--kind", "token-bucket", "--limit", "100", "--per", "1s", "--function", "tasks.noop")
    system.test_worker("default").wait_for_log("Worker started")
    rqxx(system, "limit", "push-back", "api", "2s")
    begin = time.time()
    job = rq.Queue("default", connection=connection).enqueue("tasks.noop", 1)
    listed = json.loads(rqxx(system, "limit", "list", "--json"))
    assert listed[0]["limiters"][0]["pushed_back_until"] is not None
    wait_for(lambda: job.get_status() == "finished")
    assert time.time() - begin > 1.8
    rqxx(system, "limit", "push-back", "api", "1h")
    job = rq.Queue("default", connection=connection).enqueue("tasks.noop", 1)
    time.sleep(0.5)
    assert job.get_status() == "queued"
    rqxx(system, "limit", "push-back", "api", "0")
    wait_for(lambda: job.get_status() == "finished")


@pytest.mark.parametrize("where", ["thread", "process", "python"])
def test_a_job_that_is_told_to_come_back_later_holds_its_limits_back(system, connection, where):
    set_rule(system, "api", "--kind", "token-bucket", "--limit", "100", "--per", "1s", "--function", "tasks.*")
    set_rule(system, "few", "--kind", "concurrency", "--limit", "5", "--queue", "default")
    queue = rq.Queue("default", connection=connection)
    if where == "python":
        system.run(BUILD / "rqxx", "worker", "--redis-url", system.server.url, "--python", sys.executable, "--path", INTEROP,
                   "--with-scheduler", "default")
    else:
        system.test_worker("--with-scheduler", *(["--processes"] if where == "process" else []), "default")
    told = queue.enqueue("tasks.told", str(system.folder / "told"), 3)
    wait_for(lambda: told.get_status() == "scheduled")
    begin = time.time()
    other = queue.enqueue("tasks.noop", 1)
    time.sleep(1)
    assert other.get_status() == "queued"
    wait_for(lambda: told.get_status() == other.get_status() == "finished")
    assert time.time() - begin > 1.8
    assert told.return_value() == "done" and not connection.exists("rqxx:limit:concurrency:few")
    assert not connection.zcard("rq:failed:default")


def test_each_worker_by_itself(system, connection):
    set_rule(system, "each", "--kind", "concurrency", "--limit", "2", "--function", "tasks.timed", "--scope", "worker")
    path = system.folder / "spans"
    queue = rq.Queue("default", connection=connection)
    jobs = [queue.enqueue("tasks.timed", str(path), "x", 0.3) for _ in range(24)]
    workers = [system.test_worker("--concurrency", "6", "default") for _ in range(2)]
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs), 30)
    by_pid = {}
    for line in path.read_text().splitlines():
        now, event, execution, pid, _ = line.split(" ", 4)
        by_pid.setdefault(pid, {}).setdefault(execution, {})[event] = float(now)
    assert len(by_pid) == 2
    for runs in by_pid.values():
        assert most_at_once([(run["start"], run["end"], "") for run in runs.values()]) == 2
    assert most_at_once(spans(path)) == 4
    del workers


@pytest.mark.parametrize("how", ["paused", "limited", "function"])
def test_a_million_waiting_jobs_that_may_not_start_cost_workers_nothing(system, connection, how):
    count = 1_000_000
    if how == "paused":
        rqxx(system, "queue", "pause", "default")
    elif how == "limited":
        set_rule(system, "slow", "--kind", "fixed-window", "--limit", "1", "--per", "1d", "--queue", "default")
    else:
        set_rule(system, "slow", "--kind", "concurrency", "--limit", "1", "--function", "tasks.noop")
        connection.zadd("rqxx:limit:concurrency:slow", {"somebody|x:y": 1})
    make_jobs(connection, "default", count)
    workers = [system.test_worker("default", "other") for _ in range(2)]
    for worker in workers:
        worker.wait_for_log("Worker started")
    if how == "function":
        wait_for(lambda: int(connection.hget("rqxx:sorted", "default") or 0) == count, 180)
    time.sleep(3)

    def commands():
        stats = connection.info("commandstats")
        return sum(entry["calls"] for name, entry in stats.items() if name != "cmdstat_info")

    before = commands()
    time.sleep(6)
    with_jobs = commands() - before
    # The same without a job: heartbeats and the janitor's sweeps go on.
    rqxx(system, "limit", "remove", "slow") if how != "paused" else None
    connection.delete("rq:queue:default", "rqxx:lanes:default", "rqxx:sorted", *connection.keys("rqxx:l*@default"),
                      *connection.keys("rqxx:r*@default"), *connection.keys("rqxx:waiters:*"))
    time.sleep(6)
    before = commands()
    time.sleep(6)
    without = commands() - before
    # Commands inside scripts are counted too: a claim each five seconds and the look after limits each two are all there is.
    assert with_jobs <= without + 2 * 6 * 10, (with_jobs, without)
    other = rq.Queue("other", connection=connection).enqueue("tasks.noop", 1)
    wait_for(lambda: other.get_status() == "finished")


@pytest.mark.parametrize("args, told", [
    (["--kind", "leak", "--limit", "1"], "--kind"),
    (["--kind", "concurrency", "--limit", "0"], "--limit"),
    (["--kind", "concurrency", "--limit", "-1"], "--limit"),
    (["--kind", "concurrency", "--limit", "1", "--per", "1s"], "--per"),
    (["--kind", "token-bucket", "--limit", "1"], "--per"),
    (["--kind", "token-bucket", "--limit", "1", "--per", "-1s"], "--per"),
    (["--kind", "token-bucket", "--limit", "1", "--per", "soon"], "--per"),
    (["--kind", "fixed-window", "--limit", "1", "--per", "1s", "--burst", "2"], "--burst"),
    (["--kind", "sliding-window", "--limit", "100000", "--per", "1s"], "--limit"),
    (["--kind", "concurrency", "--limit", "1", "--key", "args"], "--key"),
    (["--kind", "concurrency", "--limit", "1", "--key", "meta.a..b"], "--key"),
    (["--kind", "concurrency", "--limit", "2", "--points", "3"], "--points"),
    (["--kind", "concurrency", "--limit", "2", "--points", "0"], "--points"),
    (["--kind", "concurrency", "--limit", "2", "--points", "os.system"], "--points"),
    (["--kind", "token-bucket", "--limit", "2", "--per", "1s", "--scope", "worker"], "--scope"),
    (["--kind", "concurrency", "--limit", "2", "--scope", "planet"], "--scope"),
])
def test_bad_limits_are_refused(system, connection, args, told):
    refused = system.rqxx("limit", "set", "x", *args, "--redis-url", system.server.url)
    assert refused.returncode == 2 and told in refused.stderr, refused.stderr
    assert refused.stderr.count("\n") == 1
    assert connection.dbsize() == 0


def test_bad_names_are_refused(system, connection):
    for name in ["", "a b", "a:b", "a|b", "x" * 201]:
        refused = system.rqxx("limit", "set", name, "--kind", "concurrency", "--limit", "1", "--redis-url", system.server.url)
        assert refused.returncode == 2 and "name" in refused.stderr, (name, refused.stderr)
    gone = system.rqxx("limit", "remove", "nothing", "--redis-url", system.server.url)
    assert gone.returncode == 1 and "there is no limit nothing" in gone.stderr


def test_rules_that_somebody_else_has_broken_hold_for_nobody(system, connection):
    for name, text in {"a": b"\xff\x00", "b": b"{}", "c": b'{"kind":"token-bucket","limit":1e99,"per":0}', "d": b"[" * 100,
                       "e": b'{"kind":"pause","queue":7}'}.items():
        connection.hset("rqxx:rules", name, text)
    connection.incr("rqxx:rules:version")
    connection.sadd("rqxx:waiting", "a", "b:x", "nothing", b"\xff")
    system.test_worker("default")
    job = rq.Queue("default", connection=connection).enqueue("tasks.noop", 1)
    wait_for(lambda: job.get_status() == "finished")
    listed = system.rqxx("limit", "list", "--redis-url", system.server.url)
    assert listed.returncode == 0 and listed.stderr.count("holds for nobody") == 5


def test_hostile_keys_neither_mix_nor_break(system, connection):
    set_rule(system, "each", "--kind", "token-bucket", "--limit", "1", "--per", "1h", "--key", "args[0]", "--queue", "default")
    hostile = ["", "a", "a|b", "a=b*2", "a@default", "*", "%", "\n", "\x00", "ключ", "x" * 5000, "x" * 5001, "a:b", 1, 1.5, None, [1],
               {"a": 1}, "1"]
    queue = rq.Queue("default", connection=connection)
    jobs = [queue.enqueue("tasks.echo", key) for key in hostile for _ in range(2)]
    system.test_worker("default")
    # One of each key, those without a scalar sharing one with "": 1 and "1" are one key as well.
    wait_for(lambda: sum(job.get_status() == "finished" for job in jobs) == len(hostile) - 4, 20)
    time.sleep(0.5)
    assert sum(job.get_status() == "finished" for job in jobs) == len(hostile) - 4
    rqxx(system, "limit", "remove", "each")
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs), 20)


def test_jobs_that_cannot_be_read_fail_and_hold_nobody_up(system, connection):
    set_rule(system, "few", "--kind", "concurrency", "--limit", "1", "--key", "args[0]", "--queue", "default")
    queue = rq.Queue("default", connection=connection)
    bad = queue.enqueue("tasks.noop", 1)
    connection.hset("rq:job:" + bad.id, "data", b"garbage")
    gone = queue.enqueue("tasks.noop", 1)
    connection.delete("rq:job:" + gone.id)
    canceled = queue.enqueue("tasks.noop", 1)
    rqxx(system, "queue", "pause", "default")
    system.test_worker("default")
    good = queue.enqueue("tasks.noop", 1)
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"4")
    canceled.cancel()
    rqxx(system, "queue", "resume", "default")
    wait_for(lambda: good.get_status() == "finished" and bad.get_status() == "failed")
    assert canceled.get_status() == "canceled"
    wait_for(lambda: connection.hget("rqxx:sorted", "default") is None)


def test_what_goes_back_to_the_front_is_first_again(system, connection):
    set_rule(system, "each", "--kind", "concurrency", "--limit", "1", "--key", "args[0]", "--queue", "default")
    queue = rq.Queue("default", connection=connection)
    slow = queue.enqueue("tasks.slow_raw", str(system.folder / "left"))
    later = [queue.enqueue("tasks.echo", str(system.folder / "left")) for _ in range(3)]
    worker = system.test_worker("--grace", "0", "default")
    wait_for(lambda: slow.get_status() == "started")
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"3")
    worker.signal(15)
    worker.wait()
    assert slow.get_status() == "queued"
    claims = Claims(system.server)
    system.test_worker("default")
    wait_for(lambda: slow.get_status() == "started")
    assert [job for _, job, _ in claims.end()] == [slow.id]
    assert {job.get_status() for job in later} == {"queued"}
    assert finished(connection) == {}
