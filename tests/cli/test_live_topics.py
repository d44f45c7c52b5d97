"""The topics of the stream of events beside the overview: jobs, operations, audit."""

import json
import signal
import time

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue
from test_http import problem
from test_live import Events
from test_operations import fill

QUIET = ("--no-worker", "--no-sampler", "--no-maintenance", "--no-scheduler", "--no-webhooks", "--no-cron", "--no-access-log")


def served(system, server):
    web = system.serve(*QUIET, url=server.url)
    wait_for(lambda: http("GET", web.url + "/api/v1/jobs").json.get("index", {}).get("complete"), what="the index")
    return web


@pytest.fixture
def web(system, server):
    return served(system, server)


def read(web, topics, last_id=None, headers=()):
    """A reader that is there: the first news of others come behind this."""
    events = Events(web, query=f"?topics={topics}", last_id=last_id, headers=headers)
    assert events.status == 200, events.file.read()
    return events


def told(events, topic):
    until = time.monotonic() + 60
    while True:
        assert time.monotonic() < until, f"nothing of {topic}"
        event, data = events.next()
        if event == topic:
            return data


def jobs_until(events, wanted):
    """Transitions up to the wanted one: (id, status)."""
    seen = []
    while wanted not in seen:
        seen += [(job["id"], job["status"]) for job in told(events, "jobs")["jobs"]]
    return seen


def test_transitions_of_jobs_are_told_whoever_makes_them(system, web, server, connection):
    events = read(web, "jobs")
    Queue("mail", connection=connection).enqueue(tasks.noop, 1, job_id="stock")
    jobs_until(events, ("stock", "queued"))
    system.rq_worker("--burst", "mail").wait(60)
    data = told(events, "jobs")
    while data["jobs"][-1]["status"] != "finished":
        data = told(events, "jobs")
    job = data["jobs"][-1]
    assert {key: job[key] for key in ("id", "queue", "func_name", "status")} == {
        "id": "stock", "queue": "mail", "func_name": "tasks.noop", "status": "finished"}
    assert job["at"] == http("GET", web.url + "/api/v1/jobs/stock").json["job"]["ended_at"] and data["dropped"] == 0
    assert http("POST", web.url + "/api/v1/jobs", {"func": "tasks.noop", "args": [1], "queue": "mail", "job_id": "ours"}).status < 300
    jobs_until(events, ("ours", "queued"))
    assert system.rqxx("job", "cancel", "ours", "--redis-url", server.url).returncode == 0
    jobs_until(events, ("ours", "canceled"))
    assert http("DELETE", web.url + "/api/v1/jobs/ours").status == 200
    jobs_until(events, ("ours", "deleted"))


def test_jobs_that_were_there_before_are_no_news(system, server, connection):
    queue = Queue("default", connection=connection)
    for n in range(30):
        queue.enqueue(tasks.noop, n, job_id=f"old-{n}")
        connection.hset(f"rq:job:old-{n}", mapping={"created_at": "2026-01-01T00:00:00.000000Z"})
    web = system.serve(*QUIET, url=server.url)
    events = read(web, "jobs")
    wait_for(lambda: http("GET", web.url + "/api/v1/jobs").json.get("index", {}).get("complete"), what="the index")
    queue.enqueue(tasks.noop, 0, job_id="new")
    assert jobs_until(events, ("new", "queued")) == [("new", "queued")]


def test_who_comes_back_is_told_the_transitions_meanwhile(web, connection):
    queue = Queue("default", connection=connection)
    events = read(web, "jobs")
    queue.enqueue(tasks.noop, 0, job_id="a")
    jobs_until(events, ("a", "queued"))
    events.close()
    other = read(web, "jobs")
    queue.enqueue(tasks.noop, 0, job_id="b")
    jobs_until(other, ("b", "queued"))
    again = read(web, "jobs", last_id=events.id)
    assert jobs_until(again, ("b", "queued")) == [("b", "queued")]


def test_who_is_slow_gets_the_newest_transitions_and_the_number_of_the_others(system, server, connection):
    Queue("default", connection=connection).enqueue(tasks.noop, 1, job_id="sample")
    fill(connection, 3000, "many")
    web = served(system, server)
    events = read(web, "jobs")
    Queue("default", connection=connection).enqueue(tasks.noop, 0, job_id="first")
    jobs_until(events, ("first", "queued"))
    prompt = read(web, "jobs")
    assert http("POST", web.url + "/api/v1/jobs/bulk", {"action": "cancel", "filter": {"queue": "many", "status": "queued"}}).status == 202
    heard = 0
    while heard < 3000:
        data = told(prompt, "jobs")
        heard += len(data["jobs"]) + data["dropped"]
    slow = read(web, "jobs", last_id=events.id)
    late = told(slow, "jobs")
    assert len(late["jobs"]) == 200 and late["dropped"] == 2800 and late["jobs"][-1] == data["jobs"][-1]
    assert {job["status"] for job in late["jobs"]} == {"canceled"}


def test_jobs_need_the_index(system, server):
    web = system.serve(*QUIET, "--no-index", url=server.url)
    answer = http("GET", web.url + "/api/v1/events?topics=overview,jobs")
    assert problem(answer, 422).startswith("topics: jobs") and answer.json["code"] == "index_off"


def test_unknown_topics_are_named(web):
    assert '"nothing"' in problem(http("GET", web.url + "/api/v1/events?topics=jobs,nothing"), 422)
    assert '""' in problem(http("GET", web.url + "/api/v1/events?topics=jobs,"), 422)


def test_the_progress_of_operations_is_told(web, connection):
    Queue("default", connection=connection).enqueue(tasks.noop, 1, job_id="sample")
    fill(connection, 20000, "many")
    events = read(web, "operations")
    body = {"action": "cancel", "filter": {"status": "queued", "queue": "many"}}
    operation = http("POST", web.url + "/api/v1/jobs/bulk", body).json["operation_id"]
    seen = []
    while not seen or seen[-1]["state"] == "running":
        data = told(events, "operations")
        seen += [one for one in data["operations"] if one["id"] == operation]
    assert seen[-1] == http("GET", f"{web.url}/api/v1/operations/{operation}").json["operation"]
    assert seen[-1]["state"] == "done" and seen[-1]["done"] == 20000
    assert [one["done"] for one in seen] == sorted(one["done"] for one in seen)
    # Who comes later is told of those that run, and of what changes.
    late = read(web, "operations,overview")
    while late.next()[0] != "unchanged":
        pass
    second = http("POST", web.url + "/api/v1/jobs/bulk", {**body, "action": "requeue", "filter": {"status": "canceled", "queue": "many"}}).json["operation_id"]
    assert {one["id"] for one in told(late, "operations")["operations"]} == {second}


def test_actions_are_told_as_they_are_logged(system, web, server):
    http("POST", web.url + "/api/v1/queues/before/pause")
    events = read(web, "audit")
    assert http("POST", web.url + "/api/v1/queues/mail/pause").status == 200
    first = told(events, "audit")["items"]
    assert system.rqxx("queue", "pause", "pay", "--redis-url", server.url).returncode == 0
    second = told(events, "audit")["items"]
    assert [(one["action"], one["target"], one["via"]) for one in first + second] == [
        ("queue.pause", "mail", "api"), ("queue.pause", "pay", "cli")]
    newest = http("GET", web.url + "/api/v1/audit?limit=2").json["items"]
    assert first + second == newest[::-1]


def test_the_audit_log_is_resumed_where_it_was_left_also_at_another_server(system, web, server):
    events = read(web, "audit")
    http("POST", web.url + "/api/v1/queues/q/pause")
    told(events, "audit")
    events.close()
    web.process.send_signal(signal.SIGTERM)
    web.wait(20)
    for n in range(450):
        server.client.xadd("rqxx:audit", {"by": "ann", "via": "cli", "action": "queue.pause", "target": f"q{n}", "outcome": "done", "details": ""})
    other = system.serve(*QUIET, url=server.url)
    again = read(other, "audit", last_id=events.id)
    seen = []
    while len(seen) < 450:
        seen += [one["target"] for one in told(again, "audit")["items"]]
    assert seen == [f"q{n}" for n in range(450)]
    http("POST", other.url + "/api/v1/queues/q/resume")
    assert [one["action"] for one in told(again, "audit")["items"]] == ["queue.resume"]


@pytest.mark.parametrize("topics", ["jobs", "operations", "audit"])
def test_a_hundred_readers_cost_redis_what_one_does(web, connection, topics):
    def calls(name):
        return connection.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"]

    readers = [read(web, topics) for _ in range(100)]
    Queue("default", connection=connection).enqueue(tasks.noop, 1, job_id="x")
    http("POST", web.url + "/api/v1/queues/default/pause")
    if topics != "operations":
        for one in readers:
            told(one, topics)
    names = ("xrange", "zrevrange", "hgetall", "evalsha", "hmget")
    begun, before = time.monotonic(), [calls(name) for name in names]
    time.sleep(3)
    after, seconds = [calls(name) for name in names], time.monotonic() - begun
    # The index looks ten times a second; a hundred readers of their own would be a hundred more.
    assert all(b - a <= 40 * seconds for a, b in zip(before, after, strict=True)), (before, after)
    for one in readers:
        one.close()


class Tokens:
    def __init__(self, system, server):
        self.web = system.serve("--auth", *QUIET, url=server.url)
        self.system, self.server = system, server
        self.index_is_complete()

    def index_is_complete(self):
        header = self.header("--scope", "admin")
        wait_for(lambda: http("GET", self.web.url + "/api/v1/jobs", headers=dict([header.split(": ", 1)])).json.get("index", {}).get("complete"),
                 what="the index")

    def header(self, *args):
        made = self.system.rqxx("token", "create", "somebody", "--redis-url", self.server.url, *args)
        return f"Authorization: Bearer {made.stdout.strip()}"


@pytest.fixture
def tokens(system, server):
    return Tokens(system, server)


def test_who_may_see_some_queues_hears_of_these_alone(tokens, connection):
    header = tokens.header("--queue", "mail*")
    events = read(tokens.web, "jobs", headers=[header])
    overview = read(tokens.web, "overview", headers=[header])
    everything = read(tokens.web, "overview,jobs", headers=[tokens.header()])
    for name in ("pay", "mail-1", "pay", "mail-2"):
        Queue(name, connection=connection).enqueue(tasks.noop, 1, job_id=f"{name}-{connection.incr('n')}")
    assert sorted({job for job, _ in jobs_until(events, ("mail-2-4", "queued"))}) == ["mail-1-2", "mail-2-4"]
    state = overview.until(lambda state: state["stats"]["totals"]["queued"] == 2)
    assert [queue["queue_name"] for queue in state["stats"]["queues"]] == ["mail-1", "mail-2"]
    assert {job["queue"] for job in state["recent"]["jobs"]} == {"mail-1", "mail-2"} and "pay" not in json.dumps(state)
    everything.until(lambda state: state["stats"]["totals"]["queued"] == 4)
    for topics in ("operations", "audit", "overview,audit"):
        refused = Events(tokens.web, query=f"?topics={topics}", headers=[header])
        assert refused.status == 403


def test_the_audit_log_is_told_to_administrators(tokens):
    for scope, status in (("read", 403), ("operate", 403), ("admin", 200)):
        assert Events(tokens.web, query="?topics=audit", headers=[tokens.header("--scope", scope)]).status == status


def test_what_is_hidden_stays_hidden(tokens, connection):
    admin = tokens.header("--scope", "admin")
    hidden = read(tokens.web, "overview,audit,jobs", headers=[tokens.header("--scope", "admin", "--redact")])
    plain = read(tokens.web, "audit", headers=[admin])
    answer = http("POST", tokens.web.url + "/api/v1/jobs", {"func": "tasks.noop", "args": ["hunter2"], "queue": "q", "job_id": "secret"},
                  headers=dict([admin.split(": ", 1)]))
    assert answer.status < 300, answer.body
    http("POST", tokens.web.url + "/api/v1/queues/q/pause", {"reason": "hunter2"}, headers=dict([admin.split(": ", 1)]))
    seen, topics = "", set()
    while topics < {"overview", "audit", "jobs"} or "secret" not in seen:
        event, data = hidden.next()
        topics.add(event)
        seen += json.dumps(data)
    assert "hunter2" not in seen
    told(plain, "audit")
