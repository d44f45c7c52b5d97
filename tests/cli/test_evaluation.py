"""The first application, through its routes and its report."""

import json
import re
import shutil
import subprocess

import pytest
from conftest import ROOT, http, wait_for

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")

COMMENT = {"file": "a.py", "line_range": [1, 5], "type": "bug", "text": "wrong"}


@pytest.fixture
def web(system):
    packages = system.folder / "packages"
    add_package(packages, "app", [{"file": "a.py", "line_range": [5, 9], "type": "bug", "text": "defect"},
                                  {"file": "b.py", "line_range": [1, 1], "type": "style", "text": "other"}])
    web = system.serve("--packages", packages)
    web.packages = packages
    return web


def add_package(folder, name, truth):
    (folder / name).mkdir(parents=True)
    (folder / name / "golden_truth.json").write_text(truth if isinstance(truth, str) else json.dumps(truth))


def begin(web, package="app"):
    answer = http("POST", web.url + "/api/reviewer/sessions", {"candidate_id": "ada", "mr_package": package})
    assert answer.status == 201, answer.body
    assert answer.headers["Location"] == f"/api/sessions/{answer.json['session_id']}"
    return answer.json["session_id"]


def comment(web, session, body):
    return http("POST", f"{web.url}/api/sessions/{session}/comments", body)


def evaluate(web, session, body=None):
    answer = http("POST", f"{web.url}/api/reviewer/sessions/{session}/evaluate", body)
    assert answer.status == 202, answer.body
    job_id = answer.json["job_id"]
    assert answer.headers["Location"] == f"/api/rq/jobs/{job_id}"
    return wait_for(lambda: (lambda job: job if job["status"] in ("finished", "failed") else None)(
        http("GET", f"{web.url}/api/rq/jobs/{job_id}").json["job"]), what="the evaluation")


def test_sessions_are_evaluated_as_a_batch(web):
    sessions = [begin(web) for _ in range(5)]
    answer = http("POST", web.url + "/api/reviewer/sessions/evaluate", {"session_ids": sessions, "priority": "high"})
    assert answer.status == 202, answer.body
    batch, jobs = answer.json["batch_id"], answer.json["job_ids"]
    assert answer.headers["Location"] == f"/api/rq/batches/{batch}" and len(set(jobs)) == 5
    progress = wait_for(lambda: (lambda now: now if now["state"] == "complete" else None)(
        http("GET", f"{web.url}/api/rq/batches/{batch}").json["batch"]), what="the batch")
    assert progress["finished"] == progress["total"] == 5 and progress["successful"]
    for session, job_id in zip(sessions, jobs):
        job = http("GET", f"{web.url}/api/rq/jobs/{job_id}").json["job"]
        assert job["args"] == [session] and job["queue"] == "high" and job["timeout"] == 600 and job["status"] == "finished"
    assert web.log.count("Job enqueued") == 5


@pytest.mark.parametrize(("change", "status", "named"), [
    ({"session_ids": []}, 422, "session_ids"), ({"session_ids": "1"}, 422, "session_ids"), ({"session_ids": [[]]}, 422, "session_ids"),
    ({"session_ids": ["SAME", "SAME"]}, 422, "twice"), ({"session_ids": ["SAME", "unknown"]}, 404, "unknown"),
    ({"priority": "urgent"}, 422, "priority"), ({"what": 1}, 422, "what"), ({"session_ids": ["x"] * 10001}, 422, "session_ids")])
def test_a_bad_batch_of_evaluations_enqueues_nothing(web, change, status, named):
    session = begin(web)
    body = {"session_ids": [session], **change}
    if "SAME" in body["session_ids"]:
        body["session_ids"] = [session if item == "SAME" else item for item in body["session_ids"]]
    answer = http("POST", web.url + "/api/reviewer/sessions/evaluate", body)
    assert answer.status == status and named in answer.json["detail"], answer.body
    assert "Job enqueued" not in web.log
    assert http("GET", web.url + "/api/v1/batches").json["count"] == 0


def test_a_session_is_evaluated_in_the_background(web, system):
    session = begin(web)
    assert comment(web, session, COMMENT).json["count"] == 1
    assert comment(web, session, [dict(COMMENT, type="style"), dict(COMMENT, file="c.py")]).status == 201
    assert http("GET", f"{web.url}/api/sessions/{session}/report").json["detail"] == "No report yet"
    job = evaluate(web, session)
    # [1, 5] and [5, 9] share line 5: one found, two comments too many, one defect missed.
    assert job["result"] == {"session_id": session, "score": 0.25, "grade": "Junior", "tp": 1, "fp": 2, "fn": 1}
    assert job["func_name"] == "eval_worker.evaluate" and job["args"] == [session] and job["kwargs"] == {}
    report = http("GET", f"{web.url}/api/sessions/{session}/report").json
    assert report["matched"][0]["overlap"] == 1 and len(report["missed"]) == 1
    artifacts = system.folder / "data" / "artifacts"
    assert json.loads((artifacts / f"{session}_report.json").read_text()) == report
    assert "Score 0.25: Junior" in (artifacts / f"{session}_report.txt").read_text()
    listed = http("GET", web.url + "/api/reviewer/sessions").json["sessions"][0]
    assert listed["session_id"] == session and listed["last_report"] == {"score": 0.25, "grade": "Junior"}
    assert len(http("GET", f"{web.url}/api/sessions/{session}").json["comments"]) == 3


def test_the_result_is_what_python_reads(web, system):
    import redis
    from rq.job import Job

    session = begin(web)
    job = evaluate(web, session)
    connection = redis.Redis.from_url(web.redis_url)
    assert Job.fetch(job["id"], connection=connection).return_value() == {
        "session_id": session, "score": 0.0, "grade": "Junior", "tp": 0, "fp": 0, "fn": 2}


def test_nothing_to_find_and_nothing_said_scores_zero(web):
    add_package(web.packages, "empty", [])
    session = begin(web, "empty")
    assert evaluate(web, session)["result"] == {"session_id": session, "score": 0.0, "grade": "Junior", "tp": 0, "fp": 0, "fn": 0}


def test_duplicated_comments_find_a_defect_once(web):
    session = begin(web)
    comment(web, session, [COMMENT, COMMENT, COMMENT])
    assert evaluate(web, session)["result"] | {"score": 0} == {"session_id": session, "score": 0, "grade": "Junior", "tp": 1, "fp": 2, "fn": 1}


@pytest.mark.parametrize(("truth", "reason"), [
    ("{not json", "not valid JSON"), ('{"a": 1}', "must be a list"), ('[{"file": "a"}]', "entry 1: type is missing"),
    ('[{"file": "a", "type": "t", "text": "", "line_range": [3, 1]}]', "entry 1: line_range"), (None, "No such file")])
def test_an_unreadable_package_fails_the_job_naming_file_and_reason(web, truth, reason):
    add_package(web.packages, "broken", [])
    session = begin(web, "broken")
    file = web.packages / "broken" / "golden_truth.json"
    if truth is None:
        file.unlink()
    else:
        file.write_text(truth)
    job = evaluate(web, session)
    assert job["status"] == "failed" and job["retry"] == 0
    assert "broken/golden_truth.json" in job["exc_info"] and reason in job["exc_info"]
    assert web.log.count(f"Job started: id={job['id']}") == 3


@pytest.mark.parametrize(("body", "timeout", "queue", "retry"), [
    ({"priority": "high", "timeout": 900}, 600, "high", 2), ({"priority": "low", "timeout": 60}, 180, "low", 2),
    ({"timeout": "90s", "retry": 0}, 90, "default", None), ({}, 300, "default", 2), (None, 300, "default", 2),
    ({"timeout": None, "retry": None, "priority": None}, 300, "default", 2), ({"retry": 1, "priority": None}, 300, "default", 1)])
def test_priority_timeout_and_retry_of_an_evaluation(system, body, timeout, queue, retry):
    web = system.serve("--demo", "--no-worker")
    answer = http("POST", f"{web.url}/api/reviewer/sessions/2/evaluate", body)
    job = http("GET", f"{web.url}/api/rq/jobs/{answer.json['job_id']}").json["job"]
    assert (job["timeout"], job["queue"], job["retry"]) == (timeout, queue, retry)


@pytest.mark.parametrize("body", [{"priority": "urgent"}, {"priority": 1}, {"timeout": 0}, {"timeout": "soon"}, {"timeout": 1.5},
                                  {"retry": -1}, {"retry": 101}, {"retry": "2"}, {"other": 1}, [], "text", b"{", b"\xff"])
def test_bad_evaluation_settings_are_refused_and_enqueue_nothing(web, body):
    session = begin(web)
    answer = http("POST", f"{web.url}/api/reviewer/sessions/{session}/evaluate", body)
    assert answer.status == 422 and answer.json["detail"]
    assert http("GET", web.url + "/api/rq/jobs/recent").json["count"] == 0


def test_unknown_sessions_are_not_found(web):
    for method, path in [("GET", "/api/sessions/999"), ("GET", "/api/sessions/x"), ("GET", "/api/sessions/999/report"),
                         ("POST", "/api/reviewer/sessions/999/evaluate"), ("GET", "/api/sessions/999/evaluate")]:
        answer = http(method, web.url + path)
        assert answer.status == 404 and answer.json["detail"] == "Session not found", path
    assert comment(web, "999", COMMENT).status == 404


@pytest.mark.parametrize("body", [{}, {"candidate_id": "a"}, {"mr_package": "app"}, {"candidate_id": "", "mr_package": "app"},
                                  {"candidate_id": "a", "mr_package": "missing"}, {"candidate_id": "a", "mr_package": "../app"},
                                  {"candidate_id": "a", "mr_package": "."}, {"candidate_id": ["a"], "mr_package": "app"}, [], b"", b"nope"])
def test_bad_sessions_are_refused(web, body):
    assert http("POST", web.url + "/api/reviewer/sessions", body).status == 422
    assert http("GET", web.url + "/api/reviewer/sessions").json["count"] == 0


@pytest.mark.parametrize("bad", [{}, {"line_range": [5, 1]}, {"line_range": [0, 1]}, {"line_range": [-1, 1]}, {"line_range": [1]},
                                 {"line_range": "1-5"}, {"line_range": [1.5, 2]}, {"file": ""}, {"file": 7}, {"type": None}, {"text": 1}])
def test_one_bad_comment_spoils_the_list_and_nothing_is_stored(web, bad):
    session = begin(web)
    broken = {key: value for key, value in dict(COMMENT, **bad).items() if bad}
    for body in ([COMMENT, broken], broken):
        answer = comment(web, session, body)
        assert answer.status == 422, body
    assert "comment 2" in comment(web, session, [COMMENT, broken]).json["detail"]
    assert http("GET", f"{web.url}/api/sessions/{session}").json["comments"] == []


def test_empty_lists_and_forms_are_refused(web):
    session = begin(web)
    assert comment(web, session, []).status == 422
    assert http("POST", f"{web.url}/api/sessions/{session}/comments", b"x=1",
                {"Content-Type": "application/x-www-form-urlencoded"}).status == 422


@needs_curl
def test_the_curl_line_of_the_readme_enqueues(web):
    session = begin(web)
    line = re.search(r"^curl -X POST localhost:8000(\S+) -d '(.+)'$", (ROOT / "README.md").read_text(), re.M)
    url = web.url + line[1].replace("/3/", f"/{session}/")
    answer = subprocess.run(["curl", "-sS", "-X", "POST", url, "-d", line[2]], capture_output=True, text=True, timeout=20)
    job = http("GET", f"{web.url}/api/rq/jobs/{json.loads(answer.stdout)['job_id']}").json["job"]
    assert job["queue"] == "high"


def test_the_legacy_route_works_says_so_and_can_be_switched_off(system, web):
    session = begin(web)
    url = f"{web.url}/api/sessions/{session}/evaluate"
    assert http("HEAD", url).status == 200
    assert http("GET", web.url + "/api/rq/jobs/recent").json["count"] == 0, "HEAD must not enqueue"
    answer = http("GET", url)
    assert answer.status == 200 and answer.json["job_id"]
    assert answer.headers["Deprecation"] and "successor-version" in answer.headers["Link"]
    other = system.serve("--no-legacy-evaluate", "--packages", web.packages, data_dir=system.folder / "other")
    session = begin(other)
    assert http("GET", f"{other.url}/api/sessions/{session}/evaluate").status == 404


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}])
def test_the_legacy_route_refuses_pages_of_other_sites(web, headers):
    url = f"{web.url}/api/sessions/{begin(web)}/evaluate"
    assert http("GET", url, headers=headers).status == 403
    assert http("GET", web.url + "/api/rq/jobs/recent").json["count"] == 0
    assert http("GET", url, headers={"Sec-Fetch-Site": "none"}).status == 200


def test_the_demo_evaluates_a_sample_session(system):
    web = system.serve("--demo")
    jobs = wait_for(lambda: [job for job in http("GET", web.url + "/api/rq/jobs/recent").json["jobs"] if job["status"] == "finished"])
    assert jobs[0]["result"]["grade"] in ("Junior", "Middle", "Senior")
    sessions = http("GET", web.url + "/api/reviewer/sessions").json["sessions"]
    assert len(sessions) == 5 and all(session["comment_count"] > 0 for session in sessions)
    assert len(list((system.folder / "data" / "mr_packages").iterdir())) == 3
    grades = {evaluate(web, session["session_id"])["result"]["grade"] for session in sessions}
    assert grades == {"Junior", "Middle", "Senior"}
