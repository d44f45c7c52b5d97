"""Fixtures for the tests in Python: a private Redis per test, the programs under test, stock RQ.

Everything a test starts lives in its temporary folder and ends with it, also when the test fails.
RQXX_BUILD_DIR names the folder with the programs (default build/release).
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import pytest
import redis as redis_module
import rq

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("RQXX_BUILD_DIR", ROOT / "build" / "release"))
INTEROP = ROOT / "tests" / "interop"
sys.path[:0] = [str(INTEROP), str(ROOT / "tests" / "support")]

from driver import Driver  # noqa: E402

RQ_VERSION = tuple(int(part) for part in rq.VERSION.split(".")[:2])
needs_rq2 = pytest.mark.skipif(RQ_VERSION < (2, 0), reason="needs RQ 2.x; Debian's package is older")


#: The undefined behaviour sanitizer tells objects by way of a pipe, and takes one for broken where there is none.
needs_no_descriptors_itself = pytest.mark.skipif(BUILD.name == "asan", reason="the sanitizer needs descriptors itself")


def pytest_configure(config):
    # For Debian's packages, which are without xdist.
    config.addinivalue_line("markers", "xdist_group(name): run in one process")


def wait_for(condition, timeout=20.0, what="the condition"):
    """Polls until the condition holds; returns its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.01)


class RedisServer:
    """A redis-server on a unix socket in a folder of its own."""

    def __init__(self, folder, persistent=False):
        self.folder = pathlib.Path(folder)
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.persistent = persistent
        self.process = None
        self.start()

    def start(self):
        persistence = ["--appendonly", "yes", "--appendfsync", "always"] if self.persistent else ["--appendonly", "no"]
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.folder),
             *persistence], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = redis_module.Redis(unix_socket_path=str(self.socket))
        wait_for(self.answers, what="redis-server")

    def answers(self):
        try:
            return self.client.ping()
        except redis_module.RedisError:
            return False

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        self.process.wait(20)
        self.client.close()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)


class Running:
    """A program under test; its log is a file that is printed when the test fails."""

    def __init__(self, args, folder, name, env=None):
        self.log_file = pathlib.Path(folder) / f"{name}.log"
        self.out_file = pathlib.Path(folder) / f"{name}.out"
        self.process = subprocess.Popen([str(arg) for arg in args], stdout=self.out_file.open("wb"),
                                        stderr=self.log_file.open("wb"), env=env, stdin=subprocess.DEVNULL)

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")

    @property
    def out(self):
        return self.out_file.read_text(errors="replace")

    def wait_for_log(self, text, timeout=20.0):
        wait_for(lambda: text in self.log or self.process.poll() is not None, timeout, f"{text!r} in the log")
        assert text in self.log, f"ended with {self.process.returncode}: {self.log}"

    def signal(self, sig):
        self.process.send_signal(sig)

    def wait(self, timeout=30.0):
        return self.process.wait(timeout)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


class System:
    """Starts things for one test and ends them all."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.things = []
        self.count = 0
        self.server = None

    def redis(self, persistent=False):
        folder = self.folder / f"redis{len(self.things)}"
        folder.mkdir()
        server = RedisServer(folder, persistent)
        self.things.append(server)
        self.server = self.server or server
        return server

    def run(self, *args, env=None):
        self.count += 1
        running = Running(args, self.folder, f"{self.count}-{pathlib.Path(str(args[0])).name}", env=env)
        self.things.append(running)
        return running

    def test_worker(self, *args, url=None):
        return self.run(BUILD / "test_worker", url or self.server.url, *args)

    def driver(self, url=None, **options):
        driver = Driver(url or self.server.url, **options)
        self.things.append(driver)
        return driver

    def rq_worker(self, *args, serializer=None):
        extra = ["-S", serializer] if serializer else []
        return self.run(sys.executable, "-m", "rq.cli", "worker", "--url", self.server.url, "--path", INTEROP, *extra, *args,
                        env={**os.environ, "PYTHONPATH": str(INTEROP)})

    def rqxx(self, *args, timeout=60, **kwargs):
        """Runs a command to its end."""
        env = {**os.environ, **kwargs.pop("env", {})}
        return subprocess.run([str(BUILD / "rqxx"), *map(str, args)], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, env=env, cwd=self.folder, **kwargs)

    def serve(self, *args, url=None, data_dir=None, wait=True, env=None):
        command = [BUILD / "rqxx", "serve", "--port", "0", "--data-dir", data_dir or self.folder / "data"]
        if url:
            command += ["--redis-url", url]
        server = self.run(*command, *args, env=env)
        if wait:
            wait_for(lambda: "Redis: " in server.out or server.process.poll() is not None, what="serve")
            assert server.process.poll() is None, server.log
            server.url = server.out.split("Dashboard: ")[1].split("\n")[0].rstrip("/")
            server.redis_url = server.out.split("Redis: ")[1].split("\n")[0]
        return server

    def end(self):
        for thing in reversed(self.things):
            if isinstance(thing, (Running, Driver)):
                thing.end()
        for thing in self.things:
            if isinstance(thing, RedisServer):
                thing.resume()
                thing.stop(signal.SIGKILL)


@pytest.fixture
def system(request):
    # Not pytest's own folder: unix socket paths must be short.
    folder = tempfile.mkdtemp(prefix="rqxx-test-")
    system = System(folder)
    yield system
    system.end()
    report = getattr(request.node, "report_call", None)
    if report is not None and report.failed:
        for thing in system.things:
            if isinstance(thing, Running):
                print(f"--- {thing.log_file.name}\n{thing.log[-6000:]}")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.report_call = outcome.get_result()


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(f"skipped: {report.nodeid}: {report.longrepr[2].removeprefix('Skipped: ')}")


@pytest.fixture
def server(system):
    return system.redis()


@pytest.fixture
def connection(server):
    return server.client


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright from PyPI")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)


def http(method, url, body=None, headers=None, timeout=20):
    """One request; problems are answers too. A dict or list is sent as JSON, bytes as they are."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    if data is not None:
        request.add_header("Content-Type", "application/json")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


def raw_http(url, data):
    """Sends bytes as they are and returns all that comes back."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as conn:
        conn.sendall(data)
        received = b""
        while True:
            piece = conn.recv(65536)
            if not piece:
                return received
            received += piece
