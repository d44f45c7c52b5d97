"""Every page, on no data, usual and hostile data, in both themes and languages, on a phone and on a wide screen.

The hostile data has some jobs more in each status, with RQXX_FULL=1 a million in all.
"""

import datetime
import json
import os
import pickle
import shutil
import tempfile
import urllib.parse
import uuid
import zlib

import pytest
from conftest import ROOT, System, http, wait_for
from many_jobs import STATUSES, call, make_jobs, packed
from rq import Queue

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")

AXE = ROOT / "build" / "web" / "node_modules" / "axe-core" / "axe.min.js"
SCRIPT = "<img src=x onerror=\"document.title='owned'\">"
LONG = "x" * 5000
LARGE = "\u202e<b>" * 200_000
EVIL_QUEUE = SCRIPT + "\u202e" + "q" * 300
FULL = os.environ.get("RQXX_FULL") == "1"
HOSTILE_JOBS = 1_000_000 if FULL else 400
NOW = "2026-11-23T17:47:37.728246Z"


def nothing(web, connection):
    return []


def usual(web, connection):
    """Some of everything; the addresses of pages that show one thing."""
    for n in range(12):
        Queue(["high", "default", "images"][n % 3], connection=connection).enqueue("app.tasks.resize", n, size="large", job_id=f"job-{n}")
    run = "0193aaaa000170008000000000000001"
    connection.xadd("rq:results:job-1", {"type": 2, "execution_id": run, "worker_name": "w", "cause": "memory limit", "max_rss_kb": 262144,
                                         "exc_string": packed("Traceback (most recent call last):\n  File \"tasks.py\", line 3\nRuntimeError: no luck")})
    connection.hset("rq:job:job-1", mapping={"status": "failed", "started_at": NOW, "ended_at": NOW})
    connection.lpush("rqxx:output:job-1", run)
    connection.xadd(f"rqxx:output:job-1:{run}", {"1": "a line\n"})
    connection.xadd(f"rqxx:output:job-1:{run}", {"2": "a warning\n"})
    worker(connection, "host.7.abc", "high,default")
    for name, rule in {"api": {"kind": "token-bucket", "limit": 10, "per": 1, "key": "args[0]", "queue": "images"},
                       "gpu": {"kind": "concurrency", "limit": 2, "function": "app.*"}}.items():
        assert http("PUT", f"{web.url}/api/v1/limits/{name}", rule).status == 200
    assert http("POST", f"{web.url}/api/v1/queues/images/pause").status == 200
    lines = b"\n".join(json.dumps({"func": "app.tasks.resize", "args": [n]}).encode() for n in range(20))
    assert http("POST", f"{web.url}/api/v1/batches?name=nightly&queue=low", lines, {"Content-Type": "application/x-ndjson"}).status == 201
    queue = Queue("default", connection=connection)
    queue.enqueue_in(datetime.timedelta(days=1), "app.tasks.later", job_id="later")
    queue.enqueue("app.tasks.after", job_id="after", depends_on=["job-0", "job-2"])
    assert http("POST", f"{web.url}/api/v1/cron", {"name": "nightly", "func": "app.report", "cron": "0 3 * * *", "queue": "low"}).status == 201
    assert http("POST", f"{web.url}/api/v1/tokens", {"name": "monitoring", "scope": "read"}).status == 201
    return [f"#/failures/{group_of_failures(web)}", "#/jobs/after", "#/jobs?q=status%3Afailed", "#/queues/images", "#/queues/images?status=failed", "#/jobs/job-0", "#/jobs/job-1", "#/batches/nightly"]


def group_of_failures(web):
    """The id of the first one, once the index has it."""
    return wait_for(lambda: http("GET", f"{web.url}/api/v1/failures").json.get("items"), what="a group of failures")[0]["id"]


def worker(connection, name, queues):
    connection.sadd("rq:workers", f"rq:worker:{name}")
    connection.hset(f"rq:worker:{name}", mapping={"queues": queues, "state": "busy", "birth": NOW, "last_heartbeat": NOW, "pid": 7,
                                                  "hostname": name, "version": "2.10.0", "current_job": "job-0"})


def many_hostile_jobs(connection):
    """In every status: markup, changes of direction, broken UTF-8; a few with a megabyte in each place."""
    mean = SCRIPT + "\u202e\u2066\x00\x1b[31m"
    broken = SCRIPT.encode() + b"\xff\xfe\xc0\x80\xed\xa0\x80"
    data = [call(mean, mean, {mean: [mean] * 3}), call("app." + "\u0301" * 300, *range(300)), broken, zlib.compress(broken),
            zlib.compress(b"cposix\nsystem\n(S'touch owned'\ntR."), call("tasks.echo", b"\xff" * 300)]
    queues = [EVIL_QUEUE.encode(), b"default", b"\xff\xfe" + SCRIPT.encode(), "\u202egnp.exe".encode()]
    make_jobs(connection, HOSTILE_JOBS // len(STATUSES), queues=queues, data=data, description=broken, trace=mean.encode() + broken + b"\n" + broken,
              result=packed(pickle.dumps([mean, b"\xff" * 100])))
    # Other numbers, so that the ids are others.
    make_jobs(connection, HOSTILE_JOBS + 3, begin=HOSTILE_JOBS, queues=[b"default"], data=[call("tasks.echo", mean + LARGE)], description=broken + LARGE.encode(),
              trace=mean.encode() + broken + LARGE.encode(), result=packed(pickle.dumps(mean + LARGE)))
    return [f"#/jobs/{status}-{n}" for status in ("finished", "failed") for n in (1, HOSTILE_JOBS)]


def hostile(web, connection):
    more = many_hostile_jobs(connection)
    if FULL:
        wait_for(lambda: http("GET", f"{web.url}/api/v1/jobs?limit=1").json.get("index", {}).get("complete"), 3000, "the index to have them all")
    for name in [EVIL_QUEUE, "a" * 1000, "\x1b[31m\u2066"]:
        Queue(name, connection=connection).enqueue("tasks.echo", SCRIPT, job_id=f"mean-{len(name)}", description=SCRIPT + LONG)
    Queue("default", connection=connection).enqueue(LONG, LONG * 100, job_id="j" * 150, meta={SCRIPT: [SCRIPT, LONG]})
    worker(connection, f"{SCRIPT}{LONG}", ",".join([EVIL_QUEUE] * 20))
    broken = {"data": bytes(range(256)), "status": SCRIPT, "origin": "default", "created_at": "yesterday", "timeout": LONG,
              "description": bytes(range(128, 256)), "meta": b"\x80junk", "worker_name": SCRIPT, "dependency_ids": json.dumps([SCRIPT, LONG])}
    connection.hset("rq:job:broken", mapping=broken)
    connection.rpush("rq:queue:default", "broken")
    connection.set("rq:job:no-hash", "text")
    connection.rpush("rq:queue:default", "no-hash")
    run = uuid.uuid4().hex
    connection.xadd("rq:results:mean-1000", {"type": 2, "execution_id": run, "worker_name": SCRIPT + LONG, "cause": SCRIPT + LONG,
                                             "exc_string": packed(SCRIPT + "\n" + LONG * 50)})
    connection.hset("rq:job:mean-1000", "status", "failed")
    connection.lpush("rqxx:output:mean-1000", run)
    connection.xadd(f"rqxx:output:mean-1000:{run}", {"1": (SCRIPT + LONG * 20).encode() + b"\xff\n"})
    rule = {"kind": "concurrency", "limit": 1, "queue": SCRIPT + "*", "function": "f" * 150}
    http("PUT", f"{web.url}/api/v1/limits/{'l' * 200}", rule)
    connection.hset("rqxx:rules", SCRIPT, "no rule")
    connection.hset("rqxx:cron_entries", SCRIPT, "no entry")
    connection.xadd("rqxx:audit", {"by": SCRIPT + LONG, "action": SCRIPT, "target": LONG, "outcome": "\u202e", "details": b"\xff" * 500})
    connection.zadd("rq:scheduled:default", {"mean-1000": 4e9, SCRIPT: 4e9})
    return [f"#/failures/{group_of_failures(web)}", f"#/jobs?q={urllib.parse.quote(SCRIPT)}", f"#/queues/{urllib.parse.quote(EVIL_QUEUE, safe='')}", f"#/queues/{'a' * 1000}", f"#/jobs/{'j' * 150}", "#/jobs/broken",
            "#/jobs/no-hash", "#/jobs/mean-1000", f"#/jobs/{urllib.parse.quote(f'mean-{len(EVIL_QUEUE)}')}", "#/jobs?status=%3Cimg%3E&queue=%00", *more]


@pytest.fixture(scope="module", params=[nothing, usual, hostile], ids=lambda fill: fill.__name__)
def filled(request):
    folder = tempfile.mkdtemp(prefix="rqxx-test-")
    system = System(folder)
    server = system.redis()
    web = system.serve("--no-worker", url=server.url)
    web.data = request.param.__name__
    web.addresses = ["#/", "#/queues", "#/jobs", "#/failures", "#/workers", "#/schedules", "#/limits", "#/batches", "#/events", "#/redis",
                     "#/settings", *request.param(web, server.client)]
    yield web
    system.end()
    shutil.rmtree(folder, ignore_errors=True)


def watch(page, problems):
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on("console", lambda message: message.type in ("error", "warning") and problems.append(f"console: {message.text} {message.location}"))


def look(page, where, problems):
    """What is wrong with the page as it stands."""
    sideways = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    if sideways > 0:
        widest = "() => [...document.querySelectorAll('body *')].filter(node => node.getBoundingClientRect().right > innerWidth + 0.5 && !node.closest('.scroll *')).map(node => node.outerHTML.slice(0, 200)).slice(0, 3)"
        problems.append(f"{where}: {sideways} px too wide: {page.evaluate(widest)}")
    for fault in page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)"):
        if fault["impact"] in ("serious", "critical"):
            problems.append(f"{where}: {fault['id']}: {[node['html'][:200] + str(node['any'][:1])[:300] for node in fault['nodes'][:2]]}")
    if page.locator("main img, main script").count() or "owned" in page.title():
        problems.append(f"{where}: job data became part of the page")
    if page.evaluate("/[\u202a-\u202e\u2066-\u2069]/.test(document.querySelector('main').textContent)"):
        problems.append(f"{where}: job data turns the direction of writing")


def dialogs(page, lang, problems, picture):
    """Forms that pages open, and a job as it is stored."""
    for address, button in [("#/jobs/after", {"en": "Clone and edit", "ru": "Клонировать с правками"}), ("#/schedules", {"en": "Edit: nightly", "ru": "Изменить: nightly"}),
                            ("#/limits", {"en": "Edit: gpu", "ru": "Изменить: gpu"})]:
        page.evaluate("address => { location.hash = address; }", address)
        page.get_by_role("button", name=button[lang]).click(timeout=10_000)
        playwright.expect(page.locator("dialog form")).to_be_visible(timeout=10_000)
        look(page, f"{address} {button['en']}", problems)
        page.screenshot(path=picture)
        page.keyboard.press("Escape")
        playwright.expect(page.locator("dialog")).to_have_count(0)
    page.evaluate("() => { location.hash = '#/jobs/job-1'; }")
    page.get_by_text({"en": "As it is stored in Redis", "ru": "Как хранится в Redis"}[lang]).click(timeout=10_000)
    playwright.expect(page.locator("details[open] td.raw").first).to_be_visible(timeout=10_000)
    look(page, "a job as stored", problems)


# Each pair of a theme, a width and a language; all eight together in scripts/test --full.
PAIRS = [("light", 360, "en"), ("light", 1440, "ru"), ("dark", 360, "ru"), ("dark", 1440, "en")]
REST = [("light", 360, "ru"), ("light", 1440, "en"), ("dark", 360, "en"), ("dark", 1440, "ru")]


@pytest.mark.parametrize("scheme, width, lang", PAIRS + (REST if FULL else []))
def test_every_page_fits_and_is_accessible(browser, filled, scheme, width, lang, tmp_path):
    page = browser.new_page(base_url=filled.url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    problems = []
    watch(page, problems)
    page.goto(f"/?lang={lang}")
    assert page.locator("html").get_attribute("lang") == lang
    page.evaluate(AXE.read_text())
    for n, address in enumerate(filled.addresses):
        page.evaluate("address => { location.hash = address; }", address)
        playwright.expect(page.locator("main")).not_to_contain_text("Загрузка…" if lang == "ru" else "Loading…", timeout=10_000)
        page.wait_for_timeout(150)
        look(page, address[:60], problems)
        page.screenshot(path=tmp_path / f"{filled.data}-{n}-{scheme}-{width}-{lang}.png", full_page=True)
    if filled.data == "usual":
        dialogs(page, lang, problems, tmp_path / f"dialog-{scheme}-{width}-{lang}.png")
    for keys in ["Control+k", "?"]:
        page.keyboard.press(keys)
        playwright.expect(page.locator("dialog")).to_be_visible()
        look(page, keys, problems)
        page.keyboard.press("Escape")
        playwright.expect(page.locator("dialog")).to_have_count(0)
    page.close()
    assert problems == []


def test_the_page_is_small_and_paints_within_a_second(browser, filled):
    size = 0
    for asset in ["/", "/assets/app.js", "/assets/style.css", "/assets/icon.svg"]:
        answer = http("GET", filled.url + asset)
        assert answer.status == 200
        size += len(zlib.compress(answer.body, 6))
    assert size <= 150_000
    page = browser.new_page(base_url=filled.url)
    page.goto("/")
    playwright.expect(page.locator("main h2").first).to_be_attached(timeout=10_000)
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    assert page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") < 1000
    page.close()
