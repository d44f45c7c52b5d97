"""The HTTP contract, route by route: good, missing, malformed, oversized, wrong method."""

import json
import math
import re
import signal
import socket
import time

import pytest
import tasks
from conftest import http, needs_rq2, raw_http, wait_for
from rq import Queue, Retry

STATS = ["queue_name", "queued", "started", "finished", "failed", "deferred", "scheduled", "canceled"]
JOB = ["id", "status", "queue", "func_name", "description", "args", "kwargs", "created_at", "enqueued_at", "started_at",
       "ended_at", "duration", "queued_for", "result", "exc_info", "timeout", "retry", "result_ttl", "failure_ttl", "worker_name",
       "meta", "depends_on", "executions"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", url=server.url)


def problem(answer, status):
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json
    assert body["status"] == status and body["title"] and body["detail"] and body["type"]
    return body["detail"]


def test_stats_of_an_empty_system_are_zero(web):
    body = http("GET", web.url + "/api/rq/stats").json
    assert body["status"] == "ok"
    assert list(body["stats"]) == STATS
    assert body["stats"]["queue_name"] == "default"
    assert all(body["stats"][key] == 0 for key in STATS[1:])
    assert body["queues"] == [] and set(body["totals"]) == set(STATS[1:])


def test_stats_count_per_queue_and_in_all(web, connection):
    for name, count in (("default", 3), ("high", 2)):
        for n in range(count):
            Queue(name, connection=connection).enqueue(tasks.noop, n)
    body = http("GET", web.url + "/api/rq/stats?queue=high").json
    assert body["stats"]["queue_name"] == "high" and body["stats"]["queued"] == 2
    assert {queue["queue_name"]: queue["queued"] for queue in body["queues"]} == {"default": 3, "high": 2}
    assert body["totals"]["queued"] == 5
    unknown = http("GET", web.url + "/api/rq/stats?queue=nowhere").json["stats"]
    assert unknown["queue_name"] == "nowhere" and unknown["queued"] == 0


@needs_rq2
def test_a_job_has_every_field_of_the_contract(web, system, connection):
    q = Queue("default", connection=connection)
    job = q.enqueue(tasks.add, 1, b=2, retry=Retry(max=3), meta={"note": "é"}, description="text", result_ttl=600, failure_ttl=700)
    queued = http("GET", f"{web.url}/api/rq/jobs/{job.id}").json["job"]
    assert set(JOB) <= set(queued)
    assert queued["status"] == "queued" and queued["args"] == [1] and queued["kwargs"] == {"b": 2}
    assert queued["func_name"] == "tasks.add" and queued["meta"] == {"note": "é"} and queued["retry"] == 3
    assert queued["started_at"] is None and queued["result"] is None and queued["executions"] == []
    assert TIME.fullmatch(queued["created_at"]) and TIME.fullmatch(queued["enqueued_at"])
    assert system.rq_worker("--burst", "default").wait() == 0
    done = http("GET", f"{web.url}/api/rq/jobs/{job.id}").json["job"]
    assert done["status"] == "finished" and done["result"] == 3 and done["exc_info"] is None
    assert TIME.fullmatch(done["ended_at"]) and done["duration"] >= 0 and done["queued_for"] >= 0
    assert done["result_ttl"] == 600 and done["failure_ttl"] == 700 and done["timeout"] == 180
    execution = done["executions"][0]
    assert execution["outcome"] == "successful" and execution["result"] == 3 and execution["worker"] == done["worker_name"]
    short = http("GET", f"{web.url}/api/jobs/{job.id}").json
    assert short == {"status": "finished", "result": 3}


def test_a_failed_job_shows_its_traceback(web, system, connection):
    job = Queue("default", connection=connection).enqueue(tasks.fail, "boom")
    assert system.rq_worker("--burst", "default").wait() == 0
    shown = http("GET", f"{web.url}/api/rq/jobs/{job.id}").json["job"]
    assert shown["status"] == "failed" and shown["result"] is None
    assert "RuntimeError: boom" in shown["exc_info"]
    assert shown["executions"][0]["outcome"] == "failed" and "boom" in shown["executions"][0]["error"]
    assert http("GET", f"{web.url}/api/jobs/{job.id}").json["status"] == "failed"


def test_a_running_job_shows_its_time_so_far_and_progress(web, system, connection):
    job_id = system.rqxx("enqueue", "tasks.slow", ":30", "--redis-url", system.server.url).stdout.strip()
    system.test_worker("default")
    url = f"{web.url}/api/rq/jobs/{job_id}"
    wait_for(lambda: http("GET", url).json["job"]["status"] == "started")
    job = wait_for(lambda: (lambda j: j if j["executions"][0]["progress"] else None)(http("GET", url).json["job"]))
    assert job["ended_at"] is None and job["duration"] > 0
    assert job["executions"][0]["outcome"] == "started"
    assert job["executions"][0]["progress"] == {"fraction": 0.5, "text": "half way"}


@pytest.mark.parametrize("path", ["/api/rq/jobs/nope", "/api/jobs/nope", "/api/rq/jobs/a%20b", "/api/rq/jobs/..%2F..", "/api/rq/jobs/%00"])
def test_unknown_jobs_are_not_found(web, path):
    assert problem(http("GET", web.url + path), 404) == "Job not found"


def test_recent_jobs_come_newest_first_from_every_place(web, system, connection):
    q = Queue("default", connection=connection)
    jobs = [q.enqueue(tasks.add, 1, 1), q.enqueue(tasks.fail, "x")]
    assert system.rq_worker("--burst", "default").wait() == 0
    jobs += [q.enqueue(tasks.add, 2, 2), Queue("high", connection=connection).enqueue(tasks.add, 3, 3)]
    jobs.append(q.enqueue(tasks.add, 4, 4, depends_on=jobs[2]))
    canceled = q.enqueue(tasks.add, 5, 5)
    canceled.cancel()
    jobs.append(canceled)
    body = http("GET", web.url + "/api/rq/jobs/recent").json
    assert body["status"] == "ok" and body["count"] == 6
    assert [job["id"] for job in body["jobs"]] == [job.id for job in reversed(jobs)]
    assert [job["status"] for job in body["jobs"]] == ["canceled", "deferred", "queued", "queued", "failed", "finished"]
    assert set(JOB) <= set(body["jobs"][0])
    assert http("GET", web.url + "/api/rq/jobs/recent?limit=2").json["count"] == 2
    assert [j["id"] for j in http("GET", web.url + "/api/rq/jobs/recent?queue=high").json["jobs"]] == [jobs[3].id]
    assert [j["id"] for j in http("GET", web.url + "/api/rq/jobs/recent?status=failed").json["jobs"]] == [jobs[1].id]
    assert http("GET", web.url + "/api/rq/jobs/recent?queue=nowhere").json["jobs"] == []


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "", "1e2", "99999999999999999999", "10&limit=20", "%00"])
def test_limits_out_of_range_are_refused(web, limit):
    assert "limit" in problem(http("GET", f"{web.url}/api/rq/jobs/recent?limit={limit}"), 422)


@pytest.mark.parametrize("limit", ["1", "100"])
def test_limits_at_the_edges_are_accepted(web, limit):
    assert http("GET", f"{web.url}/api/rq/jobs/recent?limit={limit}").status == 200


def test_unknown_status_words_are_refused(web):
    assert "status" in problem(http("GET", web.url + "/api/rq/jobs/recent?status=lost"), 422)


PERFORMANCE = ["period_hours", "total_jobs", "successful_jobs", "failed_jobs", "success_rate", "throughput_per_hour",
               "duration_metrics", "queue_time_metrics", "timestamp"]


def test_performance_of_an_empty_system_is_zero_and_never_nan(web):
    metrics = http("GET", web.url + "/api/rq/performance").json["metrics"]
    assert set(PERFORMANCE) <= set(metrics)
    assert metrics["period_hours"] == 24 and metrics["total_jobs"] == 0 and metrics["success_rate"] == 0
    assert set(metrics["duration_metrics"]) == {"avg_seconds", "median_seconds", "min_seconds", "max_seconds", "p95_seconds", "p99_seconds"}
    assert set(metrics["queue_time_metrics"]) == {"avg_seconds", "p95_seconds", "max_seconds"}
    numbers = [*metrics["duration_metrics"].values(), *metrics["queue_time_metrics"].values()]
    assert all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)
    assert TIME.fullmatch(metrics["timestamp"])


def test_performance_counts_what_our_worker_ended(web, system, connection):
    for n in range(6):
        system.rqxx("enqueue", "tasks.slow", ":0.05", "--redis-url", system.server.url)
    for n in range(2):
        system.rqxx("enqueue", "tasks.fail", "x", "--redis-url", system.server.url)
    assert system.test_worker("--burst", "default").wait() == 0
    metrics = http("GET", web.url + "/api/rq/performance?hours=1").json["metrics"]
    assert (metrics["total_jobs"], metrics["successful_jobs"], metrics["failed_jobs"]) == (8, 6, 2)
    assert metrics["success_rate"] == 75 and metrics["throughput_per_hour"] == 8
    duration = metrics["duration_metrics"]
    assert 0.05 <= duration["min_seconds"] <= duration["median_seconds"] <= duration["p95_seconds"] <= duration["p99_seconds"] <= duration["max_seconds"]
    assert duration["min_seconds"] <= duration["avg_seconds"] <= duration["max_seconds"]
    queue_time = metrics["queue_time_metrics"]
    assert 0 < queue_time["avg_seconds"] <= queue_time["max_seconds"]
    comparison = http("GET", web.url + "/api/rq/performance/compare?current_hours=1&previous_hours=2").json["comparison"]
    assert set(comparison) == {"current_period", "previous_period", "changes", "timestamp"}
    assert comparison["current_period"]["total_jobs"] == 8 and comparison["previous_period"]["total_jobs"] == 0
    assert comparison["changes"] == {"duration_change_percent": 0, "throughput_change_percent": 0, "success_rate_change": 75,
                                     "is_improving": False}
    trends = http("GET", web.url + "/api/rq/performance/trends?periods=3&hours_per_period=1").json["trends"]
    assert [period["total_jobs"] for period in trends["periods"]] == [8, 0, 0]
    assert set(trends["trends"]) == {"duration_change_percent", "throughput_change_percent", "success_rate_change", "is_improving"}
    assert trends["summary"]["total_jobs"] == 8


def test_performance_sees_what_stock_workers_end(web, system, connection):
    wait_for(lambda: connection.hget("rqxx:sampler", "seen"), what="the sampler's first pass")
    q = Queue("default", connection=connection)
    for n in range(4):
        q.enqueue(tasks.add, n, n)
    q.enqueue(tasks.fail, "x")
    q.enqueue(tasks.add, 9, 9, result_ttl=1234)
    assert system.rq_worker("--burst", "default").wait() == 0
    metrics = wait_for(lambda: (lambda m: m if m["total_jobs"] == 6 else None)(
        http("GET", web.url + "/api/rq/performance?hours=1").json["metrics"]), what="the sampler to see six jobs")
    assert (metrics["successful_jobs"], metrics["failed_jobs"]) == (5, 1)
    assert metrics["duration_metrics"]["max_seconds"] > 0


def counts(web):
    metrics = http("GET", web.url + "/api/rq/performance?hours=1").json["metrics"]
    return metrics["successful_jobs"], metrics["failed_jobs"]


def sampled(connection, passes=3):
    """Waits until the sampler has looked a few times more: the first pass only notes the time, the second what is kept."""
    for _ in range(passes):
        before = connection.hget("rqxx:sampler", "seen")
        wait_for(lambda: connection.hget("rqxx:sampler", "seen") not in (None, before), what="a pass of the sampler")


def test_performance_sees_what_stock_workers_end_and_keep_for_ever(system, server, connection):
    q = Queue("default", connection=connection)
    q.enqueue(tasks.noop, 0, result_ttl=-1)
    assert system.rq_worker("--burst", "default").wait() == 0
    web = system.serve("--no-worker", url=server.url)
    sampled(connection)
    assert counts(web) == (0, 0), "what ended before the first pass is not counted"
    for n in range(3):
        q.enqueue(tasks.noop, n, result_ttl=-1)
    q.enqueue(tasks.fail, "x", failure_ttl=-1)
    q.enqueue(tasks.slow, 0.2)
    assert system.rq_worker("--burst", "default").wait() == 0
    wait_for(lambda: counts(web) == (4, 1), what="the sampler to see five jobs")
    assert http("GET", web.url + "/api/rq/performance?hours=1").json["metrics"]["duration_metrics"]["min_seconds"] > 0.1
    assert b'rqxx_jobs_finished_total{queue="default",outcome="failed"} 1' in http("GET", web.url + "/metrics").body


def test_performance_counts_what_our_workers_keep_for_ever_once(web, system, connection):
    sampled(connection, 2)
    q = Queue("default", connection=connection)
    for n in range(3):
        q.enqueue(tasks.noop, n, result_ttl=-1)
    q.enqueue(tasks.fail, "x", failure_ttl=-1)
    assert system.test_worker("--burst", "default").wait() == 0
    sampled(connection)
    assert counts(web) == (3, 1)
    connection.zremrangebyrank("rq:finished:default", 0, 0)
    sampled(connection)
    q.enqueue(tasks.noop, 4, result_ttl=-1)
    assert system.rq_worker("--burst", "default").wait() == 0
    wait_for(lambda: counts(web) == (4, 1), what="the sampler to see the stock worker's")


def test_performance_sees_jobs_whose_ttl_is_rare(web, system, connection):
    sampled(connection, 2)
    q = Queue("default", connection=connection)
    q.enqueue(tasks.noop, 0, result_ttl=77)
    assert system.rq_worker("--burst", "default").wait() == 0
    wait_for(lambda: counts(web) == (1, 0))
    assert connection.hkeys("rqxx:ttls:default") == [b"finished|77"]
    for ttl in (3600, 77, 3600):
        for n in range(15):
            q.enqueue(tasks.noop, n, result_ttl=ttl)
    assert system.rq_worker("--burst", "default").wait() == 0
    wait_for(lambda: counts(web) == (46, 0))


@pytest.mark.parametrize("path", ["?hours=0", "?hours=8761", "?hours=x", "/trends?periods=0", "/trends?periods=101",
                                  "/trends?hours_per_period=0", "/trends?hours_per_period=8761", "/compare?current_hours=0",
                                  "/compare?previous_hours=8761", "/compare?current_hours=-1"])
def test_periods_out_of_range_are_refused(web, path):
    assert "must be an integer from 1 to" in problem(http("GET", web.url + "/api/rq/performance" + path), 422)


@pytest.mark.parametrize("path", ["?hours=8760", "/trends?periods=100&hours_per_period=1", "/compare?current_hours=8760&previous_hours=8760"])
def test_periods_at_the_edges_are_accepted(web, path):
    assert http("GET", web.url + "/api/rq/performance" + path).status == 200


GET_ROUTES = ["/api/rq/stats", "/api/rq/jobs/recent", "/api/rq/performance", "/api/rq/performance/trends",
              "/api/rq/performance/compare", "/healthz", "/readyz", "/metrics", "/api/v1/openapi.json", "/", "/api/reviewer/sessions"]


@pytest.mark.parametrize("path", GET_ROUTES)
def test_head_answers_like_get_without_a_body(web, path):
    get, head = http("GET", web.url + path), http("HEAD", web.url + path)
    assert get.status == head.status == 200
    assert head.body == b"" and head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize("path", GET_ROUTES[:9])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_wrong_methods_are_named_with_those_allowed(web, method, path):
    answer = http(method, web.url + path)
    problem(answer, 405)
    assert "GET" in answer.headers["Allow"] and "HEAD" in answer.headers["Allow"]


@pytest.fixture
def demo(system, server, connection):
    """A server with sessions; session 1 has a report."""
    demo = system.serve("--demo", url=server.url)
    wait_for(lambda: http("GET", demo.url + "/api/sessions/1/report").status == 200, what="the first report")
    demo.job = http("GET", demo.url + "/api/rq/jobs/recent").json["jobs"][0]["id"]
    return demo


RESOURCES = {"/api/rq/jobs/JOB": "GET, HEAD, OPTIONS", "/api/jobs/JOB": "GET, HEAD, OPTIONS", "/api/sessions/1": "GET, HEAD, OPTIONS",
             "/api/sessions/1/report": "GET, HEAD, OPTIONS", "/api/sessions/1/evaluate": "GET, HEAD, OPTIONS",
             "/api/reviewer/sessions": "GET, HEAD, OPTIONS, POST", "/api/sessions/1/comments": "OPTIONS, POST",
             "/api/reviewer/sessions/1/evaluate": "OPTIONS, POST"}


def test_resources_answer_head_like_get_and_name_their_methods(demo):
    for path, allow in RESOURCES.items():
        url = demo.url + path.replace("JOB", demo.job)
        for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"} - set(allow.split(", ")):
            answer = http(method, url)
            assert answer.status == 405 and answer.headers["Allow"] == allow, (method, path)
            if method != "HEAD":
                problem(answer, 405)
        options = http("OPTIONS", url)
        assert options.status == 204 and options.headers["Allow"] == allow
        if "HEAD" in allow:
            head = http("HEAD", url)
            get = http("GET", url)
            assert head.status == get.status == 200 and head.body == b"", path
            assert head.headers["Content-Type"] == get.headers["Content-Type"] == "application/json"
            if not path.endswith("/evaluate"):
                assert head.headers["Content-Length"] == str(len(get.body)), path


@pytest.mark.parametrize("path", ["/api/rq/jobs/nope", "/api/jobs/nope", "/api/sessions/nope", "/api/sessions/nope/report"])
def test_head_of_what_is_not_there_is_404_without_a_body(web, path):
    head = http("HEAD", web.url + path)
    assert head.status == 404 and head.body == b"" and head.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/rq", "/api/rq/stats/", "//", "/assets/../secret", "/api/v1/nothing"])
def test_unknown_paths_are_problems(web, path):
    problem(http("GET", web.url + path), 404)


def test_the_openapi_document_lists_the_contract_routes(web):
    document = http("GET", web.url + "/api/v1/openapi.json").json
    assert document["openapi"] == "3.1.0"
    contract = {
        "/api/rq/stats": {"get"}, "/api/rq/jobs/recent": {"get"}, "/api/rq/jobs/{job_id}": {"get"}, "/api/jobs/{job_id}": {"get"},
        "/api/rq/performance": {"get"}, "/api/rq/performance/trends": {"get"}, "/api/rq/performance/compare": {"get"},
        "/api/reviewer/sessions/{session_id}/evaluate": {"post"}, "/api/sessions/{session_id}/evaluate": {"get"},
        "/api/reviewer/sessions": {"get", "post"}, "/api/sessions/{session_id}": {"get"},
        "/api/sessions/{session_id}/comments": {"post"}, "/api/sessions/{session_id}/report": {"get"},
        "/api/reviewer/sessions/evaluate": {"post"}, "/api/rq/batches/{batch_id}": {"get"},
        "/healthz": {"get"}, "/readyz": {"get"}, "/metrics": {"get"}, "/api/v1/openapi.json": {"get"}}
    assert {path: set(document["paths"].get(path, {})) for path in contract} == contract
    assert document["paths"]["/api/sessions/{session_id}/evaluate"]["get"]["deprecated"]
    limit = document["paths"]["/api/rq/jobs/recent"]["get"]["parameters"][0]["schema"]
    assert limit == {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}


def test_metrics_are_prometheus_text(web):
    http("GET", web.url + "/api/rq/stats")
    text = http("GET", web.url + "/metrics").body.decode()
    assert "rqxx_redis_up 1" in text and "rqxx_build_info{" in text
    assert 'rqxx_http_requests_total{code="200",route="/api/rq/stats"}' in text


def test_request_ids_are_echoed_or_made(web):
    assert http("GET", web.url + "/healthz", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    assert len(http("GET", web.url + "/healthz", headers={"X-Request-Id": "bad id"}).headers["X-Request-Id"]) == 32


def test_the_page_comes_with_a_strict_policy_and_no_foreign_assets(web):
    page = http("GET", web.url + "/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert b"http://" not in page.body and b"https://" not in page.body
    for asset in re.findall(rb'(?:src|href)="(assets/[^"]+)"', page.body):
        assert http("GET", web.url + "/" + asset.decode()).status == 200
    etag = page.headers["ETag"]
    assert http("GET", web.url + "/", headers={"If-None-Match": etag}).status == 304


# ---- the protocol itself ---------------------------------------------------------------------------

def status_of(raw):
    return int(raw.split(b" ", 2)[1])


def test_oversized_headers_are_refused(web):
    raw = raw_http(web.url, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20000 + b"\r\n\r\n")
    assert status_of(raw) == 431 and b"application/problem+json" in raw


@pytest.mark.parametrize("path", [b"/api/reviewer/sessions", b"/api/sessions/1/comments", b"/api/reviewer/sessions/1/evaluate", b"/nothing"])
@pytest.mark.parametrize("head", [b"Content-Length: 2000000", b"Transfer-Encoding: chunked"])
def test_oversized_bodies_are_refused(web, head, path):
    body = b"a" * 2000000 if b"Length" in head else b"1e8480\r\n" + b"a" * 2000000 + b"\r\n0\r\n\r\n"
    raw = raw_http(web.url, b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n" + body)
    assert status_of(raw) == 413 and b"application/problem+json" in raw


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET /\r\n\r\n", b"\x00\x01\x02\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n",
                                  b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_is_not_http_is_refused(web, data):
    assert status_of(raw_http(web.url, data)) == 400


@pytest.mark.parametrize("head", [b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n"])
def test_a_request_without_one_host_is_refused(web, head):
    raw = raw_http(web.url, head + b"\r\n")
    assert status_of(raw) == 400 and b"application/problem+json" in raw and b"Host" in raw


def test_http_1_0_needs_no_host(web):
    assert status_of(raw_http(web.url, b"GET /healthz HTTP/1.0\r\n\r\n")) == 200


@pytest.mark.parametrize(("target", "status"), [
    (b"http://localhost/api/rq/jobs/recent?limit=2", 200), (b"http://127.0.0.1:1/healthz", 200), (b"http://localhost", 200),
    (b"http://localhost?x=1", 200), (b"http://localhost/nothing", 404), (b"http://localhost/api/rq/jobs/recent?limit=0", 422),
    (b"http://evil.example/healthz", 421), (b"ftp://localhost/healthz", 400), (b"http:///healthz", 400), (b"localhost/healthz", 400)])
def test_whole_urls_are_request_targets_and_their_host_counts(web, target, status):
    raw = raw_http(web.url, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status_of(raw) == status


def test_keep_alive_answers_pipelined_requests_in_order(web):
    raw = raw_http(web.url, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: one\r\n\r\n"
                            b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: two\r\nConnection: close\r\n\r\n")
    assert raw.index(b"X-Request-Id: one") < raw.index(b"X-Request-Id: two")
    assert raw.count(b"HTTP/1.1 ") == 2


def test_expect_100_continue_is_answered(web):
    raw = raw_http(web.url, b"POST /api/reviewer/sessions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                            b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")
    assert raw.startswith(b"HTTP/1.1 100 Continue") and b" 422 " in raw


def test_foreign_hosts_are_misdirected(web):
    assert problem(http("GET", web.url + "/api/rq/stats", headers={"Host": "evil.example"}), 421)


FOREIGN = [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]


def test_changes_from_other_sites_are_refused(web):
    for headers in FOREIGN:
        problem(http("POST", web.url + "/api/reviewer/sessions", {"candidate_id": "a", "mr_package": "b"}, headers), 403)


def test_changes_from_the_servers_own_page_are_accepted(web):
    headers = {"Origin": web.url, "Sec-Fetch-Site": "same-origin"}
    problem(http("POST", web.url + "/api/reviewer/sessions", {"candidate_id": "a", "mr_package": "b"}, headers), 422)


def test_a_public_address_needs_a_token(system, server):
    refused = system.rqxx("serve", "--redis-url", server.url, "--host", "0.0.0.0", "--port", "0", "--data-dir", "d")
    assert refused.returncode == 2 and "token" in refused.stderr


def test_a_token_guards_everything_but_health_and_the_page(system, server):
    token_file = system.folder / "token"
    token_file.write_text("s3cret-token\n")
    web = system.serve("--token-file", token_file, "--host", "0.0.0.0", url=server.url)
    url = web.url.replace("0.0.0.0", "127.0.0.1")
    assert http("GET", url + "/healthz").status == 200 and http("GET", url + "/readyz").status == 200
    page = http("GET", url + "/")
    assert page.status == 200
    for asset in re.findall(rb'(?:src|href)="(assets/[^"]+)"', page.body):
        assert http("GET", url + "/" + asset.decode()).status == 200
    for path in ["/metrics", "/api/v1/openapi.json", "/assets", "/api/reviewer/sessions"]:
        problem(http("GET", url + path), 401)
    answer = http("GET", url + "/api/rq/stats")
    problem(answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert http("GET", url + "/api/rq/stats", headers={"Authorization": "Bearer wrong-token"}).status == 401
    assert http("GET", url + "/api/rq/stats", headers={"Authorization": "Bearer s3cret-token"}).status == 200
    assert "s3cret-token" not in web.log + web.out


def test_without_redis_requests_are_refused_at_once(system, server):
    web = system.serve("--demo", "--no-worker", url=server.url)
    web.wait_for_log("Job enqueued")
    server.stop(signal.SIGKILL)
    for method, path in [("GET", "/api/rq/stats"), ("GET", "/api/rq/jobs/recent"), ("GET", "/api/rq/jobs/x"), ("GET", "/api/jobs/x"),
                         ("GET", "/api/rq/performance"), ("GET", "/api/rq/performance/trends"), ("GET", "/api/rq/performance/compare"),
                         ("GET", "/api/rq/workers"), ("GET", "/readyz"), ("POST", "/api/reviewer/sessions/1/evaluate"),
                         ("GET", "/api/sessions/1/evaluate")]:
        begun = time.monotonic()
        answer = http(method, web.url + path)
        assert time.monotonic() - begun < 1, path
        problem(answer, 503)
        assert answer.headers["Retry-After"] == "1"
    assert b"rqxx_redis_up 0" in http("GET", web.url + "/metrics").body
    assert http("GET", web.url + "/api/sessions/1").status == 200
    server.start()
    wait_for(lambda: http("GET", web.url + "/api/rq/stats").status == 200)


def test_a_busy_port_is_reported(system, server, web):
    port = web.url.rsplit(":", 1)[1]
    refused = system.rqxx("serve", "--redis-url", server.url, "--port", port, "--data-dir", "other")
    assert refused.returncode == 1 and f"127.0.0.1:{port}" in refused.stderr


def test_a_request_in_flight_is_answered_before_the_server_ends(web):
    host, port = web.url.removeprefix("http://").split(":")
    body = json.dumps({"candidate_id": "a", "mr_package": "missing"}).encode()
    with socket.create_connection((host, int(port)), timeout=20) as conn:
        conn.sendall(b"POST /api/reviewer/sessions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
                     % len(body))
        assert conn.recv(1000).startswith(b"HTTP/1.1 100")
        web.signal(signal.SIGTERM)
        web.wait_for_log("Stopping")
        conn.sendall(body)
        answer = b""
        while piece := conn.recv(65536):
            answer += piece
    assert status_of(answer) == 422 and b"Connection: close" in answer
    assert web.wait() == 0
