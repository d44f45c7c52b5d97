"""Why a job does not run just now: one test for each reason, produced by RQ, its workers and schedulers where they can."""

import datetime
import json

import pytest
import rq
from conftest import BUILD, http, wait_for
from test_priorities import make_jobs, rqxx, set_rule

HOUR = datetime.timedelta(hours=1)
#: What workers and schedulers renew all the time.
RENEWED = (b"rqxx:lease", b"rqxx:schedulers", b"rqxx:sweeper", b"rqxx:sampler", b"rqxx:maintained", b"rqxx:sorting:", b"rq:worker", b"rq:scheduler",
           b"rq:wip:", b"rq:execution", b"rq:clean_registries:")


def contents(connection):
    """All keys with what is in them; TTLs and heartbeats aside."""
    found = {}
    for key in connection.scan_iter("*"):
        if key.startswith(RENEWED):
            continue
        kind = connection.type(key)
        if kind == b"hash":
            found[key] = {field: value for field, value in connection.hgetall(key).items() if field != b"last_heartbeat"}
        else:
            found[key] = kind, connection.dump(key)
    return found


def why(system, job, changes_nothing=True):
    """The report for a job; asking changes nothing."""
    id = job if isinstance(job, str) else job.id
    before = contents(system.server.client) if changes_nothing else None
    report = json.loads(rqxx(system, "job", "why", id, "--json"))
    if changes_nothing:
        assert contents(system.server.client) == before
    assert report["id"] == id and report["reasons"]
    for reason in report["reasons"]:
        assert reason["text"] and "\n" not in reason["text"]
    return report


def codes(report):
    return [reason["code"] for reason in report["reasons"]]


def data(report, code):
    return next(reason["data"] for reason in report["reasons"] if reason["code"] == code)


def moment(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)


def now():
    return datetime.datetime.now(datetime.timezone.utc)


@pytest.fixture
def queue(connection):
    return rq.Queue("default", connection=connection)


def test_a_job_that_nobody_knows_is_not_found(system, connection):
    done = system.rqxx("job", "why", "nothing", "--redis-url", system.server.url)
    assert done.returncode == 1 and done.stderr == "rqxx: job nothing was not found\n"


def test_what_has_ended_waits_for_nothing(system, connection, queue):
    finished = queue.enqueue("tasks.noop", 1)
    failed = queue.enqueue("tasks.fail", "broken")
    canceled = queue.enqueue("tasks.noop", 2)
    canceled.cancel()
    assert system.rq_worker("--burst", "default").wait() == 0
    for job, code in ((finished, "finished"), (failed, "failed"), (canceled, "canceled")):
        report = why(system, job)
        assert codes(report) == [code] and report["status"] == code and report["estimated_start"] is None
    assert abs(moment(data(why(system, finished), "finished")["since"]) - now()) < HOUR


def test_a_stopped_job_says_so(system, connection, queue):
    job = queue.enqueue("tasks.slow", 60)
    system.test_worker("default")
    wait_for(lambda: job.get_status() == "started")
    rqxx(system, "job", "stop", job.id)
    assert codes(why(system, job)) == ["stopped"]


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock"])
def test_a_running_job_names_its_worker_and_since_when(system, connection, queue, stock):
    job = queue.enqueue("tasks.slow", 30)
    system.rq_worker("default") if stock else system.test_worker("default")
    wait_for(lambda: job.get_status() == "started" and connection.zcard("rq:wip:default") == 1)
    report = why(system, job)
    assert codes(report) == ["running"]
    assert data(report, "running")["worker"] == connection.hget("rq:job:" + job.id, "worker_name").decode()
    assert moment(data(report, "running")["since"]) <= now()


def test_a_job_whose_worker_was_killed_says_that_it_comes_back(system, connection, queue):
    job = queue.enqueue("tasks.slow", 60)
    worker = system.test_worker("default")
    wait_for(lambda: job.get_status() == "started")
    worker.signal(9)
    worker.wait()
    name = connection.hget("rq:job:" + job.id, "worker_name").decode()
    connection.zadd("rqxx:leases", {name: 1})
    report = why(system, job)
    assert codes(report) == ["worker_lost", "running"] and data(report, "worker_lost")["worker"] == name


def test_a_job_that_is_only_marked_as_started_says_that_nobody_runs_it(system, connection, queue):
    job = queue.enqueue("tasks.noop", 1)
    connection.lrem("rq:queue:default", 0, job.id)
    job.set_status("started")
    assert codes(why(system, job)) == ["not_held"]


def test_without_a_worker_it_says_so_and_where_the_job_stands(system, connection, queue):
    jobs = [queue.enqueue("tasks.noop", n) for n in range(5)]
    report = why(system, jobs[3])
    assert codes(report) == ["no_worker", "position"]
    assert data(report, "position") == {"in": "queue", "place": 4, "waiting": 5, "jobs_before": 3}
    assert report["estimated_start"] is None
    told = rqxx(system, "job", "why", jobs[3].id)
    assert "No worker listens on queue default" in told and "number 4 of 5" in told


def test_a_worker_that_has_died_does_not_listen(system, connection, queue):
    worker = system.test_worker("default")
    worker.wait_for_log("Worker started")
    worker.signal(9)
    worker.wait()
    connection.zadd("rqxx:leases", {connection.zrange("rqxx:leases", 0, 0)[0]: 1})
    assert codes(why(system, queue.enqueue("tasks.noop", 1))) == ["no_worker", "position"]


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock"])
def test_behind_busy_workers(system, connection, queue, stock):
    running = queue.enqueue("tasks.slow", 60)
    system.rq_worker("default") if stock else system.test_worker("--concurrency", "1", "default")
    wait_for(lambda: running.get_status() == "started")
    wait_for(lambda: b"busy" in [connection.hget(key, "state") for key in connection.smembers("rq:workers:default")])
    report = why(system, queue.enqueue("tasks.noop", 1))
    assert codes(report) == ["workers_busy", "position"]
    assert data(report, "workers_busy") == {"queue": "default", "workers": 1, "running": 1}


def test_a_worker_with_a_free_slot_is_not_busy(system, connection, queue):
    running = queue.enqueue("tasks.slow", 60)
    system.test_worker("--concurrency", "2", "default")
    wait_for(lambda: running.get_status() == "started")
    connection.hset("rq:job:waiting", mapping={"status": "queued", "origin": "default", "data": running.data})
    report = why(system, "waiting", changes_nothing=False)
    assert "workers_busy" not in codes(report)


def test_the_start_is_estimated_from_how_fast_the_queue_moved(system, connection, queue):
    for n in range(20):
        queue.enqueue("tasks.noop", n)
    assert system.rq_worker("--burst", "default").wait() == 0
    running = queue.enqueue("tasks.slow", 60)
    jobs = [queue.enqueue("tasks.noop", n) for n in range(50)]
    system.test_worker("--concurrency", "1", "default")
    wait_for(lambda: running.get_status() == "started")
    first, last = why(system, jobs[0]), why(system, jobs[-1])
    assert moment(first["at"]) < moment(first["estimated_start"]) < moment(last["estimated_start"]) < now() + HOUR


def test_a_place_far_behind_is_told_as_more_than(system, connection, queue):
    make_jobs(connection, "default", 10_050)
    assert data(why(system, "default-9999", changes_nothing=False), "position")["place"] == 10_000
    report = why(system, "default-10020", changes_nothing=False)
    assert data(report, "position") == {"in": "queue", "more_than": 10_000, "waiting": 10_050}


def test_suspended_workers_and_until_when(system, connection, queue):
    job = queue.enqueue("tasks.noop", 1)
    rq.suspension.suspend(connection)
    report = why(system, job)
    assert codes(report)[0] == "suspended" and data(report, "suspended") == {}
    rq.suspension.suspend(connection, ttl=600)
    until = moment(data(why(system, job), "suspended")["until"])
    assert datetime.timedelta(seconds=500) < until - now() < datetime.timedelta(seconds=601)


def test_a_paused_queue(system, connection, queue):
    rqxx(system, "queue", "pause", "other")
    rqxx(system, "queue", "pause", "default")
    system.test_worker("default", "other").wait_for_log("Worker started")
    job = queue.enqueue("tasks.noop", 1)
    report = why(system, job)
    assert codes(report) == ["queue_paused", "position"]
    assert data(report, "queue_paused") == {"queue": "default", "rules": ["pause-queue-default"]}


def test_a_paused_function(system, connection, queue):
    rqxx(system, "function", "pause", "tasks.noop")
    system.test_worker("default")
    jobs = [queue.enqueue("tasks.noop", n) for n in range(3)]
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"3")
    report = why(system, jobs[1])
    assert codes(report) == ["function_paused", "position"]
    assert data(report, "function_paused") == {"rule": "pause-function-tasks.noop", "function": "tasks.noop"}
    assert data(report, "position")["in"] == "lane" and data(report, "position")["place"] == 2
    assert data(report, "position")["waiting"] == 3


@pytest.mark.parametrize("kind", ["token-bucket", "leaky-bucket", "fixed-window", "sliding-window"])
def test_a_limit_in_time_says_until_when(system, connection, queue, kind):
    burst = ["--burst", "1"] if kind == "token-bucket" else []
    set_rule(system, "slow", "--kind", kind, "--limit", "1", "--per", "1d", *burst, "--function", "tasks.noop", "--key", "args[0]")
    system.test_worker("default")
    jobs = [queue.enqueue("tasks.noop", 7) for _ in range(3)]
    wait_for(lambda: sum(job.get_status() == "finished" for job in jobs) == 1)
    wait_for(lambda: connection.zcard("rqxx:waiters:slow:7") == 1)
    report = why(system, jobs[2])
    assert codes(report) == ["limited", "position"]
    limited = data(report, "limited")
    assert {field: limited[field] for field in ("rule", "key", "kind", "limit", "points", "scope")} == {
        "rule": "slow", "key": "7", "kind": kind, "limit": 1, "points": 1, "scope": "cluster"}
    assert now() < moment(limited["until"]) < now() + 25 * HOUR
    assert data(report, "position")["place"] == 2 and data(report, "position")["lanes_before"] == 0


def test_a_limit_of_the_whole_queue(system, connection, queue):
    set_rule(system, "slow", "--kind", "fixed-window", "--limit", "1", "--per", "1d", "--queue", "default")
    system.test_worker("default")
    jobs = [queue.enqueue("tasks.noop", 7) for _ in range(3)]
    wait_for(lambda: sum(job.get_status() == "finished" for job in jobs) == 1)
    report = why(system, jobs[2])
    assert codes(report) == ["limited", "position"] and data(report, "limited")["rule"] == "slow"
    assert data(report, "position")["in"] == "queue" and data(report, "position")["place"] == 2


def test_a_limit_on_how_many_run_says_who_runs(system, connection, queue):
    set_rule(system, "few", "--kind", "concurrency", "--limit", "2", "--function", "tasks.slow")
    system.test_worker("default")
    running = [queue.enqueue("tasks.slow", 60) for _ in range(2)]
    wait_for(lambda: all(job.get_status() == "started" for job in running))
    job = queue.enqueue("tasks.slow", 60)
    wait_for(lambda: connection.zcard("rqxx:waiters:few") == 1)
    report = why(system, job)
    assert codes(report) == ["limited", "position"]
    limited = data(report, "limited")
    assert sorted(limited["jobs"]) == sorted(one.id for one in running)
    assert limited["used"] == 2 and limited["limit"] == 2 and "until" not in limited


def test_a_limit_of_each_worker_by_itself(system, connection, queue):
    set_rule(system, "each", "--kind", "concurrency", "--limit", "1", "--function", "tasks.slow", "--scope", "worker")
    system.test_worker("default")
    running = queue.enqueue("tasks.slow", 60)
    wait_for(lambda: running.get_status() == "started")
    job = queue.enqueue("tasks.slow", 60)
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"1")
    report = why(system, job)
    assert codes(report) == ["limited", "position"] and data(report, "limited")["scope"] == "worker"


def test_a_limit_that_was_pushed_back(system, connection, queue):
    set_rule(system, "api", "--kind", "token-bucket", "--limit", "100", "--per", "1s", "--function", "tasks.noop")
    rqxx(system, "limit", "push-back", "api", "10m")
    system.test_worker("default")
    job = queue.enqueue("tasks.noop", 1)
    wait_for(lambda: connection.zcard("rqxx:waiters:api") == 1)
    report = why(system, job)
    assert codes(report) == ["pushed_back", "position"]
    assert moment(data(report, "pushed_back")["until"]) > now()


def test_several_reasons_come_in_their_order(system, connection, queue):
    set_rule(system, "one", "--kind", "concurrency", "--limit", "1", "--function", "tasks.noop")
    connection.zadd("rqxx:limit:concurrency:one", {"somebody|x:y": 1})
    job = queue.enqueue("tasks.noop", 1)
    rqxx(system, "queue", "pause", "def*")
    rqxx(system, "function", "pause", "tasks.*")
    rqxx(system, "suspend")
    assert codes(why(system, job)) == [
        "suspended", "queue_paused", "function_paused", "no_worker", "limited", "unsorted", "position"]


def test_a_job_that_is_yet_to_be_sorted(system, connection, queue):
    job = queue.enqueue("tasks.noop", 1)
    rqxx(system, "queue", "fair", "default", "args[0]")
    report = why(system, job)
    assert codes(report) == ["no_worker", "unsorted", "position"]
    assert data(report, "unsorted") == {"place": 1, "waiting": 1, "sorted": 0}


def test_a_job_that_older_rules_have_sorted_is_found(system, connection, queue):
    rqxx(system, "queue", "fair", "default", "args[0]")
    rqxx(system, "queue", "pause", "default")
    worker = system.test_worker("default")
    jobs = [queue.enqueue("tasks.noop", n) for n in range(3)]
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"3")
    worker.signal(15)
    worker.wait()
    rqxx(system, "queue", "fair", "default", "args[1]")
    report = why(system, jobs[1])
    assert codes(report) == ["queue_paused", "no_worker", "unsorted", "position"]
    assert data(report, "position")["in"] == "lane"


def test_keys_that_take_turns_say_how_many_are_before(system, connection, queue):
    rqxx(system, "queue", "fair", "default", "args[0]")
    rqxx(system, "queue", "pause", "default")
    system.test_worker("default")
    jobs = [queue.enqueue("tasks.noop", n % 3) for n in range(9)]
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"9")
    place = data(why(system, jobs[5]), "position")   # the second of key 2; two keys are before it in each round
    assert place == {"in": "lane", "place": 2, "waiting": 3, "jobs_before": 5, "lanes_before": 2}


def test_a_job_whose_meta_changed_is_found_where_it_was_sorted_to(system, connection, queue):
    rqxx(system, "queue", "fair", "default", "meta.tenant")
    rqxx(system, "queue", "pause", "default")
    system.test_worker("default")
    job = queue.enqueue("tasks.noop", 1, meta={"tenant": "a"})
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"1")
    job.meta["tenant"] = "b"
    job.save_meta()
    assert codes(why(system, job)) == ["queue_paused", "position"]


def test_stock_workers_do_not_see_sorted_jobs(system, connection, queue):
    rqxx(system, "queue", "fair", "default", "args[0]")
    rqxx(system, "queue", "pause", "default")
    worker = system.test_worker("default")
    job = queue.enqueue("tasks.noop", 1)
    wait_for(lambda: connection.hget("rqxx:sorted", "default") == b"1")
    worker.signal(15)
    worker.wait()
    rqxx(system, "queue", "resume", "default")
    system.rq_worker("default")
    wait_for(lambda: connection.scard("rq:workers:default") == 1)
    assert codes(why(system, job)) == ["only_stock_workers", "position"]


def test_a_job_that_a_stock_worker_has_just_taken(system, connection, queue):
    job = queue.enqueue("tasks.noop", 1)
    connection.lmove("rq:queue:default", "rq:queue:default:intermediate", "LEFT", "RIGHT")
    assert codes(why(system, job)) == ["being_taken"]


def test_a_job_that_stands_nowhere(system, connection, queue):
    job = queue.enqueue("tasks.noop", 1)
    connection.delete("rq:queue:default")
    assert codes(why(system, job)) == ["off_queue"]
    scheduled = queue.enqueue_in(HOUR, "tasks.noop", 1)
    connection.delete("rq:scheduled:default")
    assert codes(why(system, scheduled)) == ["off_queue"]


def test_unfinished_failed_and_missing_dependencies(system, connection, queue):
    parents = [queue.enqueue("tasks.noop", n) for n in range(4)]
    child = queue.enqueue("tasks.noop", 9, depends_on=parents)
    report = why(system, child)
    assert codes(report) == ["dependency_unfinished"]
    unfinished = data(report, "dependency_unfinished")
    assert unfinished["count"] == 4 and {"id": parents[0].id, "status": "queued"} in unfinished["dependencies"]

    connection.hset("rq:job:" + parents[0].id, "status", "failed")
    connection.delete("rq:job:" + parents[1].id)
    connection.hset("rq:job:" + parents[2].id, "status", "finished")
    report = why(system, child)
    assert codes(report) == ["dependency_failed", "dependency_unfinished", "dependency_missing"]
    assert data(report, "dependency_failed") == {
        "count": 1, "dependencies": [{"id": parents[0].id, "status": "failed"}], "allows_failure": False}
    assert data(report, "dependency_missing")["dependencies"] == [{"id": parents[1].id, "status": "gone"}]
    assert data(report, "dependency_unfinished")["dependencies"] == [{"id": parents[3].id, "status": "queued"}]


def test_a_failed_dependency_that_is_allowed_holds_nothing_up(system, connection, queue):
    parent = queue.enqueue("tasks.noop", 1)
    child = queue.enqueue("tasks.noop", 2, depends_on=rq.job.Dependency(jobs=[parent], allow_failure=True))
    assert codes(why(system, child)) == ["dependency_unfinished"]
    connection.hset("rq:job:" + parent.id, "status", "failed")
    assert codes(why(system, child)) == ["dependencies_met"]
    connection.delete("rq:job:" + parent.id)
    assert codes(why(system, child)) == ["dependency_missing", "dependencies_met"]


def test_a_scheduled_job_without_a_scheduler(system, connection, queue):
    job = queue.enqueue_in(HOUR, "tasks.noop", 1)
    report = why(system, job)
    assert codes(report) == ["scheduled", "no_scheduler"]
    assert datetime.timedelta(minutes=58) < moment(data(report, "scheduled")["until"]) - now() < HOUR
    late = queue.enqueue_at(now() - HOUR, "tasks.noop", 1)
    report = why(system, late)
    assert codes(report) == ["no_scheduler"] and data(report, "no_scheduler")["late"] > 3500


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock"])
def test_a_scheduled_job_with_a_scheduler(system, connection, queue, stock):
    job = queue.enqueue_in(HOUR, "tasks.noop", 1)
    if stock:
        system.rq_worker("--with-scheduler", "default")
    else:
        system.run(BUILD / "rqxx", "worker", "default", "--with-scheduler", "--redis-url", system.server.url)
    wait_for(lambda: connection.exists("rq:scheduler-lock:default"))
    assert codes(why(system, job)) == ["scheduled"]


def test_a_scheduler_that_hangs_is_late(system, connection, queue):
    connection.set("rq:scheduler-lock:default", "somebody", ex=61)
    late = queue.enqueue_at(now() - datetime.timedelta(seconds=90), "tasks.noop", 1)
    report = why(system, late)
    assert codes(report) == ["scheduler_late"]
    assert data(report, "scheduler_late")["scheduler"] == "somebody" and data(report, "scheduler_late")["late"] >= 90


def test_a_rate_limit_of_rq_3(system, connection, queue):
    """As RQ's main branch leaves it."""
    for n in range(3):
        id = f"held{n}"
        connection.hset("rq:job:" + id, mapping={"status": "rate_limited", "origin": "default", "data": b"", "created_at": "",
                                                 "rate_limit_key": "api", "rate_limit_concurrency": 2})
        connection.zadd("rq:rl:api:rate_limited", {id: 100 + n})
    connection.sadd("rq:rl-keys", "api")
    connection.hset("rq:rl:api", "concurrency", 2)
    connection.zadd("rq:rl:api:allowed", {"a": 1, "b": 2})
    report = why(system, "held1")
    assert codes(report) == ["rate_limited"]
    assert data(report, "rate_limited") == {"key": "api", "place": 2, "waiting": 3, "used": 2, "limit": 2}


def test_a_job_that_was_never_enqueued(system, connection, queue):
    job = rq.job.Job.create("tasks.noop", (1,), connection=connection, origin="default")
    job.save()
    assert codes(why(system, job)) == ["not_enqueued"]


@pytest.mark.parametrize("fields", [
    {"status": "queued"},
    {"status": "queued", "origin": "\xff\n", "data": "\x00"},
    {"status": "dancing", "origin": "default"},
    {"status": "deferred", "origin": "default", "dependency_ids": "[1, {}, null]"},
    {"status": "deferred", "origin": "default", "dependency_ids": "broken"},
    {"status": "started", "origin": "default", "started_at": "soon"},
    {"status": "rate_limited", "origin": "default", "rate_limit_key": ""},
    {"status": "", "origin": ""},
])
def test_damaged_jobs_have_an_answer_as_well(system, connection, fields):
    connection.hset("rq:job:odd", mapping=fields)
    for key in ("rq:queue:", "rq:scheduled:", "rq:wip:"):
        connection.hset(key + fields.get("origin", ""), "of", "another type")
    connection.hset("rq:finished:default", "of", "another type")
    connection.set("rqxx:lanes:default", "of another type")
    set_rule(system, "odd", "--kind", "concurrency", "--limit", "1", "--function", "tasks.noop")
    connection.set("rqxx:limit:concurrency:odd", "of another type")
    connection.hset("rqxx:rules", "broken", "{")
    why(system, "odd")


def test_a_key_that_is_no_job(system, connection):
    connection.set("rq:job:odd", "text")
    assert codes(why(system, "odd")) == ["unreadable"]


def test_the_api_gives_the_same_answer(system, connection, queue):
    web = system.serve("--no-worker", "--no-scheduler", url=system.server.url)
    job = queue.enqueue("tasks.noop", 1)
    answer = http("GET", f"{web.url}/api/v1/jobs/{job.id}/why")
    assert answer.status == 200 and answer.json["status"] == "ok"
    report = json.loads(rqxx(system, "job", "why", job.id, "--json"))
    assert answer.json["why"]["reasons"] == report["reasons"]
    for id in ("nothing", "%2e%2e%2f", "a%00b"):
        assert http("GET", f"{web.url}/api/v1/jobs/{id}/why").status == 404
    assert http("POST", f"{web.url}/api/v1/jobs/{job.id}/why", {}).status == 405


def test_an_answer_costs_the_same_however_many_jobs_wait(system, connection):
    make_jobs(connection, "default", 200_000)
    connection.config_resetstat()
    assert codes(why(system, "default-199999", changes_nothing=False)) == ["no_worker", "position"]
    assert sum(entry["calls"] for entry in connection.info("commandstats").values()) < 1000
