"""The page at /, in a real Chromium."""

import shutil

import pytest
from conftest import http, wait_for
from rq import Queue, Worker

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


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
    assert page.title() == "rqxx"


def test_a_deleted_job_is_reported_and_leads_back(page, connection):
    page.goto("/#/jobs/absent")
    has_text(page, "There is no such job")
    page.get_by_text("Overview").click()
    has_text(page, "Recent jobs")


def test_pausing_stops_the_refresh(page, connection):
    page.get_by_role("button", name="Pause").click()
    Queue("default", connection=connection).enqueue("tasks.add", 1, 1)
    page.wait_for_timeout(2500)
    assert "tasks.add" not in page.locator("main").inner_text()
    page.get_by_role("button", name="Resume").click()
    has_text(page, "tasks.add")


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
