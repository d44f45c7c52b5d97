"""The history that charts are drawn from: a point a second and a point a minute, whoever is there to take it."""

import struct
import time

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue
from test_http import problem

FIELDS = ["queued", "started", "finished", "failed", "retried", "oldest_age", "wait_p50", "wait_p95", "busy", "slots", "redis_ops",
          "redis_memory"]


def history(web, query=""):
    answer = http("GET", f"{web.url}/api/v1/history{query}")
    assert answer.status == 200, answer.body
    body = answer.json
    assert body["status"] == "ok" and list(body["series"]) == FIELDS
    assert all(len(values) == len(body["times"]) for values in body["series"].values())
    return body


def points(body, field="queued"):
    """{second: value} of those that are known."""
    return {at: value for at, value in zip(body["times"], body["series"][field]) if value is not None}


def wait_for_points(web, count, query=""):
    return wait_for(lambda: len(points(body := history(web, query))) >= count and body, what=f"{count} points")


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", url=server.url)


def test_each_second_has_a_point_with_the_counts_of_rq(web, connection):
    queue = Queue("default", connection=connection)
    for n in range(5):
        queue.enqueue(tasks.noop, n)
    body = wait_for(lambda: (body := history(web)) and list(points(body).values())[-3:] == [5, 5, 5] and body, what="the count")
    assert body["step"] == 1 and len(body["times"]) == 900
    assert all(b - a == 1 for a, b in zip(body["times"], body["times"][1:]))
    known = sorted(points(body))
    # Seconds follow on each other; a machine that is busy may miss some.
    assert known[-1] - known[0] < 2 * len(known)
    assert time.time() - 60 < body["times"][-1] <= time.time()
    assert points(body, "slots")[known[-1]] == 0 and points(body, "busy")[known[-1]] == 0
    assert points(body, "redis_memory")[known[-1]] > 500_000
    assert points(body, "oldest_age")[known[-1]] > 0
    # Before there was a server there is nothing: a gap, not zero.
    assert body["series"]["queued"][0] is None and body["series"]["redis_ops"][0] is None
    assert body["series"]["wait_p50"][-1] is None


def test_rates_add_up_to_the_jobs_that_ended(web, system, connection):
    connection.sadd("rq:queues", "rq:queue:default")  # Rates of a queue begin when it is known.
    wait_for_points(web, 2, "?queue=default")
    driver = system.driver()
    driver.register("w", queues=["default"])
    for n in range(12):
        driver.enqueue("tasks.noop", n)
        execution = driver.claim("w")["claimed"][0]["execution"]
        driver.settle("w", execution, *(["failure"] if n >= 10 else []))

    def total(field, query=""):
        return sum(points(history(web, query), field).values())

    for query in ("", "?queue=default"):
        wait_for(lambda: round(total("finished", query)) == 10, what="finished jobs")
        wait_for(lambda: round(total("failed", query)) == 2, what="failed jobs")
    # How long jobs waited is known of those that a worker took.
    Queue("default", connection=connection).enqueue(tasks.noop, 1)
    assert system.rq_worker("--burst", "default").wait() == 0
    waits = wait_for(lambda: list(points(history(web), "wait_p95").values()), what="a wait")
    assert len(waits) == 1 and 0 < waits[0] < 60
    minute = wait_for(lambda: (body := history(web, "?span=1h")) and points(body, "finished") and body, what="the minute")
    assert minute["step"] == 60 and len(minute["times"]) == 60 and minute["times"][-1] % 60 == 0
    assert sum(points(minute, "finished").values()) > 0


def test_history_survives_the_server_and_the_absence_is_a_gap(system, server, connection):
    first = system.serve("--no-worker", url=server.url)
    Queue("default", connection=connection).enqueue(tasks.noop, 1)
    before = points(wait_for_points(first, 3))
    first.signal(15)
    first.wait()
    gone = int(time.time())
    wait_for(lambda: time.time() > gone + 3, what="time to pass")
    second = system.serve("--no-worker", url=server.url)
    wait_for(lambda: max(points(history(second)), default=0) > gone + 2, what="points of the second server")
    after = points(history(second))
    assert set(before) <= set(after)
    assert gone + 2 not in after


def test_two_servers_make_one_point_a_second(system, server, connection):
    servers = [system.serve("--no-worker", url=server.url, data_dir=system.folder / name) for name in ("a", "b")]
    Queue("default", connection=connection).enqueue(tasks.noop, 1)
    for web in servers:
        wait_for_points(web, 5)
    one, two = (points(history(web)) for web in servers)
    shared = set(one) & set(two)
    assert len(shared) >= 5 and all(one[at] == two[at] for at in shared)
    # Each of them asks to write; in each second one of them does.
    connection.config_resetstat()
    began = time.time()
    wait_for(lambda: time.time() > began + 5, what="time to pass")
    written = connection.info("commandstats")["cmdstat_setrange"]["calls"]
    rows = 2 + 2  # Seconds and minutes, of all and of one queue.
    assert 0 < written <= (time.time() - began + 2) * rows
    # The one that does goes away: the other takes over.
    owner = connection.hget("rqxx:sampler", "owner")
    for web in servers:
        web.signal(15)
        web.wait()
        if connection.hget("rqxx:sampler", "owner") == owner:
            break
    left = [web for web in servers if web.process.poll() is None][0]
    newest = max(points(history(left)), default=0)
    wait_for(lambda: max(points(history(left)), default=0) > newest + 1, what="points of the other")


def test_a_point_of_another_round_is_a_gap(web, connection):
    body = wait_for_points(web, 2)
    rows = bytearray(connection.get("rqxx:history:s").ljust(900 * 52, b"\0"))
    # What stood in the ring a round ago, and what a clock that ran ahead has left.
    old = body["times"][100]
    for at, claimed in ((old, old - 900), (old + 1, old + 901), (old + 2, 0)):
        rows[at % 900 * 52:at % 900 * 52 + 4] = struct.pack("<I", claimed)
        rows[at % 900 * 52 + 4:at % 900 * 52 + 8] = struct.pack("<f", 99)
    at = (old + 3) % 900 * 52
    rows[at:at + 52] = struct.pack("<I12f", old + 3, *range(12))
    connection.set("rqxx:history:s", bytes(rows))
    known = points(history(web))
    assert old not in known and old + 1 not in known and old + 2 not in known
    body = history(web)
    place = body["times"].index(old + 3)
    assert [body["series"][field][place] for field in FIELDS] == list(range(12))


def test_many_points_are_joined_evenly(web, connection):
    body = wait_for_points(web, 2)
    now = body["times"][-1]
    ring = bytearray(900 * 52)
    for at in range(now - 899, now + 1):
        ring[at % 900 * 52:(at % 900 + 1) * 52] = struct.pack("<I12f", at, *([at % 10] * 12))
    connection.set("rqxx:history:s", bytes(ring))
    few = history(web, "?points=90")
    assert few["step"] == 10 and len(few["times"]) <= 90 and all(at % 10 == 0 for at in few["times"])
    middle = len(few["times"]) // 2
    assert few["series"]["queued"][middle] == 4.5  # The mean,
    assert few["series"]["oldest_age"][middle] == 9  # but of ages the greatest.
    assert history(web, "?span=5m")["step"] == 1 and len(history(web, "?span=5m")["times"]) == 300
    assert len(history(web, "?points=1")["times"]) == 1
    assert len(history(web, "?span=72h")["times"]) <= 1000


def test_a_key_of_another_type_harms_nothing(web, connection):
    wait_for_points(web, 1)
    connection.delete("rqxx:history:s", "rqxx:history:m")
    connection.lpush("rqxx:history:s", "mine")
    connection.hset("rqxx:history:m", "also", "mine")
    assert points(history(web)) == {} and points(history(web, "?span=1h")) == {}
    connection.delete("rqxx:history:s", "rqxx:history:m")
    wait_for_points(web, 2)


def test_sparklines_of_many_queues_are_one_answer(web, connection):
    names = [f"q{n}" for n in range(48)] + ["späti", "a b"]
    for name in names:
        Queue(name, connection=connection).enqueue(tasks.noop, 1)
    wait_for(lambda: connection.exists("rqxx:history:m:q0", "rqxx:history:m:a b") == 2, what="their history")
    query = ",".join(["q0", "q1", "sp%C3%A4ti", "a%20b", "unknown"])
    body = http("GET", f"{web.url}/api/v1/history/queues?queues={query}").json
    assert body["step"] == 60 and len(body["times"]) == 30
    assert list(body["queues"]) == ["q0", "q1", "späti", "a b", "unknown"]
    assert body["queues"]["späti"]["queued"][-1] == 1 and body["queues"]["unknown"]["queued"] == [None] * 30
    assert list(body["queues"]["q0"]) == FIELDS[:6]
    all_of_them = http("GET", f"{web.url}/api/v1/history/queues?span=6h&queues={','.join(f'q{n}' for n in range(48))}").json
    assert len(all_of_them["queues"]) == 48 and len(all_of_them["times"]) <= 60


def test_the_memory_is_bounded_by_fifty_queues(web, connection):
    pipe = connection.pipeline(transaction=False)
    for n in range(620):
        pipe.sadd("rq:queues", f"rq:queue:q{n:03d}")
        pipe.rpush(f"rq:queue:q{n:03d}", "a")
    pipe.execute()
    wait_for(lambda: list(points(history(web)).values())[-1:] == [620], what="all queues")
    wait_for(lambda: len(points(history(web))) >= 4, what="more points")
    keys = list(connection.scan_iter("rqxx:history:*"))
    assert len(keys) <= 2 + 2 * 50
    # As large as a ring gets: its last row.
    for key in keys:
        limit = {b"s": 900, b"m": 4320}[key.split(b":")[2]] * (28 if key.count(b":") > 2 else 52)
        assert connection.strlen(key) <= limit
        assert 0 < connection.ttl(key) <= 288_000


def test_a_question_costs_two_round_trips(web, connection):
    wait_for_points(web, 1)
    for n in range(20):
        connection.sadd("rq:queues", f"rq:queue:q{n}")
    connection.config_resetstat()
    asked = ",".join(f"q{n}" for n in range(20))
    assert http("GET", f"{web.url}/api/v1/history/queues?queues={asked}").status == 200
    assert connection.info("commandstats")["cmdstat_getrange"]["calls"] <= 2 * 20 + 4


@pytest.mark.parametrize("path, named", [
    ("history?span=2m", "span"), ("history?span=", "span"), ("history?points=0", "points"), ("history?points=1001", "points"),
    ("history?points=x", "points"), ("history/queues", "queues"), ("history/queues?queues=,", "queues"),
    ("history/queues?queues=" + ",".join(map(str, range(51))), "queues"), ("history/queues?queues=a&span=9", "span"),
])
def test_a_bad_question_is_answered_with_the_name_of_the_field(web, path, named):
    assert named in problem(http("GET", f"{web.url}/api/v1/{path}"), 422)


def test_history_can_be_switched_off(system, server, connection):
    web = system.serve("--no-worker", "--no-sampler", url=server.url)
    assert points(history(web)) == {}
    assert not connection.exists("rqxx:history:s")
