"""Carries out the steps of model.py on a Redis: rqxx through the driver, stock RQ in this process."""

import datetime
import json
import logging
import time
from collections import Counter

import tasks
from model import QUEUES, STOCK_SCHEDULER, STOCK_WORKERS, WORKERS
from rq import Queue, Repeat, Retry
from rq.job import Dependency, Job, JobStatus
from rq.registry import CanceledJobRegistry
from rq.scheduler import RQScheduler
from rq.worker import SimpleWorker

logging.getLogger("rq").setLevel(logging.CRITICAL)

#: Everything at once, in one command.
DUMP = """
local out = {}
for _, key in ipairs(redis.call('KEYS', 'rq*')) do
    local kind = redis.call('TYPE', key).ok
    local value = false
    if kind == 'hash' then
        value = string.find(key, '^rq:job:') and redis.call('HMGET', key, 'status', 'origin', 'retries_left', 'repeats_left',
            'number_of_retries', 'ended_at', 'dependency_ids', 'allow_dependency_failures') or redis.call('HGETALL', key)
    elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'set' then value = redis.call('SMEMBERS', key)
    elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1)
    elseif kind == 'stream' then value = redis.call('XLEN', key)
    end
    out[#out + 1] = {key, redis.call('TTL', key), value}
end
return cjson.encode(out)
"""


def us(seconds=0.0):
    return int((time.time() + seconds) * 1000000)


class World:
    """One run. `model`: that of the run, after the step that is being carried out."""

    def __init__(self, driver, connection, model):
        self.driver, self.connection, self.model = driver, connection, model
        connection.flushall()
        driver.reset()
        self.names = {}  # id in Redis -> name
        self.ids = {}  # name -> id
        self.runs = Counter()  # how often each job was started
        self.stock = {}
        self.stock_jobs = {}
        self.seen = {queue: set() for queue in QUEUES}  # what the last passes of maintenance left in intermediate queues
        self.dump = connection.register_script(DUMP)

    def name(self, name, id):
        self.names[id], self.ids[name] = name, id

    def id(self, name):
        return self.ids.get(name, name)

    def carry_out(self, op, args):
        answer = getattr(self, op)(**args)
        self.put_in_order()
        return answer

    def put_in_order(self):
        """What a step put on a queue in no particular order gets the model's, so that runs can be repeated."""
        for queue, _ in self.model.settle_order():
            key = "rq:queue:" + queue
            there = [self.names.get(id.decode(), id.decode()) for id in self.connection.lrange(key, 0, -1)]
            assert sorted(there) == sorted(self.model.queues[queue]), f"{key}: {there}, not {self.model.queues[queue]}"
            with self.connection.pipeline() as pipeline:
                pipeline.delete(key)
                pipeline.rpush(key, *map(self.id, self.model.queues[queue]))
                pipeline.execute()

    # ---- producers -------------------------------------------------------------------------------

    def options(self, depends_on=(), allow_failure=False, dependency_front=False, retry=None, **options):
        if depends_on:
            options["depends_on"] = {"job_ids": [self.id(parent) for parent in depends_on], "allow_failure": allow_failure,
                                     "enqueue_at_front": dependency_front}
        if retry:
            options["retry"] = {"max": retry["max"], "intervals": retry["intervals"], "enqueue_at_front": retry["front"]}
        return options

    @staticmethod
    def due(when):
        return time.time() + (1000 if when == "later" else -1)

    def enqueue(self, name, queue, due=None, **options):
        at = {"at": self.due(due)} if due else {}
        answer = self.driver.enqueue("tasks.noop", 1, queue=queue, job_id=self.id(name), **at, **self.options(**options))
        return [(answer["duplicate"], answer["status"])]

    def enqueue_many(self, queue, jobs):
        calls = []
        for job in jobs:
            options = self.options(**{key: value for key, value in job.items() if key not in ("name", "named")})
            if job.get("named"):
                options["job_id"] = self.id(job["name"])
            calls.append({"func": "tasks.noop", "args": [1], "options": options})
        answers = self.driver.enqueue_many(calls, queue=queue)
        for job, answer in zip(jobs, answers, strict=True):
            if not job.get("named"):
                self.name(job["name"], answer["id"])
        return [(answer["duplicate"], answer["status"]) for answer in answers]

    def stock_enqueue(self, name, queue, due=None, depends_on=(), allow_failure=False, dependency_front=False, retry=None,
                      repeat=None, **options):
        if depends_on:
            options["depends_on"] = Dependency(jobs=[self.id(parent) for parent in depends_on], allow_failure=allow_failure,
                                               enqueue_at_front=dependency_front)
        if retry:
            options["retry"] = Retry(max=retry["max"], interval=retry["intervals"], enqueue_at_front=retry["front"])
        if repeat:
            options["repeat"] = Repeat(times=repeat["times"], interval=repeat["intervals"])
        target = Queue(queue, connection=self.connection)
        if due:
            when = datetime.datetime.fromtimestamp(self.due(due), datetime.timezone.utc)
            target.enqueue_at(when, tasks.noop, 1, job_id=name, **options)
        else:
            target.enqueue(tasks.noop, 1, job_id=name, **options)

    # ---- rqxx's workers --------------------------------------------------------------------------

    def register(self, worker):
        queues, strategy = WORKERS[worker]
        return self.driver.register(worker, queues=list(queues), strategy=strategy)["registered"]

    def retire(self, worker):
        self.driver.retire(worker)

    def claim(self, worker, limit):
        answer = self.driver.claim(worker, limit=50 if WORKERS[worker][1] == "random" else limit)
        expected = {one.job: name for name, one in self.model.executions.items() if name not in self.ids}
        claimed = {}
        for job in answer["claimed"]:
            name = self.names.get(job["id"], job["id"])
            claimed[name] = expected.get(name, "unexpected")
            self.name(claimed[name], job["execution"])
            self.runs[name] += 1
        return answer["state"], claimed, sorted(self.names.get(one["id"], one["id"]) for one in answer["skipped"])

    def settle(self, worker, ended, repeated=False):
        jobs = []
        for name, outcome, *rest in ended:
            execution = self.model.executions[name]
            job = {"execution": self.id(name), "id": self.id(execution.job), "origin": execution.queue, "outcome": outcome}
            jobs.append(job | dict(zip(("max", "wait"), rest)))
        answers = self.driver.settle_many(worker, jobs)
        if repeated:
            answers += self.driver.settle_many(worker, jobs)
        return [answer["code"] for answer in answers]

    def heartbeat(self, worker, forgotten=(), aged=False):
        holding = self.model.workers[worker].holding
        if aged:
            for name, execution in self.model.executions.items():
                key = f"rq:execution:{self.id(execution.job)}:{self.id(name)}"
                if execution.worker == worker and self.connection.exists(key):
                    self.connection.hset(key, "created_at", str(time.time() - 100))
        answer = self.driver.heartbeat(worker, executions=[self.id(name) for name in holding])
        notices = {self.names[notice["execution"]]: notice["canceled"] for notice in answer["notices"]}
        return answer["lease_held"], notices, answer["orphans"]

    def kill(self, worker):
        self.driver.expire_lease(worker)

    def recover(self, policy="requeue"):
        # Sweeps have gone on for long enough for this one to judge.
        self.connection.hset("rqxx:sweeper", mapping={"last": us(-0.1), "since": us(-60)})
        answer = self.driver.recover(queues=QUEUES, policy=policy)
        assert not answer["more"]
        return sorted((self.names.get(job["id"], job["id"]), job["what"]) for job in answer["jobs"])

    # ---- actions ---------------------------------------------------------------------------------

    def cancel(self, name, dependents="leave", forget=False):
        answer = self.driver.cancel(self.id(name), dependents=dependents, remove_from_dependencies=forget)[0]
        return answer["code"], answer["dependents"]

    def delete(self, name, dependents="leave"):
        answer = self.driver.delete(self.id(name), dependents=dependents)[0]
        return answer["code"], answer["dependents"]

    def requeue(self, name, at_front=False):
        answer = self.driver.requeue(self.id(name), at_front=at_front)[0]
        return answer["code"], answer["dependents"]

    def compact(self, queue):
        return self.driver.call("compact", queue=queue)["removed"]

    def suspend(self):
        self.connection.set("rq:suspended", 1)

    def resume(self):
        self.connection.delete("rq:suspended")

    # ---- time ------------------------------------------------------------------------------------

    def pass_due_time(self, name, queue, by="now"):
        score = int(time.time()) - (1 if by == "now" else 100)
        self.connection.zadd("rq:scheduled:" + queue, {self.id(name): score}, xx=True)

    def pass_lifetime(self, name):
        id = self.id(name)
        keys = ["rq:job:" + id, f"rq:job:{id}:dependents", f"rq:job::{id}:dependencies"]
        ttls = [self.connection.ttl(key) for key in keys]
        assert ttls[0] >= 0, f"{name} does not expire"
        self.connection.delete(*[key for key, ttl in zip(keys, ttls) if ttl >= 0])
        for queue in QUEUES:
            for kind in ("finished", "failed"):
                score = self.connection.zscore(f"rq:{kind}:{queue}", id)
                if score is not None:
                    self.connection.zadd(f"rq:{kind}:{queue}", {id: 1})

    def pass_a_minute(self):
        for queue in QUEUES:
            for id in self.connection.zrange("rq:deferred:" + queue, 0, -1):
                self.connection.zadd("rq:deferred:" + queue, {id: int(time.time()) - 100})

    # ---- schedulers and janitors -----------------------------------------------------------------

    def promote(self, scheduler):
        answer = self.driver.promote(*QUEUES, scheduler=scheduler)
        return {row["queue"]: (row["promoted"], row["kept"], row["dropped"])
                for row in answer["queues"] if row["promoted"] + row["kept"] + row["dropped"]}

    def kill_scheduler(self, scheduler):
        if scheduler == STOCK_SCHEDULER:
            for queue in QUEUES:
                if self.connection.get("rq:scheduler-lock:" + queue) == scheduler.encode():
                    self.connection.delete("rq:scheduler-lock:" + queue)
        else:
            self.connection.zadd("rqxx:schedulers", {scheduler: us(-1)})

    def stock_schedule(self, stays=False):
        scheduler = RQScheduler(QUEUES, connection=self.connection, name=STOCK_SCHEDULER)
        # Its own connection would be a new one each time.
        scheduler._connection = self.connection
        scheduler.acquire_locks()
        for queue in QUEUES:
            if self.connection.get("rq:scheduler-lock:" + queue) == STOCK_SCHEDULER.encode():
                scheduler._acquired_locks.add(queue)
        scheduler.enqueue_scheduled_jobs()
        if not stays:
            for queue in scheduler.acquired_locks:
                self.connection.delete("rq:scheduler-lock:" + queue)

    def maintain(self, queue):
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.delete("rqxx:maintained:" + queue)
            for id in self.seen[queue]:
                # The last pass was a minute ago.
                name = self.names.get(id, id)
                if name in self.model.jobs:
                    pipeline.set(f"rq:queue:{queue}:intermediate:first_seen:{id}", time.time() - 100, ex=86400)
                    pipeline.hset("rq:job:" + id, "enqueued_at", "2020-01-01T00:00:00.000000Z")
            pipeline.execute()
        counts = self.driver.maintain(queue)
        self.seen[queue] = {id.decode() for id in self.connection.lrange(f"rq:queue:{queue}:intermediate", 0, -1)}
        return counts

    def maintain_groups(self):
        self.connection.delete("rqxx:maintained:*groups")
        self.driver.maintain_groups()

    # ---- stock RQ --------------------------------------------------------------------------------

    def stock_worker(self, name):
        if name not in self.stock:
            worker = SimpleWorker([Queue(queue, connection=self.connection) for queue in STOCK_WORKERS[name]], name=name,
                                  connection=self.connection)
            worker.procline = lambda text: None
            worker.register_birth()
            self.stock[name] = worker
        return self.stock[name]

    def pop(self, worker):
        found = Queue.dequeue_any(worker.queues, None, connection=self.connection)
        return found[0] if found else None

    def stock_start(self, worker):
        me = self.stock_worker(worker)
        job = self.pop(me)
        if not job:
            return None
        execution = me.prepare_execution(job)
        me.prepare_job_execution(job, remove_from_intermediate_queue=len(me.queues) == 1)
        self.connection.persist(job.key)  # Job.perform
        self.name(self.model.stock_workers[worker].holding[0], execution.id)
        self.stock_jobs[worker] = job
        self.runs[self.names.get(job.id, job.id)] += 1
        return self.names.get(job.id, job.id)

    def stock_pop_and_die(self, worker):
        popped = self.pop(self.stock_worker(worker))
        if popped:
            self.seen[popped.origin].discard(popped.id)

    def stock_end(self, worker, outcome, most=0, wait=0):
        """The rest of Worker.perform_job."""
        me, job = self.stock_worker(worker), self.stock_jobs.pop(worker)
        queue = Queue(job.origin, connection=self.connection)
        me.handle_execution_ended(job, queue, 60)
        if outcome == "success":
            job._result, job._status = 1, JobStatus.FINISHED
            me.handle_job_success(job, queue, queue.started_job_registry)
        elif outcome == "retry":
            job._result = Retry(max=most, interval=wait)
            me.handle_job_retry(job, queue, job._result, queue.started_job_registry, me.execution)
        else:
            job._status = JobStatus.FAILED
            me.handle_job_failure(job, queue, queue.started_job_registry, "RuntimeError: stock\n")

    def stock_die(self, worker):
        me, job = self.stock_worker(worker), self.stock_jobs.pop(worker)
        self.connection.zadd("rq:wip:" + job.origin, {me.execution.composite_key: int(time.time()) - 1}, xx=True)
        me.execution = None

    def stock_clean(self, queue):
        # A worker of its own: that of W31 is not meant here.
        worker = SimpleWorker([Queue(queue, connection=self.connection)], name="cleaner", connection=self.connection)
        worker.clean_registries()

    def job(self, name):
        return Job.fetch(self.id(name), connection=self.connection)

    def stock_cancel(self, name, enqueue_dependents=False, forget=False):
        self.job(name).cancel(enqueue_dependents=enqueue_dependents, remove_from_dependencies=forget)

    def stock_delete(self, name, delete_dependents=False):
        self.job(name).delete(delete_dependents=delete_dependents)

    def stock_requeue(self, name, at_front=False):
        job = self.job(name)
        if job.get_status() == JobStatus.CANCELED:
            CanceledJobRegistry(job.origin, connection=self.connection).requeue(job, at_front=at_front)
        else:
            job.requeue(at_front=at_front)

    # ---- what stands in Redis --------------------------------------------------------------------

    def read(self):
        text = self.dump().decode()
        for id, name in self.names.items():
            text = text.replace(id, name)
        return [(key, ttl, value) for key, ttl, value in json.loads(text)]

    def keys(self, dump):
        """In the form of Model.keys."""
        kinds = ("finished", "failed", "deferred", "scheduled", "canceled")
        keys = {f"{kind} {queue}": [] for queue in QUEUES for kind in (*kinds, "queue", "intermediate", "started")}
        keys["totals"] = {}
        for key, ttl, value in dump:
            parts = key.split(":")
            what = None
            if parts[1] == "job" and len(parts) == 3:
                status, queue, retries, repeats, asked, ended, *_ = (item or None for item in value)
                what = "job " + parts[2]
                value = {"status": status, "queue": queue, "retries_left": retries and int(retries),
                         "repeats_left": repeats and int(repeats), "asked": asked and int(asked), "ended": bool(ended),
                         "expires": self.lifetime(parts[2], ttl)}
            elif parts[1] == "job":
                what = f"{parts[-1]} of {parts[-2]}"
                value = sorted(value) + (["(mortal)"] if ttl >= 0 else [])
            elif parts[1] == "queue" and len(parts) < 5:
                what = ("intermediate " if len(parts) == 4 else "queue ") + parts[2]
            elif parts[1] in kinds:
                what = f"{parts[1]} {parts[2]}"
            elif parts[1] == "wip":
                what = "started " + parts[2]
            elif parts[1] in ("executions", "results"):
                what = f"{parts[1]} of {parts[2]}"
            elif parts[1] == "execution":
                what, value = key.removeprefix("rq:").replace(":", " ", 1), True
            elif parts[1] == "group":
                what = "group " + parts[2]
            elif parts[1] == "worker" and parts[-1] == "executions":
                what = "run by " + parts[2]
            elif parts[1] == "worker":
                fields = dict(zip(value[::2], value[1::2]))
                counts = tuple(int(fields.get(field, 0)) for field in ("successful_job_count", "failed_job_count"))
                if parts[2] in WORKERS or counts != (0, 0):
                    what, value = "worker " + parts[2], ("death" not in fields, *counts)
            elif key == "rqxx:totals":
                what, value = "totals", {name: int(count) for name, count in zip(value[::2], value[1::2])}
            if what:
                keys[what] = sorted(value) if isinstance(value, list) and not what.startswith("queue ") else value
        return keys

    def lifetime(self, name, ttl):
        """The TTL that the model expects, where this can be what is left of it."""
        if ttl < 0:
            return None
        job = self.model.job_of(name)
        return job.expires if job and job.expires and job.expires - 60 <= ttl <= job.expires else ttl
