"""The model check: random sequences of all operations, by rqxx and stock RQ in turn, against a small model.

Each run is made of a seed: some steps are drawn and carried out one after the other, then everything is drained. Answers
and all that stands in Redis must be what the model (tests/support/model.py) says, and some rules must hold that do not
come from it (`broken_rules`).

    RQXX_MODEL_SEED=123 pytest tests/interop/test_model.py      one run, compared after each step
    RQXX_MODEL_FIRST_SEED=5000 pytest ...                       other runs than those from seed 1 on
    RQXX_FULL=1                                                 ten times as many

A failure prints its seed, and the shortest sequence of steps found that still fails.
"""

import json
import os
import random
import time

import pytest

pytest.importorskip("rq.webhook", reason="needs RQ 2.10; Debian's package is older")

from conftest import needs_rq2
from model import QUEUES, STOCK_SCHEDULER, STOCK_WORKERS, WORKERS, Impossible, Model
from model_world import World

pytestmark = needs_rq2

GROUPS = 20
RUNS_PER_GROUP = 1000 if os.environ.get("RQXX_FULL") else 100
#: The same runs each time, unless others are asked for.
FIRST_SEED = int(os.environ.get("RQXX_MODEL_FIRST_SEED", 1))


class Difference(AssertionError):
    pass


# ---- drawing steps -------------------------------------------------------------------------------


class Draw:
    """Draws steps that are likely to be possible."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        #: Stock RQ's steps are slow: not in all runs, and not as often.
        self.with_stock = self.random.random() < 0.5
        self.fresh = 0
        # Some kinds of steps more often than others, differently in each run.
        self.weights = {op: weight * self.random.choice((0.3, 1, 1, 2)) for op, weight in OPS.items()
                        if self.with_stock or not op.startswith("stock")}

    def chance(self, share):
        return self.random.random() < share

    def next(self, model):
        while True:
            op = self.random.choices(list(self.weights), list(self.weights.values()))[0]
            args = getattr(self, op)(model)
            if isinstance(args, dict):
                return op, args

    def some_job(self, model, *statuses):
        names = [name for name, job in model.jobs.items() if not statuses or job.status in statuses]
        return self.random.choice(names) if names else None

    def new_name(self, named=True):
        self.fresh += 1
        return f"{'j' if named else 'u'}{self.fresh}"

    def parents(self, model):
        names = list(model.jobs)[-6:]
        if self.chance(0.15):
            names.append(f"j{self.fresh + 2}")  # that may come later
        return self.random.sample(names, min(len(names), self.random.choice((1, 1, 2, 3))))

    def job_options(self, model, dependencies=True):
        options = {}
        if self.chance(0.3):
            options["retry"] = {"max": self.random.choice((1, 2, 3)), "intervals": self.random.choice(([0], [60], [60, 0], [5, 60])),
                                "front": self.chance(0.3)}
        if self.chance(0.15):
            options["repeat"] = {"times": self.random.choice((1, 2)), "intervals": self.random.choice(([0], [60], [0, 60]))}
        if dependencies and model.jobs and self.chance(0.45):
            options |= {"depends_on": self.parents(model), "allow_failure": self.chance(0.4), "dependency_front": self.chance(0.2)}
        if self.chance(0.2):
            options["at_front"] = True
        if self.chance(0.25):
            options["ttl"] = 3000
        if self.chance(0.4):
            options["result_ttl"] = self.random.choice((0, -1, 700))
        if self.chance(0.3):
            options["failure_ttl"] = self.random.choice((0, -1, 800))
        return options

    def due(self):
        return {"due": self.random.choice(("now", "later"))} if self.chance(0.2) else {}

    def enqueue(self, model):
        due = self.due()
        options = self.job_options(model, dependencies=not due) | due
        if self.chance(0.2):
            options["group"] = self.random.choice(("g1", "g2"))
        if self.chance(0.15):
            options["unique"] = True
        name = self.some_job(model) if self.chance(0.2) else None
        return {"name": name or self.new_name(), "queue": self.random.choice(QUEUES), **options}

    def enqueue_many(self, model):
        jobs = []
        for _ in range(self.random.choice((2, 3, 4))):
            named = self.chance(0.7)
            job = {"name": self.new_name(named), **self.job_options(model, dependencies=named), **({"named": True} if named else {})}
            before = [one["name"] for one in jobs if one.get("named")]
            if before and named and self.chance(0.6):
                job["depends_on"] = sorted({*job.get("depends_on", ()), self.random.choice(before)})
            if self.chance(0.2):
                job["group"] = "g1"
            jobs.append(job)
        self.random.shuffle(jobs)
        return {"queue": self.random.choice(QUEUES), "jobs": jobs}

    def stock_enqueue(self, model):
        due = self.due()
        return {"name": self.new_name(), "queue": self.random.choice(QUEUES), **self.job_options(model, not due), **due}

    def register(self, model):
        worker = self.random.choice(list(WORKERS))
        return {"worker": worker} if worker not in model.workers or not model.workers[worker].alive or self.chance(0.1) else None

    def worker(self, model, holding=False):
        names = [name for name, worker in model.workers.items()
                 if (worker.holding or not holding) and (worker.alive or worker.holding or self.chance(0.1))]
        return {"worker": self.random.choice(names)} if names else None

    def retire(self, model):
        return self.worker(model)

    def kill(self, model):
        return self.worker(model)

    def some_work(self, model):
        return any(model.queues.values()) or self.chance(0.2)

    def claim(self, model):
        if not self.some_work(model):
            return None
        return (worker := self.worker(model)) and worker | {"limit": self.random.choice((1, 1, 2, 3, 8))}

    def outcome(self):
        outcome = self.random.choice(("success",) * 4 + ("failure",) * 3 + ("terminal_failure", "returned", "stopped", "retry"))
        return [outcome, self.random.choice((1, 2)), self.random.choice((0, 60))] if outcome == "retry" else [outcome]

    def settle(self, model):
        worker = self.worker(model, holding=True)
        if not worker:
            return None
        holding = model.workers[worker["worker"]].holding
        some = self.random.sample(holding, min(len(holding), self.random.choice((1, 1, 2, 5))))
        return worker | {"ended": [[name, *self.outcome()] for name in some]} | ({"repeated": True} if self.chance(0.2) else {})

    def heartbeat(self, model):
        worker = self.worker(model)
        if not worker:
            return None
        holding = model.workers[worker["worker"]].holding
        forgotten = {"forgotten": [self.random.choice(holding)]} if holding and self.chance(0.3) else {}
        return worker | forgotten | ({"aged": True} if self.chance(0.5) else {})

    def recover(self, model):
        if not model.someone_is_dead() and self.chance(0.9):
            return None
        return {"policy": "fail"} if self.chance(0.2) else {}

    def dependents(self):
        return {"dependents": self.random.choice(("leave", "enqueue", "cascade"))} if self.chance(0.6) else {}

    def cancel(self, model):
        name = self.some_job(model)
        return name and {"name": name, **self.dependents(), **({"forget": True} if self.chance(0.3) else {})}

    def delete(self, model):
        name = self.some_job(model)
        return name and {"name": name, **self.dependents()}

    def requeue(self, model):
        name = self.some_job(model, "failed", "stopped", "canceled") if self.chance(0.8) else self.some_job(model)
        return name and {"name": name, **({"at_front": True} if self.chance(0.3) else {})}

    def nothing(self, model):
        return {}

    suspend = pass_a_minute = maintain_groups = nothing

    def resume(self, model):
        return {} if model.suspended else None

    def pass_due_time(self, model):
        entries = [(name, queue) for (kind, queue), names in model.registries.items() if kind == "scheduled" for name in names]
        if not entries:
            return None
        name, queue = self.random.choice(entries)
        return {"name": name, "queue": queue, **({"by": "long"} if self.chance(0.3) else {})}

    def pass_lifetime(self, model):
        names = [name for name, job in model.jobs.items() if job.expires is not None]
        return {"name": self.random.choice(names)} if names else None

    def leave_behind(self, model):
        name = self.some_job(model)
        return name and {"name": name, "where": self.random.choice(("queue", "scheduled", "deferred"))}

    def something_due(self, model):
        return any(score != "later" for (kind, _), entries in model.registries.items() if kind == "scheduled"
                   for score in entries.values()) or self.chance(0.1)

    def promote(self, model):
        return self.something_due(model) and {"scheduler": self.random.choice(("a", "b"))}

    def kill_scheduler(self, model):
        return {"scheduler": self.random.choice(("a", "b", STOCK_SCHEDULER))}

    def maintain(self, model):
        return {"queue": self.random.choice(QUEUES)}

    stock_clean = compact = maintain

    def stock_schedule(self, model):
        if not self.something_due(model):
            return None
        return {"stays": True} if self.chance(0.3) else {}

    def stock_start(self, model):
        return {"worker": self.random.choice(list(STOCK_WORKERS))} if self.some_work(model) else None

    stock_pop_and_die = stock_start

    def stock_die(self, model):
        names = [name for name, worker in model.stock_workers.items() if worker.holding]
        return {"worker": self.random.choice(names)} if names else None

    def stock_end(self, model):
        outcome = self.outcome()
        if outcome[0] in ("terminal_failure", "returned", "stopped"):
            outcome = ["failure"]
        worker = self.stock_die(model)
        return worker and worker | dict(zip(("outcome", "most", "wait"), outcome))

    def stock_cancel(self, model):
        name = self.some_job(model)
        return name and {"name": name, "enqueue_dependents": self.chance(0.4), "forget": self.chance(0.3)}

    def stock_delete(self, model):
        name = self.some_job(model)
        return name and {"name": name, "delete_dependents": self.chance(0.3)}

    stock_requeue = requeue


#: How often each kind of step is drawn.
OPS = {"enqueue": 6, "enqueue_many": 1.5, "register": 5, "retire": 0.4, "claim": 14, "settle": 14, "heartbeat": 2.5,
       "kill": 1.5, "recover": 8, "cancel": 2.5, "delete": 1.2, "requeue": 4, "compact": 0.3, "suspend": 0.3, "resume": 5,
       "pass_due_time": 4, "pass_lifetime": 1, "pass_a_minute": 0.7, "leave_behind": 0.4,
       "promote": 8, "kill_scheduler": 1, "maintain": 1.5, "maintain_groups": 0.2,
       "stock_enqueue": 4, "stock_start": 10, "stock_end": 14, "stock_die": 2, "stock_pop_and_die": 1.5, "stock_schedule": 4,
       "stock_clean": 1, "stock_cancel": 2.5, "stock_delete": 1, "stock_requeue": 2}


# ---- carrying them out ---------------------------------------------------------------------------


class Run:
    """One sequence of steps; `careful`: compared after each."""

    def __init__(self, driver, connection, careful=False):
        self.model = Model()
        self.world = World(driver, connection, self.model)
        self.careful = careful
        self.steps = []

    def take(self, op, args):
        """Whether the step was possible."""
        try:
            expected = getattr(self.model, op)(**args)
        except Impossible:
            return False
        self.steps.append((op, args))
        try:
            answer = self.world.carry_out(op, args)
        except Exception as error:
            raise Difference(f"{call(op, args)}: {type(error).__name__}: {error}") from error
        if op == "promote":
            expected = {queue: counts for queue, counts in expected.items() if any(counts)}
        if answer != expected:
            raise Difference(f"{call(op, args)}: {answer}, not {expected}")
        if self.careful:
            self.compare()
        return True

    def compare(self):
        dump = self.world.read()
        there, expected = self.world.keys(dump), self.model.keys()
        different = [f"{key}: {there.get(key)}, not {expected.get(key)}" for key in sorted({*there, *expected})
                     if there.get(key) != expected.get(key)]
        different += broken_rules(there, self.model)
        if different:
            raise Difference(f"after {call(*self.steps[-1]) if self.steps else 'nothing'}:\n  " + "\n  ".join(different))

    def drain(self):
        """Everything that can run runs."""
        model = self.model
        self.take("resume", {})
        for _ in range(100):
            for name in STOCK_WORKERS:
                self.take("stock_end", {"worker": name, "outcome": "success"}) or self.take("stock_die", {"worker": name})
            for name, worker in model.workers.items():
                if worker.holding:
                    self.take("settle", {"worker": name, "ended": [[execution, "success"] for execution in worker.holding]})
                if any(one.worker == name and one.listed for one in model.executions.values()):
                    self.take("heartbeat", {"worker": name, "aged": True})
            if model.someone_is_dead():
                self.take("recover", {})
            for scheduler in sorted({*model.locks.values()} - {"a"}):
                self.take("kill_scheduler", {"scheduler": scheduler})
            for queue in QUEUES:
                for name in list(model.registries["scheduled", queue]):
                    self.take("pass_due_time", {"name": name, "queue": queue, "by": "long"})
            if any(model.registries["scheduled", queue] for queue in QUEUES):
                self.take("promote", {"scheduler": "a"})
            if not self.busy():
                self.take("pass_a_minute", {})
                for queue in QUEUES:
                    self.take("maintain", {"queue": queue})
                    if model.intermediate[queue]:
                        self.take("maintain", {"queue": queue})
                if not self.busy():
                    break
            if "strict" not in model.workers or not model.workers["strict"].alive:
                self.take("register", {"worker": "strict"})
            self.take("claim", {"worker": "strict", "limit": 20})
        self.compare()
        left = left_over(self.world.read())
        left += [f"{name} ran {self.world.runs[name]} times, not {runs}" for name, runs in model.runs.items()
                 if self.world.runs[name] != runs]
        if left:
            raise Difference("after all has been drained: " + ", ".join(left))

    def busy(self):
        return (any(self.model.queues.values()) or any(worker.holding for worker in self.model.workers.values())
                or any(execution.held for execution in self.model.executions.values())
                or any(self.model.registries["scheduled", queue] for queue in QUEUES))


def left_over(dump):
    """What a drain should not leave, whatever the model says."""
    jobs = {key.removeprefix("rq:job:"): value for key, _, value in dump if key.startswith("rq:job:") and key.count(":") == 2}
    left = [f"{name} is {status}" for name, (status, *_) in jobs.items() if status in ("queued", "started", "scheduled")]
    for name, (status, *_, parents, allowed) in jobs.items():
        passing = ("finished", "failed") if allowed == "1" else ("finished",)
        # Of a parent that is gone, nobody knows how it ended.
        if status == "deferred" and all(parent in jobs and jobs[parent][0] in passing for parent in json.loads(parents)):
            left.append(f"{name} waits for nothing")
    return left


def call(op, args):
    return f"{op}({', '.join(f'{name}={value!r}' for name, value in args.items())})"


def broken_rules(there, model):
    """What must hold whatever the model says; `there`: what stands in Redis."""
    jobs = {key.removeprefix("job "): value for key, value in there.items() if key.startswith("job ")}
    broken = []
    places = {name: [] for name in jobs}
    for key, members in there.items():
        kind, _, _ = key.partition(" ")
        if kind in ("queue", "started", "finished", "failed", "deferred", "scheduled", "canceled"):
            for member in members:
                name = member.partition(":")[0]
                if name in places:
                    places[name].append(kind)
                elif kind == "started":
                    broken.append(f"{member} is started, and there is no such job")
    home = {"queued": "queue", "stopped": "failed"}
    for name, job in jobs.items():
        right = home.get(job["status"], job["status"])
        # One that repeats keeps the entry of its last result.
        others = [place for place in set(places[name]) if place not in (right, "finished")]
        in_intermediate = any(name in there["intermediate " + queue] for queue in QUEUES)
        if right not in places[name] and not in_intermediate and name not in model.excused:
            broken.append(f"{name} is {job['status']} and stands in {places[name] or 'no place'}")
        elif others and name not in model.excused:
            broken.append(f"{name} is {job['status']} and stands in {places[name]}")
    return broken


def run_seed(seed, driver, connection, careful=False):
    run = Run(driver, connection, careful)
    try:
        draw = Draw(seed)
        for _ in range(draw.random.randint(25, 60)):
            run.take(*draw.next(run.model))
        run.compare()
        run.drain()
    except Difference as difference:
        return run.steps, difference
    return run.steps, None


def replay(steps, driver, connection):
    """The difference that these steps lead to, where they are possible."""
    run = Run(driver, connection, careful=True)
    try:
        for op, args in steps:
            run.take(op, args)
        run.drain()
    except Difference as difference:
        return run.steps, difference
    except Exception:  # Steps that belong together were torn apart.
        return None, None
    return None, None


def shrink(steps, driver, connection, seconds=20):
    """Fewer steps that still fail."""
    deadline = time.monotonic() + seconds
    best, difference = replay(steps, driver, connection)
    if not best:
        return steps, None
    size = max(len(best) // 2, 1)
    while size and time.monotonic() < deadline:
        at = 0
        while at < len(best) and time.monotonic() < deadline:
            shorter, found = replay(best[:at] + best[at + size:], driver, connection)
            if shorter and len(shorter) < len(best):
                best, difference = shorter, found
            else:
                at += size
        size //= 2
    return best, difference


def report(seed, steps, difference, driver, connection):
    shorter, found = shrink(json.loads(json.dumps(steps)), driver, connection)
    lines = [f"RQXX_MODEL_SEED={seed}: {difference}", "", f"{len(shorter)} of its {len(steps)} steps:"]
    lines += [f"  {call(op, args)}" for op, args in shorter]
    lines += ["", f"which end with: {found}" if found else "which do not fail when they are repeated"]
    pytest.fail("\n".join(lines), pytrace=False)


def check(seeds, system, careful=False):
    server = system.redis()
    driver = system.driver()
    for seed in seeds:
        steps, difference = run_seed(seed, driver, server.client, careful)
        if difference:
            report(seed, steps, difference, driver, server.client)


def groups():
    """First and last seeds."""
    if "RQXX_MODEL_SEED" in os.environ:
        return [os.environ["RQXX_MODEL_SEED"]]
    starts = [FIRST_SEED + group * RUNS_PER_GROUP for group in range(GROUPS)]
    return [f"{start}-{start + RUNS_PER_GROUP - 1}" for start in starts]


@pytest.mark.parametrize("seeds", groups())
def test_model(system, seeds):
    first, _, last = seeds.partition("-")
    check(range(int(first), int(last or first) + 1), system, careful=not last)
    print(f"as the model says: seeds {seeds}")
