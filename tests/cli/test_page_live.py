"""What the page tells as it happens: the log of events, the progress of actions on many jobs; in a real Chromium."""

from conftest import http
from rq import Queue
from test_operations import fill
from test_page_flows import SLOW, expect, page, wait_for_index, web  # noqa: F401


def log_of(page):
    return page.get_by_role("region", name="Live log").first


def test_what_happens_is_told_on_the_page_of_events_as_it_happens(system, page, web, connection):  # noqa: F811
    wait_for_index(web, 0)
    page.goto("/#/events")
    with page.expect_request("**/api/v1/events?topics=overview,jobs,operations,audit"):
        page.reload()
    expect(page.locator("main")).to_contain_text("Nothing has happened", timeout=SLOW)
    page.wait_for_timeout(500)
    Queue("mail", connection=connection).enqueue("tasks.add", 1, 2, job_id="letter")
    expect(log_of(page)).to_contain_text("queued", timeout=SLOW)
    system.rq_worker("--burst", "mail").wait(60)
    expect(log_of(page)).to_contain_text("finished", timeout=SLOW)
    http("POST", web.url + "/api/v1/queues/mail/pause")
    expect(log_of(page)).to_contain_text("queue.pause: done", timeout=SLOW)
    page.get_by_label("Kind").select_option("audit")
    expect(log_of(page)).not_to_contain_text("finished")
    page.get_by_label("Kind").select_option("")
    page.get_by_label("Filter").fill("letter")
    expect(log_of(page)).not_to_contain_text("queue.pause")
    log_of(page).get_by_role("link", name="letter").first.click()
    expect(page.locator("main h2").first).to_have_text("letter", timeout=SLOW)


def test_the_log_is_held_while_somebody_reads_it_and_does_not_grow(page, web, connection):  # noqa: F811
    queue = Queue("default", connection=connection)
    queue.enqueue("tasks.add", 1, 2, job_id="sample")
    wait_for_index(web, 1)
    page.goto("/#/events")
    rows = log_of(page).locator("tbody tr")
    expect(page.locator("main")).to_contain_text("Nothing has happened", timeout=SLOW)
    page.wait_for_timeout(1000)
    queue.enqueue("tasks.add", 1, 2, job_id="before")
    expect(rows).to_have_count(1, timeout=SLOW)
    page.get_by_role("button", name="Hold").click()
    queue.enqueue("tasks.add", 1, 2, job_id="meanwhile")
    expect(page.locator("main")).to_contain_text("1 new", timeout=SLOW)
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Go on").click()
    expect(rows).to_have_count(2)
    fill(connection, 1500, "many")
    for n in range(15):
        connection.xadd("rqxx:changes", {"ids": " ".join(f"many-{i}" for i in range(n * 100, n * 100 + 100))})
    expect(log_of(page)).to_contain_text("many-1499", timeout=SLOW)
    expect(page.locator("main")).to_contain_text("were left out", timeout=SLOW)
    assert rows.count() <= 300


def test_the_progress_of_many_jobs_comes_by_the_stream(page, web, connection):  # noqa: F811
    Queue("default", connection=connection).enqueue("tasks.add", 1, 2, job_id="sample")
    fill(connection, 30_000, "many")
    page.goto("/#/queues/many")
    asked = []
    page.on("request", lambda request: "/api/v1/operations/" in request.url and asked.append(request.url))
    page.get_by_role("button", name="Empty").click(timeout=SLOW)
    with page.expect_request("**/api/v1/events?topics=overview,operations"):
        page.get_by_role("dialog").get_by_role("button", name="Empty").click(timeout=SLOW)
    expect(page.get_by_text("Done: 30,000 jobs")).to_be_visible(timeout=60_000)
    assert len(asked) <= 4, asked


def test_a_reader_sees_the_log_but_not_who_did_what(system, browser, server, connection):
    token = system.rqxx("token", "create", "reader", "--scope", "read", "--redis-url", server.url).stdout.strip()
    web = system.serve("--auth", "--no-worker", url=server.url)
    page = browser.new_page(base_url=web.url)
    page.goto("/#/events")
    page.locator("#token").fill(token)
    with page.expect_request("**/api/v1/events?topics=overview,jobs,operations"):
        page.get_by_role("button", name="Continue").click()
    expect(page.locator("main")).to_contain_text("Nothing has happened", timeout=SLOW)
    Queue("mail", connection=connection).enqueue("tasks.add", 1, 2, job_id="letter")
    expect(log_of(page)).to_contain_text("letter", timeout=SLOW)
    expect(page.get_by_text("What was done")).to_have_count(0)
    expect(page.locator("#live")).to_have_text("Live")
    page.close()
