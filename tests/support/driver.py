"""rqxx's single operations from Python, one call each: tests/support/test_driver.cpp does the work.

    driver = Driver(url)
    driver.enqueue("tasks.add", 1, 2, queue="default", job_id="a", timeout=60)
    driver.register("w1")
    job = driver.claim("w1")["claimed"][0]
    driver.settle("w1", job["execution"], result=3)   # -> "finished"
"""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("RQXX_BUILD_DIR", ROOT / "build" / "release"))


class DriverError(Exception):
    """rqxx's error; `code` is the name of its kind (`usage`, `connection`, `timeout`, ...)."""

    def __init__(self, answer):
        super().__init__(answer["error"])
        self.code = answer["code"]
        self.in_doubt = answer["in_doubt"]


class Driver:
    """One connection to Redis. Ends with `end`; may be killed at any time (`process`)."""

    def __init__(self, url, command_timeout_ms=10000):
        self.process = subprocess.Popen([BUILD / "test_driver", url, str(command_timeout_ms)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def send(self, op, **fields):
        """Sends a command without waiting for its answer: see `receive`."""
        self.process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"the driver has ended with {self.process.wait(10)}")
        answer = json.loads(line)
        if "error" in answer:
            raise DriverError(answer)
        return answer

    def call(self, op, **fields):
        self.send(op, **fields)
        return self.receive()

    def enqueue(self, func, *args, queue="default", serializer="pickle", at=None, in_=None, kwargs=None, **options):
        """{"id", "duplicate", "status", "replaced", "repeated"}. `at`: epoch seconds; `in_`: seconds or text such as "1h"."""
        return self.call("enqueue", queue=queue, serializer=serializer, func=func, args=list(args), kwargs=kwargs or {},
                         at=at, **{"in": in_}, options=options)

    def enqueue_many(self, jobs, queue="default", serializer="pickle"):
        """`jobs`: dicts of func, args, kwargs, options."""
        return self.call("enqueue_many", queue=queue, serializer=serializer, jobs=jobs)["jobs"]

    def cancel(self, *ids, **options):
        """`dependents`: leave, enqueue or cascade; `remove_from_dependencies`, `dry_run`."""
        return self.call("cancel", ids=list(ids), **options)["jobs"]

    def delete(self, *ids, **options):
        return self.call("delete", ids=list(ids), **options)["jobs"]

    def requeue(self, *ids, **options):
        return self.call("requeue", ids=list(ids), **options)["jobs"]

    def stop(self, id):
        return self.call("stop", id=id)["jobs"][0]

    def for_each(self, action, filter, **options):
        return self.call("for_each", action=action, filter=filter, **options)

    def compact(self, queue="default", **options):
        """How many ids without a job were taken out."""
        return self.call("compact", queue=queue, **options)["removed"]

    def register(self, worker="driven", **options):
        """`queues`, `lease` (ms), `strategy`."""
        return self.call("register", worker=worker, **options)

    def claim(self, worker="driven", limit=1, capacity=1000):
        """{"state", "claimed": [{"id", "execution", "origin", "started_at", "fields"}], "skipped"}."""
        return self.call("claim", worker=worker, limit=limit, capacity=capacity)

    def settle(self, worker, execution, outcome="success", **fields):
        """The code: finished, failed, retried, returned, stopped, canceled, deleted or refused."""
        return self.settle_many(worker, [{"execution": execution, "outcome": outcome, **fields}])[0]["code"]

    def settle_many(self, worker, jobs, **options):
        return self.call("settle", worker=worker, jobs=jobs, **options)["jobs"]

    def heartbeat(self, worker="driven", **options):
        return self.call("heartbeat", worker=worker, **options)

    def recover(self, worker="driven", policy="requeue", queues=()):
        """Of `queues`, or of those of `worker`."""
        return self.call("recover", worker=worker, policy=policy, queues=list(queues))

    def promote(self, *queues, scheduler="driven", renew=True):
        """{"queues": [{"queue", "lock", "promoted", "kept", "dropped"}], "promoted"}"""
        return self.call("promote", scheduler=scheduler, queues=list(queues), renew=renew)

    def release(self, *queues, scheduler="driven"):
        """The scheduler ends."""
        return self.call("release", scheduler=scheduler, queues=list(queues))

    def maintain(self, queue="default"):
        """How many of what were put in order; nothing within ten seconds of the last pass."""
        return self.call("maintain", queue=queue)["counts"]

    def maintain_rate_limits(self):
        """How many slots were freed; none within ten seconds of the last pass."""
        return self.call("maintain_rate_limits")["freed"]

    def maintain_groups(self):
        return self.call("maintain_groups")

    def maintain_dedups(self):
        """How many deduplication keys of ended jobs were forgotten."""
        return self.call("maintain_dedups")["forgotten"]

    def reset(self):
        """Forgets its workers: the server has been emptied."""
        return self.call("reset")

    def expire_lease(self, worker="driven"):
        return self.call("expire_lease", worker=worker)

    def retire(self, worker="driven"):
        return self.call("retire", worker=worker)

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.process.stdout.close()
