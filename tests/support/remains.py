"""All that a run leaves in Redis and all that a Python client reads of it, reduced to what must not vary."""

import base64
import datetime
import json
import pickle
import re
import time
import zlib

from click.testing import CliRunner
from rq import Queue, Retry, Worker
from rq.cli import main as rq_command
from rq.group import Group
from rq.job import Job
from rq.registry import (CanceledJobRegistry, DeferredJobRegistry, FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry,
                         StartedJobRegistry)
from rq.serializers import JSONSerializer

EXECUTION = re.compile(r"\b[0-9a-f]{32}$")
#: Seconds by which two runs may differ in a TTL or a distance of time.
SLACK = 4


class Seconds(float):
    """A distance in time: equal to another one that is about as long."""

    def __eq__(self, other):
        return isinstance(other, Seconds) and (float(self) == float(other) or abs(self - other) <= SLACK)

    __hash__ = None

    def __repr__(self):
        return f"{float(self):.0f} s"


def error_of(text):
    """The message of a traceback's last line, without the name of its class, which languages do not share."""
    last = text.rstrip("\n").rsplit("\n", 1)[-1]
    last = re.sub(r"^[\w.:]+: ", "", last)
    return re.sub(r"\d{4}-\d\d-\d\d[ T][\d:.]+(\+00:00)?", "TIME", last)


def shown(value):
    if isinstance(value, Retry):
        return f"Retry {vars(value)}"
    return repr(value) if not isinstance(value, set) else repr(sorted(value, key=repr))


def loaded(data):
    """Bytes of either serializer as a value with its types."""
    if data[:1] == b"\x80":
        return shown(pickle.loads(data))
    try:
        return shown(json.loads(data))
    except ValueError:
        return f"unreadable {data!r}"


def unpacked(data):
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def moment(text):
    """A time of this run, or how far off it is."""
    if text.endswith("Z"):
        parsed = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc).timestamp()
    else:
        parsed = float(text)   # of an execution
    return Seconds(parsed - time.time()) if abs(parsed - time.time()) > 60 else "now"


def is_there(text):
    return text != ""


def is_number(text):
    return float(text) >= 0


ISO_FIELDS = ("created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat", "birth", "death",
              "shutdown_requested_date")
FIELDS = {name: lambda text: moment(text) if text else "" for name in ISO_FIELDS} | {
    "pid": is_number, "total_working_time": is_number, "execution_id": lambda text: len(text),
    "execution_started_at": is_number, "execution_ended_at": is_number}
BINARY_FIELDS = {
    "data": lambda value: loaded(unpacked(value)), "meta": loaded, "result": loaded,
    "exc_info": lambda value: error_of(unpacked(value).decode()),
    "return_value": lambda value: loaded(base64.b64decode(value)),
    "exc_string": lambda value: error_of(zlib.decompress(base64.b64decode(value)).decode())}


def field(name, value):
    if name == "id":   # of an execution
        return len(value)
    if name in BINARY_FIELDS:
        return BINARY_FIELDS[name](value)
    text = value.decode("utf-8", "backslashreplace")
    return FIELDS.get(name, str)(text)


def fields(mapping):
    return {name.decode(): field(name.decode(), value) for name, value in mapping.items()}


def content(connection, key, kind):
    if kind == "hash":
        return fields(connection.hgetall(key))
    if kind == "set":
        return {EXECUTION.sub("EXECUTION", member.decode()): True for member in connection.smembers(key)}
    if kind == "zset":
        # Scores are times, but for those that stand for "for ever".
        return {EXECUTION.sub("EXECUTION", member.decode()):
                Seconds(score - time.time()) if 0 < score < float("inf") else score
                for member, score in connection.zrange(key, 0, -1, withscores=True)}
    if kind == "list":
        return {"ids": [member.decode() for member in connection.lrange(key, 0, -1)]}
    if kind == "stream":
        entries = [fields(entry) for _, entry in connection.xrange(key)]
        return {"entries": len(entries)} | {f"{n}.{name}": value for n, entry in enumerate(entries)
                                            for name, value in entry.items()}
    return {"text": connection.get(key).decode()}


def keys_of(connection):
    """{path: value} of every key: type, TTL, and each part of what it holds."""
    remains = {}
    for raw in sorted(connection.keys("*")):
        key, kind, ttl = raw.decode(), connection.type(raw).decode(), connection.ttl(raw)
        key = EXECUTION.sub("EXECUTION", key)
        remains[f"{key} type"] = kind
        remains[f"{key} ttl"] = Seconds(ttl) if ttl >= 0 else "none"
        for name, value in content(connection, raw, kind).items():
            remains[f"{key} {name}"] = value
    return remains


REGISTRIES = {"started": StartedJobRegistry, "finished": FinishedJobRegistry, "failed": FailedJobRegistry,
              "deferred": DeferredJobRegistry, "scheduled": ScheduledJobRegistry, "canceled": CanceledJobRegistry}


def attempt(read):
    try:
        return read()
    except Exception as error:  # noqa: BLE001: what Python makes of it is what is compared
        return f"{type(error).__name__}: {error}"


def result_of(result):
    if result is None:
        return None
    return (result.type.name, shown(result.return_value), error_of(result.exc_string or ""), result.worker_name,
            bool(result.execution_id), result.execution_started_at is not None, result.execution_ended_at is not None)


def job_seen(job):
    seen = {
        "status": lambda: job.get_status().name, "call": lambda: (job.func_name, shown(job.args), shown(job.kwargs)),
        "description": lambda: job.description, "return_value": lambda: shown(job.return_value()),
        "results": lambda: [result_of(result) for result in job.results()],
        "latest_result": lambda: result_of(job.latest_result()), "meta": lambda: job.get_meta(),
        "position": job.get_position, "executions": lambda: len(job.get_executions()),
        "dependencies": lambda: sorted(dependency.id for dependency in job.fetch_dependencies()),
        "dependents": lambda: sorted(job.dependent_ids), "retries_left": lambda: job.retries_left,
        "limits": lambda: (job.timeout, job.result_ttl, job.failure_ttl, job.ttl), "group": lambda: job.group_id,
        "repeat": lambda: (job.repeats_left, job.repeat_intervals), "webhooks": lambda: str(job.webhooks),
        "worker": lambda: job.worker_name, "exc_info": lambda: error_of(job.exc_info or ""),
        "times": lambda: [at is not None for at in (job.created_at, job.enqueued_at, job.started_at, job.ended_at)]}
    return {name: attempt(read) for name, read in seen.items()}


def seen_by_python(connection, url, serializer):
    """{path: value} of what RQ's own API says."""
    serializer = JSONSerializer if serializer == "json" else None
    seen = {}
    for key in sorted(connection.keys("rq:job:*")):
        id = key.decode().removeprefix("rq:job:")
        if ":" in id:
            continue
        job = attempt(lambda: Job.fetch(id, connection=connection, serializer=serializer))
        for name, value in (job_seen(job) if isinstance(job, Job) else {"fetch": job}).items():
            seen[f"job {id} {name}"] = value
    for queue in Queue.all(connection=connection, serializer=serializer):
        seen[f"queue {queue.name} ids"] = (len(queue), queue.get_job_ids())
        for name, registry in REGISTRIES.items():
            ids = registry(queue.name, connection=connection, serializer=serializer)
            seen[f"queue {queue.name} {name}"] = (ids.count, sorted(ids.get_job_ids()))
    for group in Group.all(connection=connection):
        seen[f"group {group.name}"] = sorted(job.id for job in group.get_jobs())
    seen["workers"] = [(worker.name, worker.get_state(), worker.queue_names()) for worker in Worker.all(connection=connection)]
    info = CliRunner().invoke(rq_command, ["info", "--url", url])
    for line in sorted(info.output.splitlines()):
        if not line.startswith("Updated: "):
            line = re.sub(r"\(.*?\)", "(HOST)", line)   # of a worker, with address and process
            seen[f"rq info: {line}"] = True
    seen["rq info ends"] = repr(info.exception)
    return seen


def everything(connection, url, serializer):
    """Both, with made-up job ids replaced by what the jobs are."""
    made_up = {key.decode().removeprefix("rq:job:"): connection.hget(key, "description").decode()
               for key in connection.keys("rq:job:*") if re.fullmatch(r"rq:job:[0-9a-f-]{36}", key.decode())}
    pattern = re.compile("|".join(made_up) or "(?!)")

    def named(value, ordered):
        if isinstance(value, str):
            return pattern.sub(lambda match: f"<{made_up[match[0]]}>", value)
        if isinstance(value, (list, tuple)):
            items = [named(item, ordered) for item in value]
            return type(value)(items if ordered or items == list(value) else sorted(items, key=repr))
        return value

    found = keys_of(connection) | {f"seen: {path}": value
                                   for path, value in seen_by_python(connection, url, serializer).items()}
    return {named(path, True): named(value, path.endswith(" ids")) for path, value in found.items()}


def difference(left, right):
    """Paths on which two remains differ, and how."""
    missing = "absent"
    found = {}
    for path in sorted(set(left) | set(right)):
        a, b = left.get(path, missing), right.get(path, missing)
        if not (a == b):
            found[path] = f"{a!r} and {b!r}"
    return found
