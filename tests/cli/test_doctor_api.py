"""What `rqxx doctor` finds, over HTTP and on the page."""

import json
import signal

import pytest
from conftest import http, wait_for
from rq import Queue
from test_http import problem
from test_security import bearer

QUIET = ("--no-worker", "--no-sampler", "--no-maintenance", "--no-scheduler", "--no-index", "--no-cron", "--no-webhooks")


@pytest.fixture
def web(system, server):
    return system.serve(*QUIET, url=server.url)


def everything(connection):
    return {key: connection.dump(key) for key in connection.keys("*")}


def doctor(web, query="", **headers):
    answer = http("GET", f"{web.url}/api/v1/doctor{query}", headers=headers)
    assert answer.status == 200, answer.body
    return answer.json["doctor"]


def examined(web, **headers):
    assert doctor(web, "?max_age=10", **headers)["state"] == "running"
    return wait_for(lambda: (now := doctor(web, **headers))["state"] != "running" and now, timeout=60, what="the end of the examination")


def broken(connection):
    Queue("default", connection=connection).enqueue("tasks.add", job_id="good")
    connection.rpush("rq:queue:default", "ghost")
    connection.hset("rq:job:good", "timeout", "hunter2")


def test_an_examination_is_made_when_asked_for_and_changes_nothing(system, server, connection, web):
    broken(connection)
    before = everything(connection)
    first = doctor(web)
    assert first["state"] == "none" and first["report"] is None and doctor(web)["state"] == "none"
    found = examined(web)
    assert found["state"] == "done" and found["error"] is None and found["started_at"] < found["ended_at"]
    report = found["report"]
    findings = {one["code"]: one for one in report["findings"]}
    assert not report["healthy"] and report["jobs"] == 1 and report["queues"] == 1
    assert findings["ghost-id"]["found"] == 1 and findings["ghost-id"]["examples"][0]["subject"] == "ghost"
    assert "hunter2" in findings["bad-field"]["examples"][0]["note"]
    assert report["command"] == "rqxx doctor --repair" and everything(connection) == before
    # The same as the command line says.
    told = system.rqxx("doctor", "--json", "--recheck", "1s", "--redis-url", server.url)
    assert told.returncode == 1
    assert [(one["code"], one["found"], one["what"], one["examples"]) for one in json.loads(told.stdout)["findings"]] == [
        (one["code"], one["found"], one["what"], one["examples"]) for one in report["findings"]]
    # One that is young enough is not made again.
    assert doctor(web, "?max_age=3600")["ended_at"] == found["ended_at"]
    assert system.rqxx("doctor", "--repair", "--redis-url", server.url, timeout=60).returncode in (0, 1)
    for query in ("?max_age=9", "?max_age=x", "?max_age=86401"):
        problem(http("GET", f"{web.url}/api/v1/doctor{query}"), 422)


def test_a_user_who_may_not_write_to_redis_can_examine_it(system, server, connection):
    broken(connection)
    connection.acl_setuser("reader", enabled=True, passwords=["+secret"], commands=["+@all", "-@write"], keys=["*"], channels=["*"])
    web = system.serve("--read-only", "--redact", "password", url=server.url.replace("unix://", "unix://reader:secret@"))
    found = examined(web)
    assert {"ghost-id", "bad-field"} <= {one["code"] for one in found["report"]["findings"]}
    assert b"hunter2" not in http("GET", f"{web.url}/api/v1/doctor").body
    assert [entry for entry in connection.acl_log() if entry["username"] == "reader"] == []


def test_who_may_see_some_queues_only_examines_nothing(system, server):
    token = system.rqxx("token", "create", "x", "--queue", "mail", "--redis-url", server.url).stdout.strip()
    web = system.serve(*QUIET, "--auth", url=server.url)
    assert problem(http("GET", f"{web.url}/api/v1/doctor?max_age=10", headers=bearer(token)), 403)


def test_a_server_ends_at_once_while_it_examines(system, server, connection, web):
    broken(connection)   # What is suspected is looked at twice, with five seconds between.
    assert doctor(web, "?max_age=10")["state"] == "running"
    wait_for(lambda: doctor(web)["step"] == "looking again")
    assert doctor(web, "?max_age=10")["state"] == "running"
    web.signal(signal.SIGTERM)
    assert web.wait() == 0
    assert "AddressSanitizer" not in web.log and "terminate" not in web.log


def test_an_examination_without_redis_says_so_and_can_be_made_again(system):
    server = system.redis(persistent=True)
    broken(server.client)
    web = system.serve(*QUIET, url=server.url)
    assert doctor(web, "?max_age=10")["state"] == "running"
    wait_for(lambda: doctor(web)["step"] == "looking again")
    server.stop(signal.SIGKILL)
    assert problem(http("GET", f"{web.url}/api/v1/doctor"), 503)
    server.start()
    after = wait_for(lambda: (answer := http("GET", f"{web.url}/api/v1/doctor")).status == 200 and answer.json["doctor"]["state"] != "running" and answer.json["doctor"], timeout=60)
    assert after["state"] in ("failed", "done")
    wait_for(lambda: doctor(web, "?max_age=10")["state"] == "running", timeout=30)
    assert wait_for(lambda: (now := doctor(web))["state"] == "done" and now, timeout=60)["report"]["jobs"] == 1


def test_the_page_shows_what_was_found_with_the_command_that_mends_it(browser, web, connection):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")
    broken(connection)
    connection.rpush("rq:queue:default", "<img src=x>")
    page = browser.new_page(base_url=web.url)
    page.goto("/#/redis")
    page.get_by_role("button", name="Examine").click(timeout=10_000)
    playwright.expect(page.get_by_role("status").filter(has_text="Examining")).to_be_visible()
    playwright.expect(page.locator("section .alerts")).to_contain_text("ghost-id", timeout=30_000)
    playwright.expect(page.locator("section .alerts")).to_contain_text("<img src=x>")
    playwright.expect(page.locator("main .command code")).to_have_text("rqxx doctor --repair")
    assert page.locator("main img").count() == 0
    playwright.expect(page.get_by_role("button", name="Examine again")).to_be_enabled()
    page.close()
