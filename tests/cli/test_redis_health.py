"""How Redis is doing, and what is wrong with the queues."""

import time

import pytest
import tasks
from conftest import RedisServer, http, wait_for
from rq import Queue

MEMBERS = ["version", "mode", "role", "uptime", "rtt", "clock_skew", "ops_per_second", "memory", "evicted_keys", "expired_keys",
           "clients", "blocked_clients", "persistence", "replication", "slowlog", "keys", "largest", "findings"]


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", "--no-scheduler", url=server.url)


def health(web):
    body = http("GET", web.url + "/api/v1/redis").json
    assert body["status"] == "ok" and list(body["redis"]) == MEMBERS
    return body["redis"]


def codes(web):
    return {finding["code"] for finding in health(web)["findings"]}


def alerts(web):
    body = http("GET", web.url + "/api/v1/alerts").json
    assert body["status"] == "ok"
    for one in body["alerts"]:
        assert one["level"] in ("warning", "error") and one["text"]
    return body["alerts"]


def test_it_tells_what_redis_says_of_itself(web, connection):
    for n in range(10):
        Queue("default", connection=connection).enqueue(tasks.noop, "x" * 1000 if n == 3 else n)
    wait_for(lambda: health(web)["rtt"]["p50"] is not None, what="an answer to be measured")
    # The server itself makes a key now and then.
    info, shown = connection.info(), wait_for(lambda: (told := health(web))["keys"]["total"] == connection.dbsize() and told)
    assert shown["version"] == info["redis_version"] and shown["role"] == "master" and shown["mode"] == "standalone"
    assert 0 < shown["rtt"]["p50"] <= shown["rtt"]["p99"] < 10_000
    assert shown["memory"]["used"] > 500_000 and shown["memory"]["max"] is None and shown["memory"]["policy"] == "noeviction"
    assert shown["clients"] == info["connected_clients"] and shown["evicted_keys"] == 0
    assert shown["persistence"]["aof"] is False and shown["persistence"]["rdb_last_status"] == "ok"
    assert abs(shown["clock_skew"]) < 1
    families = {family["family"]: family for family in shown["keys"]["families"]}
    assert shown["keys"]["sampled"] is False
    assert families["rq:job"]["keys"] == 10 and families["rq:queue"]["keys"] == 1 and families["rq:queues"]["keys"] == 1
    assert families["rq:job"]["bytes"] > 10 * 100
    sizes = [one["bytes"] for one in shown["largest"]]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 10


def test_of_many_keys_a_sample_tells(web, connection):
    pipe = connection.pipeline(transaction=False)
    for n in range(9000):
        pipe.hset(f"rq:job:{n}", "status", "queued")
    for n in range(3000):
        pipe.set(f"session:{n}", "x")
    pipe.execute()
    connection.config_resetstat()
    shown = health(web)
    used = connection.info("commandstats")
    assert used["cmdstat_memory|usage"]["calls"] <= 300 and used["cmdstat_randomkey"]["calls"] <= 300
    families = {family["family"]: family["keys"] for family in shown["keys"]["families"]}
    assert shown["keys"]["sampled"] is True
    # 300 of 12 000 tell within a few percent; this leaves it ten standard deviations.
    assert 0.5 < families["rq:job"] / 9000 < 1.4 and families["other"] > 300


def test_the_slow_log_names_commands_and_never_arguments(web, connection):
    connection.config_set("slowlog-log-slower-than", 0)
    connection.set("rq:job:of-interest", "secret-argument")
    connection.set("my-private-key", "secret-argument")
    connection.execute_command("ECHO", "secret-message")
    connection.rpush("rq:queue:default", *["secret-id"] * 50)
    connection.config_set("slowlog-log-slower-than", -1)
    answer = http("GET", web.url + "/api/v1/redis")
    assert b"secret" not in answer.body and b"private" not in answer.body.split(b'"slowlog"')[1].split(b"]")[0]
    commands = [entry["command"] for entry in answer.json["redis"]["slowlog"]]
    assert "SET rq:job:of-interest" in commands and "SET" in commands and "ECHO" in commands and "RPUSH rq:queue:default" in commands
    assert all(entry["micros"] >= 0 and entry["at"].endswith("Z") for entry in answer.json["redis"]["slowlog"])


def test_a_policy_that_throws_jobs_away_is_an_error(web, connection):
    assert "eviction_policy" not in codes(web)
    connection.config_set("maxmemory-policy", "allkeys-lru")
    assert "eviction_policy" in codes(web)
    assert [one["level"] for one in alerts(web) if one["code"] == "eviction_policy"] == ["error"]
    connection.config_set("maxmemory-policy", "noeviction")
    assert "eviction_policy" not in codes(web) and alerts(web) == []


def test_keys_that_were_thrown_away_and_full_memory_are_errors(web, connection):
    connection.config_set("maxmemory", connection.info()["used_memory"] + 200_000)
    wait_for(lambda: "memory_nearly_full" in codes(web), what="the finding")
    connection.config_set("maxmemory-policy", "allkeys-random")
    connection.config_set("maxmemory", connection.info()["used_memory"] + 2_000_000)
    for n in range(400):
        connection.set(f"filler:{n}", "x" * 10_000)
    assert connection.info()["evicted_keys"] > 0
    assert {"evicted_keys", "eviction_policy"} <= codes(web)


def test_persistence_is_looked_at(system, web, connection):
    assert "no_persistence" in codes(web)
    connection.config_set("save", "900 1")
    assert "no_persistence" not in codes(web)
    connection.config_set("save", "")
    lasting = RedisServer(system.folder, persistent=True)
    system.things.append(lasting)
    other = system.serve("--no-worker", url=lasting.url, data_dir=system.folder / "lasting")
    assert "no_persistence" not in codes(other) and health(other)["persistence"]["aof"] is True


def test_a_replica_that_has_lost_its_master_is_an_error(system, web, connection):
    connection.config_set("replica-serve-stale-data", "yes")
    connection.replicaof("127.0.0.1", 1)
    wait_for(lambda: "replication_down" in codes(web), what="the finding")
    assert health(web)["role"] == "slave" and health(web)["replication"]["master_link"] == "down"
    connection.replicaof("no", "one")


def test_jobs_that_nobody_takes_are_an_alert_of_their_queue(web, system, connection):
    assert alerts(web) == []
    Queue("default", connection=connection).enqueue(tasks.noop, 1)
    Queue("quiet", connection=connection)
    (alert,) = alerts(web)
    assert alert["code"] == "no_listener" and alert["queue"] == "default" and alert["level"] == "error"
    # A paused queue waits because somebody wants it to.
    assert system.rqxx("queue", "pause", "default", "--redis-url", web.redis_url).returncode == 0
    assert alerts(web) == []
    assert system.rqxx("queue", "resume", "default", "--redis-url", web.redis_url).returncode == 0
    system.test_worker("--queues", "default")
    wait_for(lambda: alerts(web) == [], what="the worker to listen")


def test_scheduled_jobs_without_a_scheduler_are_an_alert(web, connection):
    connection.sadd("rq:queues", "rq:queue:default")
    connection.zadd("rq:scheduled:default", {"a": time.time() + 500})
    assert alerts(web) == []
    connection.zadd("rq:scheduled:default", {"b": time.time() - 30})
    assert [(one["code"], one["queue"]) for one in alerts(web)] == [("no_scheduler", "default")]
    connection.set("rq:scheduler-lock:default", "somebody", ex=60)
    assert alerts(web) == []


def test_started_jobs_that_nobody_vouches_for_are_an_alert(system, server, connection):
    web = system.serve("--no-worker", "--no-maintenance", url=server.url)
    connection.sadd("rq:queues", "rq:queue:default")
    connection.zadd("rq:wip:default", {"alive:1": time.time() + 60, "just-over:1": time.time() - 5})
    assert alerts(web) == []
    connection.zadd("rq:wip:default", {"gone:1": time.time() - 300})
    assert [(one["code"], one["queue"]) for one in alerts(web)] == [("started_without_lease", "default")]


def test_alerts_are_bounded_and_text_is_harmless(web, connection):
    for n in range(100):
        connection.sadd("rq:queues", f"rq:queue:q{n}")
        connection.rpush(f"rq:queue:q{n}", "a")
    connection.sadd("rq:queues", b"rq:queue:\xff")
    connection.rpush(b"rq:queue:\xff", "a")
    found = alerts(web)
    assert len(found) == 21 and "81 more" in found[-1]["text"]


def test_suspended_workers_are_an_alert(web, connection):
    connection.set("rq:suspended", 1)
    assert [one["code"] for one in alerts(web)] == ["suspended"]


def test_alerts_cost_three_round_trips(system, server, connection):
    web = system.serve("--no-worker", "--no-scheduler", "--no-sampler", "--no-maintenance", "--no-index", "--no-cron",
                       url=server.url)
    for n in range(30):
        Queue(f"q{n}", connection=connection).enqueue(tasks.noop, 1)

    def trips():
        text = http("GET", web.url + "/metrics").body.decode()
        return float(text.split("\nrqxx_redis_round_trips_total ")[1].split("\n")[0])

    # A scrape asks as well, and a ping goes out each second: what 40 answers add is theirs.
    before = trips()
    began = time.monotonic()
    for _ in range(40):
        alerts(web)
    pings = time.monotonic() - began + 2
    assert trips() - before <= 40 * 3 + 10 + pings


def test_redis_away_is_503(web, server):
    server.stop()
    wait_for(lambda: http("GET", web.url + "/api/v1/redis").status == 503, what="503")
    assert http("GET", web.url + "/api/v1/alerts").status == 503
