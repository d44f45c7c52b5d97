"""Functions for test_python.py: what only Python can run."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

count = 0


class Account:
    rate = 2

    def __init__(self, balance):
        self.balance = balance

    def __eq__(self, other):
        return isinstance(other, Account) and self.balance == other.balance

    def __repr__(self):
        return f"Account({self.balance})"

    def grown(self, by=1):
        return Account(self.balance + by)

    @classmethod
    def of_rate(cls, factor):
        return cls(cls.rate * factor)

    @staticmethod
    def fixed():
        return 7


class OwnError(Exception):
    def __init__(self, code, where):
        super().__init__(f"code {code}")
        self.code, self.where = code, where


def counted():
    """In which process, and how often there."""
    global count
    count += 1
    return os.getpid(), count


def keywords(first, *rest, flag=False, **others):
    return first, rest, flag, sorted(others.items())


async def awaited(seconds):
    await asyncio.sleep(seconds)
    return "awaited"


def note_in_meta(key, value):
    from rq import get_current_job

    job = get_current_job()
    job.meta[key] = value
    job.save_meta()
    return job.id, job.origin, job.get_status(refresh=False).value, job.func_name


def look_again():
    from rq import get_current_job

    job = get_current_job()
    job.refresh()
    return job.get_status().value, job.worker_name == job.fetch(job.id, connection=job.connection).worker_name


def enqueue_another():
    from rq import Queue, get_current_job

    connection = get_current_job().connection
    return Queue("default", connection=connection).enqueue(keywords, 1, job_id="another").id


def give(value):
    return value


def unpicklable():
    return threading.Lock()


def chained():
    try:
        {}["missing"]
    except KeyError as error:
        raise OwnError(3, "here") from error


def in_context():
    try:
        1 / 0
    except ZeroDivisionError:
        raise OwnError(4, "there")


def deep(n=0):
    return deep(n + 1)


def leave(code):
    sys.exit(code)


def interrupt():
    raise KeyboardInterrupt


def drop_dead(code):
    os._exit(code)


def crash():
    ctypes.string_at(0)


def kill_yourself(sig):
    os.kill(os.getpid(), sig)
    time.sleep(10)


def talk(text):
    print(text, end="")
    os.write(2, b"\xff\xfe half a line")
    return len(text)


def write_to_all_descriptors():
    """Somebody's stray write into the socket to the worker."""
    for fd in range(3, 30):
        try:
            os.write(fd, b"\x05\x00\x00\x00junk!")
        except OSError:
            pass
    return "still here"


def swallow_everything(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.02)
        except BaseException:
            pass
    return "survived"


def sleep_marked(path, seconds):
    with open(path, "a") as out:
        out.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return os.getpid()


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.02)
    return os.getpid()


def leave_a_child(path, seconds):
    """A grandchild that keeps the socket open, as a daemon: it does not end with its parent's process group."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(seconds)
        os._exit(0)
    with open(path, "a") as out:
        out.write(f"{pid}\n")
    os._exit(9)


def plain(a, b=2):
    return a + b


def fork_and_come_back(value):
    """Whose child returns as well."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return value


def start_a_program(path):
    program = subprocess.Popen(["sleep", "60"])
    with open(path, "a") as out:
        out.write(f"{program.pid}\n")
    program.wait()


def length(items):
    return len(items)


def note_times(job, connection, result):
    job.meta["took"] = (job.ended_at - job.started_at).total_seconds() >= 0
    job.save_meta()


def slow_to_note(job, connection, *args):
    time.sleep(3)
    with open(job.meta["marks"], "a") as out:
        out.write("noted\n")


def sleep_long(job, connection, *args):
    with open(job.meta["marks"], "a") as out:
        out.write(f"{os.getpid()}\n")
    time.sleep(60)


def note_failure(job, connection, exc_type, exc, trace):
    job.meta["failed"] = str(exc)
    job.save_meta()


def report_progress(path):
    import rqxx

    rqxx.progress(0.25, "a quarter")
    while not os.path.exists(path):
        time.sleep(0.02)


leaked = []


def leak(megabytes):
    """Keeps what it has taken, as a function with a leak does."""
    leaked.append(b"x" * (megabytes << 20))
    return os.getpid(), len(leaked)


def hog():
    taken = []
    while True:
        taken.append(b"x" * (8 << 20))


def take_at_once(megabytes):
    return len(bytearray(megabytes << 20))


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def burn_in_a_child(seconds):
    subprocess.run([sys.executable, "-c", f"import time\nwhile time.process_time() < {seconds}: pass"])


def say(text, count=1):
    for _ in range(count):
        print(text)
    print("in red", file=sys.stderr)


def stutter(count):
    for _ in range(count):
        os.write(1, b"a")
        os.write(2, b"b")


def say_and_wait(text, path):
    print(text)
    while not os.path.exists(path):
        time.sleep(0.02)


def say_and_die(text):
    print(text)
    os._exit(3)


def say_by_a_program(text):
    subprocess.run(["sh", "-c", f"echo {text}; echo err >&2"], check=True)


def open_descriptors():
    """What stands behind each, but for the standard streams."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass   # That of the listing.
    return {fd: what for fd, what in found.items() if fd > 2}


def start_a_program_and_die(path):
    program = subprocess.Popen(["sleep", "61"])
    with open(path, "a") as out:
        out.write(f"{program.pid}\n")
    os._exit(3)


def tell_all():
    """What a job can get hold of without looking for a password, as programs log it."""
    from rq import get_current_job

    job = get_current_job()
    print(dict(os.environ), sys.argv, job.connection, repr(job), vars(job), job.to_dict())
    with open("/proc/self/cmdline") as own, open("/proc/self/environ") as environ:
        print(own.read(), environ.read())
    raise RuntimeError(f"{job.connection!r} {job!r} {dict(os.environ)}")


def count_aloud(seconds):
    for n in range(seconds * 10):
        print(f"line {n}", flush=True)
        time.sleep(0.1)
