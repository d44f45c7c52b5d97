"""What happens when processes die, Redis goes away, time runs out."""

import os
import signal
import time

import psutil
import pytest
import redis
import tasks
from conftest import BUILD, http, wait_for
from rq import Queue, Retry
from rq.job import Job



def status(connection, job_id):
    value = connection.hget(f"rq:job:{job_id}", "status")
    return value and value.decode()


def runs(path):
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize(("retry", "left"), [(None, None), (Retry(max=2), b"1")], ids=["no_retries", "with_retries"])
def test_a_job_of_a_killed_worker_runs_again_within_15_seconds(system, connection, retry, left):
    marks = system.folder / "marks"
    job = Queue("default", connection=connection).enqueue(tasks.mark, str(marks), 3, retry=retry)
    first = system.test_worker("default")
    wait_for(lambda: runs(marks))
    second = system.test_worker("default")
    second.wait_for_log("Worker started")
    first.signal(signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: len(runs(marks)) == 2, timeout=30, what="the second run")
    assert time.monotonic() - killed < 15
    wait_for(lambda: status(connection, job.id) == "finished")
    assert connection.hget(job.key, "retries_left") == left
    assert f"Job recovered: id={job.id}" in second.log
    assert connection.zcard("rq:wip:default") == 0 and connection.smembers("rq:workers") != set()
    assert len(connection.smembers("rq:workers")) == 1


def test_a_server_without_a_worker_recovers_the_jobs_of_killed_ones(system, connection):
    worker = system.test_worker("default")
    job = Queue("default", connection=connection).enqueue(tasks.slow, 60)
    wait_for(lambda: status(connection, job.id) == "started")
    system.serve("--no-worker", url=system.server.url)
    worker.signal(signal.SIGKILL)
    wait_for(lambda: status(connection, job.id) == "queued", timeout=15)
    assert connection.lrange("rq:queue:default", 0, -1) == [job.id.encode()]


def test_a_job_that_kills_its_workers_ends_failed(system, connection):
    marks = system.folder / "marks"
    job = Queue("default", connection=connection).enqueue(tasks.mark, str(marks), 60)
    for expected in (1, 2):
        worker = system.test_worker("default")
        wait_for(lambda: len(runs(marks)) == expected, timeout=40)
        worker.signal(signal.SIGKILL)
        worker.wait()
    system.test_worker("default")
    wait_for(lambda: status(connection, job.id) == "failed", timeout=40)
    assert "AbandonedJobError" in Job.fetch(job.id, connection=connection).latest_result().exc_string
    assert len(runs(marks)) == 2


def test_a_late_result_of_a_worker_taken_for_dead_is_refused(system, connection):
    marks = system.folder / "marks"
    job = Queue("default", connection=connection).enqueue(tasks.mark, str(marks), 2)
    sleeper = system.test_worker("default")
    wait_for(lambda: runs(marks))
    sleeper.signal(signal.SIGSTOP)
    system.test_worker("default")
    wait_for(lambda: status(connection, job.id) == "finished", timeout=40)
    sleeper.signal(signal.SIGCONT)
    sleeper.wait_for_log("Result refused")
    sleeper.wait_for_log("registering again")
    assert status(connection, job.id) == "finished"
    assert len(Job.fetch(job.id, connection=connection).results()) == 1
    later = Queue("default", connection=connection).enqueue(tasks.add, 1, 1)
    wait_for(lambda: status(connection, later.id) == "finished")


def test_a_name_left_by_a_killed_worker_is_taken_over(system, connection):
    first = system.test_worker("--name", "same", "default")
    first.wait_for_log("Worker started")
    refused = system.test_worker("--name", "same", "default")
    assert refused.wait() == 1 and "lives already" in refused.log
    first.signal(signal.SIGKILL)
    first.wait()
    second = system.test_worker("--name", "same", "default")
    second.wait_for_log("Worker started")
    assert int(connection.hget("rq:worker:same", "pid")) == second.process.pid


def test_sigterm_lets_running_jobs_finish(system, connection):
    job = Queue("default", connection=connection).enqueue(tasks.slow, 1)
    waiting = [Queue("default", connection=connection).enqueue(tasks.slow, 1) for _ in range(3)]
    worker = system.test_worker("--concurrency", "1", "default")
    wait_for(lambda: status(connection, job.id) == "started")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert status(connection, job.id) == "finished"
    assert [status(connection, other.id) for other in waiting] == ["queued"] * 3


@pytest.mark.parametrize("second_signal", [False, True], ids=["after_the_grace", "at_a_second_signal"])
def test_unfinished_jobs_go_back_to_the_front_without_using_an_attempt(system, connection, second_signal):
    q = Queue("default", connection=connection)
    job = q.enqueue(tasks.slow, 60, retry=Retry(max=2))
    other = q.enqueue(tasks.slow, 60)
    worker = system.test_worker("--concurrency", "1", "--grace", "60" if second_signal else "1", "default")
    wait_for(lambda: status(connection, job.id) == "started")
    worker.signal(signal.SIGTERM)
    if second_signal:
        time.sleep(0.2)   # Signals of one kind that come together are one.
        worker.signal(signal.SIGTERM)
    worker.wait(20)
    assert connection.lrange("rq:queue:default", 0, -1) == [job.id.encode(), other.id.encode()]
    assert status(connection, job.id) == "queued"
    assert connection.hget(job.key, "retries_left") == b"2"
    assert connection.zcard("rq:wip:default") == 0 and connection.keys("rq:execution*") == []


def test_redis_away_for_ten_seconds_and_back(system):
    server = system.redis(persistent=True)
    q = Queue("default", connection=server.client)
    jobs = [q.enqueue(tasks.slow, 0.2) for _ in range(40)]
    running = q.enqueue(tasks.slow, 12, at_front=True)
    worker = system.test_worker("--concurrency", "2", "default")
    web = system.serve("--no-worker", url=server.url)
    assert http("GET", web.url + "/readyz").status == 200
    wait_for(lambda: status(server.client, running.id) == "started")
    server.stop()
    answer = http("GET", web.url + "/readyz")
    assert answer.status == 503 and answer.headers["Retry-After"]
    assert http("GET", web.url + "/healthz").status == 200
    assert http("GET", web.url + "/api/rq/stats").status == 503
    time.sleep(10)
    server.start()
    connection = server.client
    wait_for(lambda: http("GET", web.url + "/readyz").status == 200)
    wait_for(lambda: all(status(connection, job.id) == "finished" for job in [*jobs, running]), timeout=60)
    assert connection.zcard("rq:wip:default") == 0
    assert worker.process.poll() is None


def test_redis_paused_for_longer_than_the_lease_costs_no_job(system, connection, server):
    marks = system.folder / "marks"
    job = Queue("default", connection=connection).enqueue(tasks.mark, str(marks), 16)
    workers = [system.test_worker("default"), system.test_worker("default")]
    for worker in workers:
        worker.wait_for_log("Worker started")
    wait_for(lambda: runs(marks))
    server.pause()
    time.sleep(13)
    server.resume()
    wait_for(lambda: status(connection, job.id) == "finished", timeout=40)
    assert len(runs(marks)) == 1, "the job was taken from a living worker"
    assert all(worker.process.poll() is None for worker in workers)


def test_a_time_limit_ends_a_job_that_listens(system, connection):
    job = Queue("default", connection=connection).enqueue(tasks.slow, 60, job_timeout=1)
    system.test_worker("default")
    wait_for(lambda: status(connection, job.id) == "failed")
    assert "JobTimeoutException: Task exceeded maximum timeout value (1 seconds)" in Job.fetch(
        job.id, connection=connection).latest_result().exc_string


def test_a_handler_that_ignores_its_time_limit_is_given_up_and_its_slot_is_free(system, connection):
    q = Queue("default", connection=connection)
    stubborn = q.enqueue("tasks.stubborn", 8.0, job_timeout=1)
    worker = system.test_worker("--concurrency", "1", "--kill-after", "1", "default")
    wait_for(lambda: status(connection, stubborn.id) == "failed")
    assert "Handler ignores that it is to stop" in worker.log
    after = q.enqueue(tasks.add, 1, 2)
    wait_for(lambda: status(connection, after.id) == "finished")
    time.sleep(max(0, 8 - 3))   # Its late return must change nothing.
    assert status(connection, stubborn.id) == "failed"


def test_a_job_canceled_while_it_runs_is_stopped_and_stays_canceled(system, connection):
    job = Queue("default", connection=connection).enqueue(tasks.slow, 60)
    worker = system.test_worker("default")
    wait_for(lambda: status(connection, job.id) == "started")
    job.cancel()
    wait_for(lambda: connection.exists(f"rq:executions:{job.id}") == 0)
    assert status(connection, job.id) == "canceled"
    assert worker.process.poll() is None


def test_a_job_deleted_while_it_runs_is_not_brought_back(system, connection):
    job = Queue("default", connection=connection).enqueue(tasks.slow, 1)
    system.test_worker("default")
    wait_for(lambda: status(connection, job.id) == "started")
    job.delete()
    wait_for(lambda: connection.scard(next(iter(connection.keys("rq:worker:*:executions")), "none")) == 0)
    time.sleep(1.2)
    assert connection.keys(f"*{job.id}*") == []


def test_suspended_workers_start_nothing(system, connection):
    worker = system.test_worker("default")
    worker.wait_for_log("Worker started")
    connection.set("rq:suspended", 1)
    job = Queue("default", connection=connection).enqueue(tasks.add, 1, 1)
    time.sleep(1.5)
    assert status(connection, job.id) == "queued" and connection.llen("rq:queue:default") == 1
    connection.delete("rq:suspended")
    wait_for(lambda: status(connection, job.id) == "finished")


def test_waiting_workers_neither_poll_nor_remove_anything(system, connection):
    worker = system.test_worker("high", "default", "low")
    worker.wait_for_log("Worker started")
    wait_for(lambda: sum("blmove" in client["cmd"] for client in connection.client_list()) == 3)

    def calls():
        stats = connection.info("commandstats")
        return {name: entry["calls"] for name, entry in stats.items() if name not in ("cmdstat_info", "cmdstat_client|list")}

    before = calls()
    time.sleep(6.5)
    after = calls()
    made = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    # Two heartbeats, three sweeps and a pass of maintenance over three queues, inside and out.
    assert sum(made.values()) <= 130, made
    assert not any(name in made for name in ("cmdstat_lpop", "cmdstat_blpop", "cmdstat_lmove"))
    # A worker killed while it waits holds nothing that is lost with it.
    worker.signal(signal.SIGKILL)
    wait_for(lambda: not any("blmove" in client["cmd"] for client in connection.client_list()))
    job = Queue("low", connection=connection).enqueue(tasks.add, 1, 1)
    assert connection.lrange("rq:queue:low", 0, -1) == [job.id.encode()]


def test_a_higher_queue_goes_first(system, connection):
    marks = system.folder / "marks"
    low = [Queue("low", connection=connection).enqueue(tasks.mark, str(marks), 0) for _ in range(3)]
    high = [Queue("high", connection=connection).enqueue(tasks.mark, str(marks), 0) for _ in range(3)]
    assert system.test_worker("--burst", "--concurrency", "1", "high", "low").wait() == 0
    assert runs(marks) == [job.id for job in high + low]


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_an_idle_worker_of_several_queues_fills_all_its_slots_and_no_more(system, connection, slots):
    worker = system.test_worker("--concurrency", slots, "high", "default", "low")
    wait_for(lambda: sum("blmove" in client["cmd"] for client in connection.client_list()) == 3)
    queue = Queue("default", connection=connection)
    for round in range(3):      # Also when it has been busy and is idle again.
        jobs = [queue.enqueue(tasks.slow, 0.3) for _ in range(slots + 2)]
        wait_for(lambda: connection.zcard("rq:wip:default") == slots, timeout=5, what="all slots at work")
        most = 0
        while connection.zcard("rq:finished:default") < (round + 1) * (slots + 2):
            most = max(most, connection.zcard("rq:wip:default"))
        assert most <= slots
        assert all(status(connection, job.id) == "finished" for job in jobs)
    assert worker.process.poll() is None


# ---- the embedded Redis ------------------------------------------------------------------------------

def redis_child(web):
    return wait_for(lambda: next((child for child in psutil.Process(web.process.pid).children() if child.name() == "redis-server"), None))


@pytest.mark.parametrize("both", [False, True], ids=["serve_killed", "serve_and_redis_killed"])
def test_what_is_queued_survives_a_killed_system(system, both):
    web = system.serve("--no-worker")
    ids = [system.rqxx("enqueue", "eval_worker.evaluate", str(n), "--redis-url", web.redis_url).stdout.strip() for n in range(20)]
    child = redis_child(web)
    web.signal(signal.SIGKILL)
    if both:
        child.kill()
    web.wait()
    again = system.serve("--no-worker")
    shown = http("GET", again.url + "/api/rq/jobs/recent?limit=100").json["jobs"]
    assert sorted(job["id"] for job in shown) == sorted(ids)
    assert all(job["status"] == "queued" for job in shown)
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_an_orphaned_redis_of_a_predecessor_is_ended(system):
    web = system.serve("--no-worker")
    child = redis_child(web)
    child.suspend()   # It cannot follow its parent.
    web.signal(signal.SIGKILL)
    web.wait()
    child.resume()
    again = system.serve("--no-worker")
    psutil.wait_procs([child], timeout=15)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert http("GET", again.url + "/readyz").status == 200


def test_data_survives_an_orderly_restart(system):
    web = system.serve("--demo")
    wait_for(lambda: http("GET", web.url + "/api/rq/stats").json["totals"]["finished"] == 1)
    web.signal(signal.SIGTERM)
    assert web.wait() == 0
    again = system.serve("--no-worker")
    assert http("GET", again.url + "/api/rq/stats").json["totals"]["finished"] == 1
    assert http("GET", again.url + "/api/reviewer/sessions").json["count"] == 5


def test_a_second_instance_on_the_same_data_is_refused(system):
    web = system.serve()
    second = system.rqxx("serve", "--port", "0", "--data-dir", system.folder / "data")
    assert second.returncode == 2
    assert "in use" in second.stderr and str(web.process.pid) in second.stderr
    assert http("GET", web.url + "/readyz").status == 200


def test_a_redis_that_dies_is_started_again(system):
    web = system.serve("--demo")
    wait_for(lambda: http("GET", web.url + "/api/rq/stats").json["totals"]["finished"] == 1)
    redis_child(web).kill()
    wait_for(lambda: "starting it again" in web.log)
    wait_for(lambda: http("GET", web.url + "/readyz").status == 200)
    answer = http("POST", web.url + "/api/reviewer/sessions/2/evaluate")
    assert answer.status == 202
    wait_for(lambda: http("GET", f"{web.url}/api/jobs/{answer.json['job_id']}").json["status"] == "finished")


def test_a_redis_that_loads_its_data_for_long_is_waited_for(system):
    slow = system.folder / "slow-redis-server"
    slow.write_text("#!/bin/sh\nexec redis-server \"$@\" --key-load-delay 10000\n")
    slow.chmod(0o755)
    first = system.serve("--no-worker")
    connection = redis.Redis(unix_socket_path=first.redis_url.removeprefix("unix://"))
    Queue("default", connection=connection).enqueue_many([Queue.prepare_data("tasks.noop", (n,)) for n in range(150)])
    connection.bgrewriteaof()       # Redis can be told to load a snapshot slowly, not a log.
    wait_for(lambda: connection.info("persistence")["aof_base_size"] > 1000)
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    again = system.serve("--no-worker", "--redis-server", slow)
    assert "LOADING" in again.log
    assert http("GET", again.url + "/api/rq/stats").json["stats"]["queued"] == 150


def test_a_missing_redis_server_is_reported(system):
    result = system.rqxx("serve", "--port", "0", "--redis-server", "no-such-redis", "--data-dir", "d")
    assert result.returncode == 1
    assert "no-such-redis was not found" in result.stderr and "apt-get install redis-server" in result.stderr


def test_nothing_of_a_server_stays_behind(system):
    web = system.serve("--demo")
    children = psutil.Process(web.process.pid).children(recursive=True)
    assert children
    web.signal(signal.SIGINT)
    assert web.wait() == 0
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children)
    assert not (system.folder / "data" / "redis.sock").exists()
    assert os.access(BUILD / "rqxx", os.X_OK)


def test_a_deep_data_directory_works(system):
    web = system.serve(data_dir=system.folder / ("d" * 60) / ("e" * 60))
    assert http("GET", web.url + "/readyz").status == 200
    assert len(web.redis_url) < 120
