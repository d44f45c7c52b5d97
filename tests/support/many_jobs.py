"""Many jobs in every status, made inside Redis: as RQ leaves them, in seconds for a million."""

import base64
import pickle
import time
import zlib

STATUSES = ["queued", "started", "finished", "failed", "deferred", "scheduled", "canceled", "stopped"]
QUEUES = ["default", "high", "low", "mail"]
REGISTRY = {"started": "wip", "stopped": "failed"}

MAKE = """
local status, registry, from, to, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local description, trace, result, first_queue, first_data = ARGV[6], ARGV[7], ARGV[8], 10, 10 + tonumber(ARGV[9])
local queues = {unpack(ARGV, first_queue, first_data - 1)}
for _, queue in ipairs(queues) do redis.call('SADD', 'rq:queues', 'rq:queue:' .. queue) end
for n = from, to - 1 do
    local id, queue = status .. '-' .. n, queues[1 + n % #queues]
    local day = string.format('2026-11-%02dT%02d:%02d:%02d.', 1 + n % 20, n % 24, n % 60, n % 59)
    local job = {'status', status, 'origin', queue, 'data', ARGV[first_data + n % (#ARGV - first_data + 1)], 'description', description .. n,
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
        redis.call('XADD', 'rq:results:' .. id, '*', 'type', '2', 'exc_string', trace)
    elseif status == 'finished' and result ~= '' then
        redis.call('XADD', 'rq:results:' .. id, '*', 'type', '1', 'return_value', result)
    end
end
"""


def packed(text):
    return base64.b64encode(zlib.compress(text if isinstance(text, bytes) else text.encode()))


def call(function, *args):
    """The data of a job as RQ stores it."""
    return zlib.compress(pickle.dumps((function, None, args, {})))


def make_jobs(connection, count, statuses=STATUSES, begin=0, queues=QUEUES, data=None, description="app.tasks.work ", result=b"",
              trace='Traceback (most recent call last):\n  File "/app/tasks.py", line 3, in work\nValueError: bad row 7'):
    """Jobs `<status>-<n>` for n from `begin` to `count`, in turn of each queue and each data; texts may be any bytes."""
    data = data or [call(f"app.tasks.work_{n}", n) for n in range(7)]
    script = connection.register_script(MAKE)
    now = int(time.time())
    for status in statuses:
        for at in range(begin, count, 5000):
            script(args=[status, REGISTRY.get(status, status), at, min(at + 5000, count), now, description, packed(trace), result,
                         len(queues), *queues, *data])
