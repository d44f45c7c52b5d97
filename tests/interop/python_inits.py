"""For `--init` in test_python_options.py."""

import os
import sys

calls = []


def first():
    calls.append(f"first, {'python_jobs' in sys.modules}")


class Application:
    class settings:
        @staticmethod
        def load():
            calls.append(f"second, {'python_jobs' in sys.modules}")


def renew_in_each_process():
    os.register_at_fork(after_in_child=lambda: calls.append("forked"))


def broken():
    raise LookupError("no settings")


def leave():
    sys.exit("not today")


value = 5
