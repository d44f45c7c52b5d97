"""The functions that test jobs call; tests/support/test_worker.cpp has the native ones of the same names."""

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
