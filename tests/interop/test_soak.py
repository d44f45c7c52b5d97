"""Ten thousand jobs of all kinds over four slots of one worker, while jobs are stopped, canceled and deleted, and processes are
killed, the worker too. Each job ends once, and nothing is left or grows."""

import collections
import http.server
import os
import random
import re
import signal
import sys
import threading
import time

import psutil
import pytest
from conftest import BUILD, INTEROP, needs_rq2, wait_for
from invariants import violations
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job

pytestmark = [needs_rq2, pytest.mark.xdist_group("soak")]
FULL = 5 if os.environ.get("RQXX_FULL") else 1
MB = 1 << 20
#: Sanitizers keep freed memory.
CHECKS_MEMORY = BUILD.name not in ("asan", "tsan")
SLOTS = 4


class Kind:
    """`ends`: the statuses that jobs of this kind may have in the end when nobody kills anything; `runs`: how often they run then.
    `marks`: they tell of each run."""

    def __init__(self, count, function, *args, ends=("finished",), runs=1, marks=True, **options):
        self.count, self.function, self.args, self.ends, self.runs, self.marks = count, function, args, ends, runs, marks
        self.options = options


def kinds(marks, python="soak_jobs."):
    failed = ("failed",)
    quick = {
        "python": Kind(3300, python + "succeed", 1), "native": Kind(2500, "tasks.mark", marks, 0),
        "command": Kind(400, "shell.mark"), "http": Kind(900, "http.mark"),
        "talking": Kind(150, python + "talk", 200), "leaking": Kind(300, python + "leak", 2),
        "failing": Kind(1000, python + "fail", ends=failed), "native-failing": Kind(400, "tasks.fail", "no", ends=failed, marks=False),
        "command-failing": Kind(100, "shell.fail", ends=failed), "http-failing": Kind(200, "http.fail", ends=failed),
        "retried": Kind(200, python + "fail_once", retry=Retry(max=1), runs=2),
        "retried-in-vain": Kind(100, python + "fail", retry=Retry(max=1), runs=2, ends=failed),
        "asking-again": Kind(100, python + "ask_again", runs=2, ends=failed),
        "leaving": Kind(80, python + "leave", 3, ends=failed), "shooting-itself": Kind(80, python + "shoot_yourself", ends=failed),
        "native-crashing": Kind(40, "tasks.crash", ends=failed, marks=False),
        "native-leaving": Kind(40, "tasks.exit", 3, ends=failed, marks=False)}
    one_second = {"ends": failed, "timeout": 1}
    slow = {
        "over-time": Kind(8, python + "sleep", 60, **one_second), "native-over-time": Kind(6, "tasks.mark", marks, 60, **one_second),
        "command-over-time": Kind(6, "shell.sleep", **one_second), "http-over-time": Kind(6, "http.sleep", **one_second),
        "swallowing": Kind(4, python + "swallow", 60, **one_second),
        "native-deadlocked": Kind(4, "tasks.deadlock", "/dev/null", marks=False, **one_second),
        "too-large": Kind(4, python + "hog", ends=failed),
        "native-too-large": Kind(4, "tasks.hog", 100_000, ends=failed, marks=False)}
    victims = {f"{name}-{what}": Kind(2, function, *args, ends=(end,))
               for what, end in (("stop", "stopped"), ("cancel", "canceled"), ("delete", None))
               for name, function, args in (("python", python + "sleep", (600,)), ("native", "tasks.mark", (marks, 600)),
                                            ("command", "shell.sleep", ()), ("http", "http.sleep", ()))}
    return {**quick, **slow, **victims}


class Listener(http.server.ThreadingHTTPServer):
    """What `http.` functions are."""

    daemon_threads = True

    def __init__(self, marks):
        super().__init__(("127.0.0.1", 0), Answering)
        self.marks, self.over = marks, threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, address):
        pass   # The worker has hung up.

    def stop(self):
        self.over.set()
        self.shutdown()
        self.server_close()


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        leave_mark(self.server.marks, self.headers["RQ-Job-Id"])
        if self.path == "/sleep":
            self.server.over.wait(600)
        body = b"1"
        self.send_response(500 if self.path == "/fail" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def leave_mark(path, text):
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(out, f"{text}\n".encode())
    os.close(out)


def bearing(token):
    """Processes of one start of the worker, also those that have lost their parents."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("RQ_SOAK_TOKEN") == token:
                found.append(process)
        except psutil.Error:
            pass
    return found


class Soak:
    def __init__(self, system, connection, seed):
        self.system, self.connection, self.random = system, connection, random.Random(seed)
        self.queue = Queue("default", connection=connection)
        self.marks = system.folder / "marks"
        self.server = Listener(self.marks)
        self.kinds = kinds(str(self.marks))
        self.kind_of = {}          # by job id
        self.workers = 0
        self.killed_slots = 0      # so many jobs may have failed without guilt
        self.interrupted = set()   # ids of jobs that may have run once more
        self.gone = set()          # deleted
        self.problems = []
        self.runs, self.marks_read = collections.Counter(), 0

    # ---- the worker -------------------------------------------------------------------------------------------------------

    def start_worker(self):
        self.workers += 1
        self.token = f"{os.getpid()}-{self.workers}"
        self.running = self.system.run(
            BUILD / "test_worker", self.system.server.url, "--name", "soak", "--concurrency", SLOTS, "--processes", "--with-scheduler",
            "--grace", 2, "--kill-after", 1, "--max-rss", 200 * MB if CHECKS_MEMORY else 1000 * MB, "--recycle-growth", 20 * MB, "--python", sys.executable, "--path",
            INTEROP, "--preload", "soak_jobs", "--command", f"shell.mark=sh -c 'echo $RQ_JOB_ID >> {self.marks}; echo 1'",
            "--command", f"shell.fail=sh -c 'echo $RQ_JOB_ID >> {self.marks}; exit 3'",
            "--command", f"shell.sleep=sh -c 'echo $RQ_JOB_ID >> {self.marks}; sleep 600'",
            *(part for what in ("mark", "fail", "sleep")
              for part in ("--http", f"http.{what}=http://127.0.0.1:{self.server.server_port}/{what}")), "default",
            env={**os.environ, "RQ_SOAK_TOKEN": self.token, "RQ_SOAK_MARKS": str(self.marks)})
        self.running.wait_for_log("Worker started", 60)
        self.process = psutil.Process(self.running.process.pid)
        self.idle_fds = self.process.num_fds()

    def zygotes(self):
        found = {}
        for child in self.process.children():
            try:
                if child.name() == "rqxx-zygote":
                    found["native"] = child
                elif "executor.py" in " ".join(child.cmdline()):
                    found["python"] = child
            except psutil.Error:
                pass
        return found

    def slots(self):
        return [slot for zygote in self.zygotes().values() for slot in zygote.children()]

    def held(self):
        return {member.decode().split(":")[0] for member in self.connection.smembers("rq:worker:soak:executions")}

    def expect_nothing_left_of_worker(self):
        wait_for(lambda: not bearing(self.token), 5, f"the end of {bearing(self.token)}")

    def restart_by_signal(self):
        self.interrupted |= self.held()
        self.running.signal(signal.SIGTERM)
        time.sleep(0.3)
        self.interrupted |= self.held()
        assert self.running.wait(30) in (0, 1), self.running.log[-3000:]
        self.expect_nothing_left_of_worker()
        self.start_worker()

    def restart_by_kill(self):
        self.running.signal(signal.SIGKILL)
        self.running.wait()
        self.interrupted |= self.held()
        self.expect_nothing_left_of_worker()
        self.start_worker()

    # ---- jobs -------------------------------------------------------------------------------------------------------------

    def enqueue(self):
        names = [name for name, kind in self.kinds.items() for _ in range(kind.count * FULL)]
        self.random.shuffle(names)
        data = []
        for n, name in enumerate(names):
            kind = self.kinds[name]
            self.kind_of[f"{name}_{n}"] = kind
            data.append(Queue.prepare_data(kind.function, kind.args, job_id=f"{name}_{n}", result_ttl=3600, **kind.options))
        for i in range(0, len(data), 500):
            self.queue.enqueue_many(data[i:i + 500])

    def ended(self):
        return sum(self.connection.zcard(f"rq:{name}:default") for name in ("finished", "failed", "canceled")) + len(self.gone)

    def trouble_victims(self):
        """What is done to those that run now."""
        for member in self.connection.zrange("rq:wip:default", 0, -1):
            job_id = member.decode().split(":")[0]
            what = job_id.rsplit("_", 1)[0].rsplit("-", 1)[-1]
            if what not in ("stop", "cancel", "delete") or not self.marked()[job_id]:
                continue
            if what != "stop":
                # Not by RQ's client: it takes several steps, and a job that ends between them stays in a registry.
                self.system.rqxx("job", what, job_id, "--redis-url", self.system.server.url)
                if what == "delete" and not self.connection.exists(f"rq:job:{job_id}"):
                    self.gone.add(job_id)
                continue
            try:
                send_stop_job_command(self.connection, job_id)
            except (NoSuchJobError, InvalidJobOperation):
                pass   # It has just ended, or its worker.

    def marked(self):
        """How often each job has begun."""
        if self.marks.exists():
            with self.marks.open("rb") as marks:
                marks.seek(self.marks_read)
                new = marks.read()
            new = new[:new.rfind(b"\n") + 1]
            self.marks_read += len(new)
            self.runs.update(new.decode().split())
        return self.runs

    def kill_a_slot(self):
        slots = self.slots()
        if slots:
            try:
                self.random.choice(slots).kill()
                self.killed_slots += 1
            except psutil.Error:
                pass

    def kill_a_zygote(self, which):
        zygote = wait_for(lambda: self.zygotes().get(which), 30, f"the zygote for {which}")
        zygote.kill()
        self.killed_slots += SLOTS

    # ---- the run ------------------------------------------------------------------------------------------------------------

    def run(self, limit):
        total = len(self.kind_of)
        plan = [(0.15, lambda: self.kill_a_zygote("python")), (0.25, lambda: self.kill_a_zygote("native")),
                (0.4, self.restart_by_signal), (0.5, self.restart_by_kill), (0.7, lambda: self.kill_a_zygote("python"))]
        deadline, next_shot, rss = time.monotonic() + limit, time.monotonic() + 2, None
        self.start_worker()
        while (done := self.ended()) < total:
            assert time.monotonic() < deadline, f"{done} of {total} jobs after {limit} s"
            assert self.running.process.poll() is None, f"the worker has ended: {self.running.log[-3000:]}"
            while plan and done >= plan[0][0] * total:
                plan.pop(0)[1]()
            if time.monotonic() > next_shot:
                next_shot = time.monotonic() + self.random.uniform(0.5, 2)
                self.kill_a_slot()
            self.trouble_victims()
            if rss is None and not plan and done >= 0.75 * total:
                rss = self.process.memory_info().rss
            time.sleep(0.1)
        wait_for(lambda: not self.connection.exists("rq:wip:default") and not self.held(), 20, "the last executions to end")
        self.check_what_the_worker_holds(rss)
        self.running.signal(signal.SIGTERM)
        assert self.running.wait(20) == 0, self.running.log[-3000:]
        self.expect_nothing_left_of_worker()

    # ---- checks -------------------------------------------------------------------------------------------------------------

    def check_what_the_worker_holds(self, rss):
        # Each slot has a socket and two pipes; connections of HTTP jobs are kept.
        most = lambda: self.idle_fds + 3 * len(self.slots()) + SLOTS + 2   # noqa: E731
        wait_for(lambda: self.process.num_fds() <= most(), 5, f"{self.process.num_fds()} descriptors to become {most()}")
        wait_for(lambda: len(self.slots()) <= 2 * SLOTS, 5, f"{len(self.slots())} slots to become fewer")
        wait_for(lambda: not [one for one in self.process.children(recursive=True) if one.status() == psutil.STATUS_ZOMBIE], 5,
                 "zombies to be buried")
        if CHECKS_MEMORY and rss is not None:
            grown = self.process.memory_info().rss - rss
            assert grown < 20 * MB, f"the worker has grown by {grown / MB:.1f} MB"

    def check_jobs(self):
        counts = collections.Counter()
        without_guilt, marked = 0, self.marked()
        pipeline = self.connection.pipeline(transaction=False)
        for job_id in self.kind_of:
            pipeline.hget(f"rq:job:{job_id}", "status")
        for (job_id, kind), status in zip(self.kind_of.items(), pipeline.execute()):
            status = status.decode() if status else None
            counts[status] += 1
            as_meant = status in kind.ends
            without_guilt += not as_meant
            # A shot before the job began to run took its retry, and nothing is kept of that.
            shot_early = "retry" in kind.options and marked[job_id] < kind.runs
            if not as_meant and (status != "failed" or not shot_early and not self.was_killed(job_id)):
                self.problems.append(f"{job_id}: is {status}, {self.error_of(job_id)}")
            # Whose process was shot may not have come to its mark, nor to its second run.
            few = marked[job_id] < kind.runs and not shot_early and not self.was_killed(job_id)
            most = kind.runs + (2 if job_id in self.interrupted else 0)
            if kind.marks and (marked[job_id] > most or few):
                self.problems.append(f"{job_id}: ran {marked[job_id]} times and is {status}, {self.error_of(job_id)}")
        # Each shot hits one job; a job that two crashes of the worker hit is given up.
        if without_guilt > self.killed_slots + SLOTS:
            self.problems.append(f"{without_guilt} jobs failed for {self.killed_slots} killed processes")
        return counts

    def error_of(self, job_id):
        job = Job.fetch(job_id, connection=self.connection) if self.connection.exists(f"rq:job:{job_id}") else None
        result = job and job.latest_result()
        return result and (result.exc_string or "").strip()[-300:]

    def was_killed(self, job_id):
        return re.search(r"signal 9|terminated unexpectedly|process ended|abandoned", str(self.error_of(job_id))) is not None

    def check_keys(self):
        """Every key that is left belongs to a job that is there, or to the whole."""
        whole = re.compile(r"rq:(queues|workers|worker:soak|finished:default|failed:default|canceled:default|suspended|"
                           r"workers:default|clean_registries:default|scheduler-lock:default|scheduler:\S+|maintenance\S*)|"
                           r"rqxx:(totals|recent|audit|metrics:\S+|ttls:default|leases|schedulers|janitor\S*|maintain\S*|sweep\S*|"
                           r"batches:seen)")
        of_job = re.compile(r"rq:job:(\S+)|rq:results:(\S+)|rqxx:output:([^\s:]+)(:\w+)?")
        for key in self.connection.scan_iter(count=1000):
            key = key.decode()
            match = of_job.fullmatch(key)
            job_id = match and next(filter(None, match.groups()))
            # Results of a job that had just failed when it was deleted: RQ leaves them.
            deleted = job_id in self.gone and not key.startswith("rq:results:")
            if match and (job_id not in self.kind_of or deleted) or not match and not whole.fullmatch(key):
                self.problems.append(f"{key} is left, for {self.connection.ttl(key)} s")


def test_jobs_end_once_and_nothing_is_left(system, connection):
    seed = int(os.environ.get("RQXX_SOAK_SEED") or random.randrange(1 << 30))
    print(f"RQXX_SOAK_SEED={seed}")
    soak = Soak(system, connection, seed)
    try:
        soak.enqueue()
        soak.run(limit=300 * FULL)
    finally:
        soak.server.stop()
    counts = soak.check_jobs()
    assert sum(counts.values()) == len(soak.kind_of) and counts[None] == len(soak.gone)
    registered = [entry.decode() for name in ("finished", "failed", "canceled") for entry in connection.zrange(f"rq:{name}:default", 0, -1)]
    assert sorted(registered) == sorted(soak.kind_of.keys() - soak.gone)
    soak.check_keys()
    soak.problems += violations(connection, gone=soak.gone, stock=True)
    assert not soak.problems, "\n".join(soak.problems[:50])
