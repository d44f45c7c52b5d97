"""Who did what: through the API and on the command line."""

import getpass
import json
import socket

import pytest
import tasks
from conftest import http, wait_for
from rq import Queue
from test_actions_api import act, bulk, queue, web  # noqa: F401
from test_http import problem


def audit(web, **query):
    answer = http("GET", f"{web.url}/api/v1/audit" + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else ""))
    assert answer.status == 200, answer.body
    return answer.json


def actions(web, **query):
    return [(entry["action"], entry["target"], entry["outcome"]) for entry in audit(web, **query)["items"]]


def test_actions_over_http_are_written_down_the_newest_first(web, queue):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    act(web, "a", "cancel", {"dependents": "leave"})
    act(web, "a", "cancel")
    http("POST", f"{web.url}/api/v1/queues/default/pause")
    http("PUT", f"{web.url}/api/v1/limits/few", {"kind": "concurrency", "limit": 2})
    answer = bulk(web, action="cancel", filter={"status": "queued"})
    entries = audit(web)["items"]
    assert [(e["action"], e["target"], e["outcome"]) for e in entries] == [
        ("job.bulk", None, "accepted"), ("limit.set", "few", "done"), ("queue.pause", "default", "done"),
        ("job.cancel", "a", "refused"), ("job.cancel", "a", "done")]
    assert all(e["via"] == "api" and e["by"] == "127.0.0.1" and e["at"].endswith("Z") for e in entries)
    assert '"dependents"' in entries[-1]["details"] and '"concurrency"' in entries[1]["details"]
    assert answer.status == 202


def test_what_is_not_done_is_not_written_down(web, queue, connection):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    act(web, "a", "cancel", dry_run="true")
    bulk(web, action="cancel", ids=["a"], dry_run=True)
    bulk(web, action="cancel", filter={"status": "queued"}, dry_run=True)
    act(web, "nope", "cancel")
    act(web, "a", "cancel", {"odd": 1})
    http("POST", f"{web.url}/api/v1/jobs/a/cancel", headers={"Sec-Fetch-Site": "cross-site"})
    http("POST", f"{web.url}/api/v1/jobs", {"func": "tasks.add", "args": [1, 2]})
    http("GET", f"{web.url}/api/v1/jobs/a")
    assert not connection.exists("rqxx:audit") and audit(web) == {"status": "ok", "items": [], "next": None}


def test_tokens_and_what_is_decided_about_failures_are_written_down(web, system, server, queue):  # noqa: F811
    queue.enqueue(tasks.fail, "x", job_id="bad")
    assert system.test_worker("--burst", "default").wait() == 0
    groups = wait_for(lambda: http("GET", f"{web.url}/api/v1/failures").json.get("items"))
    muted = http("POST", f"{web.url}/api/v1/failures/{groups[0]['id']}/mute").json["failure"]
    assert muted["decided_by"] == "127.0.0.1"
    problem(http("POST", f"{web.url}/api/v1/failures/{groups[0]['id']}/mute", {"by": "somebody else"}), 422)
    made = http("POST", f"{web.url}/api/v1/tokens", {"name": "n", "scope": "read"}).json
    http("DELETE", f"{web.url}/api/v1/tokens/{made['details']['id']}")
    told = system.rqxx("token", "create", "m", "--redis-url", server.url, "--json")
    made_here = json.loads(told.stdout)
    system.rqxx("token", "revoke", made_here["id"], "--redis-url", server.url)
    assert [(action, target) for action, target, _ in actions(web)] == [
        ("token.revoke", made_here["id"]), ("token.create", made_here["id"]), ("token.revoke", made["details"]["id"]),
        ("token.create", None), ("failure.mute", groups[0]["id"])]
    written = json.dumps(audit(web))
    assert made["token"] not in written and made_here["token"] not in written and made["token"].split("_")[-1] not in written


def test_actions_of_the_command_line_name_user_and_host(web, system, server, queue):  # noqa: F811
    for job_id in ("a", "b"):
        queue.enqueue(tasks.add, 1, 2, job_id=job_id)
    for command in (("job", "cancel", "a", "nope"), ("job", "cancel", "b", "--dry-run"), ("queue", "pause", "default"),
                    ("queue", "empty", "default"), ("limit", "set", "few", "--kind", "concurrency", "--limit", "2"), ("suspend",)):
        system.rqxx(*command, "--redis-url", server.url)
    entries = audit(web)["items"]
    assert [(e["action"], e["target"]) for e in entries] == [
        ("workers.suspend", None), ("limit.set", "few"), ("job.delete", "queue default"), ("queue.pause", "default"), ("job.cancel", "a")]
    assert {e["by"] for e in entries} == {f"{getpass.getuser()}@{socket.gethostname()}"} and {e["via"] for e in entries} == {"cli"}


def test_pages_and_filters(web, connection, queue):  # noqa: F811
    for i in range(30):
        connection.xadd("rqxx:audit", {"by": "eve" if i % 2 else "bob", "via": "api", "action": f"job.{'stop' if i % 3 else 'cancel'}",
                                       "target": str(i), "outcome": "done", "details": ""})
    first = audit(web, limit=10)
    assert [e["target"] for e in first["items"]] == [str(i) for i in range(29, 19, -1)] and first["next"]
    # Entries that come meanwhile shift nothing.
    http("POST", f"{web.url}/api/v1/queues/default/pause")
    second = audit(web, limit=10, cursor=first["next"])
    assert [e["target"] for e in second["items"]] == [str(i) for i in range(19, 9, -1)]
    third = audit(web, limit=10, cursor=second["next"])
    assert [e["target"] for e in third["items"]] == [str(i) for i in range(9, -1, -1)] and third["next"] is None
    assert {e["by"] for e in audit(web, by="eve")["items"]} == {"eve"}
    assert {e["action"] for e in audit(web, action="job.c*")["items"]} == {"job.cancel"}


@pytest.mark.parametrize("query, told", [({"limit": 0}, "limit"), ({"cursor": "x"}, "cursor: must be"), ({"cursor": "1-x"}, "cursor: must be")])
def test_bad_queries_are_refused(web, query, told):  # noqa: F811
    suffix = "&".join(f"{k}={v}" for k, v in query.items())
    assert told in problem(http("GET", f"{web.url}/api/v1/audit?{suffix}"), 422)


def test_hostile_texts_are_bounded_and_shown(web, connection):  # noqa: F811
    http("POST", f"{web.url}/api/v1/queues/%FF%3Cscript%3E{'x' * 3000}/pause")
    connection.xadd("rqxx:audit", {b"\xff": b"\xff", "action": b"\xff<b>", "by": ""})
    entries = audit(web)["items"]
    assert entries[0]["by"] is None and entries[0]["action"] == "\ufffd<b>"
    assert all(len(e["target"] or "") <= 1001 for e in entries)


def test_an_action_that_cannot_be_written_down_stands_and_is_told(web, connection, queue):  # noqa: F811
    queue.enqueue(tasks.add, 1, 2, job_id="a")
    connection.set("rqxx:audit", "of another type")
    assert act(web, "a", "cancel").status == 200
    wait_for(lambda: "Action is missing in the audit log: action=job.cancel, target=a" in web.log)


def test_the_log_is_bounded(web, connection):  # noqa: F811
    pipe = connection.pipeline(transaction=False)
    for i in range(10_300):
        pipe.xadd("rqxx:audit", {"by": "x", "action": "job.stop", "target": str(i)})
    pipe.execute()
    http("POST", f"{web.url}/api/v1/queues/default/pause")
    assert 10_000 <= connection.xlen("rqxx:audit") < 10_300
