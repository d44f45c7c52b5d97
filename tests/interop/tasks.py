"""The functions that test jobs call; tests/support/test_worker.cpp has the native ones of the same names."""

import os
import time


def add(a, b):
    return a + b


def noop(n):
    return n


def echo(*args, **kwargs):
    return [list(args), kwargs]


def fail(message):
    raise RuntimeError(message)


def none():
    return None


def slow(seconds):
    time.sleep(seconds)
    return seconds


def mark(path, seconds):
    from rq import get_current_job

    job_id = get_current_job().id
    with open(path, "a") as out:
        out.write(job_id + "\n")
    time.sleep(seconds)
    return job_id


def span(path, seconds):
    """Leaves the times at which it begins and ends."""
    from rq import get_current_job

    def note(event):
        with open(path, "a") as out:
            out.write(f"{event} {get_current_job().id} {time.time():.6f} {os.getpid()}\n")

    note("+")
    time.sleep(seconds)
    note("-")
    return seconds


def leave(path, text):
    with open(path, "a") as out:
        out.write(text + "\n")
    return text


def flaky(path, failures):
    """Fails as often as told, counting the lines of a file."""
    leave(path, "flaky")
    with open(path) as marks:
        if marks.read().splitlines().count("flaky") <= failures:
            raise RuntimeError("not yet")
    return "at last"


def unserializable():
    return lambda: None


def ask_retry(max, interval):
    from rq import Retry

    return Retry(max=max, interval=interval)


def note(job, text):
    if "marks" in job.meta:
        with open(job.meta["marks"], "a") as out:
            out.write(text + "\n")


def on_success(job, connection, result):
    note(job, f"success {result}")


def on_failure(job, connection, exc_type, exc, traceback):
    note(job, f"failure {str(exc).split()[-1]}")


def on_stopped(job, connection):
    note(job, "stopped")


def bad_callback(*args):
    raise RuntimeError("callback broke")


def slow_callback(*args):
    time.sleep(30)


def begin_and_end(path, name, seconds):
    """Notes when it begins and when it ends."""
    leave(path, f"begin {name}")
    time.sleep(seconds)
    return leave(path, f"end {name}")


def told(path, seconds):
    """Is told to come back later, the first time."""
    import rqxx

    if os.path.exists(path):
        return "done"
    leave(path, "told")
    raise rqxx.RateLimited(seconds)
