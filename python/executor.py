"""The Python side of rqxx's warm executor: one zygote, from which one process per slot is forked.

Started by the worker with two inherited sockets' numbers as arguments; needs the standard library only. Where the
interpreter has `rq`, functions see what they see under `rq worker`; where not, plain functions run all the same.

The zygote imports what jobs need once, then forks slots, so that their memory is shared. It talks to the worker in
datagrams of JSON: {"fork": N} with a slot's socket, and its stdout and stderr where they are captured -> {"forked": N, "pid": P} or {"failed": N, "why": text}; later
{"exited": P, "status": S, ...}.
A slot talks in frames: four bytes of length (little-endian), then fields, each four bytes of length and bytes. The
first field says what the frame is:

    worker -> slot   run        execution id, job id, serializer, worker's name, started_at, time limit, memory limit in bytes or 0,
                                then field, value, ...
                     stopped    the same, to call the stopped callback only
                     group      worker's name, time limit, memory limit, then for each job of the call: execution id, job id,
                                 serializer, started_at, how many fields it has, field, value, ...
                     stop       execution id, reason (5: stopped; else canceled or lost): a job of the call that runs is not
                                 wanted any more, others are
    slot -> worker   (of each job of a group by itself)
                     progress   execution id, JSON: {"fraction": 0 to 1, "text": text}
                     callback   execution id, its time limit in seconds: the function has ended, a callback or the
                                 exception handlers begin
                     done       execution id, peak memory in kB and CPU seconds of this process so far, cause, then one of
                                 success, return value in base64 or ""
                                 failure, exc_string as stored, its last line
                                 retry, most, wait in seconds, the Retry in base64
                                 stopped, last line of what the callback raised or ""
                                 later, seconds to wait: see RateLimited

Nothing here changes a job's state. A slot raises RQ's JobTimeoutException in a function that is over its limit; the worker
measures the same time, and kills what goes on.
"""

import array
import asyncio
import base64
import contextlib
import ctypes
import datetime
import errno
import gc
import importlib
import importlib.util
import json
import linecache
import math
import os
import pickle
import random
import resource
import select
import signal
import socket
import struct
import sys
import time
import threading
import traceback
import types
import zlib

UNSERIALIZABLE = "Unserializable return value"


# ---- frames ---------------------------------------------------------------------------------------------------------------


def receive_exactly(sock, size):
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def receive_frame(sock):
    (size,) = struct.unpack("<I", receive_exactly(sock, 4))
    data = receive_exactly(sock, size)
    fields, at = [], 0
    while at < size:
        (length,) = struct.unpack_from("<I", data, at)
        fields.append(data[at + 4:at + 4 + length])
        at += 4 + length
    return fields


sending = threading.Lock()   # A function's threads may tell its progress.


def send_frame(sock, *fields):
    parts = []
    for field in fields:
        field = field.encode("utf-8", "backslashreplace") if isinstance(field, str) else field
        parts += [struct.pack("<I", len(field)), field]
    body = b"".join(parts)
    with sending:
        sock.sendall(struct.pack("<I", len(body)) + body)


# ---- what a job is made of, with and without rq ------------------------------------------------------------------------------


class PlainTimeout(Exception):
    """Where there is no rq."""


class RateLimited(Exception):
    """For functions, as rqxx.RateLimited: raised by one that was told to come back after so many seconds. Its job runs again
    then without using an attempt, and the limits under which it ran let nothing pass before."""

    def __init__(self, seconds):
        super().__init__(f"told to come back in {seconds} s")
        self.seconds = seconds

    def answer(self):
        return ["later", str(max(1, math.ceil(self.seconds)))]


class JSONSerializer:
    @staticmethod
    def dumps(value):
        return json.dumps(value).encode()

    @staticmethod
    def loads(data):
        return json.loads(data.decode())


PLAIN_SERIALIZERS = {b"json": JSONSerializer, b"pickle": pickle}


def import_attribute(name):
    """A function, method of a class, or other attribute by its dotted name. Source: rq/utils.py import_attribute."""
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError as error:
            if not (".".join(parts[:split]) + ".").startswith(f"{error.name}."):
                raise   # Something that the module itself needs.
            continue
        for part in parts[split:]:
            found = getattr(found, part)
        return found
    raise ValueError(f"Invalid attribute name: {name}")


class PlainJob:
    """The call alone: what runs without rq."""

    def __init__(self, fields, serializer):
        data = fields[b"data"]
        try:
            data = zlib.decompress(data)
        except zlib.error:
            pass
        name, instance, self.args, self.kwargs = serializer.loads(data)
        self.func = import_attribute(name) if instance is None else getattr(instance, name)


def check_plain(fields):
    if any(fields.get(name) for name in (b"success_callback_name", b"failure_callback_name", b"stopped_callback_name")):
        raise RuntimeError("callbacks need rq, which this interpreter does not have")


def faster(str_to_date):
    """RQ's, with the same answers: strptime takes a quarter of a short job's time."""
    zone = str_to_date(b"2026-11-27T00:00:00.000000Z").tzinfo   # RQ 1.x has none

    def parse(text):
        try:
            plain = text.decode() if isinstance(text, bytes) else text
            if plain and len(plain) == 27 and plain[10] == "T" and plain[26] == "Z":
                return datetime.datetime.fromisoformat(plain[:26]).replace(tzinfo=zone)
        except ValueError:
            pass
        return str_to_date(text)

    return parse


class Rq:
    """What a slot needs of rq, of whichever version."""

    def __init__(self):
        from rq import job, timeouts
        from rq.serializers import JSONSerializer as RqJSONSerializer
        from rq import connections, utils

        self.connections = connections if hasattr(connections, "push_connection") else None   # RQ 1.x
        self.Job, self.JobStatus = job.Job, job.JobStatus
        self.current_job = getattr(job, "_current_job", None)   # A context variable since RQ 3.
        self.stack = None if self.current_job else job._job_stack
        self.Retry = job.Retry
        self.now = getattr(utils, "now", None) or utils.utcnow   # RQ 1.x
        self.JobTimeoutException = timeouts.JobTimeoutException
        self.serializers = {b"json": RqJSONSerializer, b"pickle": None}   # None is RQ's own, without a look at what it is.
        job.str_to_date = self.str_to_date = faster(utils.str_to_date)

    @contextlib.contextmanager
    def current(self, job):
        """What get_current_job() answers."""
        if self.current_job:
            token = self.current_job.set(job)
            try:
                yield
            finally:
                self.current_job.reset(token)
        else:
            self.stack.push(job)
            try:
                yield
            finally:
                self.stack.pop()

    def warm_up(self, settings):
        """What the first job would import and compile is done before the first fork: three quarters of a short job."""
        data = pickle.dumps(("time.time", None, (), {}))
        now = b"2026-11-27T00:00:00.000000Z"
        job = self.make_job(settings, "warm-up", b"pickle", "", now, {b"data": data, b"created_at": now, b"status": b"started"})
        job.serializer.dumps(job._execute())
        if self.connections:
            self.connections.pop_connection()

    def make_job(self, settings, job_id, serializer, worker_name, started_at, fields):
        if self.connections:
            while self.connections.pop_connection():
                pass   # What the job before has left there.
            self.connections.push_connection(settings.connection())
        job = self.Job(job_id, connection=settings.connection(), serializer=settings.serializers[serializer])
        job.restore(fields)
        job.worker_name = worker_name
        job.started_at = job.last_heartbeat = self.str_to_date(started_at)
        job._status = self.JobStatus.STARTED
        return job


def load_rq():
    try:
        return Rq()
    except ModuleNotFoundError as error:
        if error.name != "rq":
            raise   # It is there, and broken.
        return None


def failure(*error):
    """An exception as RQ stores it, and what a log shows of it."""
    text = "".join(traceback.format_exception(*error))
    lines = text.strip().splitlines() or [""]
    return ["failure", base64.b64encode(zlib.compress(text.encode("utf-8", "backslashreplace"))), lines[-1][:2000]]


def django_databases():
    """Where the application has loaded and set up Django, its `django.db`."""
    apps = getattr(sys.modules.get("django.apps"), "apps", None)
    return sys.modules.get("django.db") if getattr(apps, "ready", False) else None


def tidy_django():
    """Between jobs, what Django does between requests. What a job leaves must not reach the next, and a connection that is
    broken or old enough is replaced: without it a slot would outlive its connections."""
    db = django_databases()
    if not db:
        return
    try:
        db.reset_queries()
        db.close_old_connections()
        for connection in db.connections.all(initialized_only=True):
            if connection.in_atomic_block:   # Django's cannot be used again after this.
                connection.close()
                del db.connections[connection.alias]
    except Exception:
        traceback.print_exc()


limited_memory = 0


def limit_memory(most):
    """A job that grows faster than it can be watched gets what the process has, and twice its limit."""
    global limited_memory
    if most == limited_memory:
        return
    limited_memory = most
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard
    if most:
        with open("/proc/self/statm") as file:
            has = int(file.read().split()[5]) * resource.getpagesize()
        soft = has + 2 * most + (64 << 20)
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def consumption():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return str(max(own.ru_maxrss, children.ru_maxrss)), f"{cpu:.6f}"


# ---- functions that take many jobs in one call --------------------------------------------------------------------------------


class Call(tuple):
    """One of the jobs that an aggregated function is given: `(args, kwargs)`, and what it is part of."""

    def __new__(cls, slot, member, args, kwargs):
        self = super().__new__(cls, (args, kwargs))
        self._slot, self._execution = slot, member.execution
        self.args, self.kwargs = args, kwargs
        self.job_id, self.execution_id = member.job_id, member.execution.decode()
        self.job = member.job if slot.rq else None   # rq's
        return self

    def progress(self, fraction, text=""):
        """As rqxx.progress, of this job alone."""
        self._slot.tell_progress([self._execution], fraction, text)

    def __reduce__(self):
        return tuple, (tuple(self),)   # It may travel to a process of the function's own.


class Member:
    """A job of a call."""

    def __init__(self, execution, job_id, serializer, started_at, fields):
        self.execution, self.job_id, self.serializer = execution, job_id.decode(), serializer
        self.started_at, self.fields = started_at, fields
        self.job = self.function = self.call = None
        self.result = self.error = None   # The error as sys.exc_info() has it.

    def answer(self):
        if self.error:
            raise self.error[1].with_traceback(self.error[2])
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def members_of(flat):
    members, at = [], 0
    while at < len(flat):
        first, last = at + 5, at + 5 + 2 * int(flat[at + 4])
        members.append(Member(*flat[at:at + 4], dict(zip(flat[first:last:2], flat[first + 1:last:2]))))
        at = last
    return members


# ---- a slot -----------------------------------------------------------------------------------------------------------------


class Alarm:
    """Ends what runs inside at its time limit. As RQ's UnixSignalDeathPenalty."""

    def __init__(self, exception, seconds):
        self.exception, self.seconds = exception, seconds

    def __enter__(self):
        signal.signal(signal.SIGALRM, self.ring)
        if self.seconds > 0:
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_):
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
                return
            except self.exception:
                pass   # It rang when all was done.

    def ring(self, *_):
        raise self.exception(f"Task exceeded maximum timeout value ({self.seconds} seconds)")


class Slot:
    def __init__(self, settings, sock):
        self.settings, self.sock, self.rq = settings, sock, settings.rq
        self.pid, self.execution, self.cause = os.getpid(), b"", ""
        self.executions = []   # Of the call that runs, those that have not ended.
        self.timeout = self.rq.JobTimeoutException if self.rq else PlainTimeout

    def serve(self):
        while True:
            try:
                what, *parts = receive_frame(self.sock)
            except EOFError:
                return
            if what == b"stop":
                continue   # It came too late.
            tidy_django()
            if what == b"group":
                self.run_group(*parts)
            else:
                self.run_one(what, *parts)
            if self.settings.one_job_each:
                return
            tidy_django()

    def run_one(self, what, execution, job_id, serializer, worker_name, started_at, timeout, memory, *flat):
        self.begin([execution], worker_name, memory)
        os.environ["RQ_JOB_ID"] = job_id.decode()
        fields = dict(zip(flat[::2], flat[1::2]))
        run = self.stopped if what == b"stopped" else self.run
        try:
            answer = run(job_id.decode(), serializer, worker_name.decode(), started_at, int(timeout), fields)
        except BaseException as error:
            answer = failure(*sys.exc_info())
            self.note_cause(error)
        self.end(answer)

    def begin(self, executions, worker_name, memory):
        self.executions, self.execution, self.cause = executions, executions[0], ""
        os.environ["RQ_WORKER_ID"] = worker_name.decode()
        limit_memory(int(memory))

    def end(self, answer):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        if os.getpid() != self.pid:
            os._exit(0)   # A child of the function, which came back here.
        self.executions.remove(self.execution)
        send_frame(self.sock, "done", self.execution, *consumption(), self.cause, *answer)

    def run_group(self, worker_name, timeout, memory, *flat):
        members, timeout = members_of(flat), int(timeout)
        self.begin([member.execution for member in members], worker_name, memory)
        os.environ.pop("RQ_JOB_ID", None)
        try:
            with Alarm(self.timeout, timeout):
                self.call_group(members, worker_name.decode())
        except BaseException:
            error = sys.exc_info()
            for member in members:
                member.error = member.error or error
        unwanted = self.unwanted_meanwhile() if os.getpid() == self.pid else {}
        # What calls nobody back is over; the others wait for each other's callbacks.
        members.sort(key=lambda member: self.calls_back(member) is not None)
        self.announce([member for member in members if self.calls_back(member) is not None])
        for member in members:
            self.execution, self.cause = member.execution, ""
            try:
                answer = self.answer_of(member, unwanted.get(member.execution), timeout)
            except BaseException as error:
                answer = failure(*sys.exc_info())
                self.note_cause(error)
            self.end(answer)

    def call_group(self, members, worker_name):
        for member in members:
            try:
                self.read(member, worker_name)
            except self.timeout:
                raise
            except Exception:
                member.error = sys.exc_info()
        members = [member for member in members if not member.error]
        if not members:
            return
        function = members[0].function
        # Where stock workers take such jobs as well, they call the function itself, each with its own arguments.
        results = getattr(function, "aggregated", function)([member.call for member in members])
        if asyncio.iscoroutine(results):
            results = asyncio.new_event_loop().run_until_complete(results)
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
        if not isinstance(results, (list, tuple)):
            raise TypeError(f"{name} has to return a list with a result for each job, and returned {type(results).__name__}")
        if len(results) != len(members):
            raise ValueError(f"{name} returned {len(results)} results for {len(members)} jobs")
        for member, result in zip(members, results):
            member.result = result

    def read(self, member, worker_name):
        """What its function is called with. A job that cannot be read fails alone."""
        if not self.rq:
            check_plain(member.fields)
            member.job = PlainJob(member.fields, self.settings.serializers[member.serializer])
        else:
            member.job = self.rq.make_job(self.settings, member.job_id, member.serializer, worker_name, member.started_at,
                                          member.fields)
        member.function = member.job.func
        member.call = Call(self, member, member.job.args, member.job.kwargs)

    def answer_of(self, member, unwanted, timeout):
        if unwanted:
            calls_back = unwanted == b"5" and self.rq and member.job
            return self.stopped_answer(member.job) if calls_back else ["stopped", ""]
        if self.rq and member.job:
            return self.conclude(member.job, member.answer, timeout)
        return self.success(member.answer(), self.settings.serializers[member.serializer])

    def calls_back(self, member):
        """For how long at most, or None."""
        kinds = [kind for kind in ("success", "failure", "stopped") if member.fields.get(f"{kind}_callback_name".encode())]
        if not self.rq or not (kinds or self.settings.exception_handlers):
            return None
        handlers = 60 if self.settings.exception_handlers else 0
        return handlers + sum(getattr(member.job, f"{kind}_callback_timeout", None) or 60 for kind in kinds)

    def announce(self, members):
        seconds = 0
        for member in members if os.getpid() == self.pid else ():
            seconds += self.calls_back(member)
            send_frame(self.sock, "callback", member.execution, str(seconds))

    def unwanted_meanwhile(self):
        """By execution, why. The first reason counts."""
        unwanted = {}
        try:
            while select.select([self.sock], [], [], 0)[0]:
                what, execution, *reason = receive_frame(self.sock)
                if what == b"stop":
                    unwanted.setdefault(execution, reason[0])
        except EOFError:
            pass   # The worker is gone, as the next frame will show.
        return unwanted

    def run(self, job_id, serializer, worker_name, started_at, timeout, fields):
        if not self.rq:
            check_plain(fields)
            try:
                with Alarm(self.timeout, timeout):
                    job = PlainJob(fields, self.settings.serializers[serializer])
                    result = self.call(job)
            except RateLimited as told:
                return told.answer()
            return self.success(result, self.settings.serializers[serializer])
        job = self.rq.make_job(self.settings, job_id, serializer, worker_name, started_at, fields)

        def perform():
            with Alarm(self.timeout, timeout):
                return self.perform(job)

        return self.conclude(job, perform, timeout)

    def conclude(self, job, perform, timeout):
        """What comes of a job, with its callbacks."""
        try:
            started = time.monotonic()
            result = perform()
            job.ended_at = self.rq.now()
            if isinstance(result, self.rq.Retry):
                wait = self.rq.Retry.get_interval(job.number_of_retries or 0, result.intervals)
                return ["retry", str(result.max), str(int(wait)), self.encoded(result, job.serializer)]
            job._result = result
            job._status = self.rq.JobStatus.FINISHED
            self.call_back(job, "success", result)
            return self.success(result, job.serializer)
        except RateLimited as told:
            return told.answer()
        except BaseException:
            job._status = self.rq.JobStatus.FAILED
            job.ended_at = self.rq.now()
            error = sys.exc_info()
            answer = failure(*error)
            retries = job.retries_left
            try:
                self.call_back(job, "failure", *error)
            except BaseException:
                error = sys.exc_info()
                answer = failure(*error)
            self.handle_exception(job, error, timeout - (time.monotonic() - started) if timeout > 0 else None)
            if job.retries_left != retries and job.exists(job.id, job.connection):
                # RQ goes by what the object says, saved or not.
                job.connection.hset(job.key, "retries_left", job.retries_left or 0)
            self.note_cause(error[1])
            return answer

    def handle_exception(self, job, error, seconds_left):
        # As Worker.handle_exception: before the failure stands in Redis, and one that raises ends RQ's work horse.
        if not self.settings.exception_handlers:
            return
        # RQ ends a work horse that is a minute over its job's time limit.
        seconds = -1 if seconds_left is None else max(1, math.ceil(seconds_left + 60))
        send_frame(self.sock, "callback", self.execution, str(seconds))
        try:
            for handler in self.settings.exception_handlers:
                go_on = handler(job, *error)
                if go_on is not None and not go_on:
                    break
        except BaseException:
            try:
                traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(1)

    def progress(self, fraction, text=""):
        """For functions, as rqxx.progress: how far the job is, from 0 to 1, shown by monitors while it runs."""
        self.tell_progress(self.executions, fraction, text)

    def tell_progress(self, executions, fraction, text):
        if os.getpid() == self.pid:
            state = json.dumps({"fraction": min(max(float(fraction), 0.0), 1.0), "text": str(text)})
            for execution in executions:
                if execution in self.executions:   # Not over.
                    send_frame(self.sock, "progress", execution, state)

    def note_cause(self, error):
        if isinstance(error, self.timeout):
            self.cause = "time limit (soft)"
        elif isinstance(error, MemoryError) and resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY:
            self.cause = "memory limit"

    def stopped(self, job_id, serializer, worker_name, started_at, timeout, fields):
        if not self.rq:
            return ["stopped", ""]
        return self.stopped_answer(self.rq.make_job(self.settings, job_id, serializer, worker_name, started_at, fields))

    def stopped_answer(self, job):
        try:
            self.call_back(job, "stopped")
            return ["stopped", ""]
        except BaseException:
            return ["stopped", failure(*sys.exc_info())[2]]

    def call_back(self, job, kind, *args):
        # As Job.execute_success_callback and the like, which RQ 1.x has in its worker.
        callback = getattr(job, f"{kind}_callback", None)
        if not callback:
            return
        seconds = getattr(job, f"{kind}_callback_timeout", None) or 60
        send_frame(self.sock, "callback", self.execution, str(seconds))
        with Alarm(self.timeout, seconds):
            callback(job, job.connection, *args)

    def perform(self, job):
        # As Job.perform, without its PERSIST: the claim has done that.
        with self.rq.current(job):
            return job._execute()

    @staticmethod
    def call(job):
        result = job.func(*job.args, **job.kwargs)
        return asyncio.new_event_loop().run_until_complete(result) if asyncio.iscoroutine(result) else result

    @classmethod
    def success(cls, result, serializer):
        return ["success", "" if result is None else cls.encoded(result, serializer)]

    @staticmethod
    def encoded(value, serializer):
        try:
            data = serializer.dumps(value)
        except BaseException:
            data = serializer.dumps(UNSERIALIZABLE)
        return base64.b64encode(data)


# ---- the zygote --------------------------------------------------------------------------------------------------------------


class Settings:
    """What the worker says of the jobs' surroundings."""

    def __init__(self, said):
        self.redis = said["redis"]
        self.one_job_each = said["one_job_each"]
        for folder in reversed(said["path"]):
            sys.path.insert(0, folder)
        self.module = None
        spec = importlib.util.find_spec("rqxx")
        if spec is None or spec.origin is None:   # The application has none of this name: a folder is none.
            self.module = sys.modules["rqxx"] = types.ModuleType("rqxx", "What a job can tell the rqxx worker that runs it.")
            self.module.progress = lambda fraction, text="": None   # Not in a job.
            self.module.RateLimited = RateLimited
        for call in said["init"]:
            said["at"] = f"--init {call}: "
            module, _, attributes = call.partition(":")
            if not module or not attributes:
                raise ValueError("MODULE:CALLABLE is expected")
            function = importlib.import_module(module)
            for attribute in attributes.split("."):
                function = getattr(function, attribute)
            function()
        for module in said["preload"]:
            said["at"] = f"--preload {module}: "
            importlib.import_module(module)
        said["at"] = ""
        self.rq = load_rq()
        self.serializers = dict(self.rq.serializers if self.rq else PLAIN_SERIALIZERS)
        if name := said["serializer"]:
            said["at"] = f"--serializer {name}: "
            found = import_attribute(name)
            if not callable(getattr(found, "dumps", None)) or not callable(getattr(found, "loads", None)):
                raise TypeError("it has no methods dumps and loads")
            self.serializers[name.encode()] = found
        self.exception_handlers = []
        for name in said["exception_handlers"]:
            said["at"] = f"--exception-handler {name}: "
            if not self.rq:
                raise RuntimeError("needs rq, which this interpreter does not have")
            self.exception_handlers.append(import_attribute(name))
        said["at"] = ""
        if db := django_databases():
            db.connections.close_all()   # A connection cannot be shared by the slots.
        self.made = None

    def connection(self):
        """Made when the first job needs it, in its slot: connections are not shared over a fork."""
        if self.made is None:
            import redis

            self.made = redis.Redis(**self.redis)
        return self.made


def die_with_parent():
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)   # PR_SET_PDEATHSIG


def become_slot(settings, sock, output, parent):
    if output:
        for number, fd in enumerate(output, 1):
            os.dup2(fd, number)
            os.close(fd)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(line_buffering=True)   # A follower sees it, and a crash leaves it.
    os.setpgid(0, 0)   # As RQ's work horse: what a function starts is killed with it.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # As RQ's work horse.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    random.seed()
    if settings.one_job_each and settings.rq and not select.select([sock], [], [], 0)[0]:
        settings.rq.warm_up(settings)   # While it waits: the first touch of each page costs as much as a short job.
    slot = Slot(settings, sock)
    if settings.module:
        settings.module.progress = slot.progress
    slot.serve()


def kill_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass   # It had not become a group yet.


class Zygote:
    def __init__(self, control):
        self.control = control
        self.slots = set()

    def say(self, **what):
        try:
            self.control.send(json.dumps(what).encode())
        except OSError:
            pass   # The worker is gone, as the next read will show.

    def serve(self, settings):
        # A child's end wakes the loop.
        self.pipe = woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)   # The worker ends it by closing the socket.
        while True:
            ready, _, _ = select.select([self.control, woken], [], [])
            if woken in ready:
                try:
                    os.read(woken, 4096)
                except BlockingIOError:
                    pass
            self.reap()
            if self.control in ready and not self.obey(settings):
                break
        for pid in self.slots:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)   # Without waiting for threads that the modules have started.

    def reap(self):
        while self.slots:
            try:
                # While its number is still its own: what it has started goes with one that died.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    return
                if ended.si_pid in self.slots and (ended.si_code != os.CLD_EXITED or ended.si_status != 0):
                    kill_group(ended.si_pid)
                pid, status, usage = os.wait4(ended.si_pid, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.slots.discard(pid)
            self.say(exited=pid, status=status, max_rss_kb=usage.ru_maxrss, cpu_seconds=usage.ru_utime + usage.ru_stime)

    def obey(self, settings):
        """Whether there was something to do: at the end of the worker there is not."""
        try:
            message, ancillary, flags, _ = self.control.recvmsg(65536, socket.CMSG_SPACE(12))
        except OSError:
            return False
        if not message:
            return False
        fds = array.array("i")
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
        number = json.loads(message)["fork"]
        for fd in fds:
            os.set_inheritable(fd, False)
        parent = os.getpid()
        try:
            if flags & socket.MSG_CTRUNC:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            pid = os.fork()
        except OSError as error:
            for fd in fds:
                os.close(fd)
            self.say(failed=number, why=str(error))
            return True
        if pid == 0:
            code = 1
            try:
                signal.set_wakeup_fd(-1)
                self.control.close()
                for fd in self.pipe:
                    os.close(fd)
                become_slot(settings, socket.socket(fileno=fds[0]), fds[1:], parent)
                code = 0
            finally:
                os._exit(code)
        for fd in fds:
            os.close(fd)
        self.slots.add(pid)
        self.say(forked=number, pid=pid)
        return True


def main(control_fd, source):
    name = "rqxx/python/executor.py"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)   # For tracebacks.
    control = socket.socket(fileno=control_fd)
    die_with_parent()
    zygote = Zygote(control)
    said = json.loads(control.recv(1 << 20))
    try:
        settings = Settings(said)
        if settings.rq:
            settings.rq.warm_up(settings)
            settings.made = None   # Slots share none.
    except BaseException as error:
        zygote.say(error=said.get("at", "") + "".join(traceback.format_exception_only(type(error), error)).strip(),
                   traceback="".join(traceback.format_exception(*sys.exc_info()))[-20000:])
        return 1
    rq_version = getattr(sys.modules.get("rq"), "VERSION", "") if settings.rq else ""
    gc.collect()
    gc.freeze()   # Memory that is shared stays shared: the collector writes into what it looks at.
    version = ".".join(map(str, sys.version_info[:3]))
    zygote.say(ready=True, version=f"{version}, rq {rq_version}" if settings.rq else f"{version}, without rq")
    zygote.serve(settings)
    return 0
