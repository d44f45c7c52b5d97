"""What Prometheus is told: true, bounded, and taken by its own tool."""

import re
import sys
import time

import pytest
import tasks
from conftest import BUILD, INTEROP, http, needs_rq2, wait_for
from rq import Queue, Retry, Worker
from rq.registry import FailedJobRegistry
from scrape import Scrape, check_with_promtool

OWN_LABELS = {"job_id", "pid", "key"}


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", url=server.url)


def metrics_of(worker):
    worker.wait_for_log("Metrics: url=")
    return re.search(r"Metrics: url=(\S+)", worker.log)[1]


def test_counts_are_those_of_rq(web, system, connection):
    for name, count in (("default", 3), ("high", 2)):
        for n in range(count):
            Queue(name, connection=connection).enqueue(tasks.noop, n)
    Queue("low", connection=connection).enqueue(tasks.fail, "boom")
    assert system.rq_worker("--burst", "high", "low").wait() == 0
    wait_for(lambda: Scrape(web.url + "/metrics").get("rqxx_jobs_finished_total", queue="high", outcome="success") == 2,
             what="the jobs of stock workers in the totals")
    scrape = Scrape(web.url + "/metrics")
    for name in ("default", "high", "low"):
        queue = Queue(name, connection=connection)
        for status, count in (("queued", len(queue)), ("finished", queue.finished_job_registry.count),
                              ("failed", queue.failed_job_registry.count), ("started", 0), ("deferred", 0)):
            assert scrape.get("rqxx_queue_jobs", queue=name, status=status) == count
    assert scrape.get("rqxx_jobs_finished_total", queue="low", outcome="failed") == 1
    assert scrape.get("rqxx_queue_oldest_age_seconds", queue="default") > 0
    assert scrape.get("rqxx_queue_oldest_age_seconds", queue="high") == 0
    assert scrape.get("rqxx_queue_listeners", queue="default") == 0
    assert scrape.get("rqxx_redis_up") == 1
    assert abs(scrape.get("rqxx_clock_skew_seconds")) < 1
    assert scrape.get("rqxx_redis_memory_bytes") > 0
    check_with_promtool(scrape.text)


def test_workers_are_counted_with_what_they_listen_to(web, system, connection):
    worker = system.test_worker("--queues", "high,default", "--concurrency", "3")
    wait_for(lambda: connection.scard("rq:workers") == 1, what="the worker")
    Queue("low", connection=connection).enqueue(tasks.noop, 1)
    Queue("high", connection=connection)
    connection.sadd("rq:queues", "rq:queue:high", "rq:queue:default")
    scrape = Scrape(web.url + "/metrics")
    listeners = {labels["queue"]: value for labels, value in scrape.all("rqxx_queue_listeners")}
    assert listeners == {"high": 1, "default": 1, "low": 0}
    assert sum(value for _, value in scrape.all("rqxx_workers")) == 1
    assert scrape.get("rqxx_slots", state="idle") == 3 and scrape.get("rqxx_slots", state="busy") == 0
    assert worker.process.poll() is None


def test_how_long_jobs_waited_and_ran_is_a_histogram_over_all_workers(web, system, connection):
    queue = Queue("default", connection=connection)
    for n in range(20):
        queue.enqueue(tasks.noop, n)
    assert system.rq_worker("--burst", "default").wait() == 0
    wait_for(lambda: Scrape(web.url + "/metrics").get("rqxx_cluster_job_run_seconds_count") == 20, what="20 runs")
    scrape = Scrape(web.url + "/metrics")
    for name in ("rqxx_cluster_job_run_seconds", "rqxx_cluster_job_wait_seconds"):
        buckets = sorted((float(labels["le"]), value) for labels, value in scrape.all(name + "_bucket"))
        counts = [value for _, value in buckets]
        assert counts == sorted(counts) and counts[-1] == 20 == scrape.get(name + "_count")
        assert scrape.get(name + "_sum") > 0
        edges = [edge for edge, _ in buckets]
        assert edges[0] == 0.0005 and edges[-2] == 600 and edges[-1] == float("inf")


def test_the_histogram_only_grows_when_the_minute_changes(web, system, connection):
    queue = Queue("default", connection=connection)
    driver = system.driver()
    driver.register("w", queues=["default"])

    def run(count):
        for _ in range(count):
            queue.enqueue(tasks.noop, 1)
            driver.settle("w", driver.claim("w")["claimed"][0]["execution"])

    run(3)
    assert Scrape(web.url + "/metrics").get("rqxx_cluster_job_run_seconds_count") == 3
    # As if these had been of an earlier minute: what comes next closes it.
    minute = int(connection.hget("rqxx:metrics:now", "minute"))
    connection.hset("rqxx:metrics:now", "minute", minute - 120)
    run(2)
    assert Scrape(web.url + "/metrics").get("rqxx_cluster_job_run_seconds_count") == 5
    assert connection.hget("rqxx:metrics:total", "finished") == b"3"
    assert connection.ttl("rqxx:metrics:total") == -1


HOSTILE = ['quote"queue', "back\\slash", "new\nline", "<script>", "other", "\u202eright to left", "x" * 5000, "x" * 5001, "é" * 150]


def test_hostile_names_become_labels_that_prometheus_reads(web, connection):
    for name in HOSTILE:
        connection.sadd("rq:queues", "rq:queue:" + name)
        connection.rpush("rq:queue:" + name, "a", "b")
    for raw in (b"\xff\xfe", b"\xff\xfd"):
        connection.sadd("rq:queues", b"rq:queue:" + raw)
        connection.rpush(b"rq:queue:" + raw, "a")
    connection.hset("rqxx:totals", b"finished|\xff\xfe", 5)
    connection.hset("rqxx:totals", b"finished|\xff\xfd", 7)
    connection.hset("rqxx:totals", 'finished|quote"queue', "no number")
    scrape = Scrape(web.url + "/metrics")
    queued = {labels["queue"]: value for labels, value in scrape.all("rqxx_queue_jobs") if labels["status"] == "queued"}
    for name in HOSTILE[:6]:
        assert queued[name] == 2
    # What has one label stands in one series.
    assert queued["x" * 200] == 4 and queued["é" * 100] == 2 and queued["\ufffd\ufffd"] == 2
    assert sum(queued.values()) == 2 * len(HOSTILE) + 2
    assert scrape.get("rqxx_jobs_finished_total", queue="\ufffd\ufffd", outcome="success") == 12
    check_with_promtool(scrape.text)


def test_a_scrape_of_ten_thousand_queues_is_bounded(system, server, connection):
    web = system.serve("--no-worker", "--no-sampler", "--no-scheduler", "--no-maintenance", url=server.url)
    pipe = connection.pipeline(transaction=False)
    for n in range(10_000):
        name = f"queue-{n:05d}"
        pipe.sadd("rq:queues", "rq:queue:" + name)
        pipe.rpush("rq:queue:" + name, "a")
        pipe.hset("rqxx:totals", f"finished|{name}", 2)
        pipe.hset("rqxx:totals", f"failed|{name}", 1)
    pipe.execute()
    before = connection.info("commandstats")
    scrape = Scrape(web.url + "/metrics")
    after = connection.info("commandstats")
    queues = {labels["queue"] for labels, _ in scrape.all("rqxx_queue_jobs")}
    assert len(queues) == 1001 and "other" in queues
    assert scrape.get("rqxx_queue_jobs", queue="other", status="queued") == 9000
    assert scrape.get("rqxx_jobs_finished_total", queue="other", outcome="success") == 18_000
    assert sum(value for labels, value in scrape.all("rqxx_queue_jobs") if labels["status"] == "queued") == 10_000
    assert len(scrape.series) < 14_000 and len(scrape.text) < 1_200_000
    # Reading only: nothing that cleans up.
    wrote = {name for name in after if name.split("_", 1)[1] in ("zrem", "zremrangebyscore", "srem", "lrem", "del", "hdel")
             and after[name]["calls"] != before.get(name, {"calls": 0})["calls"]}
    assert not wrote
    check_with_promtool(scrape.text)


def test_a_scrape_changes_nothing(system, server, connection):
    web = system.serve("--no-worker", "--no-sampler", "--no-scheduler", "--no-maintenance", "--no-index", "--no-cron", url=server.url)
    Queue("default", connection=connection).enqueue(tasks.noop, 1)
    # An entry that RQ would clean away by looking at it.
    connection.zadd("rq:wip:default", {"gone:1": time.time() - 1000})
    before = {key: connection.dump(key) for key in connection.scan_iter()}
    scrape = Scrape(web.url + "/metrics")
    assert scrape.get("rqxx_started_lapsed_jobs") == 1
    assert {key: connection.dump(key) for key in connection.scan_iter()} == before


def test_redis_away_is_told_and_the_rest_still_is(web, server):
    assert Scrape(web.url + "/metrics").get("rqxx_redis_up") == 1
    server.stop()
    wait_for(lambda: Scrape(web.url + "/metrics").get("rqxx_redis_up") == 0, what="Redis to be missed")
    scrape = Scrape(web.url + "/metrics")
    assert scrape.get("rqxx_queue_jobs", queue="default", status="queued") is None
    assert scrape.get("rqxx_redis_commands_total") > 0
    check_with_promtool(scrape.text)


def test_schedules_and_pauses_are_told(system, server, connection):
    web = system.serve("--no-worker", "--no-scheduler", url=server.url)
    connection.sadd("rq:queues", "rq:queue:default", "rq:queue:low")
    connection.zadd("rq:scheduled:default", {"a": time.time() - 30, "b": time.time() + 500})
    assert system.rqxx("queue", "pause", "low", "--redis-url", server.url).returncode == 0
    scrape = Scrape(web.url + "/metrics")
    assert scrape.get("rqxx_scheduled_due_jobs") == 1 and scrape.get("rqxx_scheduler_leader") == 0
    assert scrape.get("rqxx_queue_paused", queue="low") == 1 and scrape.get("rqxx_queue_paused", queue="default") == 0
    with_scheduler = system.serve("--no-worker", url=server.url, data_dir=system.folder / "second")
    wait_for(lambda: Scrape(with_scheduler.url + "/metrics").get("rqxx_scheduler_leader") == 1, what="a scheduler")


@needs_rq2
def test_the_names_of_rq_exporter_are_there_when_asked_for(system, server, connection):
    web = system.serve("--no-worker", "--metrics-rq-exporter", url=server.url)
    queue = Queue("default", connection=connection)
    queue.enqueue(tasks.noop, 1)
    queue.enqueue(tasks.fail, "boom")
    worker = Worker([queue, Queue("low", connection=connection)], connection=connection, name="stock-1")
    worker.register_birth()
    connection.hset(worker.key, mapping={"state": "busy", "successful_job_count": 1, "failed_job_count": 0, "total_working_time": 3.0})
    scrape = Scrape(web.url + "/metrics")
    named = {"name": "stock-1", "queues": "default,low"}
    assert scrape.get("rq_workers", state="busy", **named) == 1
    assert scrape.get("rq_workers_success_total", **named) == 1
    assert scrape.get("rq_workers_failed_total", **named) == 0
    assert scrape.get("rq_workers_working_time_total", **named) == 3
    assert scrape.get("rq_jobs", queue="default", status="queued") == 2
    check_with_promtool(scrape.text)
    worker.register_death()
    plain = system.serve("--no-worker", url=server.url, data_dir=system.folder / "plain")
    assert not [name for name in Scrape(plain.url + "/metrics").names() if name.startswith("rq_")]


def test_a_worker_tells_of_its_own_runs(system, server, connection):
    worker = system.run(BUILD / "rqxx", "worker", "--redis-url", server.url, "--queues", "default,low", "--python", sys.executable,
                        "--path", INTEROP, "--metrics-port", "0", "--metrics-functions")
    url = metrics_of(worker)
    queue = Queue("default", connection=connection)
    queue.enqueue(tasks.add, 1, 2)
    queue.enqueue(tasks.add, 3, 4)
    queue.enqueue(tasks.fail, "boom", retry=Retry(max=1))
    wait_for(lambda: FailedJobRegistry(queue=queue).count == 1, what="the failure")
    wait_for(lambda: Scrape(url).get("rqxx_job_runs_total", queue="default", outcome="failed") == 1, what="its count")
    scrape = Scrape(url)
    assert scrape.get("rqxx_job_runs_total", queue="default", outcome="success") == 2
    assert scrape.get("rqxx_job_runs_total", queue="default", outcome="retried") == 1
    assert scrape.get("rqxx_job_run_seconds_count", queue="default", executor="python") == 4
    assert scrape.get("rqxx_job_wait_seconds_count", queue="default") == 4
    assert scrape.get("rqxx_job_overhead_seconds_count", phase="settle") == 4
    assert scrape.get("rqxx_function_runs_total", func="tasks.add", outcome="success") == 2
    assert scrape.get("rqxx_function_run_seconds_count", func="tasks.fail") == 2
    assert scrape.get("rqxx_worker_slots", state="idle") == 8
    assert scrape.get("rqxx_worker_heartbeat_age_seconds") < 60
    wait_for(lambda: Scrape(url).get("rqxx_redis_ping_seconds_count"), what="a ping")
    # What is known of all is the server's to tell: nothing is counted twice.
    assert "rqxx_queue_jobs" not in scrape.names()
    check_with_promtool(scrape.text)
    assert http("GET", url.replace("/metrics", "/healthz")).status == 200
    assert http("GET", url.replace("/metrics", "/api/rq/stats")).status == 404
    worker.signal(15)
    assert worker.wait() == 0


def test_functions_are_bounded(system, server, connection):
    serve = system.serve("--metrics-functions", url=server.url)
    queue = Queue("default", connection=connection)
    for n in range(260):
        queue.enqueue(f"missing.function_{n:03d}")
    wait_for(lambda: FailedJobRegistry(queue=queue).count == 260, what="260 failures")
    wait_for(lambda: sum(v for _, v in Scrape(serve.url + "/metrics").all("rqxx_function_runs_total")) == 260, what="their counts")
    scrape = Scrape(serve.url + "/metrics")
    runs = {labels["func"]: value for labels, value in scrape.all("rqxx_function_runs_total")}
    assert len(runs) == 201 and runs["other"] == 60
    check_with_promtool(scrape.text)


def test_a_workers_metrics_off_loopback_need_a_token(system, server):
    refused = system.rqxx("worker", "--redis-url", server.url, "--burst", "--metrics-port", "0", "--metrics-host", "0.0.0.0")
    assert refused.returncode == 2 and "token" in refused.stderr
    token = system.folder / "token"
    token.write_text("secret-of-the-scrape\n")
    worker = system.run(BUILD / "rqxx", "worker", "--redis-url", server.url, "--metrics-port", "0",
                        "--metrics-token-file", str(token))
    url = metrics_of(worker)
    assert http("GET", url).status == 401
    assert Scrape(url, headers={"Authorization": "Bearer secret-of-the-scrape"}).get("rqxx_redis_up") == 1
    assert "secret-of-the-scrape" not in worker.log


def test_no_label_names_a_job_or_a_process(web, system, connection):
    queue = Queue("default", connection=connection)
    job = queue.enqueue(tasks.noop, 1)
    assert system.rq_worker("--burst", "default").wait() == 0
    scrape = Scrape(web.url + "/metrics")
    assert job.id not in scrape.text
    assert not OWN_LABELS & {label for _, labels in scrape.series for label, _ in labels}
