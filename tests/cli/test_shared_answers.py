"""What pages ask for again and again costs Redis once for all of them."""

import collections
import concurrent.futures
import http.client as http_client
import time
import urllib.parse

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue

LIKE_A_PAGE = {"Cache-Control": "max-age=1"}
PAGES = 200


@pytest.fixture
def web(system, server, connection):
    queue = Queue("default", connection=connection)
    queue.enqueue(tasks.noop, 1, job_id="waits")
    queue.enqueue(tasks.fail, "no", job_id="failed")
    system.rq_worker("--burst", "default").wait(60)
    queue.enqueue(tasks.noop, 1, job_id="queued")
    web = system.serve("--no-worker", "--no-sampler", "--no-maintenance", "--no-scheduler", "--no-webhooks", "--no-cron", "--no-access-log",
                       url=server.url)
    wait_for(lambda: http("GET", web.url + "/api/v1/jobs").json.get("index", {}).get("complete"), what="the index")
    wait_for(lambda: http("GET", web.url + "/api/v1/failures").json["items"], what="the failure")
    return web


def group(web):
    return http("GET", web.url + "/api/v1/failures").json["items"][0]["id"]


#: What the pages of web/src ask for again and again.
ASKED = [
    "/api/rq/stats", "/api/rq/workers", "/api/rq/jobs/recent?limit=50", "/api/rq/jobs/recent?limit=50&queue=default", "/api/v1/alerts",
    "/api/v1/history?span=15m", "/api/v1/history/queues?queues=default", "/api/v1/failures?state=open&limit=5", "/api/v1/failures/{group}",
    "/api/v1/jobs?limit=25", "/api/v1/jobs/queued", "/api/v1/jobs/queued/why", "/api/v1/jobs/queued/timeline", "/api/v1/jobs/queued/dependencies",
    "/api/v1/jobs/queued/output", "/api/v1/limits", "/api/v1/batches?limit=100", "/api/v1/cron", "/api/v1/schedules?limit=25", "/api/v1/redis",
    "/api/v1/audit?limit=100", "/api/v1/tokens", "/api/v1/queues?limit=50", "/api/v1/workers?limit=50",
]


class Watch:
    """What a server asks of Redis, by command and first word, or by script; not what it does by itself."""

    def __init__(self, connection):
        self.connection = connection
        self.by_itself = set()
        self.by_itself = set(self.during(lambda: time.sleep(7)))   # The index has turns of five seconds.

    def during(self, action):
        asked = collections.Counter()
        with self.connection.monitor() as monitor:
            action()
            self.connection.echo("done")
            for entry in monitor.listen():
                words = entry["command"].split()
                if words[0] == "ECHO":
                    return asked
                kind = " ".join(words[:2])
                if entry["client_type"] != "lua" and words[0] not in ("PING", "INFO", "HELLO", "CLIENT") and kind not in self.by_itself:
                    asked[kind] += 1


def test_two_hundred_pages_cost_redis_what_one_does(web, connection):
    host = urllib.parse.urlparse(web.url).netloc
    watch = Watch(connection)

    def page(url):
        talk = http_client.HTTPConnection(host, timeout=30)
        for _ in range(PAGES // 20):
            talk.request("GET", url, headers=LIKE_A_PAGE)
            answer = talk.getresponse()
            body = answer.read()
            assert answer.status == 200, body
        talk.close()

    for path in ASKED:
        url = path.replace("{group}", group(web) if "{group}" in path else "")
        alone = watch.during(lambda url=url: page_once(web, url))
        assert alone, path
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(20) as pages:
            together = watch.during(lambda url=url, pages=pages: list(pages.map(page, [url] * 20)))
        readings = int(time.monotonic() - begun) + 1
        assert together, path
        for kind, calls in together.items():
            assert calls <= alone[kind] * readings, (path, kind, together, alone, readings)


def page_once(web, url):
    answer = http("GET", web.url + url)
    assert answer.status == 200, answer.body


def test_who_does_not_ask_like_a_page_is_told_what_is_so_now(web, connection):
    url = web.url + "/api/rq/stats"
    queue = Queue("default", connection=connection)
    for n in range(2, 5):
        queue.enqueue(tasks.noop, n)
        assert http("GET", url).json["stats"]["queued"] == n


def test_what_somebody_changes_is_seen_at_once_by_all(web):
    def shown():
        return [http("GET", web.url + path, headers=LIKE_A_PAGE).json for path in ("/api/rq/stats", "/api/v1/limits")]

    def paused():
        return shown()[0]["queues"][0]["paused"]

    before = paused()
    assert http("POST", web.url + "/api/v1/queues/default/pause").status == 200
    assert paused() != before
    assert http("POST", web.url + "/api/v1/queues/default/resume").status == 200
    assert paused() == before


def test_an_answer_says_how_old_it_is_and_errors_are_not_kept(web, connection):
    url = web.url + "/api/v1/limits"
    http("GET", url, headers=LIKE_A_PAGE)
    again = http("GET", url, headers=LIKE_A_PAGE)
    assert again.headers["Age"] in "01" and again.headers["Cache-Control"] == "no-store"
    job = web.url + "/api/v1/jobs/later"
    assert http("GET", job, headers=LIKE_A_PAGE).status == 404
    Queue("default", connection=connection).enqueue(tasks.noop, 1, job_id="later")
    assert http("GET", job, headers=LIKE_A_PAGE).status == 200


def test_tokens_never_see_what_others_were_told(system, server, connection):
    for name in ("mail", "pay"):
        Queue(name, connection=connection).enqueue(tasks.noop, name, job_id=f"of-{name}")
    web = system.serve("--auth", "--no-worker", "--no-access-log", url=server.url)

    def token(*args):
        return system.rqxx("token", "create", "somebody", "--redis-url", server.url, *args).stdout.strip()

    tokens = {"all": token(), "mail": token("--queue", "mail"), "pay": token("--queue", "pay"), "redacted": token("--redact")}

    def ask(who, path):
        return http("GET", web.url + path, headers={"Authorization": f"Bearer {tokens[who]}", **LIKE_A_PAGE})

    for _ in range(3):
        for who, queues in (("all", ["mail", "pay"]), ("mail", ["mail"]), ("pay", ["pay"]), ("redacted", ["mail", "pay"])):
            assert [queue["queue_name"] for queue in ask(who, "/api/rq/stats").json["queues"]] == queues
            jobs = ask(who, "/api/rq/jobs/recent").json["jobs"]
            assert sorted(job["queue"] for job in jobs) == queues
            assert all((job["args"] == "[redacted]") == (who == "redacted") for job in jobs)
            assert ask(who, "/api/v1/jobs/of-pay").status == (404 if who == "mail" else 200)
    assert http("GET", web.url + "/api/rq/stats", headers=LIKE_A_PAGE).status == 401
    for scope in ("read", "operate", "admin"):
        tokens[scope] = token("--scope", scope)
        assert ask(scope, "/api/v1/session").json["scopes"][-1] == scope
    assert ask("admin", "/api/v1/audit").status == 200 and ask("read", "/api/v1/audit").status == 403
