"""Jobs for later, and cron jobs: listed, added, changed, paused, run now, fired by `serve`."""

import datetime
import json

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue
from rq.job import Job
from test_actions_api import act, everything, queue, status, web  # noqa: F401
from test_http import problem

ENTRY = {"name": "tick", "func": "tasks.add", "args": [1, 2], "every": 1, "queue": "crons"}


def cron(web, path="", method="GET", body=None, **headers):
    return http(method, f"{web.url}/api/v1/cron{path}", body, headers={k.replace("_", "-"): v for k, v in headers.items()})


def schedules(web, **query):
    suffix = "&".join(f"{k}={v}" for k, v in query.items())
    return http("GET", f"{web.url}/api/v1/schedules?{suffix}")


# ---- jobs for later ----------------------------------------------------------------------------------

def test_jobs_for_later_are_listed_by_time(web, queue, connection):  # noqa: F811
    assert schedules(web).json == {"status": "ok", "items": [], "next": None}
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    Queue("other", connection=connection).enqueue_at(soon + datetime.timedelta(hours=1), tasks.fail, "x", job_id="b")
    queue.enqueue_at(soon, tasks.add, 1, 2, job_id="a", description="first")
    Queue("other", connection=connection).enqueue("tasks.add", 1, 2)
    items = schedules(web).json["items"]
    assert [(i["job_id"], i["queue"], i["func_name"]) for i in items] == [("a", "default", "tasks.add"), ("b", "other", "tasks.fail")]
    assert items[0]["at"] == soon.strftime("%Y-%m-%dT%H:%M:%S.000000Z") and items[0]["description"] == "first"
    assert [i["job_id"] for i in schedules(web, queue="other").json["items"]] == ["b"]
    assert schedules(web, queue="none").json["items"] == []


def test_pages_stay_in_step_while_jobs_move(web, connection):  # noqa: F811
    connection.sadd("rq:queues", "rq:queue:a", "rq:queue:b")
    for i in range(60):
        connection.zadd(f"rq:scheduled:{'ab'[i % 2]}", {f"job-{i:02}": 4000000000 + (0 if i < 40 else i)})
    seen, cursor = [], ""
    while cursor is not None:
        page = schedules(web, limit=7, **({"cursor": cursor} if cursor else {})).json
        seen += [item["job_id"] for item in page["items"]]
        cursor = page["next"]
        if seen and len(seen) < 30:    # What has been seen leaves, what is new comes before and behind.
            connection.zrem("rq:scheduled:a", seen[0])
            connection.zadd("rq:scheduled:b", {f"new-{len(seen)}": 1})
    assert seen == [f"job-{i:02}" for i in range(60)]


@pytest.mark.parametrize("query", [{"cursor": "x"}, {"cursor": "1:zz:"}, {"limit": 201}])
def test_bad_queries_are_refused(web, query):  # noqa: F811
    assert problem(schedules(web, **query), 422)


def test_a_scheduled_job_is_run_now(web, queue, connection):  # noqa: F811
    queue.enqueue_in(datetime.timedelta(hours=1), tasks.add, 1, 2, job_id="a")
    before = everything(connection)
    assert act(web, "a", "run-now", dry_run="true").status == 200 and everything(connection) == before
    answer = act(web, "a", "run-now")
    assert answer.status == 200 and answer.json["result"]["status"] == "scheduled"
    assert queue.job_ids == ["a"] and status(connection, "a") == "queued" and connection.zcard("rq:scheduled:default") == 0
    assert problem(act(web, "a", "run-now"), 409) == "The job is not scheduled: it is queued"
    assert problem(act(web, "nope", "run-now"), 404)


def told_of(connection):
    """Ids of jobs that the index was told of."""
    return {job_id for _, fields in connection.xrange("rqxx:changes") for job_id in fields[b"ids"].decode().split()}


def later(queue, job_id, **options):  # noqa: F811
    return queue.enqueue_in(datetime.timedelta(hours=1), tasks.add, 1, 2, job_id=job_id, **options)


def test_the_index_is_told_of_jobs_that_are_run_now(web, queue, connection):  # noqa: F811
    wait_for(lambda: connection.exists("rqxx:changes:wanted") and connection.exists("rqxx:changes"))
    later(queue, "a")
    assert act(web, "a", "run-now").status == 200
    cron(web, method="POST", body={**ENTRY, "every": 86400})
    job_id = cron(web, "/tick/run-now", "POST").json["job_id"]
    assert {"a", job_id} <= told_of(connection)


def test_a_job_whose_queue_is_no_list_stays_scheduled(web, queue, connection):  # noqa: F811
    later(queue, "a")
    connection.set("rq:queue:default", "x")
    before = everything(connection)
    for query in ({"dry_run": "true"}, {}):
        assert "cannot be put on its queue" in problem(act(web, "a", "run-now", **query), 409)
    connection.delete("rqxx:audit")    # It tells of what was refused.
    assert everything(connection) == before


def test_a_job_that_a_stock_scheduler_is_about_to_enqueue_is_left_to_it(web, queue, connection):  # noqa: F811
    later(queue, "a")
    connection.zadd("rq:scheduled:default", {"a": 1})
    connection.set("rq:scheduler-lock:default", "stock")
    assert "RQ's scheduler" in problem(act(web, "a", "run-now"), 409)
    assert connection.zscore("rq:scheduled:default", "a") == 1 and queue.job_ids == []
    connection.zadd("rqxx:schedulers", {"stock": 4e15})
    assert act(web, "a", "run-now").status == 200 and queue.job_ids == ["a"]


def test_a_job_that_was_put_into_the_registry_by_hand_is_run_now(web, queue, connection):  # noqa: F811
    job = queue.create_job(tasks.add, (1, 2), job_id="a", status="created")
    job.save()
    assert problem(act(web, "a", "run-now"), 409) == "The job is not scheduled: it is created"
    queue.scheduled_job_registry.schedule(job, datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1))
    assert act(web, "a", "run-now").status == 200 and queue.job_ids == ["a"]


def test_a_retry_for_the_front_of_its_queue_is_run_now_there(web, queue, connection):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="first")
    later(queue, "a")
    connection.hset("rq:job:a", mapping={"enqueue_at_front_on_retry": "1", "ended_at": "2026-01-01T00:00:00.000000Z"})
    assert act(web, "a", "run-now").status == 200 and queue.job_ids == ["a", "first"]


# ---- cron --------------------------------------------------------------------------------------------

def test_a_cron_job_is_added_fired_changed_and_removed(web, connection):  # noqa: F811
    answer = cron(web, method="POST", body=ENTRY)
    assert answer.status == 201, answer.body
    assert answer.headers["Location"] == "/api/v1/cron/tick"
    added = answer.json["cron"]
    assert (added["name"], added["interval"], added["queue"], added["func_name"], added["args"]) == ("tick", 1, "crons", "tasks.add", [1, 2])
    assert added["stored"] and len(added["next"]) == 5 and added["last"] is None and not added["paused"] and added["can_pause"]
    assert answer.headers["ETag"] == f'"{added["etag"]}"'
    wait_for(lambda: connection.llen("rq:queue:crons") >= 2)
    (listed,) = cron(web).json["items"]
    assert listed["leader"] and listed["runs"] and listed["last"]["status"] == "queued" and listed["lag"] >= 0
    assert problem(cron(web, method="POST", body=ENTRY), 409)

    changed = cron(web, "/tick", "PATCH", {"every": None, "cron": "0 3 * * 1-5", "timezone": "Europe/Berlin"})
    assert changed.status == 200, changed.body
    assert changed.json["cron"]["expression"] == "0 3 * * 1-5" and changed.json["cron"]["words"] == "at 03:00, Monday to Friday"
    assert changed.json["cron"]["timezone"] == "Europe/Berlin" and changed.json["cron"]["interval"] is None
    assert cron(web, "/tick", "DELETE").json == {"status": "ok", "name": "tick"}
    assert cron(web).json["items"] == [] and not connection.exists("rqxx:cron:tick")
    assert problem(cron(web, "/tick"), 404) == "Cron job not found"


def test_changes_can_be_bound_to_what_was_read(web):  # noqa: F811
    first = cron(web, method="POST", body=ENTRY).headers["ETag"]
    second = cron(web, "/tick", "PATCH", {"every": 60}, If_Match=first)
    assert second.status == 200 and second.headers["ETag"] != first
    assert problem(cron(web, "/tick", "PATCH", {"every": 90}, If_Match=first), 412)
    assert problem(cron(web, "/tick", "DELETE", If_Match=first), 412)
    assert problem(cron(web, "/tick", "DELETE", If_Match="odd"), 422)
    assert cron(web, "/tick").json["cron"]["interval"] == 60
    assert cron(web, "/tick", "DELETE", If_Match=second.headers["ETag"]).status == 200


@pytest.mark.parametrize("body, told", [
    ([], "must be an object"), ({}, "name: is missing"), ({"name": "a"}, "func: is missing"),
    ({**ENTRY, "name": "a b"}, "name: "), ({**ENTRY, "name": 1}, "name: must be text"), ({**ENTRY, "func": ""}, "func: "),
    ({**ENTRY, "every": 0}, "every: must be at least 1 s"), ({**ENTRY, "every": "soon"}, "every: "), ({**ENTRY, "every": None}, "cron: either it or every"),
    ({**ENTRY, "cron": "* * * * *"}, "every: give either it or cron"), ({**ENTRY, "every": None, "cron": "61 * * * *"}, "cron: "),
    ({**ENTRY, "timezone": "Mars/Base"}, "timezone: "), ({**ENTRY, "args": {}}, "args: must be a list"),
    ({**ENTRY, "kwargs": []}, "kwargs: must be an object"), ({**ENTRY, "queue": "a,b"}, "queue: "), ({**ENTRY, "colour": 1}, "colour: is not known"),
    ({**ENTRY, "retry": "x"}, "retry: "), ({**ENTRY, "overlap": "no"}, "overlap: "), ({**ENTRY, "catch_up": 7}, "catch_up: must be text"),
    ({**ENTRY, "jitter": -5}, "jitter: "), ({**ENTRY, "args": ["x" * 70000]}, "larger than")])
def test_bad_cron_jobs_are_refused_and_change_nothing(web, connection, body, told):  # noqa: F811
    assert told in problem(cron(web, method="POST", body=body), 422)
    assert not connection.exists("rqxx:cron_entries")


def test_a_paused_cron_job_leaves_its_slots_out(web, connection):  # noqa: F811
    cron(web, method="POST", body=ENTRY)
    wait_for(lambda: connection.llen("rq:queue:crons") >= 1)
    assert cron(web, "/tick/pause", "POST").json == {"status": "ok", "name": "tick", "state": "paused", "changed": True}
    assert cron(web, "/tick/pause", "POST").json["changed"] is False
    assert cron(web, "/tick").json["cron"]["paused"] is True
    skipped = int(connection.hget("rqxx:cron:tick", "skipped") or 0)
    count = connection.llen("rq:queue:crons")
    wait_for(lambda: int(connection.hget("rqxx:cron:tick", "skipped") or 0) >= skipped + 2)
    assert connection.llen("rq:queue:crons") == count
    assert cron(web, "/tick/resume", "POST").json["state"] == "running"
    wait_for(lambda: connection.llen("rq:queue:crons") > count)
    assert problem(cron(web, "/nope/pause", "POST"), 404)


def test_a_cron_job_is_run_now(web, connection, system):  # noqa: F811
    cron(web, method="POST", body={**ENTRY, "every": 86400})
    answer = cron(web, "/tick/run-now", "POST")
    assert answer.status == 201, answer.body
    job_id = answer.json["job_id"]
    assert [job.decode() for job in connection.lrange("rq:queue:crons", 0, -1)] == [job_id]
    assert system.test_worker("--burst", "crons").wait() == 0
    shown = cron(web, "/tick").json["cron"]
    assert shown["last"]["job_id"] == job_id and shown["last"]["status"] == "finished"


def test_cron_jobs_of_files_are_shown_paused_and_run(web, system, server, connection):  # noqa: F811
    file = system.folder / "cron.toml"
    file.write_text('[nightly]\nfunc = "tasks.add"\nargs = "[3, 4]"\ncron = "30 2 * * *"\ntimezone = "Europe/Berlin"\n'
                    'timeout = "7s"\nresult_ttl = "1h"\nfailure_ttl = "2h"\nttl = "3h"\n[tick]\nfunc = "tasks.add"\nargs = "[1, 2]"\nevery = "1s"\nqueue = "crons"\n')
    system.run(system_binary(), "cron", file, "--redis-url", server.url)
    listed = wait_for(lambda: len(items := cron(web).json["items"]) == 2 and items)
    nightly = listed[0]
    assert not nightly["stored"] and nightly["expression"] == "30 2 * * *" and nightly["timezone"] == "Europe/Berlin"
    assert nightly["words"] == "at 02:30, every day" and nightly["etag"] is None and nightly["processes"]
    assert problem(cron(web, "/nightly", "PATCH", {"every": 5}), 409) and problem(cron(web, "/nightly", "DELETE"), 409)
    job_id = cron(web, "/nightly/run-now", "POST").json["job_id"]
    assert status(connection, job_id) == "queued"
    assert connection.hmget(f"rq:job:{job_id}", "timeout", "result_ttl", "failure_ttl", "ttl") == [b"7", b"3600", b"7200", b"10800"]
    cron(web, "/tick/pause", "POST")
    wait_for(lambda: int(connection.hget("rqxx:cron:tick", "skipped") or 0) >= 1)


def shown(connection, **job):
    """As RQ's own cron process shows its jobs."""
    connection.zadd("rq:cron_schedulers", {"stock": 9e9})
    job = {"name": "tick", "func_name": "tasks.add", "queue_name": "crons", "args": "[1, 2]", "kwargs": None, "interval": 60, "cron": None, **job}
    connection.hset("rq:cron_scheduler:stock", "cron_jobs", json.dumps([job]))


def test_a_cron_job_that_is_only_shown_is_run_with_its_options(web, connection):  # noqa: F811
    shown(connection, job_timeout="5m", ttl=90, meta='{"tags": ["x"]}')
    job_id = cron(web, "/tick/run-now", "POST").json["job_id"]
    job = Job.fetch(job_id, connection=connection)
    assert (job.args, job.timeout, job.ttl, job.meta) == ((1, 2), 300, 90, {"tags": ["x"]})


@pytest.mark.parametrize("job", [{"args": "[Not JSON-serializable value]"}, {"kwargs": "oops"}, {"meta": "[1]"}, {"job_timeout": "soon"},
                                 {"webhooks": "[]"}])
def test_a_cron_job_that_is_not_shown_as_it_is_is_not_run(web, connection, job):  # noqa: F811
    shown(connection, **job)
    assert f"{[*job][0]}: " in problem(cron(web, "/tick/run-now", "POST"), 409)
    assert not connection.exists("rq:queue:crons")


def test_a_cron_job_of_a_stock_process_is_not_said_to_be_paused(web, connection):  # noqa: F811
    shown(connection)
    assert "knows no pauses" in problem(cron(web, "/tick/pause", "POST"), 409)
    listed = cron(web, "/tick").json["cron"]
    assert not connection.exists("rqxx:cron:tick") and not listed["paused"] and not listed["can_pause"]


def system_binary():
    from conftest import BUILD
    return BUILD / "rqxx"


def test_another_server_takes_over(system, server, web, connection):  # noqa: F811
    other = system.serve("--no-worker", "--no-scheduler", "--no-sampler", "--no-maintenance", url=server.url, data_dir=system.folder / "other")
    cron(web, method="POST", body=ENTRY)
    leader = wait_for(lambda: (connection.get("rqxx:cron:leader:stored") or b"").decode())
    first, second = (web, other) if f":{web.process.pid}:" in leader else (other, web)
    first.end()
    wait_for(lambda: f":{second.process.pid}:" in (connection.get("rqxx:cron:leader:stored") or b"").decode(), timeout=30)
    count = connection.llen("rq:queue:crons")
    wait_for(lambda: connection.llen("rq:queue:crons") > count)
    ids = connection.lrange("rq:queue:crons", 0, -1)
    assert len(ids) == len(set(ids))


def test_hostile_entries_are_shown_and_hurt_nobody(web, connection):  # noqa: F811
    connection.hset("rqxx:cron_entries", mapping={b"\xff": "{}", "odd": "[", "deep": json.dumps({"func": "f", "every": 1, "args": "x"}),
                                                  "good": json.dumps({"func": "tasks.add", "every": 1, "queue": "crons"})})
    connection.incr("rqxx:cron_entries:version")
    connection.zadd("rq:cron_schedulers", {"evil": 9e9})
    connection.hset("rq:cron_scheduler:evil", "cron_jobs", json.dumps([1, {"func_name": "<script>", "cron": "x", "interval": -3}, {}]))
    items = {item["name"]: item for item in cron(web).json["items"]}
    assert items["odd"]["problem"] and items["deep"]["problem"] and items["<script>"]["next"] == []
    assert problem(cron(web, "/odd/run-now", "POST"), 409)
    wait_for(lambda: connection.llen("rq:queue:crons") >= 1)
