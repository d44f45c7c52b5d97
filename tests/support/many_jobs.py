"""Many jobs in every status, made inside Redis: as RQ leaves them, in seconds for a million."""

import base64
import json
import pickle
import time
import zlib

STATUSES = ["queued", "started", "finished", "failed", "deferred", "scheduled", "canceled", "stopped"]
QUEUES = ["default", "high", "low", "mail"]
REGISTRY = {"started": "wip", "stopped": "failed"}

MAKE = """
local status, registry, from, to, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local queues = cjson.decode(ARGV[6])
for _, queue in ipairs(queues) do redis.call('SADD', 'rq:queues', 'rq:queue:' .. queue) end
for n = from, to - 1 do
    local id, queue = status .. '-' .. n, queues[1 + n % #queues]
    local day = string.format('2026-11-%02dT%02d:%02d:%02d.', 1 + n % 20, n % 24, n % 60, n % 59)
    local job = {'status', status, 'origin', queue, 'data', ARGV[7 + n % (#ARGV - 7)], 'description', 'app.tasks.work(' .. n .. ')',
        'timeout', '180', 'created_at', string.format('%s%06dZ', day, n % 1000000), 'enqueued_at', day .. '500000Z'}
    if status ~= 'queued' and status ~= 'deferred' and status ~= 'scheduled' then
        for _, word in ipairs({'started_at', day .. '600000Z', 'worker_name', 'worker-' .. n % 7}) do job[#job + 1] = word end
    end
    if status == 'finished' or registry == 'failed' then
        job[#job + 1] = 'ended_at'
        job[#job + 1] = day .. '900000Z'
    end
    redis.call('HSET', 'rq:job:' .. id, unpack(job))
    if status == 'queued' then redis.call('RPUSH', 'rq:queue:' .. queue, id)
    elseif status == 'started' then
        redis.call('ZADD', 'rq:wip:' .. queue, now + 1000000, id .. ':run')
        redis.call('ZADD', 'rq:executions:' .. id, now + 1000000, 'run')
    else redis.call('ZADD', 'rq:' .. registry .. ':' .. queue, now + 1000000 + n, id) end
    if status == 'failed' then
        redis.call('XADD', 'rq:results:' .. id, '*', 'type', '2', 'exc_string', ARGV[#ARGV])
    end
end
"""


def packed(text):
    return base64.b64encode(zlib.compress(text.encode(errors="surrogatepass")))


def make_jobs(connection, count, statuses=STATUSES, begin=0, queues=QUEUES, functions=7, error="ValueError: bad row 7"):
    """Jobs `<status>-<n>` for n from `begin` to `count`."""
    trace = packed(f'Traceback (most recent call last):\n  File "/app/tasks.py", line 3, in work\n{error}')
    data = [zlib.compress(pickle.dumps((f"app.tasks.work_{n}", None, (n,), {}))) for n in range(functions)]
    script = connection.register_script(MAKE)
    now = int(time.time())
    for status in statuses:
        for at in range(begin, count, 5000):
            script(args=[status, REGISTRY.get(status, status), at, min(at + 5000, count), now, json.dumps(queues), *data, trace])
