"""Constant cost: what a request asks of Redis must not grow with the number of jobs."""

import re
import time

import pytest
from conftest import http

# Makes jobs inside Redis: quick, and like those that a worker leaves.
MAKE_JOBS = """
local what, from, count, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('SADD', 'rq:queues', 'rq:queue:default')
for n = from, from + count - 1 do
    local id = what .. '-' .. n
    redis.call('HSET', 'rq:job:' .. id, 'status', what, 'origin', 'default', 'data', ARGV[5], 'description', 'tasks.noop(1)',
        'created_at', string.format('2026-11-%02dT%02d:%02d:%02d.%06dZ', 1 + n % 20, n % 24, n % 60, n % 60, n % 1000000))
    if what == 'queued' then redis.call('RPUSH', 'rq:queue:default', id)
    else redis.call('ZADD', 'rq:' .. what .. ':default', now + n, id) end
end
"""

PATHS = ["/api/rq/stats", "/api/rq/jobs/recent?limit=100", "/api/rq/jobs/recent?limit=100&status=failed",
         "/api/rq/jobs/finished-7", "/api/rq/performance?hours=24", "/metrics"]


def make(connection, what, count):
    import pickle
    import zlib

    data = zlib.compress(pickle.dumps(("tasks.noop", None, (1,), {})))
    script = connection.register_script(MAKE_JOBS)
    for begin in range(0, count, 20000):
        script(args=[what, begin, min(20000, count - begin), int(time.time()) + 1_000_000, data])


def cost(web, connection, path):
    """Commands that Redis ran (those inside scripts too) and round trips, for one request.

    The least of three: the server's upkeep goes on beside the requests."""

    def commands():
        return sum(entry["calls"] for name, entry in connection.info("commandstats").items()
                   if name not in ("cmdstat_info", "cmdstat_ping"))

    def trips():
        return float(re.search(r"^rqxx_redis_round_trips_total (\S+)$", http("GET", web.url + "/metrics").body.decode(), re.M)[1])

    def once():
        trips_of_metrics = -trips() + trips()
        before = trips()
        assert http("GET", web.url + path).status == 200
        round_trips = trips() - before - trips_of_metrics
        calls = commands()
        http("GET", web.url + path)
        return commands() - calls, round_trips

    http("GET", web.url + path)
    return tuple(map(min, zip(*(once() for _ in range(3)))))


@pytest.mark.timeout(300)
def test_requests_cost_the_same_with_a_million_jobs(system, connection):
    web = system.serve("--no-worker", "--no-sampler", url=system.server.url)
    for what in ("finished", "queued", "failed"):
        make(connection, what, 1000)
    small = {path: cost(web, connection, path) for path in PATHS}
    make(connection, "finished", 1_000_000)
    make(connection, "queued", 100_000)
    make(connection, "failed", 100_000)
    stats = http("GET", web.url + "/api/rq/stats").json["totals"]
    assert (stats["finished"], stats["failed"]) == (1_000_000, 100_000)
    large = {path: cost(web, connection, path) for path in PATHS}
    for path in PATHS:
        assert large[path][0] <= small[path][0] * 1.05 + 5, (path, small[path], large[path])
        if path != "/metrics":
            assert large[path][1] <= 3, (path, large[path])
    assert len(http("GET", web.url + "/api/rq/jobs/recent?limit=100").json["jobs"]) == 100
