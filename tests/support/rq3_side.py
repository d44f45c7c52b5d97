"""RQ 3 in a process of its own, for tests that run under another version: see rq3.py.

    python rq3_side.py SOCKET        one JSON object per line on stdin, one answer per line on stdout
"""

import datetime
import json
import pathlib
import sys

import redis as redis_module
from rq import Queue, RateLimit, Repeat, Retry
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job
from rq.rate_limit import RateLimitRegistry
from rq.registry import FailedJobRegistry
from rq.scheduler import RQScheduler

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
connection = redis_module.Redis(unix_socket_path=sys.argv[1])


def enqueue(func, args=(), queue="default", in_=None, rate_limit=None, retry=None, repeat=None, depends_on=None, **options):
    if rate_limit:
        options["rate_limit"] = RateLimit(rate_limit["key"], rate_limit["concurrency"])
    if retry:
        options["retry"] = Retry(retry["max"], retry.get("intervals", 0))
    if repeat:
        options["repeat"] = Repeat(repeat["times"], repeat.get("intervals", 0))
    if depends_on:
        options["depends_on"] = depends_on["job_ids"]
    queue = Queue(queue, connection=connection)
    if in_ is not None:
        return queue.enqueue_in(datetime.timedelta(seconds=in_), func, *args, **options).id
    return queue.enqueue(func, *args, **options).id


def cancel(id):
    Job.fetch(id, connection=connection).cancel()


def delete(id):
    Job.fetch(id, connection=connection).delete()


def requeue(id, at_front=False):
    FailedJobRegistry("default", connection=connection).requeue(id, at_front=at_front)


def promote(queue="default"):
    scheduler = RQScheduler([queue], connection, logging_level="CRITICAL")
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()


def clean():
    """What RQ's maintenance does for rate limits."""
    for registry in RateLimitRegistry.all(connection):
        registry.cleanup()


def status(id):
    """As RQ 3 reads the whole job."""
    return Job.fetch(id, connection=connection).get_status().value


for line in sys.stdin:
    command = json.loads(line)
    try:
        answer = {"result": globals()[command.pop("op")](**command)}
    except (ValueError, InvalidJobOperation, NoSuchJobError) as error:
        answer = {"refused": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
