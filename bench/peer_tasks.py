"""What the peers run."""

import time


def noop(n):
    return n


def now(sent):
    return time.monotonic() - sent


def nap(seconds):
    time.sleep(seconds)
