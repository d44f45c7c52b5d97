"""GET /api/v1/jobs/{id}/dependencies: what goes before a job, and what waits for it."""

import json

import pytest
from conftest import http
from rq import Queue, Worker
from rq.job import Dependency


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", url=server.url)


def graph_of(web, job_id):
    answer = http("GET", f"{web.url}/api/v1/jobs/{job_id}/dependencies")
    assert answer.status == 200, answer.body
    return answer.json["graph"]


def edges(graph):
    return {(edge["from"], edge["to"]) for edge in graph["edges"]}


def diamond(connection):
    queue = Queue("default", connection=connection)
    queue.enqueue("tasks.add", 1, 2, job_id="top")
    queue.enqueue("tasks.add", 1, 2, job_id="left", depends_on="top")
    queue.enqueue("tasks.add", 1, 2, job_id="right", depends_on="top")
    queue.enqueue("tasks.add", 1, 2, job_id="end", depends_on=Dependency(jobs=["left", "right"]))
    return {("top", "left"), ("top", "right"), ("left", "end"), ("right", "end")}


@pytest.mark.parametrize("job_id", ["top", "left", "end"])
def test_the_whole_graph_is_seen_from_each_job_of_it(web, connection, job_id):
    expected = diamond(connection)
    graph = graph_of(web, job_id)
    assert edges(graph) == expected and graph["complete"]
    assert graph["nodes"][0]["id"] == job_id
    assert {node["id"]: node["status"] for node in graph["nodes"]} == {"top": "queued", "left": "deferred", "right": "deferred", "end": "deferred"}
    assert graph["nodes"][0]["description"] == "tasks.add(1, 2)"


def test_jobs_that_have_run_still_name_those_before_them(web, connection):
    expected = diamond(connection)
    Worker(["default"], connection=connection).work(burst=True)
    graph = graph_of(web, "end")
    assert edges(graph) == expected
    assert {node["status"] for node in graph["nodes"]} == {"finished"}


def test_a_job_that_is_gone_is_told_as_missing(web, connection):
    diamond(connection)
    connection.delete("rq:job:left")
    nodes = {node["id"]: node for node in graph_of(web, "end")["nodes"]}
    assert nodes["left"]["missing"] and nodes["left"]["status"] is None and not nodes["right"]["missing"]


def test_a_job_alone_has_no_edges_and_an_unknown_one_is_not_found(web, connection):
    Queue("default", connection=connection).enqueue("tasks.add", 1, 2, job_id="alone")
    graph = graph_of(web, "alone")
    assert [node["id"] for node in graph["nodes"]] == ["alone"] and graph["edges"] == []
    for job_id in ("absent", "%20", "a%0d%0ab"):
        assert http("GET", f"{web.url}/api/v1/jobs/{job_id}/dependencies").status == 404


def test_of_very_many_jobs_the_nearest_are_told(web, connection):
    queue = Queue("default", connection=connection)
    queue.enqueue("tasks.add", 1, 2, job_id="top")
    connection.sadd("rq:job:top:dependents", *(f"c{n}" for n in range(5000)))
    graph = graph_of(web, "top")
    assert len(graph["nodes"]) <= 100 and not graph["complete"]


def test_a_circle_ends(web, connection):
    for job_id, parent in (("a", "b"), ("b", "a")):
        connection.hset(f"rq:job:{job_id}", mapping={"status": "deferred", "origin": "default", "dependency_ids": json.dumps([parent])})
        connection.sadd(f"rq:job:{parent}:dependents", job_id)
    assert edges(graph_of(web, "a")) == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize("named", ["not json", "{}", "[[1], null, {\"a\": 1}, 7]", json.dumps(["x" * 5000, "a b", "../..", "\u202e"]), "[" * 2000])
def test_hostile_dependencies_are_passed_over_and_nothing_changes(web, connection, named):
    connection.hset("rq:job:mean", mapping={"status": "<b>", "origin": b"\xff\xfe", "description": b"\x80" * 5000, "dependency_ids": named})
    connection.set("rq:job:mean:dependents", "not a set")
    before = {key: connection.dump(key) for key in connection.keys("rq:*")}
    graph = graph_of(web, "mean")
    assert [node["id"] for node in graph["nodes"]] == ["mean"] and graph["edges"] == []
    assert {key: connection.dump(key) for key in connection.keys("rq:*")} == before
