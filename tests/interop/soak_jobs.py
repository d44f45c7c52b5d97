"""Functions for test_soak.py. Each leaves its job's id in the file of RQ_SOAK_MARKS when it begins."""

import os
import signal
import sys
import time

from rq import Retry, get_current_job


def begin():
    """One write: lines of several processes do not mix."""
    out = os.open(os.environ["RQ_SOAK_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(out, f"{get_current_job().id}\n".encode())
    os.close(out)


def succeed(n):
    begin()
    return n


def talk(kilobytes):
    begin()
    for _ in range(kilobytes):
        sys.stdout.write("x" * 1023 + "\n")
    print("in red", file=sys.stderr)


kept = []


def leak(megabytes):
    begin()
    kept.append(b"x" * (megabytes << 20))


def fail():
    begin()
    raise ValueError("as told")


def fail_once():
    begin()
    with open(os.environ["RQ_SOAK_MARKS"]) as marks:
        if sum(line.strip() == get_current_job().id for line in marks) < 2:
            raise ValueError("not yet")


def ask_again():
    begin()
    return Retry(max=1)


def leave(code):
    begin()
    os._exit(code)


def shoot_yourself():
    begin()
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds):
    begin()
    time.sleep(seconds)


def swallow(seconds):
    begin()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.02)
        except BaseException:
            pass


def hog():
    begin()
    return len(bytearray(4000 << 20))
