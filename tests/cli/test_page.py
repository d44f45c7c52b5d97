"""The page at /, in a real Chromium."""

import json

import pytest
from conftest import http
from rq import Queue, Worker

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", url=server.url)


@pytest.fixture
def page(browser, web):
    """The overview, loaded. A script error or a request to anywhere else fails the test."""
    page = browser.new_page(base_url=web.url, viewport={"width": 1280, "height": 800})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: request.url.startswith(web.url) or problems.append(request.url))
    page.goto("/")
    playwright.expect(page.locator("#live")).to_have_text("Live")
    yield page
    page.close()
    assert problems == []


def has_text(page, text):
    playwright.expect(page.locator("main")).to_contain_text(text, timeout=10_000)


def run_all(connection):
    Worker(["default"], connection=connection).work(burst=True)


def test_an_empty_system_says_what_to_do(page):
    for hint in ["No queue yet", "No worker listens", "No jobs yet", "rqxx worker"]:
        has_text(page, hint)


def test_new_jobs_and_their_ends_appear_without_a_reload(page, connection):
    job = Queue("default", connection=connection).enqueue("tasks.add", 2, 3)
    row = page.locator("tr", has_text=job.id[:8])
    playwright.expect(row).to_contain_text("queued", timeout=10_000)
    run_all(connection)
    playwright.expect(row).to_contain_text("finished", timeout=10_000)
    playwright.expect(page.locator(".strip .count", has_text="finished").locator("b")).to_have_text("1")


def test_a_finished_job_shows_arguments_result_and_executions(page, connection):
    job = Queue("default", connection=connection).enqueue("tasks.add", 20, b=22)
    run_all(connection)
    page.locator("a", has_text=job.id[:8]).click(timeout=10_000)
    for text in [job.id, "tasks.add", "20", '"b": 22', "42", "Executions", "finished"]:
        has_text(page, text)


def test_a_failed_job_shows_its_traceback(page, connection):
    job = Queue("default", connection=connection).enqueue("tasks.fail", "no luck today")
    run_all(connection)
    page.goto(f"/#/jobs/{job.id}")
    has_text(page, "Traceback (most recent call last)")
    has_text(page, "RuntimeError: no luck today")


def test_hostile_job_data_is_shown_as_text(page, connection):
    script = "<img src=x onerror=\"document.title='owned'\">"
    job = Queue("default", connection=connection).enqueue("tasks.echo", script, job_id="mean", description=script)
    has_text(page, script)
    page.goto(f"/#/jobs/{job.id}")
    has_text(page, "onerror")
    assert page.locator("main img").count() == 0
    assert page.title() == "mean · rqxx"


def test_a_deleted_job_is_reported_and_leads_back(page, connection):
    page.goto("/#/jobs/absent")
    has_text(page, "There is no such job")
    page.locator("main").get_by_text("Jobs").click()
    has_text(page, "Job id")


def test_pausing_stops_the_refresh(page, connection):
    page.get_by_role("button", name="Pause").click()
    Queue("default", connection=connection).enqueue("tasks.add", 1, 1)
    page.wait_for_timeout(2500)
    assert "tasks.add" not in page.locator("main").inner_text()
    page.get_by_role("button", name="Resume").click()
    has_text(page, "tasks.add")


def test_a_paused_page_still_shows_the_pages_one_goes_to(page, connection):
    Queue("mail", connection=connection).enqueue("tasks.add", 1, 1, job_id="letter")
    page.get_by_role("button", name="Pause").click()
    page.goto("/#/jobs/letter")
    has_text(page, "tasks.add")
    page.goto("/#/batches")
    has_text(page, "No batches")
    playwright.expect(page.locator("#live")).to_have_text("Paused")


def test_an_unreachable_redis_is_said_and_overcome(page, server):
    server.pause()
    playwright.expect(page.locator("#live.stale")).to_contain_text("data of", timeout=20_000)
    server.resume()
    playwright.expect(page.locator("#live")).to_have_text("Live", timeout=20_000)


def test_a_token_is_asked_for_until_it_is_right_and_then_remembered(browser, system, server):
    web = system.serve("--no-worker", "--token", "s3cret", url=server.url)
    page = browser.new_page(base_url=web.url)
    page.goto("/")
    has_text(page, "asks for its token")
    page.get_by_label("token").fill("wrong")
    page.get_by_role("button", name="Continue").click()
    has_text(page, "was refused")
    page.get_by_label("right one").fill("s3cret")
    page.keyboard.press("Enter")
    has_text(page, "No jobs yet")
    playwright.expect(page.locator("#live")).to_have_text("Live")
    page.reload()
    has_text(page, "No jobs yet")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(page, connection, scheme):
    for n in range(5):
        Queue("default", connection=connection).enqueue("tasks.echo", "long" * 40, n)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    has_text(page, "tasks.echo")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shade = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(","))
    assert (shade > 384) == (scheme == "light")


def test_a_queue_is_paused_and_resumed_after_telling_how_many_jobs_wait(page, connection):
    queue = Queue("mail", connection=connection)
    for n in range(3):
        queue.enqueue("tasks.add", n, n)
    page.locator("a", has_text="mail").first.click(timeout=10_000)
    playwright.expect(page.locator(".strip .count", has_text="queued").locator("b")).to_have_text("3", timeout=10_000)
    page.get_by_role("button", name="Pause queue").click()
    dialog = page.get_by_role("dialog")
    playwright.expect(dialog).to_contain_text("Pause the queue mail?")
    playwright.expect(dialog).to_contain_text("3 jobs wait")
    dialog.get_by_role("button", name="Cancel").click()
    playwright.expect(dialog).to_have_count(0)
    assert page.locator("#notice").inner_text() == ""
    page.get_by_role("button", name="Pause queue").click()
    dialog.get_by_role("button", name="Pause queue").click()
    playwright.expect(page.locator("#notice")).to_contain_text("mail is paused")
    page.get_by_role("button", name="Resume queue").click(timeout=10_000)
    dialog.get_by_role("button", name="Resume queue").click()
    playwright.expect(page.locator("#notice")).to_contain_text("mail goes on")
    playwright.expect(page.get_by_role("button", name="Pause queue")).to_be_visible(timeout=10_000)


def test_a_waiting_job_says_why(page, connection):
    Queue("default", connection=connection).enqueue("tasks.add", 1, 2, job_id="w")
    page.goto("/#/jobs/w")
    playwright.expect(page.locator(".why")).to_contain_text("No worker listens", timeout=10_000, ignore_case=True)
    page.goto("/?lang=ru#/jobs/w")
    playwright.expect(page.locator(".why")).to_contain_text("Очередь не слушает ни один воркер", timeout=10_000)


def test_filters_are_in_the_address(page, connection):
    for name in ["mail", "images"]:
        Queue(name, connection=connection).enqueue("tasks.add", 1, 2, job_id=f"of-{name}")
    page.goto("/#/queues")
    page.get_by_label("Filter").fill("mai")
    playwright.expect(page.locator("tbody tr")).to_have_count(1, timeout=10_000)
    assert page.url.endswith("#/queues?q=mai")
    page.reload()
    playwright.expect(page.locator("tbody tr")).to_have_count(1, timeout=10_000)
    page.goto("/#/jobs?queue=images&status=queued")
    playwright.expect(page.locator("tbody tr")).to_have_count(1, timeout=10_000)
    has_text(page, "of-image")
    assert page.get_by_label("Status").input_value() == "queued"


def test_limits_are_pushed_back_and_removed(page, web):
    assert http("PUT", f"{web.url}/api/v1/limits/gpu", {"kind": "concurrency", "limit": 2}).status == 200
    page.goto("/#/limits")
    page.get_by_role("button", name="Push back: gpu").click(timeout=10_000)
    page.get_by_label("Seconds").fill("90")
    page.get_by_role("dialog").get_by_role("button", name="Push back").click()
    playwright.expect(page.locator("#notice")).to_contain_text("pushed back by 90 s")
    assert http("GET", f"{web.url}/api/v1/limits").json["limits"][0]["limiters"][0]["pushed_back_until"]
    page.get_by_role("button", name="Remove: gpu").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    has_text(page, "No limits")
    assert http("GET", f"{web.url}/api/v1/limits").json["limits"] == []


def test_a_function_is_paused_and_resumed(page, web):
    page.goto("/#/limits")
    page.get_by_label("Pause a function").fill("app.tasks.resize")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    playwright.expect(page.locator("#notice")).to_contain_text("app.tasks.resize is paused")
    (rule,) = http("GET", f"{web.url}/api/v1/limits").json["limits"]
    assert (rule["kind"], rule["function"]) == ("pause", "app.tasks.resize")
    page.locator("td").get_by_role("button", name="Resume").click(timeout=10_000)
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    has_text(page, "No limits")
    assert http("GET", f"{web.url}/api/v1/limits").json["limits"] == []


def test_a_batch_is_followed_and_canceled(page, web):
    lines = b'{"func": "tasks.add", "args": [1, 2]}\n' * 3
    assert http("POST", f"{web.url}/api/v1/batches?name=nightly", lines, {"Content-Type": "application/x-ndjson"}).status == 201
    page.goto("/#/batches")
    page.locator("a", has_text="nightly").click(timeout=10_000)
    has_text(page, "0 / 3")
    page.get_by_role("button", name="Cancel the rest").click()
    playwright.expect(page.get_by_role("dialog")).to_contain_text("3 jobs")
    page.get_by_role("dialog").get_by_role("button", name="Cancel the rest").click()
    playwright.expect(page.locator("#notice")).to_contain_text("3 jobs canceled")
    has_text(page, "3 / 3")


def test_keys_and_the_palette_lead_everywhere(page, connection):
    Queue("mail", connection=connection).enqueue("tasks.add", 1, 2, job_id="letter")
    has_text(page, "letter")
    for letter, heading in {"q": "Queues", "j": "Jobs", "w": "Workers", "l": "Limits", "b": "Batches"}.items():
        page.keyboard.press("g")
        page.keyboard.press(letter)
        playwright.expect(page.locator("main h2").first).to_have_text(heading)
        playwright.expect(page.locator("nav [aria-current]")).to_have_text(heading)
        playwright.expect(page).to_have_title(f"{heading} · rqxx")
    page.keyboard.press("/")
    page.keyboard.type("gq")                            # Typed, not obeyed.
    assert page.url.endswith("#/batches?q=gq")
    page.keyboard.press("Control+k")
    page.keyboard.type("mail")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("main h2").first).to_have_text("Queue mail")
    page.keyboard.press("Control+k")
    page.keyboard.type("letter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("main h2.id")).to_have_text("letter")
    page.keyboard.press("?")
    playwright.expect(page.get_by_role("dialog")).to_contain_text("Go to Queues")
    page.keyboard.press("Escape")
    playwright.expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("p")
    playwright.expect(page.locator("#live")).to_have_text("Paused")


@pytest.mark.parametrize(("locale", "query", "word"), [("ru-RU", "", "Очереди"), ("de-DE", "", "Queues"), ("ru-RU", "?lang=en", "Queues"),
                                                        ("en-US", "?lang=ru", "Очереди")])
def test_the_language_is_the_browsers_unless_the_address_names_one(browser, web, locale, query, word):
    page = browser.new_page(base_url=web.url, locale=locale)
    page.goto(f"/{query}")
    playwright.expect(page.locator("nav a").nth(1)).to_have_text(word)
    page.close()


def streaming(page, answer):
    """The page of a server whose stream of events answers like this."""
    address = page.url
    page.goto("about:blank")   # What the page before asks is of no interest.
    page.route("**/api/v1/openapi.json", lambda route: route.fulfill(json={"paths": {"/api/v1/events": {}}}))
    page.route("**/api/v1/events?topics=overview", lambda route: route.fulfill(**answer))
    asked = []
    page.on("request", lambda request: asked.append(request.url.split("/api/")[-1]))
    page.goto(address)
    return asked


def test_the_overview_comes_by_a_stream_where_there_is_one(page, web):
    counts = dict.fromkeys(["queued", "started", "finished", "failed", "deferred", "scheduled", "canceled"], 7)
    stats = {"status": "ok", "stats": counts, "totals": counts, "queues": [{"queue_name": "streamed", **counts}]}
    data = {"at": "2026-11-24T09:30:00.000000Z", "stats": stats, "workers": {"workers": []}, "recent": {"jobs": []}}
    asked = streaming(page, {"content_type": "text/event-stream", "body": f"retry: 500\nevent: overview\ndata: {json.dumps(data)}\n\n"})
    has_text(page, "streamed")
    page.wait_for_timeout(3000)
    assert asked.count("rq/stats") <= 2, "it asks beside the stream"
    assert asked.count("v1/events?topics=overview") > 2
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(700)
    asked.clear()
    page.wait_for_timeout(1500)
    assert asked == []
    page.get_by_role("button", name="Resume").click()
    playwright.expect(page.locator("#live")).to_have_text("Live")
    has_text(page, "streamed")


def test_with_the_stream_the_page_follows_redis_and_asks_only_for_what_changes_slowly(page, connection):
    Queue("mail", connection=connection).enqueue("tasks.add", 1, 2)
    with page.expect_request("**/api/v1/events?topics=overview"):
        page.reload()
    has_text(page, "mail")
    page.wait_for_timeout(1000)
    asked = []
    slow = ("/api/v1/history", "/api/v1/alerts", "/api/v1/failures")   # Each every five seconds.
    page.on("request", lambda request: any(part in request.url for part in slow) or asked.append(request.url))
    page.wait_for_timeout(7000)
    Queue("more", connection=connection).enqueue("tasks.add", 1, 2)
    has_text(page, "more")
    playwright.expect(page.locator("#live")).to_have_text("Live")
    assert asked == []


def test_a_stream_that_is_refused_is_replaced_by_questions(page, connection):
    asked = streaming(page, {"status": 404, "json": {"detail": "There is nothing at this path"}})
    Queue("mail", connection=connection).enqueue("tasks.add", 1, 2)
    has_text(page, "mail")
    Queue("more", connection=connection).enqueue("tasks.add", 1, 2)
    has_text(page, "more")
    assert asked.count("v1/events?topics=overview") == 1


def test_commands_to_copy_reach_the_clipboard(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy: rqxx worker").click()
    playwright.expect(page.get_by_role("button", name="Copy: rqxx worker")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "rqxx worker"


RUN = "0193aaaa000170008000000000000001"


def write(connection, *pieces, execution=RUN):
    """Output of a job `a` that runs, as its worker stores it."""
    if not connection.exists(f"rqxx:output:a:{execution}"):
        connection.lpush("rqxx:output:a", execution)
    for field, text in pieces:
        connection.xadd(f"rqxx:output:a:{execution}", {field: text})


def start(connection):
    Queue("default", connection=connection).enqueue("tasks.add", 1, 2, job_id="a")
    connection.hset("rq:job:a", "status", "started")
    connection.zadd("rq:executions:a", {RUN: 9e9})
    connection.hset(f"rq:execution:a:{RUN}", mapping={"id": RUN, "created_at": "1795456544.965519", "worker_name": "w"})


def test_output_appears_while_a_job_runs_and_follows_it(page, connection):
    start(connection)
    write(connection, ("1", "first line\n"), ("2", "a warning\n"), ("x", "12345"), ("1", "\x1b[31mred\x1b[0m one\rtwo\x1b[2J\n"))
    page.goto("/#/jobs/a")
    pane = page.locator(".output")
    playwright.expect(pane).to_contain_text("first line", timeout=10_000)
    assert pane.locator(".stdout").all_inner_texts() == ["first line\n", "red one\ntwo\ufffd[2J\n"]
    assert pane.locator(".stderr").inner_text() == "a warning\n"
    assert pane.locator(".cut").inner_text() == "… 12,345 bytes are missing …"
    # Not only by its colour.
    assert pane.locator(".stderr").evaluate("node => getComputedStyle(node, '::before').content") == '"stderr"'
    playwright.expect(page.locator("summary .state")).to_have_text("running")
    at_end = "node => node.scrollTop + node.clientHeight >= node.scrollHeight - 8"
    write(connection, ("1", "".join(f"row {n}\n" for n in range(200))))
    playwright.expect(pane).to_contain_text("row 199", timeout=10_000)
    assert pane.evaluate(at_end) and pane.bounding_box()["height"] < 420
    pane.evaluate("node => { node.scrollTop = 0; }")        # Who reads above is left there.
    write(connection, ("1", "the end\n"))
    playwright.expect(pane).to_contain_text("the end", timeout=10_000)
    assert pane.evaluate("node => node.scrollTop") == 0
    with connection.pipeline() as pipe:
        pipe.delete(f"rq:execution:a:{RUN}", "rq:executions:a").hset("rq:job:a", "status", "finished").execute()
    playwright.expect(page.locator("summary .state")).to_have_text("", timeout=10_000)


def test_executions_show_cause_memory_and_cpu_and_each_its_output(page, connection):
    start(connection)
    connection.delete(f"rq:execution:a:{RUN}", "rq:executions:a")
    second = RUN.replace("0001", "0002", 1)
    connection.xadd("rq:results:a", {"type": 2, "execution_id": RUN, "worker_name": "w", "cause": "memory limit", "max_rss_kb": 262144, "cpu_seconds": "1.25"})
    connection.xadd("rq:results:a", {"type": 1, "execution_id": second, "worker_name": "w", "max_rss_kb": 20480, "cpu_seconds": "0.5"})
    connection.hset("rq:job:a", "status", "finished")
    write(connection, ("1", "of the first\n"))
    write(connection, ("1", "of the second\n"), execution=second)
    page.goto("/#/jobs/a")
    for text in ["memory limit", "256 MB", "1.25 s", "20.0 MB", "500 ms", "of the second"]:
        has_text(page, text)
    assert not page.locator(".output", has_text="of the first").is_visible()
    page.locator("summary", has_text=RUN[:12]).click()
    playwright.expect(page.locator(".output", has_text="of the first")).to_be_visible()


def test_hostile_output_is_shown_as_text(page, connection):
    start(connection)
    write(connection, ("1", b"<img src=x onerror=\"document.title='owned'\">\xff\xfe\n"), ("2", "\u202egnp\n"))
    page.goto("/#/jobs/a")
    has_text(page, "onerror")
    has_text(page, "\ufffdgnp")
    assert page.locator("main img").count() == 0 and page.title() == "a · rqxx"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_output_fits_each_width_and_theme(page, connection, scheme, width, tmp_path):
    start(connection)
    write(connection, ("1", "Reading 3 files\n" + "x" * 300 + "\n"), ("2", "WARNING: slow disk\n  second line of it\n"), ("x", "1048576"),
          ("1", "done\n"), ("2", "Traceback (most recent call last):\n  File \"x.py\", line 1\n"))
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/#/jobs/a")
    has_text(page, "slow disk")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"output-{scheme}-{width}.png", full_page=True)
