"""What should be in Redis after any sequence of steps: a small reference model of rqxx and RQ together.

`Model` has one method per kind of step. Each returns the answer that the step should give, or raises `Impossible` before
anything has changed: the step makes no sense now, or is one by which stock RQ would break its own rules (the windows of
docs/compatibility.md, which rqxx cannot close for it). `Model.keys` says what should stand in Redis.

Jobs and executions have short names; only the world (model_world.py) knows their ids in Redis.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

QUEUES = ("q1", "q2")
#: Workers of rqxx: queues and strategy.
WORKERS = {"strict": (("q1", "q2"), "default"), "turns": (("q2", "q1"), "round-robin"), "random": (("q1", "q2"), "random"),
           "single": (("q2",), "default")}
#: Stock workers: one with an intermediate queue, one without.
STOCK_WORKERS = {"stock1": ("q1",), "stock2": ("q2", "q1")}
STOCK_SCHEDULER = "stock"
YEAR = 31536000
REGISTRIES = ("finished", "failed", "deferred", "scheduled", "canceled")


class Impossible(Exception):
    pass


def need(condition):
    if not condition:
        raise Impossible


@dataclass
class Job:
    name: str
    number: int  # in the order of creation
    queue: str
    status: str = "queued"
    retries_left: int | None = None
    retry_intervals: tuple = ()
    front_on_retry: bool = False
    repeats_left: int | None = None
    repeat_intervals: tuple = ()
    result_ttl: int | None = None
    failure_ttl: int | None = None
    ttl: int | None = None
    depends_on: tuple = ()
    allow_failure: bool = False
    front: bool = False  # where it goes when released or due
    group: str | None = None
    ended: bool = False  # has run and not been requeued since
    asked: int = 0  # retries that the function asked for
    recoveries: int = 0
    expires: int | None = None  # TTL of its hash


@dataclass
class Execution:
    job: str
    queue: str
    worker: str
    stock: bool = False
    held: bool = True  # stands in the started registry: may settle
    recorded: bool = True  # has its record
    listed: bool = True  # in the list of what its worker runs
    lapsed: bool = False  # of a stock worker: not heard of for too long
    aged: bool = False  # began long ago


@dataclass
class Worker:
    alive: bool = True  # has a lease
    lapsed: bool = False  # which has run out
    holding: list = field(default_factory=list)  # what it believes to run
    succeeded: int = 0
    failed: int = 0
    first: int = 0  # index of the queue whose turn it is


class Model:
    def __init__(self):
        self.jobs = {}
        self.count = 0
        self.queues = {queue: [] for queue in QUEUES}
        self.intermediate = {queue: {} for queue in QUEUES}  # name -> times that it was seen there
        self.registries = {(kind, queue): {} for kind in REGISTRIES for queue in QUEUES}  # name -> what its score says
        self.dependents = defaultdict(set)  # name -> those that wait for it
        self.dependencies = defaultdict(set)  # name -> those that it waits for
        self.mortal = set()  # ("dependents" or "dependencies", name): the set has a TTL
        self.executions = {}
        self.results = Counter()
        self.groups = defaultdict(set)
        self.workers = {}
        self.stock_workers = {name: Worker() for name in STOCK_WORKERS}
        self.totals = Counter()
        self.runs = Counter()  # how often each job was started
        self.suspended = False
        self.locks = {}  # queue -> scheduler
        self.dead_schedulers = set()
        self.pushed = {}  # what this step has put on a queue: (queue, front?) -> names, in no particular order
        self.excused = set()  # jobs whose name also stands somewhere that does not fit

    # ---- pieces ----------------------------------------------------------------------------------

    def job_of(self, name):
        return self.jobs.get(name)

    def push(self, job, front):
        job.status = "queued"
        queue = self.queues[job.queue]
        queue.insert(0, job.name) if front else queue.append(job.name)
        self.pushed.setdefault((job.queue, bool(front)), []).append(job.name)

    def settle_order(self):
        """Ends a step. What one step put on one side of a queue has no order of its own: it gets that of creation."""
        for (queue, front), names in self.pushed.items():
            if len(names) > 1:
                ids = self.queues[queue]
                block = sorted(names, key=self.number_of)
                rest = ids[len(names):] if front else ids[:-len(names)]
                self.queues[queue] = block + rest if front else rest + block
        reordered = [key for key, names in self.pushed.items() if len(names) > 1]
        self.pushed = {}
        self.forget_empty()
        return reordered

    def forget_empty(self):
        """A set without members is gone, and its TTL with it."""
        self.mortal = {(kind, name) for kind, name in self.mortal if getattr(self, kind)[name]}

    def number_of(self, name):
        return self.jobs[name].number if name in self.jobs else -1

    def put(self, kind, job, score="kept"):
        self.registries[kind, job.queue][job.name] = score

    def take(self, kind, job):
        self.registries[kind, job.queue].pop(job.name, None)

    def expire(self, job, ttl):
        if ttl is not None and ttl > 0:
            job.expires = ttl
            self.mortal |= {(kind, job.name) for kind in ("dependents", "dependencies") if getattr(self, kind)[job.name]}

    def persist(self, job):
        job.expires = None
        self.mortal -= {("dependents", job.name), ("dependencies", job.name)}

    def defer(self, job, allow_failure):
        """Whether a new job has to wait for others."""
        if all(self.passes(parent, allow_failure) for parent in job.depends_on):
            return False
        self.forget_empty()
        for parent in job.depends_on:
            self.dependents[parent].add(job.name)
            self.dependencies[job.name].add(parent)
        job.status = "deferred"
        self.put("deferred", job, "new")
        return True

    def passes(self, name, allow_failure):
        job = self.job_of(name)
        return job is None or job.status == "finished" or job.status == "failed" and allow_failure

    def releasable(self, parent, final):
        """Children of a job that nothing holds back once it has ended as `final` (None: however)."""
        if final in ("canceled", "stopped"):
            return []
        return [child for child in (self.job_of(name) for name in sorted(self.dependents[parent]))
                if child and (final != "failed" or child.allow_failure) and
                all(other == parent or self.passes(other, child.allow_failure) for other in self.dependencies[child.name])]

    def release(self, parent, final, stock=False):
        released = [child for child in self.releasable(parent, final) if child.status == "deferred"]
        for child in released:
            self.take("deferred", child)
            self.push(child, child.front)
            self.expire(child, child.ttl)
            self.dependents[parent].discard(child.name)
            if not stock:  # RQ leaves it in the lists of its other parents.
                self.leave_dependencies(child.name)
        if not stock:  # What went on without waiting is no longer listed.
            self.dependents[parent] -= {name for name in self.dependents[parent]
                                        if name in self.jobs and self.jobs[name].status not in ("deferred", "canceled")}
        return len(released)

    def need_harmless(self, parent, final):
        """Stock RQ queues whatever is in the set, also what runs or has run, and fails on a child without dependencies."""
        need(all(child.status in ("deferred", "canceled") for child in self.releasable(parent, final)))
        need(all(self.jobs[name].depends_on for name in self.dependents[parent] if name in self.jobs))

    def forget(self, job):
        """All that RQ keeps of a job but its results."""
        del self.jobs[job.name]
        self.dependents.pop(job.name, None)
        self.dependencies.pop(job.name, None)
        self.groups[job.group].discard(job.name)

    def leave_dependencies(self, name):
        for parent in self.dependencies[name]:
            self.dependents[parent].discard(name)

    def add_result(self, job, ttl):
        self.results[job.name] = self.results[job.name] + 1 if ttl != 0 else 0

    def executions_of(self, name):
        return [execution for execution in self.executions.values() if execution.job == name]

    def held_by(self, name):
        return [execution for execution in self.executions_of(name) if execution.held]

    def fail(self, job, status, stock=False):
        ttl = YEAR if job.failure_ttl is None else job.failure_ttl
        job.status = status
        if ttl == 0:
            self.release(job.name, status, stock)
            self.forget(job)
            return
        job.ended = True
        self.put("failed", job)
        self.add_result(job, ttl)
        self.release(job.name, status, stock)
        self.expire(job, ttl)

    def run_again(self, job, wait, front):
        if wait:
            job.status = "scheduled"
            self.put("scheduled", job, "later")
        else:
            self.push(job, front)
        self.expire(job, job.ttl)

    def retry(self, job, at_once_in_front=False):
        intervals = job.retry_intervals or (0,)
        wait = 0 if at_once_in_front else intervals[max(len(intervals) - job.retries_left, 0)]
        job.retries_left -= 1
        self.run_again(job, wait, at_once_in_front or job.front_on_retry)

    def succeed(self, job, stock=False):
        ttl = 500 if job.result_ttl is None else job.result_ttl
        repeats = job.repeats_left or 0
        job.status = "finished"
        if ttl == 0 and not repeats:
            self.release(job.name, "finished", stock)
            if stock:
                self.leave_executions(job)
            self.forget(job)
            return
        job.ended = True
        if ttl:
            self.add_result(job, ttl)
            self.put("finished", job)
        self.release(job.name, "finished", stock)
        if repeats:
            intervals = job.repeat_intervals or (0,)
            job.repeats_left -= 1
            self.run_again(job, intervals[min(job.repeats_left, len(intervals) - 1)], False)
        else:
            self.expire(job, ttl)

    # ---- producers -------------------------------------------------------------------------------

    def new_job(self, name, queue, retry=None, repeat=None, depends_on=(), allow_failure=False, dependency_front=False,
                at_front=False, unique=False, **options):
        self.count += 1
        job = Job(name, self.count, queue, depends_on=tuple(depends_on), **options)
        if retry:
            job.retries_left, job.retry_intervals, job.front_on_retry = retry["max"], tuple(retry["intervals"]), retry["front"]
        if repeat:
            job.repeats_left, job.repeat_intervals = repeat["times"], tuple(repeat["intervals"])
        if depends_on:
            job.allow_failure, job.front = allow_failure, dependency_front
        return job

    def add(self, name, queue, due=None, at_front=False, unique=False, **options):
        """rqxx: one job. Returns (duplicate, status)."""
        old = self.job_of(name)
        if old:
            if unique or old.status in ("queued", "started", "scheduled", "deferred"):
                return True, old.status
            self.leave_dependencies(name)
            self.dependencies.pop(name, None)
            for kind in ("finished", "failed", "canceled"):
                self.take(kind, old)
        elif any(name in names for names in [*self.registries.values(), *self.queues.values(), *self.intermediate.values()]):
            self.excused.add(name)
        job = self.jobs[name] = self.new_job(name, queue, **options)
        if at_front and due:
            job.front = True
        if job.group:
            self.groups[job.group].add(name)
        self.place(job, due, at_front, job.allow_failure)
        return False, job.status

    def place(self, job, due, at_front, allow_failure):
        if due:
            job.status = "scheduled"
            self.put("scheduled", job, due)
        elif not self.defer(job, allow_failure):
            self.push(job, at_front)
        self.expire(job, job.ttl)

    def enqueue(self, name, **options):
        need(name not in options.get("depends_on", ()))
        return [self.add(name, **options)]

    def enqueue_many(self, queue, jobs):
        names = [job["name"] for job in jobs]
        need(len(set(names)) == len(names))
        plain = [job for job in jobs if not (job.get("named") or job.get("depends_on") or job.get("group"))]
        need(all(job["name"] not in self.jobs for job in jobs if not job.get("named")))
        by_name, order = {job["name"]: job for job in jobs if job.get("named")}, []

        def line_up(job, above=()):
            need(job["name"] not in above)
            if job in order:
                return
            for parent in job.get("depends_on", ()):
                if parent in by_name:
                    line_up(by_name[parent], (*above, job["name"]))
            order.append(job)

        for job in jobs:
            if job not in plain:
                line_up(job)
        answers = {}
        for job in plain + order:
            answers[job["name"]] = self.add(queue=queue, **{key: value for key, value in job.items() if key != "named"})
        return [answers[name] for name in names]

    def stock_enqueue(self, name, queue, due=None, at_front=False, **options):
        need(name not in self.jobs and name not in options.get("depends_on", ()))
        # Its leftovers of another life would be merged with it.
        need(not self.dependencies[name] and all(name not in ids for ids in self.queues.values()))
        need(all(name not in ids for ids in [*self.registries.values(), *self.intermediate.values()]))
        job = self.jobs[name] = self.new_job(name, queue, **options)
        if due:
            job.front = job.front or at_front
        self.place(job, due, at_front, False)  # W25: it does not look at what is allowed

    # ---- rqxx's workers --------------------------------------------------------------------------

    def register(self, worker):
        old = self.workers.get(worker)
        if old and old.alive:
            return False
        self.workers[worker] = Worker(first=old.first if old else 0, holding=old.holding if old else [])
        return True

    def retire(self, worker):
        need(worker in self.workers and self.workers[worker].alive)
        self.workers[worker].alive = False
        self.workers[worker].holding = []
        for execution in self.executions.values():
            if execution.worker == worker and execution.listed:
                self.return_orphan(execution)

    def return_orphan(self, execution):
        job = self.job_of(execution.job)
        returned = execution.held and job and job.status == "started"
        execution.listed = execution.recorded = execution.held = False
        if returned:
            self.push(job, True)
        return bool(returned)

    def pop(self, queue, skipped):
        """The next job of a queue that may run."""
        while self.queues[queue]:
            name = self.queues[queue].pop(0)
            job = self.job_of(name)
            # What is on a queue though it should wait runs, as in RQ.
            if job and job.status in ("queued", "scheduled", "deferred"):
                return job
            skipped.append(name)
        return None

    def start(self, job, worker, stock=False):
        name = f"e{len(self.executions) + 1}"
        self.executions[name] = Execution(job.name, job.queue, worker, stock=stock, listed=not stock)
        job.status = "started"
        self.runs[job.name] += 1
        if job.expires is not None and not stock:
            self.persist(job)
        job.expires = None
        return name

    def claim(self, worker, limit):
        """Returns (state, {job: execution}, names left out)."""
        need(worker in self.workers)
        me = self.workers[worker]
        if self.suspended:
            return "suspended", {}, []
        if not me.alive:
            return "lease_gone", {}, []
        queues, strategy = WORKERS[worker]
        if strategy == "random":
            limit = 50  # else what is taken is anybody's guess
        if strategy == "round-robin":
            queues = queues[me.first:] + queues[:me.first]
        claimed, skipped = {}, []
        while queues and len(claimed) < limit:
            more = []
            for queue in queues:
                while len(claimed) < limit:
                    job = self.pop(queue, skipped)
                    if not job:
                        break
                    claimed[job.name] = self.start(job, worker)
                    if strategy != "default":
                        more.append(queue)
                        break
            queues = more
        me.holding += claimed.values()
        listed = WORKERS[worker][0]
        last = self.jobs[list(claimed)[-1]].queue if claimed else None
        if last in listed:  # An id may have strayed onto a queue that is not its job's.
            me.first = (listed.index(last) + 1) % len(listed)
        return "ok", claimed, sorted(skipped)

    def settle(self, worker, ended, repeated=False):
        """`ended`: (execution, outcome, most retries, wait). `repeated`: as after a reply that was lost."""
        need(worker in self.workers and all(execution in self.workers[worker].holding for execution, *_ in ended))
        need(len({execution for execution, *_ in ended}) == len(ended) > 0)
        answers = [self.settle_one(worker, *one) for one in ended]
        return answers + [self.refusal(name) for name, *_ in ended] if repeated else answers

    def refusal(self, execution):
        """What a worker is told that no longer holds an execution."""
        job = self.jobs.get(self.executions[execution].job)
        return "deleted" if job is None else "canceled" if job.status == "canceled" else "refused"

    def settle_one(self, worker, name, outcome, most=0, wait=0):
        me, execution = self.workers[worker], self.executions[name]
        me.holding.remove(name)
        held = execution.held
        execution.held = execution.recorded = execution.listed = False
        if not held:
            return self.refusal(name)
        job = self.jobs[execution.job]
        queue = job.queue
        if outcome == "success":
            me.succeeded += 1
            self.totals["finished|" + queue] += 1
            self.succeed(job)
            return "finished"
        if outcome == "returned":
            self.push(job, True)
            return "returned"
        me.failed += 1
        if outcome == "retry" and not (job.asked and job.asked >= most):
            job.asked += 1
            job.ended = True
            self.add_result(job, job.failure_ttl)
            answer = "retried"
            self.run_again(job, wait, False)
        elif outcome == "failure" and (job.retries_left or 0) > 0:
            job.ended = True
            answer = "retried"
            self.retry(job)
        else:
            answer = "stopped" if outcome == "stopped" else "failed"
            self.fail(job, answer)
        self.totals[f"{answer}|{queue}"] += 1
        return answer

    def heartbeat(self, worker, forgotten=(), aged=False):
        """The worker does not know of `forgotten`; `aged`: nor did it for a while. Returns (lease, notices, orphans)."""
        need(worker in self.workers)
        me = self.workers[worker]
        need(all(name in me.holding for name in forgotten))
        me.holding = [name for name in me.holding if name not in forgotten]
        if not me.alive:
            return False, {}, 0
        me.lapsed = False
        for execution in self.executions.values():
            execution.aged = execution.aged or aged and execution.worker == worker and execution.recorded
        notices = {}
        for name in me.holding:
            execution = self.executions[name]
            if not execution.held:
                job = self.job_of(execution.job)
                notices[name] = bool(job) and job.status == "canceled"
        listed = [name for name, execution in self.executions.items() if execution.worker == worker and execution.listed]
        orphans = 0
        if len(listed) > len(me.holding):
            for name in listed:
                if name not in me.holding and (self.executions[name].aged or not self.executions[name].recorded):
                    orphans += self.return_orphan(self.executions[name])
        return True, notices, orphans

    def kill(self, worker):
        """Not heard of any more. It may only have been paused."""
        need(worker in self.workers and self.workers[worker].alive)
        self.workers[worker].lapsed = True

    def someone_is_dead(self):
        return any(worker.alive and worker.lapsed for worker in self.workers.values()) or any(
            execution.held and execution.lapsed for execution in self.executions.values())

    def recover(self, policy="requeue"):
        """Returns {(job, what)}."""
        report = []
        for name, worker in self.workers.items():
            if worker.alive and worker.lapsed:
                worker.alive = worker.lapsed = False
                report += [self.recover_one(one, policy) for one in self.executions.values() if one.worker == name and one.listed]
        report += [self.recover_one(one, policy) for one in self.executions.values() if one.held and one.lapsed]
        return sorted(row for row in report if row)

    def recover_one(self, execution, policy):
        job = self.job_of(execution.job)
        held = execution.held
        if not job:
            execution.listed = False
            return None
        execution.held = execution.recorded = execution.listed = False
        if not held or job.status != "started" or self.held_by(job.name):
            return job.name, "stale"
        self.totals["recovered|" + job.queue] += 1
        if (job.retries_left or 0) > 0:
            job.ended = True
            self.retry(job, at_once_in_front=True)
            return job.name, "retried"
        if policy == "requeue" and job.recoveries < 1:
            job.recoveries += 1
            self.push(job, True)
            return job.name, "requeued"
        self.totals["failed|" + job.queue] += 1
        self.fail(job, "failed")
        return job.name, "failed"

    # ---- actions ---------------------------------------------------------------------------------

    def descendants(self, name):
        found = [name]
        for parent in found:
            found += [child for child in sorted(self.dependents[parent])
                      if child not in found and child in self.jobs and self.jobs[child].status == "deferred"]
        return found[1:]

    def deferred_children(self, name):
        return sum(child in self.jobs and self.jobs[child].status == "deferred" for child in self.dependents[name])

    def leave_executions(self, job):
        for execution in self.executions_of(job.name):
            execution.held = execution.recorded = False

    def leave_places(self, job):
        if job.status == "queued" and job.name in self.queues[job.queue]:
            self.queues[job.queue].remove(job.name)
        self.intermediate[job.queue].pop(job.name, None)
        for kind in REGISTRIES:
            self.take(kind, job)
        self.leave_executions(job)

    def cancel(self, name, dependents="leave", forget=False):
        """Returns (code, how many dependents are concerned)."""
        job = self.job_of(name)
        if not job:
            return "no such job", 0
        if job.status == "canceled":
            return "refused", 0
        concerned = self.descendants(name) if dependents == "cascade" else []
        count = len(concerned) if dependents == "cascade" else self.deferred_children(name)
        for one in [job] + [self.jobs[child] for child in concerned]:
            self.leave_places(one)
            one.status = "canceled"
            self.put("canceled", one)
            if forget:
                self.leave_dependencies(one.name)
        if dependents == "enqueue":
            count = self.release(name, None)
        return "done", count

    def delete(self, name, dependents="leave"):
        job = self.job_of(name)
        if not job:
            return "no such job", 0
        concerned = self.descendants(name) if dependents == "cascade" else []
        count = len(concerned) if dependents == "cascade" else self.deferred_children(name)
        if dependents == "enqueue":
            count = self.release(name, None)
        for one in [self.jobs[child] for child in concerned] + [job]:
            self.leave_dependencies(one.name)
            self.leave_places(one)
            self.results.pop(one.name, None)
            self.forget(one)
        return "done", count

    def requeue(self, name, at_front=False):
        job = self.job_of(name)
        if not job:
            return "no such job", 0
        if job.status not in ("failed", "stopped", "canceled"):
            return "refused", 0
        self.take("canceled" if job.status == "canceled" else "failed", job)
        job.ended, job.recoveries = False, 0
        self.persist(job)
        self.expire(job, job.ttl)
        self.push(job, at_front)
        return "done", 0

    def compact(self, queue):
        """Returns how many names without a job there were."""
        before = len(self.queues[queue])
        self.queues[queue] = [name for name in self.queues[queue] if name in self.jobs]
        return before - len(self.queues[queue])

    def suspend(self):
        need(not self.suspended)
        self.suspended = True

    def resume(self):
        need(self.suspended)
        self.suspended = False

    # ---- time ------------------------------------------------------------------------------------

    def pass_due_time(self, name, queue, by="now"):
        """The time of a scheduled job has come; `by` "long": a minute ago."""
        need(name in self.registries["scheduled", queue])
        self.registries["scheduled", queue][name] = by

    def pass_lifetime(self, name):
        """The hash of a job has expired, and what expires with it."""
        job = self.job_of(name)
        need(job and job.expires is not None)
        for kind in ("dependents", "dependencies"):
            if (kind, name) in self.mortal:
                getattr(self, kind).pop(name, None)
        del self.jobs[name]
        for kind in ("finished", "failed"):
            if name in self.registries[kind, job.queue]:
                self.put(kind, job, "expired")

    def leave_behind(self, name, where):
        """An entry of a job somewhere it should not be, as crashes of stock RQ and names used again leave it."""
        job = self.job_of(name)
        need(job and job.status != where and name not in self.registries.get((where, job.queue), ()))
        self.excused.add(name)
        if where == "queue":
            self.queues[job.queue].append(name)
        else:
            self.put(where, job, "now" if where == "scheduled" else "new")

    def pass_a_minute(self):
        """For what waits to be looked at by maintenance."""
        for (kind, _), entries in self.registries.items():
            if kind == "deferred":
                entries.update((name, "old") for name in entries)

    # ---- schedulers and janitors -----------------------------------------------------------------

    def promote(self, scheduler):
        """Returns {queue: (promoted, kept, dropped)} of the queues whose lock it holds."""
        self.dead_schedulers.discard(scheduler)
        rows = {}
        for queue in QUEUES:
            owner = self.locks.get(queue)
            if owner not in (None, scheduler) and owner not in self.dead_schedulers:
                continue
            self.locks[queue] = scheduler
            promoted = kept = dropped = 0
            for name, score in list(self.registries["scheduled", queue].items()):
                job = self.job_of(name)
                if score == "later":
                    continue
                if score == "now" and (not job or job.status == "started"):
                    kept += 1
                    continue
                del self.registries["scheduled", queue][name]
                if job and job.status == "scheduled":
                    self.push(job, job.front or job.front_on_retry and job.ended)
                    self.expire(job, job.ttl)
                    promoted += 1
                else:
                    dropped += 1
            rows[queue] = promoted, kept, dropped
        return rows

    def kill_scheduler(self, scheduler):
        need(scheduler in self.locks.values() and scheduler not in self.dead_schedulers)
        if scheduler == STOCK_SCHEDULER:  # Its locks last for a minute.
            self.locks = {queue: owner for queue, owner in self.locks.items() if owner != scheduler}
        else:
            self.dead_schedulers.add(scheduler)

    def stock_schedule(self, stays=False):
        """A pass of a stock scheduler; `stays`: it keeps its locks."""
        need(all(self.jobs[name].status == "scheduled" for (kind, _), entries in self.registries.items() if kind == "scheduled"
                 for name in entries if name in self.jobs))
        for queue in QUEUES:
            if self.locks.setdefault(queue, STOCK_SCHEDULER) != STOCK_SCHEDULER:
                continue
            for name, score in list(self.registries["scheduled", queue].items()):
                if score == "later":
                    continue
                del self.registries["scheduled", queue][name]
                job = self.job_of(name)
                if job:  # whatever its status
                    self.push(job, job.front or job.front_on_retry and job.ended)
                    self.expire(job, job.ttl)
            if not stays:
                del self.locks[queue]

    def maintain(self, queue):
        """Returns {what: how many}."""
        counts = Counter()
        for kind in ("finished", "failed"):
            entries = self.registries[kind, queue]
            for name in [name for name, score in entries.items() if score == "expired"]:
                del entries[name]
                counts["expired"] += 1
        for name, seen in list(self.intermediate[queue].items()):
            job = self.job_of(name)
            if not job or job.status != "queued":
                del self.intermediate[queue][name]
                counts["dropped"] += 1
            elif seen:
                del self.intermediate[queue][name]
                self.push(job, True)
                counts["requeued"] += 1
            else:
                self.intermediate[queue][name] += 1
        for name, score in list(self.registries["deferred", queue].items()):
            job = self.job_of(name)
            if not job or score == "old" and job.status != "deferred":
                del self.registries["deferred", queue][name]
                counts["dropped"] += 1
            elif score == "old" and self.nothing_in_the_way_of(job):
                self.take("deferred", job)
                self.push(job, job.front)
                self.expire(job, job.ttl)
                for parent in job.depends_on:
                    self.dependents[parent].discard(name)
                counts["released"] += 1
        for name in list(self.registries["canceled", queue]):
            if name not in self.jobs:
                del self.registries["canceled", queue][name]
                counts["dropped"] += 1
        return dict(counts)

    def nothing_in_the_way_of(self, job):
        """Of a parent that is gone, nobody knows how it ended."""
        return bool(job.depends_on) and all(
            parent in self.jobs and self.passes(parent, job.allow_failure) for parent in job.depends_on)

    def maintain_groups(self):
        for members in self.groups.values():
            members.intersection_update(self.jobs)

    # ---- stock RQ --------------------------------------------------------------------------------

    def stock_pop(self, queues):
        """The next job for a stock worker, which starts whatever it finds."""
        for queue in queues:
            while self.queues[queue]:
                name = self.queues[queue][0]
                job = self.job_of(name)
                need(not job or job.status == "queued")
                del self.queues[queue][0]
                if job:
                    return job
                if len(queues) == 1:
                    self.intermediate[queue][name] = 0
        return None

    def need_stock_can_pop(self, queues):
        """No list may hold what a stock worker would run though it should not; looked at before anything changes."""
        for queue in queues:
            for name in self.queues[queue]:
                job = self.job_of(name)
                need(not job or job.status == "queued" and job.queue == queue)
                need(self.queues[queue].count(name) == 1 and name not in self.intermediate[queue])

    def stock_start(self, worker):
        """Returns the job, or None."""
        need(not self.suspended and not self.stock_workers[worker].holding)
        self.need_stock_can_pop(STOCK_WORKERS[worker])
        job = self.stock_pop(STOCK_WORKERS[worker])
        if not job:
            return None
        self.stock_workers[worker].holding = [self.start(job, worker, stock=True)]
        return job.name

    def stock_pop_and_die(self, worker):
        """Killed between the pop and the start. Only a worker with one queue leaves a trace."""
        need(not self.suspended and len(STOCK_WORKERS[worker]) == 1 and not self.stock_workers[worker].holding)
        self.need_stock_can_pop(STOCK_WORKERS[worker])
        job = self.stock_pop(STOCK_WORKERS[worker])
        if job:
            self.intermediate[job.queue][job.name] = 0

    def stock_end(self, worker, outcome, most=0, wait=0):
        """It would write whatever has happened to the job meanwhile."""
        me = self.stock_workers[worker]
        need(me.holding)
        execution = self.executions[me.holding[0]]
        job = self.job_of(execution.job)
        need(execution.held and job and job.status == "started")
        if outcome == "success":
            self.need_harmless(job.name, "finished")
        retries = outcome == "failure" and (job.retries_left or 0) > 0
        asks = outcome == "retry" and not (job.asked and job.asked >= most)
        if not (outcome == "success" or retries or asks):
            self.need_harmless(job.name, "failed")
            need(job.failure_ttl != 0)
        me.holding = []
        execution.held = execution.recorded = False
        if outcome == "success":
            me.succeeded += 1
            self.succeed(job, stock=True)
            return
        me.failed += 1
        job.ended = True
        if asks:
            job.asked += 1
            self.add_result(job, job.failure_ttl)
            self.run_again(job, wait, False)
        elif retries:
            self.retry(job)
        else:
            self.fail(job, "failed", stock=True)

    def stock_die(self, worker):
        me = self.stock_workers[worker]
        need(me.holding)
        self.executions[me.holding.pop()].lapsed = True

    def stock_clean(self, queue):
        """What a stock worker's maintenance makes of a queue. It does not know of leases."""
        lapsed = [one for one in self.executions.values() if one.held and one.lapsed and self.jobs[one.job].queue == queue]
        need(not self.intermediate[queue])
        for execution in lapsed:
            job = self.jobs[execution.job]
            need(job.status == "started" and job.failure_ttl != 0)
            self.need_harmless(job.name, "failed")
        # It would release children of one before it has failed another.
        need(len(lapsed) < 2)
        for execution in lapsed:
            job = self.jobs[execution.job]
            execution.held = False
            if (job.retries_left or 0) > 0:
                self.retry(job)
            else:
                ended = job.ended
                self.fail(job, "failed", stock=True)
                job.ended = ended
        for kind in ("finished", "failed"):
            entries = self.registries[kind, queue]
            for name in [name for name, score in entries.items() if score == "expired"]:
                del entries[name]

    def stock_leave(self, job, with_list=True):
        """It takes a job out of its list and of the one registry that the status names."""
        if with_list and job.name in self.queues[job.queue]:
            self.queues[job.queue].remove(job.name)
        if job.status == "started":
            for execution in self.held_by(job.name):
                execution.held = False
        elif job.status != "queued":
            self.take("failed" if job.status == "stopped" else job.status, job)

    def stock_cancel(self, name, enqueue_dependents=False, forget=False):
        job = self.job_of(name)
        need(job and job.status != "canceled" and name not in self.intermediate[job.queue])
        if enqueue_dependents:
            need(self.queues[job.queue].count(name) < 2)  # W21: it does all of this twice
            self.need_harmless(name, None)
            self.release(name, None, stock=True)
        if forget:
            for parent in job.depends_on:
                if parent in self.jobs:
                    self.dependents[parent].discard(name)
        self.stock_leave(job)
        job.status = "canceled"
        self.put("canceled", job)

    def stock_delete(self, name, delete_dependents=False):
        job = self.job_of(name)
        need(job and name not in self.intermediate[job.queue])
        children = [self.jobs[child] for child in sorted(self.dependents[name]) if child in self.jobs]
        if delete_dependents:
            need(all(child.status in ("deferred", "canceled") for child in children))
        for one in [job] + (children if delete_dependents else []):
            self.stock_leave(one, with_list=one is job)
            self.leave_executions(one)
            self.forget(one)

    def stock_requeue(self, name, at_front=False):
        job = self.job_of(name)
        need(job and job.status in ("failed", "stopped", "canceled") and name not in self.intermediate[job.queue])
        self.take("canceled" if job.status == "canceled" else "failed", job)
        job.ended = False
        self.push(job, at_front)
        self.expire(job, job.ttl)

    # ---- what should stand in Redis --------------------------------------------------------------

    def keys(self):
        keys = {}
        for name, job in self.jobs.items():
            keys["job " + name] = {"status": job.status, "queue": job.queue, "retries_left": job.retries_left,
                                   "repeats_left": job.repeats_left, "asked": job.asked or None, "ended": job.ended,
                                   "expires": job.expires}
        for queue in QUEUES:
            keys["queue " + queue] = self.queues[queue]
            keys["intermediate " + queue] = sorted(self.intermediate[queue])
        for (kind, queue), entries in self.registries.items():
            keys[f"{kind} {queue}"] = sorted(entries)
        started = defaultdict(list)
        for name, one in self.executions.items():
            if one.held:
                started[one.queue].append(f"{one.job}:{name}")
            if one.recorded:
                keys.setdefault("executions of " + one.job, []).append(name)
                keys[f"execution {one.job}:{name}"] = True
            if one.listed:
                keys.setdefault("run by " + one.worker, []).append(f"{one.job}:{name}")
        for queue in QUEUES:
            keys["started " + queue] = started[queue]
        for kind in ("dependents", "dependencies"):
            for name, members in getattr(self, kind).items():
                if members:
                    keys[f"{kind} of {name}"] = sorted(members) + (["(mortal)"] if (kind, name) in self.mortal else [])
        keys |= {"results of " + name: count for name, count in self.results.items() if count}
        keys |= {"group " + name: sorted(members) for name, members in self.groups.items() if name and members}
        keys |= {"worker " + name: (one.alive, one.succeeded, one.failed) for name, one in self.workers.items()}
        keys |= {"worker " + name: (True, one.succeeded, one.failed) for name, one in self.stock_workers.items()
                 if one.succeeded or one.failed}
        keys["totals"] = {name: count for name, count in self.totals.items() if count}
        return {key: sorted(value) if isinstance(value, list) and not key.startswith("queue ") else value
                for key, value in keys.items()}
