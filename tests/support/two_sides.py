"""The two sides of the differential suite: stock RQ and rqxx carry out the same steps (tests/interop/scenarios.py)."""

import contextlib
import datetime
import itertools
import json
import logging
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import redis as redis_module
from driver import BUILD, Driver, DriverError
from remains import everything
from rq import Queue, Repeat, Retry, Worker
from rq.command import send_stop_job_command
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError, TimeoutFormatError
from rq.group import Group
from rq.job import Callback, Dependency, Job
from rq.registry import CanceledJobRegistry, FailedJobRegistry
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend
from rq.utils import parse_timeout
from rq.webhook import Webhook
from rq.worker import DequeueStrategy

INTEROP = pathlib.Path(__file__).resolve().parent.parent / "interop"
WORKER = "worker"
DONE, REFUSED, MISSING = "done", "refused", "no such job"


def python_value(value):
    """An argument of a scenario as Python has it."""
    if isinstance(value, list):
        return [python_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    label = next(iter(value), "")
    if not label.startswith("$"):
        return {key: python_value(item) for key, item in value.items()}
    import base64
    import decimal
    import uuid

    makers = {"$bytes": base64.b64decode, "$datetime": datetime.datetime.fromisoformat,
              "$date": datetime.date.fromisoformat, "$decimal": decimal.Decimal, "$uuid": uuid.UUID,
              "$set": lambda items: set(python_value(items)), "$tuple": lambda items: tuple(python_value(items))}
    return makers[label](value[label])


class StockProducer:
    """RQ's API."""

    def __init__(self, connection, serializer):
        self.connection = connection
        self.serializer = JSONSerializer if serializer == "json" else None

    def queue(self, name):
        return Queue(name, connection=self.connection, serializer=self.serializer)

    def job(self, id):
        return Job.fetch(id, connection=self.connection, serializer=self.serializer)

    @staticmethod
    def options(options):
        result = {}
        for name, value in options.items():
            if value is None:
                continue
            if name in ("timeout", "result_ttl", "failure_ttl", "ttl"):
                value = parse_timeout(value)
            elif name == "depends_on":
                flags = {name: flag for name, flag in value.items() if name != "job_ids"}
                value = Dependency(value["job_ids"], **flags) if flags else value["job_ids"]
            elif name == "retry":
                value = Retry(value["max"], value.get("intervals", 0), value.get("enqueue_at_front", False))
            elif name == "repeat":
                value = Repeat(value["times"], value.get("intervals", 0))
            elif name in ("on_success", "on_failure", "on_stopped"):
                value = Callback(value["name"], timeout=value.get("timeout"))
            elif name == "webhooks":
                value = [Webhook(**hook) for hook in value]
            result[name] = value
        return result

    def enqueue(self, func, args, queue="default", kwargs=None, at=None, in_=None, **options):
        queue, options = self.queue(queue), self.options(options)
        call = {"args": tuple(python_value(args)), "kwargs": python_value(kwargs or {}),
                "job_timeout": options.pop("timeout", None), **options}
        if at is not None:
            queue.enqueue_at(datetime.datetime.fromtimestamp(at, datetime.timezone.utc), func, **call)
        elif in_ is not None:
            queue.enqueue_in(datetime.timedelta(seconds=in_), func, **call)
        else:
            queue.enqueue(func, **call)

    def many(self, jobs, queue="default", group=None):
        datas = []
        for job in jobs:
            options = {name: value for name, value in job.items() if name not in ("func", "args", "kwargs")}
            datas.append(Queue.prepare_data(job["func"], tuple(python_value(job["args"])), python_value(job.get("kwargs", {})),
                                            **self.options(options)))
        if group:
            Group.create(self.connection, group).enqueue_many(self.queue(queue), datas)
        else:
            self.queue(queue).enqueue_many(datas)

    def cancel(self, id, dependents="leave", remove_from_dependencies=False):
        self.job(id).cancel(enqueue_dependents=dependents == "enqueue", remove_from_dependencies=remove_from_dependencies)

    def delete(self, id, dependents="leave"):
        self.job(id).delete(delete_dependents=dependents == "cascade")

    def requeue(self, id, at_front=False, canceled=False):
        job = self.job(id)
        registry = (CanceledJobRegistry if canceled else FailedJobRegistry)(job.origin, self.connection,
                                                                            serializer=self.serializer)
        registry.requeue(job, at_front=at_front)

    def stop(self, id):
        send_stop_job_command(self.connection, id, serializer=self.serializer)

    def empty(self, queue="default"):
        self.queue(queue).empty()

    def compact(self, queue="default"):
        self.queue(queue).compact()

    def carry_out(self, step, arguments):
        try:
            getattr(self, step)(**arguments)
            return DONE
        except NoSuchJobError:
            return MISSING
        except (DuplicateJobError, InvalidJobOperation, TimeoutFormatError, ValueError):
            return REFUSED

    def end(self):
        pass


class RqxxProducer:
    """rqxx's library."""

    def __init__(self, url, serializer):
        self.driver = Driver(url)
        self.serializer = serializer

    def carry_out(self, step, arguments):
        try:
            return getattr(self, step)(**arguments)
        except DriverError as error:
            assert error.code == "usage", error
            return REFUSED

    def enqueue(self, func, args, kwargs=None, queue="default", at=None, in_=None, **options):
        answer = self.driver.enqueue(func, *args, kwargs=kwargs, queue=queue, at=at, in_=in_, serializer=self.serializer,
                                     **options)
        return REFUSED if answer["duplicate"] else DONE

    def many(self, jobs, queue="default", group=None):
        entries = [{"func": job["func"], "args": job["args"], "kwargs": job.get("kwargs", {}),
                    "options": {"group": group, **{name: value for name, value in job.items()
                                                   if name not in ("func", "args", "kwargs")}}} for job in jobs]
        answers = self.driver.enqueue_many(entries, queue=queue, serializer=self.serializer)
        return REFUSED if any(answer["duplicate"] for answer in answers) else DONE

    def cancel(self, id, **options):
        return self.driver.cancel(id, **options)[0]["code"]

    def delete(self, id, **options):
        return self.driver.delete(id, **options)[0]["code"]

    def requeue(self, id, at_front=False, canceled=False):
        return self.driver.requeue(id, at_front=at_front)[0]["code"]

    def stop(self, id):
        return self.driver.stop(id)["code"]

    def empty(self, queue="default"):
        self.driver.for_each("delete", {"queue": queue, "status": "queued"})
        return DONE

    def compact(self, queue="default"):
        self.driver.call("compact", queue=queue)
        return DONE

    def end(self):
        self.driver.end()


def run_stock_worker(url, serializer, queues, max_jobs, strategy):
    """In a process of its own, which ends here."""
    code = 1
    try:
        logging.disable(logging.CRITICAL)
        connection = redis_module.Redis(unix_socket_path=url.removeprefix("unix://"))
        worker = Worker(queues, connection=connection, name=WORKER,
                        serializer=JSONSerializer if serializer == "json" else None)
        worker.unsubscribe = lambda: None   # waits for its thread for up to a second; the process ends anyway
        worker.work(burst=True, max_jobs=max_jobs, dequeue_strategy=DequeueStrategy(strategy),
                    logging_level="CRITICAL")
        code = 0
    finally:
        os._exit(code)


class StockWorker:
    def __init__(self, url, serializer):
        self.url, self.serializer = url, serializer

    @contextlib.contextmanager
    def running(self, queues, max_jobs=None, strategy="default"):
        # A fork instead of `rq worker`: that takes most of a second to start.
        process = multiprocessing.get_context("fork").Process(
            target=run_stock_worker, args=(self.url, self.serializer, queues, max_jobs, strategy))
        process.start()
        try:
            yield process.is_alive
            process.join(30)
            assert process.exitcode == 0, f"the stock worker ended with {process.exitcode}"
        finally:
            if process.is_alive():
                process.kill()
                process.join(10)


class RqxxWorker:
    """Ours, with native functions."""

    program = [BUILD / "test_worker"]

    def __init__(self, url, serializer):
        self.url = url

    @contextlib.contextmanager
    def running(self, queues, max_jobs=None, strategy="default"):
        limit = ["--max-jobs", str(max_jobs)] if max_jobs else []
        process = subprocess.Popen([*self.program, self.url, "--burst", "--concurrency", "1", "--name", WORKER,
                                    "--strategy", strategy, *limit, *queues], stderr=subprocess.PIPE)
        try:
            yield lambda: process.poll() is None
            _, log = process.communicate(timeout=30)
            assert process.returncode == 0, log.decode()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()


class PythonWorker(RqxxWorker):
    """Ours, with the functions of Python."""

    program = [BUILD / "rqxx", "worker", "--python", sys.executable, "--path", INTEROP, "--preload", "tasks", "--no-webhooks",
               "--redis-url"]


WORKERS = {"stock": StockWorker, "rqxx": RqxxWorker, "python": PythonWorker}


def wait_until(condition, what):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.005)


class Stage:
    """A Redis, emptied for each run, and both sides on it."""

    def __init__(self, server, folder):
        self.url, self.connection = server.url, server.client
        self.marks = folder / "marks"
        self.producers = {}

    def producer(self, side, serializer):
        made = self.producers.get((side, serializer))
        if made is None:
            made = StockProducer(self.connection, serializer) if side == "stock" else RqxxProducer(self.url, serializer)
            self.producers[side, serializer] = made
        return made

    def prepared(self, arguments):
        text = json.dumps(arguments).replace("{marks}", str(self.marks))
        arguments = json.loads(text)
        if arguments.get("at") is not None:
            arguments["at"] += int(time.time())
        return arguments

    def look(self):
        """What stands there now; compared like what is left at the end."""
        self.looks.append(everything(self.connection, self.url, self.serializer))
        return DONE

    def run(self, steps, producers, workers, serializer, after_step=lambda what: None):
        """Carries out the steps; what each came to. The sides take turns: `producers` and `workers` are tuples of
        "stock", "rqxx" and, for workers, "python". `after_step` also looks on while a job runs."""
        self.after_step = after_step
        self.serializer, self.looks = serializer, []
        self.connection.flushall()
        self.marks.unlink(missing_ok=True)
        self.next_producer = itertools.cycle([self.producer(side, serializer) for side in producers])
        self.next_worker = itertools.cycle([WORKERS[side](self.url, serializer) for side in workers])
        came_to = []
        for what, arguments in steps:
            came_to.append(self.step(what, arguments))
            after_step(what)
        return came_to

    def step(self, what, arguments):
        if what == "look":
            return self.look()
        if what == "redis":
            self.connection.execute_command(*arguments)
        elif what == "suspend":
            suspend(self.connection, arguments.get("seconds"))
        elif what == "resume":
            resume(self.connection)
        elif what == "promote":
            self.promote(arguments["ids"])
        elif what == "work":
            return self.work(**arguments)
        else:
            return next(self.next_producer).carry_out(what, self.prepared(arguments))
        return DONE

    def work(self, queues, once=None, steps=(), **options):
        outcomes = []
        with next(self.next_worker).running(queues, **options) as alive:
            if once:
                key = f"rq:job:{once}"
                wait_until(lambda: self.connection.hget(key, "status") == b"started" or not alive(), f"{once} to start")
                # The worker listens to commands by now or in a moment.
                wait_until(lambda: self.connection.pubsub_numsub(f"rq:pubsub:{WORKER}")[0][1] > 0 or not alive(), "ears")
                self.after_step("the start")
                outcomes = [self.step(what, arguments) for what, arguments in steps]
        return outcomes or DONE

    def promote(self, ids):
        for id in ids:
            for key in self.connection.keys("rq:scheduled:*"):
                self.connection.zadd(key, {id: 1}, xx=True)
        queues = [key.decode().removeprefix("rq:scheduled:") for key in self.connection.keys("rq:scheduled:*")]
        scheduler = RQScheduler(queues, self.connection, logging_level="CRITICAL")
        scheduler.acquire_locks()
        scheduler.enqueue_scheduled_jobs()
        scheduler.release_locks()

    def end(self):
        for producer in self.producers.values():
            producer.end()
