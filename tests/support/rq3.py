"""RQ 3 beside the version that the tests run under: its API, and its worker."""

import json
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / "build" / "venv-rq3" / "bin" / "python"
INTEROP = ROOT / "tests" / "interop"

needs_rq3 = pytest.mark.skipif(not PYTHON.exists(), reason="needs build/venv-rq3, which scripts/python-env rq3 makes")


class Refused(Exception):
    """RQ raised."""


class Rq3:
    """Calls of RQ's API, by the names of the functions in rq3_side.py."""

    def __init__(self, url):
        self.process = subprocess.Popen([PYTHON, pathlib.Path(__file__).with_name("rq3_side.py"), url.removeprefix("unix://")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __getattr__(self, op):
        def call(**arguments):
            self.process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
            if "refused" in answer:
                raise Refused(answer["refused"])
            return answer["result"]

        return call

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def worker_command(url, *args):
    return [PYTHON, "-m", "rq.cli", "worker", "--url", url, "--path", INTEROP, *args]
