"""Server-sent events: what the pages show as it happens, for any number of readers at the cost of one."""

import json
import re
import signal
import socket
import time
import urllib.parse

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue
from test_http import problem


class Events:
    """One reader of /api/v1/events. Parses as the HTML standard says, less what we do not send."""

    def __init__(self, web, last_id=None, query="", version="1.1", headers=()):
        url = urllib.parse.urlparse(web.url)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=20)
        lines = [f"GET /api/v1/events{query} HTTP/{version}", f"Host: {url.netloc}", *headers]
        lines += [f"Last-Event-ID: {last_id}"] if last_id else []
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        while (line := self.file.readline().strip()):
            name, value = line.decode().split(": ", 1)
            self.headers[name.lower()] = value
        self.chunked = self.headers.get("transfer-encoding") == "chunked"
        self.text = b""
        self.id = None

    def fill(self):
        if not self.chunked:
            piece = self.file.readline()
        else:
            size = self.file.readline()
            piece = self.file.read(int(size, 16)) if size else b""
            self.file.readline()
        if not piece:
            raise EOFError
        self.text += piece

    def next(self):
        """(event, data) of the next event."""
        while True:
            while b"\n\n" not in self.text:
                self.fill()
            block, self.text = self.text.split(b"\n\n", 1)
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
            if "event" in fields:
                self.id = fields.get("id", self.id)
                return fields["event"], json.loads(fields["data"])

    def until(self, wanted):
        """The first overview that fits."""
        while True:
            event, data = self.next()
            if event == "overview" and wanted(data):
                return data

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", "--no-sampler", "--no-maintenance", "--no-scheduler", "--no-webhooks", "--no-index", "--no-cron", "--no-access-log",
                        url=server.url)


def test_the_first_event_is_the_whole_state_as_the_routes_tell_it(web, connection):
    Queue("default", connection=connection).enqueue(tasks.noop, 1)
    events = Events(web)
    assert events.status == 200 and events.headers["content-type"] == "text/event-stream"
    assert events.headers["cache-control"] == "no-store" and events.chunked
    event, data = events.next()
    assert event == "overview" and data.pop("at").endswith("Z")
    recent = http("GET", web.url + "/api/rq/jobs/recent?limit=50").json
    outline = {"id", "status", "queue", "func_name", "description", "created_at", "enqueued_at", "started_at", "ended_at", "duration",
               "queued_for", "worker_name"}
    recent["jobs"] = [{key: value for key, value in job.items() if key in outline} for job in recent["jobs"]]
    recent["jobs"][0]["queued_for"] = None   # It changes all the time, as long as the job waits.
    assert data == {"stats": http("GET", web.url + "/api/rq/stats").json, "workers": http("GET", web.url + "/api/rq/workers").json,
                    "recent": recent}
    assert events.next()[0] == "unchanged"


def test_what_a_stock_worker_does_is_told(system, web, connection):
    events = Events(web)
    events.until(lambda state: state["stats"]["totals"]["queued"] == 0)
    job = Queue("default", connection=connection).enqueue(tasks.noop, 1)
    events.until(lambda state: state["stats"]["totals"]["queued"] == 1)
    system.rq_worker("--burst", "default").wait(60)
    state = events.until(lambda state: state["stats"]["totals"]["finished"] == 1)
    assert state["recent"]["jobs"][0]["id"] == job.id


def test_two_hundred_readers_cost_redis_what_one_does(web, connection):
    def commands_per_reading(events):
        event, _ = events.next()
        before = connection.info("commandstats")
        for _ in range(4):
            event, _ = events.next()
            assert event == "unchanged"
        after = connection.info("commandstats")
        return sum(entry["calls"] - before.get(name, {"calls": 0})["calls"] for name, entry in after.items() if "info" not in name) / 4

    Queue("default", connection=connection).enqueue(tasks.noop, 1)
    first = Events(web)
    alone = commands_per_reading(first)
    others = [Events(web) for _ in range(199)]
    assert all(one.next()[0] == "overview" for one in others)
    for _ in range(2):
        first.next()
    assert commands_per_reading(first) <= alone + 1
    for one in others:
        one.close()


def test_nothing_is_read_while_nobody_looks(web, connection):
    events = Events(web)
    events.next()
    events.close()

    def commands():
        # Without pings: the server measures Redis by one each second.
        return sum(used["calls"] for name, used in connection.info("commandstats").items() if name != "cmdstat_ping")

    def quiet():
        before = commands()
        time.sleep(1.5)
        return commands() - before <= 1   # our own

    wait_for(quiet, 40, what="an end of the readings")


def test_who_comes_back_is_told_only_what_has_changed(web, connection):
    events = Events(web)
    events.next()
    same = Events(web, last_id=events.id)
    assert same.next()[0] == "unchanged"
    Queue("default", connection=connection).enqueue(tasks.noop, 1)
    before = events.id
    events.until(lambda state: state["stats"]["totals"]["queued"] == 1)
    assert events.id != before
    changed = Events(web, last_id=before)
    assert changed.next()[0] == "overview"
    assert Events(web, last_id="of another process-1").next()[0] == "overview"


def test_a_reader_that_does_not_read_holds_nobody_up(web, connection):
    connection.sadd("rq:queues", *(f"rq:queue:{'q' * 900}{n}" for n in range(2000)))
    queue = Queue("default", connection=connection)
    stuck = Events(web)
    events = Events(web)
    for n in range(6):
        queue.enqueue(tasks.noop, n)
        events.until(lambda state, n=n: state["stats"]["totals"]["queued"] == n + 1)
    # The newest comes soon: what has been overtaken was not kept.
    seen = []
    stuck.until(lambda state: seen.append(state["stats"]["totals"]["queued"]) or seen[-1] == 6)
    assert len(seen) < 6 and seen == sorted(seen)


def test_events_stay_small_whatever_jobs_carry(web, connection):
    for _ in range(50):
        Queue("default", connection=connection).enqueue(tasks.noop, "x" * 1_000_000)
    event, data = Events(web).next()
    assert event == "overview" and len(json.dumps(data)) < 50_000 and len(data["recent"]["jobs"]) == 50


def test_an_outage_of_redis_is_told_and_its_end(web, server):
    events = Events(web)
    events.next()
    server.pause()
    try:
        event, data = "", None
        while event != "problem":
            event, data = events.next()
        assert data == {"detail": "Redis is not available"}
    finally:
        server.resume()
    while event == "problem":
        event, _ = events.next()
    assert event in ("overview", "unchanged")


def test_a_server_that_stops_ends_its_streams(web):
    events = Events(web)
    events.next()
    web.process.send_signal(signal.SIGTERM)
    with pytest.raises(EOFError):
        while True:
            events.next()
    assert web.wait(20) == 0


def test_a_client_of_http_1_0_gets_it_without_chunks(web):
    events = Events(web, version="1.0")
    assert events.status == 200 and not events.chunked and events.next()[0] == "overview"


def test_head_has_the_header_alone(web):
    answer = http("HEAD", web.url + "/api/v1/events")
    assert answer.status == 200 and answer.body == b"" and answer.headers["Content-Type"] == "text/event-stream"


def test_readers_are_counted(web):
    def readers():
        return re.findall(r"^rqxx_sse_clients (\d+)", http("GET", web.url + "/metrics").body.decode(), re.M)

    assert readers() == ["0"]
    events = [Events(web) for _ in range(3)]
    assert readers() == ["3"]
    for one in events:
        one.close()
    wait_for(lambda: readers() == ["0"], 30)


def test_unknown_topics_are_refused(web):
    assert problem(http("GET", web.url + "/api/v1/events?topics=nothing"), 422).startswith("topics:")
    assert Events(web, query="?topics=overview").next()[0] == "overview"


def test_it_needs_the_token_where_there_is_one(system, server):
    token = system.folder / "token"
    token.write_text("secret\n")
    web = system.serve("--no-worker", "--token-file", token, url=server.url)
    assert Events(web).status == 401
    assert Events(web, headers=["Authorization: Bearer secret"]).next()[0] == "overview"
