"""The index of jobs: lists that can be filtered, failures by group, whatever else goes on in Redis."""

import json
import os
import signal
import sqlite3
import urllib.parse

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue
from test_http import problem

QUIET = ("--no-worker", "--no-sampler", "--no-maintenance", "--no-scheduler", "--no-webhooks", "--no-access-log")


@pytest.fixture
def web(system, server):
    return system.serve(*QUIET, url=server.url)


@pytest.fixture
def start(system, server):
    """Starts a server beside what is in Redis already; returns it when all of that is in its index."""

    def start_serve():
        web = system.serve(*QUIET, url=server.url)
        complete(web)
        return web

    return start_serve


def ask(web, path="jobs", **params):
    pairs = [(name.rstrip("_"), value) for name, values in params.items()
             for value in (values if isinstance(values, list) else [values])]
    return http("GET", f"{web.url}/api/v1/{path}?{urllib.parse.urlencode(pairs)}")


def jobs(web, **params):
    answer = ask(web, **params)
    assert answer.status == 200, answer.body
    return answer.json["items"]


def ids(web, **params):
    return [job["id"] for job in jobs(web, **params)]


def all_ids(web, **params):
    """Page by page to the end."""
    found, cursor = [], {}
    while True:
        answer = ask(web, **params, **cursor)
        assert answer.status == 200, answer.body
        found += [job["id"] for job in answer.json["items"]]
        if not answer.json["next"]:
            return found
        cursor = {"cursor": answer.json["next"]}


def complete(web):
    wait_for(lambda: (answer := ask(web)).status == 200 and answer.json["index"]["complete"], timeout=1500,
             what="a complete index")


def saved(connection, count, status="queued", queue="default", prefix="job", at=0, **fields):
    """Hashes as RQ writes them, of jobs that nobody runs."""
    pipeline = connection.pipeline(transaction=False)
    made = []
    for i in range(count):
        made.append(f"{prefix}-{i}")
        second = at + i
        created = f"2026-01-{1 + second // 86400:02}T{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}.000000Z"
        pipeline.hset(f"rq:job:{prefix}-{i}", mapping={"status": status, "origin": queue, "created_at": created,
                                                      "description": "d", **fields})
        if i % 10000 == 9999:
            pipeline.execute()
    pipeline.execute()
    return made


def test_jobs_of_rqxx_and_their_changes_are_in_the_index(system, server, web):
    complete(web)
    created = http("POST", f"{web.url}/api/v1/jobs", {"func": "tasks.noop", "args": [2], "queue": "q"}).json["job_id"]
    item = wait_for(lambda: jobs(web, status="queued"))[0]
    assert item["id"] == created and item["queue"] == "q" and item["func_name"] == "tasks.noop"
    assert item["error"] is None and item["tags"] == [] and item["duration"] is None
    shown = http("GET", f"{web.url}/api/v1/jobs/{created}").json["job"]
    for name in ("description", "created_at", "enqueued_at", "started_at", "ended_at", "worker_name", "status"):
        assert item[name] == shown[name], name
    assert system.rqxx("job", "cancel", created, "--redis-url", server.url).returncode == 0
    assert wait_for(lambda: ids(web, status="canceled")) == [created]
    assert ids(web, status="queued") == []
    assert system.rqxx("job", "delete", created, "--redis-url", server.url).returncode == 0
    wait_for(lambda: ids(web) == [])


def test_jobs_of_stock_rq_and_what_its_workers_do_are_in_the_index(system, server, connection, web):
    complete(web)
    queue = Queue("stock", connection=connection)
    good = queue.enqueue(tasks.add, 1, 2, meta={"tags": ["blue", "customer-7"]})
    bad = queue.enqueue(tasks.fail, "the red lamp")
    wait_for(lambda: set(ids(web, status="queued")) == {good.id, bad.id})
    assert ids(web, tag="blue") == [good.id] and ids(web, func="tasks.ad*") == [good.id]
    worker = system.rq_worker("--burst", "stock")
    worker.wait()
    wait_for(lambda: ids(web, status="finished") == [good.id] and ids(web, status="failed") == [bad.id])
    failed = jobs(web, error="RED lamp")[0]
    assert failed["id"] == bad.id and "the red lamp" in failed["error"] and len(failed["error_group"]) == 16
    assert ids(web, group=failed["error_group"]) == [bad.id]
    assert ids(web, worker=failed["worker_name"], status="failed") == [bad.id]
    group = http("GET", f"{web.url}/api/v1/failures/{failed['error_group']}").json["failure"]
    assert group["count"] == 1 and group["sample_job_ids"] == [bad.id] and "Traceback" in group["traceback"]
    assert group["queues"] == [{"name": "stock", "count": 1}] and sum(group["spark"]) == 1 and len(group["spark"]) == 24
    bad.requeue()
    wait_for(lambda: ids(web, status="queued") == [bad.id])
    assert ids(web, group=failed["error_group"]) == []
    bad.delete()
    wait_for(lambda: bad.id not in ids(web))


def test_a_worker_of_ours_tells_of_what_it_does(system, server, web):
    complete(web)
    made = [http("POST", f"{web.url}/api/v1/jobs", {"func": name, "args": args}).json["job_id"]
            for name, args in (("tasks.noop", [1]), ("tasks.fail", ["worse luck"]))]
    wait_for(lambda: set(ids(web, status="queued")) == set(made))
    system.test_worker("--burst", "default").wait()
    wait_for(lambda: set(ids(web, status=["finished", "failed"])) == set(made))
    [failed] = jobs(web, status="failed")
    assert "worse luck" in failed["error"] and ids(web, worker=failed["worker_name"], status="failed") == [failed["id"]]


def test_filters_combine(connection, start):
    saved(connection, 30, "queued", "high", "h")
    saved(connection, 30, "finished", "high", "f", at=100, started_at="2026-01-02T00:00:00.000000Z",
          ended_at="2026-01-02T00:00:05.000000Z", worker_name="w1")
    saved(connection, 30, "finished", "low", "l", at=200)
    web = start()
    assert len(all_ids(web)) == 90
    assert all_ids(web, queue="high", status="finished") == [f"f-{i}" for i in reversed(range(30))]
    assert len(all_ids(web, queue=["high", "low"], status="finished")) == 60
    assert len(all_ids(web, queue="*i*")) == 60 and ids(web, queue="nowhere") == []
    assert len(all_ids(web, worker="w1", min_duration=5, max_duration=5)) == 30 and ids(web, min_duration=5.1) == []
    assert ids(web, id="h-2", order="oldest") == ["h-2", *[f"h-{i}" for i in range(20, 30)]]
    assert all_ids(web, since="2026-01-01T00:03:20Z", limit=7) == [f"l-{i}" for i in reversed(range(30))]
    assert all_ids(web, until="2026-01-01T00:00:02Z") == ["h-1", "h-0"]
    answer = ask(web, queue="high", status="queued", limit=10).json
    assert answer["approx_total"] == 30 and answer["total_is_exact"] and len(answer["items"]) == 10
    assert answer["index"] == {"complete": True, "jobs": 90, "progress": 1.0, "max_age": 2}


def test_pages_hold_while_jobs_come_move_and_go(connection, start):
    made = saved(connection, 60, "queued")
    web = start()
    first = ask(web, limit=20).json
    saved(connection, 30, "queued", prefix="new", at=5000)
    for i in range(5):
        connection.hset(f"rq:job:job-{i}", "status", "finished")
    connection.delete("rq:job:job-10")
    found, answer = [job["id"] for job in first["items"]], first
    while answer["next"]:
        answer = ask(web, limit=20, cursor=answer["next"]).json
        found += [job["id"] for job in answer["items"]]
    assert found == [id_ for id_ in reversed(made) if id_ != "job-10"]
    assert [job["status"] for job in jobs(web, id="job-3", order="oldest", limit=1)] == ["finished"]
    assert "job-3" not in all_ids(web, status="queued"), "what the index knows late must not be shown"
    wait_for(lambda: "job-3" in all_ids(web, status="finished"))


@pytest.mark.parametrize("query", [
    "colour=red", "status=unwell", "limit=0", "limit=51", "limit=x", "order=random", "since=yesterday", "min_duration=-1",
    "max_duration=long", "id=a/b", "cursor=abc", "cursor=1_2_0123456789", "format=xml", "error=a&error=b",
    "queue=" + "q" * 300, "&".join("tag=a%d" % i for i in range(30))])
def test_bad_filters_are_refused_and_named(web, query):
    complete(web)
    answer = problem(http("GET", f"{web.url}/api/v1/jobs?{query}"), 422)
    assert query.split("=")[0] in answer


def test_a_cursor_of_another_list_is_refused(connection, start):
    saved(connection, 30)
    web = start()
    cursor = ask(web, limit=10).json["next"]
    assert "cursor" in problem(ask(web, limit=10, cursor=cursor, status="queued"), 422)
    assert ask(web, limit=5, cursor=cursor).status == 200


def test_all_that_fit_come_as_lines(connection, start):
    made = saved(connection, 230)
    web = start()
    answer = http("GET", f"{web.url}/api/v1/jobs?order=oldest", headers={"Accept": "application/x-ndjson"})
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line)["id"] for line in answer.body.splitlines()] == made
    assert http("GET", f"{web.url}/api/v1/jobs?format=ndjson&status=failed").body == b""


def test_hostile_jobs_hurt_nobody(connection, start):
    connection.set("rq:job:text", "x")
    connection.lpush("rq:job:list", "x")
    connection.hset("rq:job:bytes", mapping={b"status": b"\xff\xfe", b"origin": b"q\x00\xff", b"created_at": b"never",
                                             b"data": b"\x80\x04nonsense", b"meta": b"\xff", b"description": b"\xff" * 10})
    connection.hset("rq:job:huge", mapping={"status": "failed", "origin": "q" * 100000, "data": b"x" * 3_000_000,
                                            "exc_info": b"y" * 3_000_000, "description": "z" * 3_000_000,
                                            "created_at": "2026-01-01T00:00:00.000000Z"})
    connection.hset("rq:job:bad id", "status", "queued")
    connection.hset("rq:job:sound", mapping={"status": "queued", "origin": "q"})
    connection.set("rq:results:huge", "of another type")
    web = start()
    found = {job["id"]: job for job in jobs(web)}
    assert set(found) == {"bytes", "huge", "sound"}
    assert found["bytes"]["status"] == "\ufffd\ufffd" and found["bytes"]["created_at"] is None
    assert len(found["huge"]["description"]) <= 1000 and found["huge"]["func_name"] is None


@pytest.mark.parametrize("damage", ["deleted", "nonsense", "older"])
def test_a_lost_or_damaged_index_is_made_anew(system, server, connection, damage):
    saved(connection, 40)
    web = system.serve(*QUIET, url=server.url)
    complete(web)
    web.signal(signal.SIGKILL)
    web.wait()
    file = system.folder / "data" / "job_index.db"
    if damage == "older":
        with sqlite3.connect(file) as database:
            database.execute("UPDATE meta SET value = '0' WHERE key = 'schema'")
        database.close()
    else:
        for path in file.parent.glob("job_index.db*"):
            path.unlink()
        if damage == "nonsense":
            file.write_bytes(b"not a database" * 1000)
    web = system.serve(*QUIET, url=server.url)
    complete(web)
    assert len(all_ids(web)) == 40


def test_what_happens_while_no_server_runs_is_found_afterwards(system, server, connection):
    saved(connection, 50)
    web = system.serve(*QUIET, url=server.url)
    complete(web)
    web.signal(signal.SIGKILL)
    web.wait()
    connection.delete("rqxx:changes:wanted")
    connection.delete(*[f"rq:job:job-{i}" for i in range(20)])
    connection.hset("rq:job:job-30", "status", "finished")
    saved(connection, 5, prefix="more")
    web = system.serve(*QUIET, url=server.url)
    complete(web)
    assert len(all_ids(web)) == 35 and ids(web, status="finished") == ["job-30"]


def test_an_emptied_redis_and_another_one_begin_a_new_index(system, server, connection, web):
    saved(connection, 30)
    complete(web)
    connection.flushall()
    saved(connection, 3, prefix="other")
    wait_for(lambda: ask(web).json["index"]["jobs"] == 3, timeout=30, what="the new jobs alone")
    web.signal(signal.SIGTERM)
    web.wait()
    second = system.redis()
    saved(second.client, 7, prefix="elsewhere")
    web = system.serve(*QUIET, url=second.url)
    complete(web)
    assert len(all_ids(web)) == 7


def test_who_falls_behind_the_stream_looks_at_all_jobs_again(connection, web):
    complete(web)
    saved(connection, 10, prefix="unseen")
    connection.xtrim("rqxx:changes", maxlen=0)
    wait_for(lambda: "changes were dropped" in web.log)
    wait_for(lambda: len(ids(web, id="unseen")) == 10)


def test_what_nobody_told_of_makes_all_indexes_look_again(system, server, connection):
    saved(connection, 20)
    first = system.serve(*QUIET, url=server.url)
    complete(first)
    first.signal(signal.SIGKILL)
    first.wait()
    # As after a minute without a server; then another one comes first, and wants to be told.
    connection.delete("rqxx:changes:wanted")
    connection.hset("rq:job:job-3", "status", "finished")
    complete(system.serve(*QUIET, url=server.url, data_dir=system.folder / "other"))
    first = system.serve(*QUIET, url=server.url)
    complete(first)
    assert ids(first, status="finished") == ["job-3"] and "The job index is complete" in first.log


def test_a_server_that_was_stopped_for_long_looks_at_all_jobs_again(connection, web):
    complete(web)
    web.signal(signal.SIGSTOP)
    connection.delete("rqxx:changes:wanted")
    web.signal(signal.SIGCONT)
    wait_for(lambda: "looks at all jobs again" in web.log)
    assert connection.exists("rqxx:changes:wanted")


def test_a_second_look_that_was_not_ended_is_made_after_a_restart(system, server, connection):
    saved(connection, 20_000)
    web = system.serve(*QUIET, url=server.url)
    complete(web)
    connection.xtrim("rqxx:changes", maxlen=0)
    file = system.folder / "data" / "job_index.db"

    def said_to_be_complete():
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
            return database.execute("SELECT value FROM meta WHERE key = 'complete'").fetchone() == ("1",)

    wait_for(lambda: not said_to_be_complete())
    web.signal(signal.SIGKILL)
    web.wait()
    web = system.serve(*QUIET, url=server.url)
    complete(web)
    assert "The job index is complete" in web.log


def test_changes_are_told_only_where_somebody_wants_to_know(system, server, connection):
    system.rqxx("enqueue", "f.g", "--redis-url", server.url)
    assert not connection.exists("rqxx:changes")
    connection.set("rqxx:changes:wanted", "1")
    system.rqxx("enqueue", "f.g", "--redis-url", server.url)
    [(_, entry)] = connection.xrange("rqxx:changes")
    assert connection.exists(b"rq:job:" + entry[b"ids"])


def everything(connection):
    return {key: connection.dump(key) for key in connection.keys("*")}


def read_only(system, server, connection, *args):
    """A server whose Redis user may write nothing."""
    connection.acl_setuser("reader", enabled=True, passwords=["+secret"], commands=["+@all", "-@write"], keys=["*"], channels=["*"])
    return system.serve("--read-only", "--no-access-log", *args, url=server.url.replace("unix://", "unix://reader:secret@"),
                        data_dir=system.folder / "reading")


def test_a_read_only_server_has_an_index_and_writes_nothing(system, server, connection):
    failed = fail_jobs(system, connection, "order 1 is bad", "order 22 is bad")
    saved(connection, 30)
    before = everything(connection)
    web = read_only(system, server, connection)
    complete(web)
    assert set(ids(web, status="failed")) == set(failed) and len(all_ids(web)) == 32
    answer = ask(web, "failures").json
    assert [group["count"] for group in answer["items"]] == [2] and answer["index"]["complete"]
    assert ask(web, "suggest", field="func").json["values"] == [{"value": "tasks.fail", "count": 2}]
    group = http("GET", f"{web.url}/api/v1/failures/{answer['items'][0]['id']}").json["failure"]
    assert "Traceback" in group["traceback"]
    denied = [entry for entry in connection.acl_log() if entry["username"] == "reader"]
    assert everything(connection) == before and denied == []


def test_a_read_only_server_finds_changes_that_nobody_tells_of(system, server, connection):
    saved(connection, 30)
    web = read_only(system, server, connection)
    complete(web)
    connection.hset("rq:job:job-7", "status", "finished")
    connection.delete("rq:job:job-8")
    saved(connection, 2, prefix="more")
    wait_for(lambda: ids(web, status="finished") == ["job-7"] and len(all_ids(web)) == 31 and ask(web).json["index"]["jobs"] == 31)
    assert not connection.exists("rqxx:changes:wanted", "rqxx:index:identity")
    assert 2 <= ask(web).json["index"]["max_age"] < 60
    connection.flushall()
    wait_for(lambda: ask(web).json["index"]["jobs"] == 0)


def test_a_read_only_server_reads_what_scripts_tell_another_index(system, server, connection, web):
    complete(web)
    reader = read_only(system, server, connection)
    complete(reader)
    assert ask(web).json["index"]["max_age"] == ask(reader).json["index"]["max_age"] == 2
    # No place of a queue shows it, and a walk has many keys to look at before.
    saved(connection, 20_000)
    connection.xadd("rqxx:changes", {"ids": "job-19999"})
    wait_for(lambda: ids(reader, id="job-19999") == ["job-19999"])
    connection.xtrim("rqxx:changes", maxlen=0)
    wait_for(lambda: "changes were dropped" in reader.log)
    wait_for(lambda: ask(reader).json["index"]["jobs"] == 20_000, timeout=120)
    web.signal(signal.SIGTERM)
    web.wait()
    connection.delete("rqxx:changes:wanted")
    created = system.rqxx("enqueue", "f.g", "--redis-url", server.url).stdout.split()[-1]
    wait_for(lambda: ids(reader, func="f.g"), what=created)
    wait_for(lambda: (ask(reader).json["index"]["max_age"] or 0) > 2, timeout=60)


def test_the_index_can_be_switched_off(system, server, connection):
    web = system.serve(*QUIET, "--no-index", url=server.url)
    for path in ("jobs", "failures", "suggest?field=func"):
        answer = http("GET", f"{web.url}/api/v1/{path}")
        assert problem(answer, 404) and answer.json["code"] == "index_off"
    assert not (system.folder / "data" / "job_index.db").exists() and not connection.exists("rqxx:changes:wanted")


def test_redis_may_go_away_and_come_back(system):
    server = system.redis(persistent=True)
    saved(server.client, 20)
    web = system.serve(*QUIET, url=server.url)
    complete(web)
    server.stop(signal.SIGKILL)
    assert problem(ask(web), 503)
    server.start()
    saved(server.client, 5, prefix="later")
    Queue("default", connection=server.client).enqueue(tasks.noop, 1)
    wait_for(lambda: ask(web).status == 200 and ids(web, func="tasks.noop"), timeout=40)
    complete(web)
    assert {job["id"] for job in jobs(web, id="job")} >= {"job-0"}


def fail_jobs(system, connection, *errors):
    made = [Queue("q", connection=connection).enqueue(tasks.fail, error) for error in errors]
    system.rq_worker("--burst", "q").wait()
    return [job.id for job in made]


def test_failures_are_grouped_sorted_and_triaged(system, connection, web):
    complete(web)
    fail_jobs(system, connection, "order 1 is bad", "order 22 is bad", "the lamp is red")
    groups = wait_for(lambda: len(items := ask(web, "failures").json["items"]) == 2 and items)
    by_count = ask(web, "failures", sort="count").json["items"]
    assert [group["count"] for group in by_count] == [2, 1]
    orders, lamp = by_count
    assert "order <n> is bad" in orders["message"] and len(orders["sample_job_ids"]) == 2 and orders["frame"].startswith("tasks.py:")
    assert {group["id"] for group in groups} == {orders["id"], lamp["id"]} and {g["state"] for g in groups} == {"open"}
    page = ask(web, "failures", sort="count", limit=1).json
    rest = ask(web, "failures", sort="count", limit=1, cursor=page["next"]).json
    assert [page["items"][0]["id"], rest["items"][0]["id"]] == [orders["id"], lamp["id"]] and not rest["next"]

    url = f"{web.url}/api/v1/failures/"
    muted = http("POST", f"{url}{lamp['id']}/mute", None).json["failure"]
    assert muted["state"] == "muted" and muted["decided_by"] == "127.0.0.1"
    assert http("POST", f"{url}{orders['id']}/resolve").json["failure"]["state"] == "resolved"
    assert ask(web, "failures", state="open").json["items"] == []
    assert [g["id"] for g in ask(web, "failures", state="muted").json["items"]] == [lamp["id"]]
    fail_jobs(system, connection, "order 333 is bad", "the lamp is red")
    wait_for(lambda: [g["id"] for g in ask(web, "failures", state="open").json["items"]] == [orders["id"]])
    assert http("POST", f"{url}{lamp['id']}/reopen").json["failure"]["state"] == "open"
    assert problem(http("POST", f"{url}0123456789abcdef/mute"), 404)
    assert problem(http("POST", f"{url}{lamp['id']}/mute", {"who": "x"}), 422)
    assert problem(ask(web, "failures", state="odd"), 422) and problem(ask(web, "failures", colour="x"), 422)
    assert ask(web, "failures", queue="q", func="tasks.*").json["items"] and not ask(web, "failures", queue="z").json["items"]


def test_one_failed_job_among_many_is_found_by_part_of_its_error(connection, start):
    pipeline = connection.pipeline()
    for i in range(3000):
        pipeline.hset(f"rq:job:j{i}", mapping={"status": "failed", "origin": "q", "created_at": "2026-01-01T00:00:00.000000Z",
                                               "exc_info": f"ValueError: order {i} of customer {i * 7919}"})
    pipeline.execute()
    web = start()
    assert ids(web, error=f"CUSTOMER {1234 * 7919}") == ["j1234"]
    assert len(all_ids(web, error="of customer", limit=50)) == 3000
    [group] = ask(web, "failures").json["items"]
    assert group["count"] == 3000 and group["message"] == "order <n> of customer <n>"


def test_values_of_filters_are_suggested(connection, start):
    saved(connection, 3, queue="high")
    saved(connection, 2, queue="hidden", prefix="x")
    saved(connection, 1, queue="low", prefix="y")
    web = start()
    assert ask(web, "suggest", field="queue", prefix="hi").json["values"] == [{"value": "high", "count": 3},
                                                                            {"value": "hidden", "count": 2}]
    assert ask(web, "suggest", field="status").json["values"] == [{"value": "queued", "count": 6}]
    assert problem(ask(web, "suggest"), 422) and problem(ask(web, "suggest", field="age"), 422)


@pytest.mark.parametrize("count", [10_000, 40_000, *([200_000, 1_000_000] if os.environ.get("RQXX_FULL") else [])])
def test_a_list_costs_redis_the_same_however_many_jobs_there_are(connection, start, count):
    for status in ("queued", "failed"):
        saved(connection, count, status, "a", f"{status}-a")
    web = start()
    filters = [{}, {"status": "failed"}, {"queue": "a", "status": "queued"}, {"queue": "*", "order": "oldest"},
               {"id": "queued-a-77"}, {"since": "2026-01-01T01:00:00Z", "status": "failed"}, {"error": "none"}]
    # Told apart from what the index does meanwhile by the keys: only lists name those of jobs.
    for limit in (25, 50):
        for params in filters:
            calls = []
            with connection.monitor() as monitor:
                assert ask(web, limit=limit, **params).status == 200
                connection.echo("done")
                for entry in monitor.listen():
                    if entry["command"].startswith("ECHO"):
                        break
                    if entry["client_type"] != "lua" and entry["command"].startswith("EVALSHA"):
                        calls.append(entry["command"].split())
            listing = [call for call in calls if int(call[2]) > 0 and call[3].startswith("rq:job:")]
            assert 1 <= len(listing) <= 3 and sum(int(call[2]) for call in listing) <= 50, (params, listing)
