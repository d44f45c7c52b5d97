"""Whether data in Redis would make RQ 2.10 stumble: pitfalls P1 to P20 of RQ's wire format."""

import json
import re
import time

from rq import Queue, Worker
from rq.job import Job, JobStatus
from rq.utils import utcparse

JOB_ID = re.compile(r"[A-Za-z0-9_-]+")
STATUSES = {status.value for status in JobStatus}
TIMES = ("created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat")
NUMBERS = ("timeout", "result_ttl", "failure_ttl", "ttl", "retries_left", "repeats_left", "number_of_retries")
NEVER_EMPTY = ("enqueue_at_front", "success_callback_timeout", "failure_callback_timeout", "stopped_callback_timeout")
REGISTRIES = ("finished", "failed", "deferred", "scheduled", "canceled")


def readable(read, *errors):
    try:
        read()
        return True
    except errors:
        return False


class Audit:
    def __init__(self, connection):
        self.connection = connection
        self.found = []
        self.jobs = {}
        for key in connection.keys("rq:job:*"):
            id = key.decode().removeprefix("rq:job:")
            if ":" not in id:
                self.jobs[id] = {field.decode(): value.decode("utf-8", "replace")
                                 for field, value in connection.hgetall(key).items()}

    def expect(self, holds, pitfall, what):
        if not holds:
            self.found.append(f"{pitfall}: {what}")

    def members(self, pattern):
        """(rest of the key's name, member) of all sets of that name."""
        for key in self.connection.keys(pattern):
            rest = key.decode()[pattern.index("*"):]
            read = self.connection.smembers if self.connection.type(key) == b"set" else lambda key: self.connection.zrange(
                key, 0, -1)
            for member in read(key):
                yield rest, member.decode()

    def job(self, id, job):
        where = f"job {id}"
        self.expect("last_heartbeat" in job, "P1", f"{where} has no last_heartbeat")
        self.expect(JOB_ID.fullmatch(id), "P2", f"{where} has a bad id")
        self.expect(job.get("status") in STATUSES, "P2", f"{where} is {job.get('status')}")
        for field in TIMES:
            self.expect(not job.get(field) or readable(lambda: utcparse(job[field]), ValueError), "P2",
                        f"{where} has {field} {job.get(field)}")
        for field in NUMBERS:
            self.expect(not job.get(field) or readable(lambda: int(job[field]), ValueError), "P2",
                        f"{where} has {field} {job.get(field)}")
        for field in NEVER_EMPTY:
            self.expect(job.get(field) != "", "P2", f"{where} has an empty {field}")
        if "retry_intervals" in job:
            self.expect(json.loads(job["retry_intervals"]), "P5", f"{where} has no intervals")
        needs = json.loads(job.get("dependency_ids") or "[]")
        registered = self.connection.smembers(f"rq:job::{id}:dependencies")
        if job.get("status") == "deferred":
            self.expect({one.encode() for one in needs} == registered, "P4", f"{where} waits for {needs}, {registered}")
        if job.get("group_id"):
            self.expect(self.connection.exists(f"rq:group:{job['group_id']}"), "P12", f"{where} has no group")
        if job.get("status") == "started":
            self.expect(job.get("worker_name"), "P16", f"{where} has no worker")
            self.expect(self.connection.ttl(f"rq:job:{id}") == -1, "P17", f"{where} may vanish")
        fetched = Job(id, connection=self.connection)
        self.expect(readable(fetched.refresh, Exception), "P2", f"{where} cannot be read")
        self.expect(readable(fetched.results, Exception), "P13", f"{where} has results that cannot be read")
        self.expect(readable(fetched.get_executions, ValueError, KeyError), "P10", f"{where} has broken executions")

    def places(self):
        for queue, id in ((key.decode().removeprefix("rq:queue:"), id.decode()) for key in self.connection.keys("rq:queue:*")
                          for id in self.connection.lrange(key, 0, -1)):
            self.expect(JOB_ID.fullmatch(id), "P2", f"{id} on {queue}")
            self.expect(not queue.endswith(":intermediate"), "P8", f"{id} in {queue}")
            self.expect(self.jobs.get(id, {}).get("origin", queue) == queue, "P9", f"{id} on {queue}")
        for registry in REGISTRIES:
            for queue, id in self.members(f"rq:{registry}:*"):
                self.expect(JOB_ID.fullmatch(id), "P2", f"{id} in {registry}:{queue}")
        for queue, member in self.members("rq:wip:*"):
            self.expect(re.fullmatch(r"[A-Za-z0-9_-]+:[0-9a-f]{32}", member), "P6", f"{member} started on {queue}")
            id, execution = member.split(":")
            self.expect(self.jobs.get(id, {}).get("status") == "started", "P7", f"{member} started on {queue}")
            score = self.connection.zscore(f"rq:wip:{queue}", member)
            self.expect(score > time.time() + 60, "P11", f"{member} is soon taken for abandoned")
            self.expect(self.connection.zscore(f"rq:executions:{id}", execution), "P10", f"{member} has no execution")
        for id, execution in self.members("rq:executions:*"):
            fields = self.connection.hgetall(f"rq:execution:{id}:{execution}")
            self.expect({b"created_at", b"last_heartbeat"} <= set(fields), "P10", f"execution {id}:{execution}")
        for rest, child in self.members("rq:job:*:dependents"):
            self.expect(child not in self.jobs or self.jobs[child].get("dependency_ids"), "P3", f"{child} waits for {rest}")

    def workers(self):
        self.expect(readable(lambda: Worker.all(connection=self.connection), Exception), "P14", "Worker.all")
        self.expect(readable(lambda: Queue.all(connection=self.connection), Exception), "P14", "Queue.all")
        for key in self.connection.smembers("rq:workers"):
            for queue in self.connection.hget(key, "queues").decode().split(","):
                self.expect(self.connection.sismember(f"rq:workers:{queue}", key), "P15", f"{key} and {queue}")
        for key in self.connection.keys("rq:worker:*"):
            if self.connection.type(key) == b"hash":
                self.expect(self.connection.hexists(key, "last_heartbeat"), "P1", f"{key} has no last_heartbeat")
                self.expect(self.connection.hexists(key, "birth") and self.connection.ttl(key) > 0, "P18", f"{key} is partial")


def pitfalls(connection):
    """What RQ would stumble over."""
    audit = Audit(connection)
    for id, job in audit.jobs.items():
        audit.job(id, job)
    audit.places()
    audit.workers()
    return audit.found


def clean_up_as_rq(connection):
    """RQ's maintenance, by a stock worker that serves all queues."""
    queues = Queue.all(connection=connection)
    if queues:
        Worker(queues, connection=connection, prepare_for_work=False).clean_registries()
