"""The Grafana board and the alert rules of deploy/: they ask for series that there are."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import tasks
from conftest import BUILD, INTEROP, ROOT, wait_for
from rq import Queue, Retry
from scrape import Scrape
from test_metrics import metrics_of

BOARD = ROOT / "deploy" / "grafana-rqxx.json"
ALERTS = ROOT / "deploy" / "alerts.yml"
NAME = re.compile(r"\brqxx_[a-z0-9_]+")


@pytest.fixture
def scrapes(system, server, connection):
    """(series of a server, series of a worker) after all that has series has happened once."""
    web = system.serve("--no-worker", url=server.url)
    worker = system.run(BUILD / "rqxx", "worker", "--redis-url", server.url, "--queues", "default", "--python", sys.executable,
                        "--path", INTEROP, "--metrics-port", "0")
    url = metrics_of(worker)
    queue = Queue("default", connection=connection)
    queue.enqueue(tasks.noop, 1)
    queue.enqueue(tasks.fail, "boom", retry=Retry(max=1))
    wait_for(lambda: queue.failed_job_registry.count == 1 and queue.finished_job_registry.count == 1, what="both jobs")
    # What takes a dead worker, an unreachable receiver or a limit that is in use to come about.
    connection.hset("rqxx:totals", mapping={"recovered|default": 1, "webhook_failed|": 1})
    connection.sadd("rqxx:waiting", "narrow")
    system.rqxx("limit", "set", "narrow", "--kind", "concurrency", "--limit", "1", "--redis-url", server.url)
    wait_for(lambda: Scrape(web.url + "/metrics").get("rqxx_redis_ping_seconds_count"), what="a ping")
    wait_for(lambda: Scrape(url).get("rqxx_job_overhead_seconds_count", phase="settle") == 3, what="the runs")
    return Scrape(web.url + "/metrics"), Scrape(url)


def expressions():
    board = json.loads(BOARD.read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for found in re.finditer(r"expr:(.*?)\n        (?:for|labels):", ALERTS.read_text(), re.DOTALL):
        yield "alerts.yml", found[1]


def test_every_series_that_is_asked_for_is_in_a_scrape(scrapes):
    server, worker = scrapes
    known = server.names() | worker.names()
    asked = [(where, name) for where, expression in expressions() for name in NAME.findall(expression)]
    assert len(asked) > 50
    missing = sorted({name for _, name in asked if name not in known and not name.startswith("rqxx_limiter_")})
    assert not missing, missing


def test_labels_that_are_grouped_by_are_those_of_the_series(scrapes):
    labels = {}
    for scrape in scrapes:
        for name, pairs in scrape.series:
            labels.setdefault(name, set()).update(key for key, _ in pairs)
    for where, expression in expressions():
        for name, chosen in re.findall(r"\b(rqxx_[a-z0-9_]+)\{([^}]*)\}", expression):
            wanted = set(re.findall(r'(\w+)=~?"', chosen)) - {"job", "instance"}
            assert name.startswith("rqxx_limiter_") or wanted <= labels[name], (where, name, wanted)


def test_the_board_is_one_that_grafana_takes():
    board = json.loads(BOARD.read_text())
    assert board["schemaVersion"] >= 36 and board["title"] and board["uid"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]


def test_prometheus_takes_the_rules():
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: scripts/setup installs the package prometheus"
    result = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"SUCCESS: \d+ rules found", result.stdout)


def test_prometheus_understands_what_the_board_asks(tmp_path):
    """The board's questions as rules: promtool reads them as it would a query."""
    lines = ["groups:", "  - name: board", "    rules:"]
    count = 0
    for where, expression in expressions():
        if where in ("alerts.yml", "job", "queue"):
            continue
        count += 1
        asked = expression.replace("$__rate_interval", "5m")
        lines += [f"      - record: board:question:{count}", f"        expr: {json.dumps(asked)}"]
    rules = tmp_path / "board.yml"
    rules.write_text("\n".join(lines))
    result = subprocess.run(["promtool", "check", "rules", str(rules)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
