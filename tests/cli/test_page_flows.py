"""What a person does on the page when something is wrong, from the first look to the end; in a real Chromium."""

import datetime
import os
import pickle
import sys
import zlib

import pytest
from conftest import BUILD, INTEROP, http, wait_for
from many_jobs import make_jobs, packed
from rq import Queue

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")
expect = playwright.expect
SLOW = 20_000
MANY = 1_000_000 if os.environ.get("RQXX_FULL") == "1" else 5000


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", url=server.url)


@pytest.fixture
def page(browser, web):
    page = browser.new_page(base_url=web.url, viewport={"width": 1280, "height": 900})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    page.close()
    assert problems == []


def python_worker(system, *args):
    return system.run(BUILD / "rqxx", "worker", "--redis-url", system.server.url, "--python", sys.executable, "--path", INTEROP,
                      "--data-dir", system.folder / "data", *args)


def failed_jobs(connection, count, error="RuntimeError: no luck with {n}", queue="default", function="tasks.add"):
    """So many jobs that have failed, as stock RQ leaves them."""
    data = zlib.compress(pickle.dumps((function, None, (1, 2), {})))
    for begin in range(0, count, 2000):
        pipeline = connection.pipeline(transaction=False)
        for n in range(begin, min(begin + 2000, count)):
            job_id = f"{queue}-{n}"
            trace = packed(f"Traceback (most recent call last):\n  File \"tasks.py\", line 3, in add\n{error.format(n=n)}")
            pipeline.hset(f"rq:job:{job_id}", mapping={
                "status": "failed", "origin": queue, "data": data, "created_at": f"2026-11-20T00:{n // 60 % 60:02}:{n % 60:02}.000000Z",
                "enqueued_at": "2026-11-20T00:00:00.000000Z", "started_at": "2026-11-20T00:00:00.000000Z", "ended_at": "2026-11-20T01:00:00.000000Z",
                "description": f"{function}(1, 2)", "timeout": 180})
            pipeline.zadd(f"rq:failed:{queue}", {job_id: 4e9})
            pipeline.xadd(f"rq:results:{job_id}", {"type": 2, "exc_string": trace})
        pipeline.execute()
    connection.sadd("rq:queues", f"rq:queue:{queue}")


def wait_for_index(web, jobs):
    wait_for(lambda: (found := http("GET", f"{web.url}/api/v1/jobs?limit=1").json.get("index", {})).get("complete") and found["jobs"] >= jobs, 120 + jobs / 200,
             "the index to have all jobs")


def test_one_failed_job_among_many_is_found_by_part_of_its_error(page, web, connection):
    make_jobs(connection, MANY, ["failed"])
    failed_jobs(connection, 1, error="ConnectionError: db-7.internal refused", queue="mail")
    wait_for_index(web, MANY + 1)
    page.goto("/#/jobs")
    page.get_by_role("combobox", name="Search").fill('status:failed error:"db-7.internal"')
    expect(page.locator("main tbody tr")).to_have_count(1, timeout=SLOW)
    page.locator("main tbody a").first.click()
    expect(page.locator("main h2").first).to_have_text("mail-0", timeout=SLOW)
    expect(page.locator("main")).to_contain_text("db-7.internal refused")
    page.go_back()
    expect(page.get_by_role("combobox", name="Search")).to_have_value('status:failed error:"db-7.internal"')


def test_the_search_offers_what_there_is(page, web, connection):
    failed_jobs(connection, 3, queue="mail", function="app.mail.send")
    wait_for_index(web, 3)
    page.goto("/#/jobs")
    box = page.get_by_role("combobox", name="Search")
    box.press_sequentially("fun")
    expect(page.get_by_role("option", name="func")).to_be_visible(timeout=SLOW)
    box.press("ArrowDown")
    box.press("Enter")
    box.press_sequentially("app")
    expect(page.get_by_role("option", name="app.mail.send")).to_be_visible(timeout=SLOW)
    box.press("ArrowDown")
    box.press("Enter")
    expect(box).to_have_value("func:app.mail.send ")
    expect(page.locator("main tbody tr")).to_have_count(3, timeout=SLOW)


def test_pages_of_jobs_lead_on_and_back(page, web, connection):
    failed_jobs(connection, 60)
    wait_for_index(web, 60)
    page.goto("/#/jobs")
    first = page.locator("main tbody tr").first
    expect(first).to_contain_text("default-", timeout=SLOW)
    newest = first.text_content()
    page.get_by_role("button", name="Older").click()
    expect(first).not_to_have_text(newest, timeout=SLOW)
    page.get_by_role("button", name="Older").click()
    expect(page.locator("main tbody tr")).to_have_count(10, timeout=SLOW)
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.get_by_role("button", name="Newer").click()
    page.get_by_role("button", name="Newer").click()
    expect(first).to_have_text(newest, timeout=SLOW)


def test_a_whole_group_of_failures_is_requeued_and_runs(page, web, system, connection):
    failed_jobs(connection, 120, error="ValueError: bad row {n}")
    failed_jobs(connection, 2, error="KeyError: 'user'", queue="mail")
    wait_for_index(web, 122)
    page.goto("/#/failures")
    row = page.locator("main tbody tr", has_text="ValueError")
    expect(row).to_contain_text("120", timeout=SLOW)
    row.get_by_role("link").first.click()
    page.get_by_role("button", name="Requeue all").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("120 jobs", timeout=SLOW)
    dialog.get_by_role("button", name="Requeue").click()
    expect(page.locator("#notice")).to_contain_text("Done: 120 jobs", timeout=SLOW)
    assert connection.llen("rq:queue:default") == 120 and connection.zcard("rq:failed:mail") == 2
    done = python_worker(system, "--burst", "default")
    assert done.wait(60) == 0, done.log
    page.goto("/#/")
    expect(page.locator(".strip .count", has_text="finished").locator("b")).to_have_text("120", timeout=SLOW)


def test_a_group_is_muted_and_that_is_taken_back(page, web, connection):
    failed_jobs(connection, 3)
    wait_for_index(web, 3)
    page.goto("/#/failures")
    page.get_by_role("button", name="Mute").click(timeout=SLOW)
    expect(page.locator("#notice")).to_contain_text("muted", timeout=SLOW)
    expect(page.locator("main")).to_contain_text("Nothing has failed", timeout=SLOW)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("main tbody tr")).to_have_count(1, timeout=SLOW)


def test_a_queue_is_paused_a_job_says_why_it_waits_and_the_queue_goes_on(page, web, system, connection):
    job = Queue("default", connection=connection).enqueue("tasks.add", 1, 2)
    page.goto("/#/queues/default")
    page.get_by_role("button", name="Pause queue").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 job waits in it")
    dialog.get_by_role("button", name="Pause queue").click()
    expect(page.locator("main")).to_contain_text("paused", timeout=SLOW)
    worker = python_worker(system, "default")
    page.goto(f"/#/jobs/{job.id}")
    expect(page.locator(".why")).to_contain_text("paused", timeout=SLOW)
    assert job.get_status() == "queued"
    page.goto("/#/queues/default")
    page.get_by_role("button", name="Resume queue").click()
    page.get_by_role("dialog").get_by_role("button", name="Resume queue").click()
    page.goto(f"/#/jobs/{job.id}")
    expect(page.locator("main")).to_contain_text("finished", timeout=SLOW)
    worker.signal(15)


def test_the_log_of_a_running_job_is_followed_and_the_job_stopped(page, web, system, connection):
    worker = python_worker(system, "default")
    job = Queue("default", connection=connection).enqueue("python_jobs.count_aloud", 60)
    page.goto(f"/#/jobs/{job.id}")
    expect(page.locator(".output")).to_contain_text("line 2", timeout=SLOW)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.locator("main .status").first).to_have_text("stopped", timeout=SLOW)
    expect(page.locator(".timeline")).to_contain_text("stopped", timeout=SLOW)
    worker.signal(15)


def test_a_limit_is_added_changed_and_put_back_after_its_removal(page, web):
    def limits():
        return http("GET", f"{web.url}/api/v1/limits").json["limits"]

    page.goto("/#/limits")
    page.get_by_role("button", name="Add limit").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("api")
    dialog.get_by_label("Limit", exact=True).fill("10")
    dialog.get_by_label("Per (seconds)").fill("1")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("main tbody")).to_contain_text("10 per 1 s", timeout=SLOW)
    page.get_by_role("button", name="Edit: api").click()
    dialog.get_by_label("Limit", exact=True).fill("0")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("limit", timeout=SLOW)
    dialog.get_by_label("Limit", exact=True).fill("25")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("main tbody")).to_contain_text("25 per 1 s", timeout=SLOW)
    before = limits()
    page.get_by_role("button", name="Remove: api").click()
    dialog.get_by_role("button", name="Remove").click()
    wait_for(lambda: limits() == [], what="the limit to go")
    page.get_by_role("button", name="Undo").click()
    wait_for(lambda: limits() == before, what="the limit to come back")


def test_a_limit_that_somebody_else_has_changed_is_not_overwritten(page, web):
    def put(**rule):
        assert http("PUT", f"{web.url}/api/v1/limits/api", {"kind": "token-bucket", "per": 1, **rule}).status == 200

    def limits():
        return [limit["limit"] for limit in http("GET", f"{web.url}/api/v1/limits").json["limits"]]

    put(limit=10)
    page.goto("/#/limits")
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Edit: api").click(timeout=SLOW)
    put(limit=20)
    dialog.get_by_label("Limit", exact=True).fill("30")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Somebody else has changed it meanwhile", timeout=SLOW)
    assert limits() == [20] and dialog.get_by_role("button", name="Save").count() == 0
    dialog.get_by_role("button", name="Show what is there now").click()
    expect(dialog.get_by_label("Limit", exact=True)).to_have_value("20", timeout=SLOW)
    dialog.get_by_label("Limit", exact=True).fill("30")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("main tbody")).to_contain_text("30 per 1 s", timeout=SLOW)
    assert limits() == [30]

    # Removed meanwhile.
    page.get_by_role("button", name="Edit: api").click()
    assert http("DELETE", f"{web.url}/api/v1/limits/api").status == 200
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("changed it meanwhile", timeout=SLOW)
    dialog.get_by_role("button", name="Show what is there now").click()
    expect(dialog.get_by_role("alert")).to_contain_text("has removed it", timeout=SLOW)
    assert limits() == []
    dialog.get_by_role("button", name="Cancel").click()

    # A new one under a name that is taken meanwhile; and the removal of another than the one that was shown.
    page.get_by_role("button", name="Add limit").click()
    dialog.get_by_label("Name").fill("api")
    dialog.get_by_label("Limit", exact=True).fill("1")
    dialog.get_by_label("Per (seconds)").fill("1")
    put(limit=40)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("There is a limit of this name already", timeout=SLOW)
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("main tbody")).to_contain_text("40 per 1 s", timeout=SLOW)
    page.get_by_role("button", name="Remove: api").click()
    put(limit=50)
    dialog.get_by_role("button", name="Remove").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Somebody else has changed it meanwhile", timeout=SLOW)
    expect(dialog.get_by_role("button", name="Remove")).to_be_disabled()
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("main tbody")).to_contain_text("50 per 1 s", timeout=SLOW)
    assert limits() == [50]
    # What was removed is not put back over a new one.
    page.get_by_role("button", name="Remove: api").click()
    dialog.get_by_role("button", name="Remove").click()
    wait_for(lambda: limits() == [], what="the limit to go")
    put(limit=60)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#notice")).to_contain_text("It was not done: Somebody else has changed it meanwhile", timeout=SLOW)
    assert limits() == [60]


def test_a_cron_schedule_that_somebody_else_has_changed_is_not_overwritten(page, web):
    url = f"{web.url}/api/v1/cron"

    def there():
        return http("GET", f"{url}/nightly").json["cron"]["entry"]

    assert http("POST", url, {"name": "nightly", "func": "tasks.noop", "cron": "0 3 * * *", "timezone": "Europe/Berlin"}).status == 201
    page.goto("/#/schedules")
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Edit: nightly").click(timeout=SLOW)
    dialog.get_by_label("Expression").fill("0 4 * * *")
    assert http("PATCH", f"{url}/nightly", {"cron": "0 5 * * *"}).status == 200
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Somebody else has changed it meanwhile", timeout=SLOW)
    assert there()["cron"] == "0 5 * * *"
    dialog.get_by_role("button", name="Show what is there now").click()
    expect(dialog.get_by_label("Expression")).to_have_value("0 5 * * *", timeout=SLOW)
    dialog.get_by_label("Expression").fill("")
    dialog.get_by_label("Interval").fill("15m")
    dialog.get_by_label("Time zone").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("main tbody tr", has_text="nightly")).to_contain_text("every 15 min", timeout=SLOW)
    assert there() == {"func": "tasks.noop", "every": "15m"}
    page.get_by_role("button", name="Remove: nightly").click()
    assert http("PATCH", f"{url}/nightly", {"every": "20m"}).status == 200
    dialog.get_by_role("button", name="Remove").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Somebody else has changed it meanwhile", timeout=SLOW)
    assert there()["every"] == "20m"


def test_a_job_is_cloned_with_changes(page, web, connection):
    args = [2**63 + 1, 1.0, "ж"]
    Queue("images", connection=connection).enqueue("tasks.add", args=args, kwargs={"size": 2}, job_id="first", job_timeout=77, meta={"n": 1}, depends_on=None)
    page.goto("/#/jobs/first")
    page.get_by_role("button", name="Clone and edit").click(timeout=SLOW)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("A new job goes to the end of the queue images. The job first stays as it is.", timeout=SLOW)
    expect(dialog.get_by_label("Arguments (JSON)", exact=True)).to_have_value('[9223372036854775809, 1.0, "ж"]')
    dialog.get_by_label("Keyword arguments (JSON)").fill('{"size": 2.50, ')
    dialog.get_by_role("button", name="Enqueue a new job").click()
    expect(dialog.get_by_role("alert")).to_contain_text("must be a JSON object")
    assert connection.llen("rq:queue:images") == 1
    dialog.get_by_label("Keyword arguments (JSON)").fill('{"size": 3}')
    dialog.get_by_label("Time limit").fill("5 parsecs")
    dialog.get_by_role("button", name="Enqueue a new job").click()
    expect(dialog.get_by_role("alert")).to_contain_text("timeout", timeout=SLOW)
    dialog.get_by_label("Time limit").fill("90s")
    dialog.get_by_label("Queue").fill("other")
    expect(dialog).to_contain_text("the end of the queue other")
    dialog.get_by_role("button", name="Enqueue a new job").click()
    expect(page.locator("main h2.id")).not_to_have_text("first", timeout=SLOW)
    [made] = Queue("other", connection=connection).jobs
    assert list(made.args) == args and type(made.args[1]) is float and made.kwargs == {"size": 3} and made.timeout == 90 and made.meta == {"n": 1}
    expect(page.locator("main h2.id")).to_have_text(made.id)
    assert connection.lrange("rq:queue:images", 0, -1) == [b"first"]


def test_a_job_whose_arguments_are_no_json_says_so_before_it_is_cloned(page, web, connection):
    queue = Queue("images", connection=connection)
    queue.enqueue("tasks.add", job_id="before")
    queue.enqueue("tasks.add", (1, 2), job_id="first", depends_on="before")
    page.goto("/#/jobs/first")
    page.get_by_role("button", name="Clone and edit").click(timeout=SLOW)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Arguments: these have what JSON has not", timeout=SLOW)
    expect(dialog).to_contain_text("Not taken over: dependencies.")
    dialog.get_by_role("button", name="Enqueue a new job").click()
    assert dialog.get_by_label("Arguments (JSON)", exact=True).evaluate("(node) => node.validity.valueMissing")
    dialog.get_by_label("Arguments (JSON)", exact=True).fill("[[1, 2]]")
    dialog.get_by_role("button", name="Enqueue a new job").click()
    wait_for(lambda: connection.llen("rq:queue:images") == 2, what="the clone, which waits for nothing")


def test_the_hash_of_a_job_is_shown_as_it_is_stored(page, web, connection):
    job = Queue("default", connection=connection).enqueue("tasks.add", job_id="first")
    connection.hset(job.key, mapping={"<b>odd</b>": b"\xff<script>alert(1)</script>"})
    page.goto("/#/jobs/first")
    page.get_by_text("As it is stored in Redis").click(timeout=SLOW)
    table = page.get_by_role("region", name="As it is stored in Redis")
    expect(table).to_contain_text("<b>odd</b>", timeout=SLOW)
    expect(table).to_contain_text("\\xff<script>alert(1)</script>")
    expect(table.locator("tr", has_text="origin")).to_contain_text("default")


def test_a_cron_schedule_is_added_and_run_now(page, web, connection):
    page.goto("/#/schedules")
    page.get_by_text("Add a schedule").click(timeout=SLOW)
    page.get_by_label("Name").fill("nightly")
    page.get_by_label("Function").fill("tasks.noop")
    page.get_by_label("Expression").fill("0 3 * * *")
    page.get_by_role("button", name="Add", exact=True).click()
    row = page.locator("main tbody tr", has_text="nightly")
    expect(row).to_contain_text("tasks.noop", timeout=SLOW)
    page.get_by_role("button", name="Run now: nightly").click()
    wait_for(lambda: connection.llen("rq:queue:default") == 1, what="the job")
    expect(row).to_contain_text("queued", timeout=SLOW)
    page.get_by_label("Expression").fill("not cron")
    page.get_by_label("Name").fill("bad")
    page.get_by_label("Function").fill("tasks.noop")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("cron", timeout=SLOW)


def test_a_scheduled_job_is_run_now(page, web, connection):
    Queue("default", connection=connection).enqueue_in(datetime.timedelta(days=2), "tasks.add", 1, 2, job_id="later")
    page.goto("/#/schedules")
    page.get_by_role("button", name="Run now: later").click(timeout=SLOW)
    wait_for(lambda: connection.lrange("rq:queue:default", 0, -1) == [b"later"], what="the job on its queue")
    expect(page.locator("main")).to_contain_text("No job is scheduled", timeout=SLOW)


def test_chosen_jobs_are_canceled_and_what_was_done_is_on_the_page_of_events(page, web, connection):
    queue = Queue("default", connection=connection)
    for n in range(4):
        queue.enqueue("tasks.add", n, n, job_id=f"job-{n}")
    wait_for_index(web, 4)
    page.goto("/#/jobs?status=queued")
    for n in (1, 2):
        page.get_by_label(f"Choose job-{n}").check(timeout=SLOW)
    page.locator(".bar").get_by_role("button", name="Cancel job").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 jobs", timeout=SLOW)
    dialog.get_by_role("button", name="Cancel job").click()
    wait_for(lambda: connection.lrange("rq:queue:default", 0, -1) == [b"job-0", b"job-3"], what="the queue")
    page.goto("/#/events")
    expect(page.locator("main tbody")).to_contain_text("job.bulk", timeout=SLOW)
    expect(page.get_by_title("cancel").first).to_be_visible()


def test_a_job_is_canceled_and_that_is_undone(page, web, connection):
    Queue("default", connection=connection).enqueue("tasks.add", 1, 2, job_id="mistake")
    page.goto("/#/jobs/mistake")
    page.get_by_role("button", name="Cancel job").click(timeout=SLOW)
    page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
    wait_for(lambda: connection.llen("rq:queue:default") == 0, what="the queue to be empty")
    page.get_by_role("button", name="Undo").click()
    wait_for(lambda: connection.lrange("rq:queue:default", 0, -1) == [b"mistake"], what="the job back")


def test_the_cancel_of_a_job_for_later_is_not_undone_by_running_it_now(page, web, connection):
    Queue("default", connection=connection).enqueue_in(datetime.timedelta(days=1), "tasks.add", 1, 2, job_id="later")
    page.goto("/#/schedules")
    page.get_by_role("button", name="Cancel job: later").click(timeout=SLOW)
    page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
    expect(page.locator("#notice")).to_contain_text("later is canceled", timeout=SLOW)
    assert page.get_by_role("button", name="Undo").count() == 0
    assert connection.llen("rq:queue:default") == 0 and connection.zcard("rq:canceled:default") == 1


def test_all_of_a_search_that_is_not_understood_is_left_alone(page, web, connection):
    failed_jobs(connection, 3)
    wait_for_index(web, 3)
    page.goto("/#/jobs?q=status%3Afailed+age%3C1x")
    expect(page.get_by_role("alert")).to_contain_text("age<1x", timeout=SLOW)
    expect(page.locator("main tbody tr")).to_have_count(3)
    assert page.get_by_role("button", name="all").count() == 0
    page.get_by_label("Choose default-1").check()
    expect(page.locator(".bar").get_by_role("button", name="Delete", exact=True)).to_be_visible()
    page.get_by_role("combobox", name="Search").fill("status:failed")
    expect(page.get_by_role("button", name="Delete all")).to_be_visible(timeout=SLOW)


def test_a_page_of_a_search_by_age_and_what_is_chosen_there_stay_while_time_goes_on(page, web, connection):
    failed_jobs(connection, 60)
    wait_for_index(web, 60)
    page.clock.install()
    page.goto("/#/jobs?q=status%3Afailed+age%3C4000d")
    first = page.locator("main tbody tr").first
    expect(first).to_contain_text("default-", timeout=SLOW)
    newest = first.text_content()
    page.get_by_role("button", name="Older").click()
    expect(first).not_to_have_text(newest, timeout=SLOW)
    second = first.text_content()
    box = page.get_by_role("checkbox").first
    box.check()
    with page.expect_response(lambda answer: "/api/v1/jobs?" in answer.url and "cursor=" in answer.url) as answer:
        page.clock.fast_forward(150_000)
    assert answer.value.status == 200
    with page.expect_response(lambda answer: "/api/v1/jobs?" in answer.url):
        page.clock.fast_forward(60_000)
    assert page.get_by_role("alert").count() == 0
    assert first.text_content() == second and box.is_checked()


def test_dependencies_are_drawn_and_lead_to_each_other(page, web, connection):
    queue = Queue("default", connection=connection)
    queue.enqueue("tasks.add", 1, 2, job_id="first")
    queue.enqueue("tasks.echo", 3, job_id="second", depends_on="first")
    page.goto("/#/jobs/second")
    graph = page.locator(".graph")
    expect(graph.locator("a")).to_have_count(2, timeout=SLOW)
    expect(graph).to_contain_text("deferred")
    graph.locator("a", has_text="tasks.add").click()
    expect(page.locator("main h2").first).to_have_text("first", timeout=SLOW)


def test_a_page_that_is_open_for_an_hour_does_not_grow(browser, web, connection):
    page = browser.new_page(base_url=web.url)
    page.clock.install()
    page.route("**/api/v1/events*", lambda route: route.abort())   # Questions follow the page's clock, a stream does not.
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Live", timeout=SLOW)
    tools = page.context.new_cdp_session(page)
    queue = Queue("default", connection=connection)

    def pass_time(minutes):
        for n in range(minutes * 6):
            if n % 5 == 0:
                queue.enqueue("tasks.noop", n)
            with page.expect_response(lambda answer: "/api/rq/stats" in answer.url):
                page.clock.run_for(10_000)
            page.wait_for_timeout(5)

    def size():
        tools.send("HeapProfiler.collectGarbage")
        counts = tools.send("Memory.getDOMCounters")
        heap = tools.send("Runtime.getHeapUsage")["usedSize"]
        return counts["nodes"], counts["jsEventListeners"], heap

    for n in range(60):   # So that the lists are full from the start.
        queue.enqueue("tasks.noop", n)
    pass_time(20)
    nodes, listeners, heap = size()
    pass_time(40)
    later = size()
    page.close()
    assert later[0] <= nodes * 1.1 + 50 and later[1] <= listeners * 1.1 + 10 and later[2] <= heap * 1.2 + 500_000, (nodes, listeners, heap, later)
