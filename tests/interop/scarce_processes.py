"""Preloaded by test_python.py: forks fail for a while, as where a system has no more processes to give."""

import errno
import os

left, fork = 5, os.fork


def fail_first():
    global left
    if left:
        left -= 1
        raise BlockingIOError(errno.EAGAIN, "no more processes")
    return fork()


os.fork = fail_first
