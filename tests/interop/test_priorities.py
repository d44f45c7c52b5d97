"""Which queue and whose job is served next: weights, ageing, slots, turns between keys; pauses."""

import json
import pickle
import threading
import time
import zlib

import pytest
import rq
from claims import Claims, most_at_once, spans
from conftest import BUILD, wait_for

# Many jobs at once, as RQ's producers leave them; ARGV: queue, prefix, from, count, now, data.
MAKE_JOBS = """
redis.call('SADD', 'rq:queues', 'rq:queue:' .. ARGV[1])
for n = tonumber(ARGV[3]), tonumber(ARGV[3]) + tonumber(ARGV[4]) - 1 do
    local id = ARGV[2] .. '-' .. n
    redis.call('HSET', 'rq:job:' .. id, 'status', 'queued', 'origin', ARGV[1], 'data', ARGV[6], 'created_at', ARGV[5],
        'enqueued_at', ARGV[5], 'description', '', 'timeout', '180')
    redis.call('RPUSH', 'rq:queue:' .. ARGV[1], id)
end
"""


def make_jobs(connection, queue, count, function="tasks.noop", args=(1,), prefix=None):
    data = zlib.compress(pickle.dumps((function, None, args, {})))
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    script = connection.register_script(MAKE_JOBS)
    for begin in range(0, count, 10000):
        script(args=[queue, prefix or queue, begin, min(10000, count - begin), now, data])


def set_rule(system, *args):
    done = system.rqxx("limit", "set", *args, "--redis-url", system.server.url)
    assert done.returncode == 0, done.stderr


def rqxx(system, *args):
    done = system.rqxx(*args, "--redis-url", system.server.url)
    assert done.returncode == 0, done.stderr
    return done.stdout


def finished(connection):
    totals = connection.hgetall("rqxx:totals")
    return {field.decode().split("|", 1)[1]: int(count) for field, count in totals.items() if field.startswith(b"finished|")}


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_weighted_queues_get_their_shares_while_all_have_jobs(system, connection, workers):
    for queue in ("high", "default", "low"):
        make_jobs(connection, queue, 10000)
    running = [system.test_worker("--strategy", "weighted", "--weight", "high=6", "--weight", "default=3", "--weight", "low=1",
                                  "--max-jobs", str(10000 // workers), "high", "default", "low") for _ in range(workers)]
    for worker in running:
        assert worker.wait(60) == 0
    done = finished(connection)
    assert sum(done.values()) == 10000
    for queue, share in {"high": 0.6, "default": 0.3, "low": 0.1}.items():
        assert abs(done[queue] / 10000 - share) <= 0.01, done


def test_weights_hold_for_those_that_have_jobs_and_nobody_saves_up(system, connection):
    make_jobs(connection, "high", 200)
    make_jobs(connection, "low", 1000)
    claims = Claims(system.server)
    worker = system.test_worker("--strategy", "weighted", "--weight", "high=3", "--weight", "low=1", "--concurrency", "1",
                                "--burst", "high", "low")
    assert worker.wait(60) == 0
    order = [job.split("-")[0] for _, job, _ in claims.end()]
    # 3 of 4 are high until there are no more.
    assert order[:264].count("high") in range(197, 200)
    assert set(order[270:]) == {"low"}


def test_strict_order_starts_no_lower_job_while_a_higher_one_waits(system, connection):
    for queue in ("low", "default", "high"):
        make_jobs(connection, queue, 500)
    claims = Claims(system.server)
    workers = [system.test_worker("--concurrency", "4", "--burst", "high", "default", "low") for _ in range(3)]
    for worker in workers:
        assert worker.wait(60) == 0
    # A job that was claimed ahead and came back counts where it was claimed first.
    order = [job.split("-")[0] for job in dict.fromkeys(job for _, job, _ in claims.end())]
    assert order == ["high"] * 500 + ["default"] * 500 + ["low"] * 500


def feed(connection, queue, stop, target):
    """Keeps a queue full with jobs of a few milliseconds."""
    made = 0
    while not stop.is_set():
        waiting = connection.llen("rq:queue:" + queue)
        if waiting < target:
            make_jobs(connection, queue, target - waiting, "tasks.slow", (0.02,), f"{queue}{made}")
            made += 1
        time.sleep(0.01)


def test_an_aged_job_is_served_though_a_higher_queue_is_always_full(system, connection):
    stop = threading.Event()
    feeder = threading.Thread(target=feed, args=(connection, "high", stop, 50))
    claims = Claims(system.server)
    feeder.start()
    try:
        wait_for(lambda: connection.llen("rq:queue:high") > 0)
        system.test_worker("--ageing", "2", "--concurrency", "1", "high", "low")
        low = rq.Queue("low", connection=connection)
        jobs = []
        for _ in range(5):
            jobs.append(low.enqueue("tasks.noop", 1))
            time.sleep(0.3)
        wait_for(lambda: all(job.get_status() == "finished" for job in jobs), 30)
    finally:
        stop.set()
        feeder.join()
    started = {job: when for when, job, _ in claims.end()}
    for job in jobs:
        waited = started[job.id] - job.enqueued_at.timestamp()
        assert 2 <= waited, "before its time"
        # One job of 20 ms runs then, and one more of the other queue may come first; the rest is what the machine takes.
        assert waited < 3, waited


def test_without_ageing_the_lower_queue_waits(system, connection):
    stop = threading.Event()
    feeder = threading.Thread(target=feed, args=(connection, "high", stop, 50))
    feeder.start()
    try:
        wait_for(lambda: connection.llen("rq:queue:high") > 0)
        system.test_worker("--concurrency", "1", "high", "low")
        job = rq.Queue("low", connection=connection).enqueue("tasks.noop", 1)
        time.sleep(3)
        assert job.get_status() == "queued"
    finally:
        stop.set()
        feeder.join()


def test_a_worker_runs_no_more_jobs_of_a_queue_than_it_has_slots_for(system, connection):
    path = system.folder / "spans"
    for queue in ("low", "high"):
        for _ in range(12):
            rq.Queue(queue, connection=connection).enqueue("tasks.timed", str(path), queue, 0.1)
    worker = system.test_worker("--queue-slots", "low=2", "--concurrency", "8", "--burst", "low", "high")
    assert worker.wait(60) == 0
    runs = spans(path)
    assert len(runs) == 24
    assert most_at_once([run for run in runs if run[2] == "low"]) == 2
    assert most_at_once(runs) > 2


def test_a_tenant_with_many_jobs_delays_the_single_job_of_another_by_one_round(system, connection):
    rqxx(system, "queue", "fair", "default", "args[0]")
    make_jobs(connection, "default", 100_000, args=("big",), prefix="big")
    make_jobs(connection, "default", 1, args=("small",), prefix="small")
    make_jobs(connection, "default", 3, args=("medium",), prefix="medium")
    claims = Claims(system.server)
    # Nothing runs before all are sorted: the small ones stand at the end of the list.
    rqxx(system, "queue", "pause", "default")
    worker = system.test_worker("--concurrency", "1", "--max-jobs", "20", "default")
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"100004", 60)
    rqxx(system, "queue", "resume", "default")
    assert worker.wait(60) == 0
    order = [job.split("-")[0] for _, job, _ in claims.end()]
    assert order[:3].count("small") == 1
    assert order[:7].count("medium") == 3
    assert len(order) == 20


def test_jobs_without_the_key_share_one_turn(system, connection):
    rqxx(system, "queue", "fair", "default", "kwargs.tenant")
    queue = rq.Queue("default", connection=connection)
    for _ in range(6):
        queue.enqueue("tasks.echo", 1)
    for _ in range(3):
        queue.enqueue("tasks.echo", tenant="a")
    claims = Claims(system.server)
    rqxx(system, "queue", "pause", "default")
    worker = system.test_worker("--concurrency", "1", "--burst", "default")
    assert worker.wait(30) == 0
    rqxx(system, "queue", "resume", "default")
    worker = system.test_worker("--concurrency", "1", "--burst", "default")
    assert worker.wait(30) == 0
    order = [rq.job.Job.fetch(job, connection=connection).kwargs.get("tenant") for _, job, _ in claims.end()]
    assert order.count("a") == 3 and order[:6].count("a") == 3, order


def test_a_worker_can_say_how_its_queues_are_shared(system, connection):
    worker = system.run(BUILD / "rqxx", "worker", "default", "other", "--fair-by", "args[0]", "--fair-by", "other=meta.tenant",
                        "--redis-url", system.server.url)
    worker.wait_for_log("Worker started")
    rules = {name.decode(): json.loads(rule) for name, rule in connection.hgetall("rqxx:rules").items()}
    assert rules == {"fair-default": {"kind": "fair", "queue": "default", "key": "args[0]"},
                     "fair-other": {"kind": "fair", "queue": "other", "key": "meta.tenant"}}
    version = connection.get("rqxx:rules:version")
    worker.signal(15)
    assert worker.wait() == 0
    worker = system.run(BUILD / "rqxx", "worker", "default", "--fair-by", "args[0]", "--redis-url", system.server.url)
    worker.wait_for_log("Worker started")
    assert connection.get("rqxx:rules:version") == version


def test_jobs_go_back_to_their_list_when_nothing_tells_them_apart_any_more(system, connection):
    rqxx(system, "queue", "fair", "default", "args[0]")
    rqxx(system, "queue", "pause", "default")
    queue = rq.Queue("default", connection=connection)
    ids = [queue.enqueue("tasks.noop", n % 7).id for n in range(500)]
    worker = system.test_worker("default")
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"500")
    assert connection.llen("rq:queue:default") == 0
    rqxx(system, "queue", "fair", "default", "--off")
    wait_for(lambda: connection.llen("rq:queue:default") == 500)
    assert sorted(queue.job_ids) == sorted(ids)
    left = [key for key in connection.scan_iter("rqxx:*") if not key.startswith((b"rqxx:lease", b"rqxx:sweeper", b"rqxx:rules"))]
    assert [key for key in left if b"lane" in key or b"ready" in key or b"ring" in key or b"sorted" in key] == []
    rqxx(system, "queue", "resume", "default")
    wait_for(lambda: finished(connection).get("default") == 500)
    worker.signal(15)
    assert worker.wait() == 0


def test_a_paused_queue_starts_nothing_until_it_is_resumed(system, connection):
    worker = system.test_worker("default", "other")
    worker.wait_for_log("Worker started")
    rqxx(system, "queue", "pause", "default")
    job = rq.Queue("default", connection=connection).enqueue("tasks.noop", 1)
    other = rq.Queue("other", connection=connection).enqueue("tasks.noop", 2)
    wait_for(lambda: other.get_status() == "finished")
    time.sleep(1)
    assert job.get_status() == "queued" and connection.llen("rq:queue:default") == 1
    assert "paused" in rqxx(system, "queue", "pause", "default")
    rqxx(system, "queue", "resume", "default")
    wait_for(lambda: job.get_status() == "finished")


def test_a_paused_function_waits_and_others_of_its_queue_go_on(system, connection):
    system.test_worker("default").wait_for_log("Worker started")
    rqxx(system, "function", "pause", "tasks.noop")
    queue = rq.Queue("default", connection=connection)
    held = [queue.enqueue("tasks.noop", n) for n in range(5)]
    free = [queue.enqueue("tasks.add", n, 1) for n in range(5)]
    wait_for(lambda: all(job.get_status() == "finished" for job in free))
    time.sleep(0.5)
    assert {job.get_status() for job in held} == {"queued"}
    rqxx(system, "function", "resume", "tasks.noop")
    wait_for(lambda: all(job.get_status() == "finished" for job in held))
    assert not connection.exists("rqxx:lanes:default", "rqxx:sorted")


def test_draining_waits_for_what_runs(system, connection):
    system.test_worker("default").wait_for_log("Worker started")
    queue = rq.Queue("default", connection=connection)
    job = queue.enqueue("tasks.slow", 1.0)
    wait_for(lambda: job.get_status() == "started")
    later = []
    out = json.loads(rqxx(system, "queue", "drain", "default", "--json"))
    assert out == {"queue": "default", "state": "paused and drained", "changed": True, "running": 0}
    assert job.get_status() == "finished"
    later.append(queue.enqueue("tasks.noop", 1))
    time.sleep(0.5)
    assert later[0].get_status() == "queued"
    job = queue.enqueue("tasks.slow", 30)
    rqxx(system, "queue", "resume", "default")
    wait_for(lambda: job.get_status() == "started")
    late = system.rqxx("function", "drain", "tasks.slow", "--wait", "1s", "--redis-url", system.server.url)
    assert late.returncode == 1 and "1 of its jobs still runs" in late.stderr


def test_suspending_stops_stock_workers_too(system, connection):
    system.test_worker("default").wait_for_log("Worker started")
    system.rq_worker("default")
    wait_for(lambda: connection.scard("rq:workers:default") == 2)
    rqxx(system, "suspend")
    assert connection.get("rq:suspended") == b"1"
    # RQ's worker looks before it waits for a job: it takes one that comes during that wait.
    queue = rq.Queue("default", connection=connection)
    wait_for(lambda: queue.enqueue("tasks.noop", 0).get_status() == "queued" and connection.llen("rq:queue:default") > 0)
    job = queue.enqueue("tasks.noop", 1)
    time.sleep(2)
    assert job.get_status() == "queued"
    assert "go on" in rqxx(system, "resume")
    wait_for(lambda: job.get_status() == "finished")
    assert "were not suspended" in rqxx(system, "resume")


@pytest.mark.parametrize("args, told", [
    (["queue", "fair", "default"], "KEY"),
    (["queue", "fair", "default", "argv[0]"], "key: must begin with"),
    (["queue", "fair", "default", "args[0"], "not closed"),
    (["queue", "pause", "a,b"], "queue"),
    (["function", "pause", ""], "function"),
    (["worker", "high", "--weights", "high:2"], "weights: need the strategy weighted"),
    (["worker", "high", "--strategy", "weighted", "--weights", "high:0"], "--weights"),
    (["worker", "high", "--strategy", "weighted", "--weights", "low:1"], "weights: low is none of the worker's queues"),
    (["worker", "high", "--strategy", "wighted"], "--strategy"),
    (["worker", "high", "--queue-slots", "high=0"], "--queue-slots"),
    (["worker", "high", "--queue-slots", "high"], "--queue-slots"),
    (["worker", "high", "--ageing", "soon"], "--ageing"),
    (["worker", "high", "--fair-by", "args"], "--fair-by"),
    (["suspend", "--duration", "0s"], "--duration"),
])
def test_bad_settings_are_refused(system, connection, args, told):
    refused = system.rqxx(*args, "--redis-url", system.server.url)
    assert refused.returncode == 2 and told in refused.stderr, refused.stderr
    assert refused.stderr.count("\n") == 1
    assert connection.dbsize() == 0
