"""`rqxx top` in a terminal: a pseudo terminal, and a screen that understands what is written to it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import unicodedata

import pytest
import tasks
from conftest import BUILD, http, wait_for
from rq import Queue


class Screen:
    """What a terminal shows. Knows exactly the sequences that `rqxx top` may write; anything else is a failure."""

    SEQUENCE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")

    def __init__(self, width, height):
        self.resize(width, height)
        self.modes = {}
        self.rest = b""
        self.colored = False
        self.writes = 0

    def resize(self, width, height):
        self.width, self.height = width, height
        self.cells = [[" "] * width for _ in range(height)]
        self.x = self.y = 0

    def feed(self, data):
        data = self.rest + data
        text = data.decode("utf-8", errors="ignore") if data[-1:] < b"\x80" else None
        if text is None or re.search(r"\x1b(\[[\d;?]*)?$", text):
            self.rest = data
            return
        self.rest = b""
        data.decode()  # Nothing but UTF-8 is ever written.
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = self.SEQUENCE.match(text, at)
                assert found, repr(text[at:at + 20])
                self.obey(*found.groups())
                at = found.end()
                continue
            self.put(text[at])
            at += 1

    def obey(self, private, numbers, letter):
        if private:
            assert numbers in ("1049", "25", "7") and letter in "hl", (numbers, letter)
            self.modes[numbers] = letter == "h"
        elif letter == "H":
            line, column = (numbers or "1;1").split(";")
            self.y, self.x = int(line) - 1, int(column) - 1
            assert 0 <= self.y < self.height, "below the screen"
        elif letter == "K":
            assert numbers in ("", "0")
            for x in range(self.x, self.width):
                self.cells[self.y][x] = " "
        elif letter == "J":
            assert numbers == "2"
            self.cells = [[" "] * self.width for _ in range(self.height)]
        elif letter == "m":
            assert re.fullmatch(r"0|1|2|7|31|32|33", numbers), numbers
            self.colored = self.colored or numbers in ("31", "32", "33", "1", "2", "7")
        else:
            raise AssertionError(f"sequence {numbers}{letter}")

    def put(self, character):
        if not self.modes.get("1049"):
            return  # The shell's own screen.
        assert unicodedata.category(character) not in ("Cc", "Cf", "Mn", "Me"), repr(character)
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        assert self.x + width <= self.width, f"beyond the edge: {self.lines()[self.y]!r}"
        self.cells[self.y][self.x] = character
        self.x += width
        self.writes += 1

    def lines(self):
        return ["".join(row).rstrip() for row in self.cells]

    @property
    def text(self):
        return "\n".join(self.lines())


class Top:
    """`rqxx top` on a terminal of its own."""

    def __init__(self, *args, width=100, height=30, env=None):
        self.screen = Screen(width, height)
        self.out = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            clean = {key: value for key, value in os.environ.items() if key != "NO_COLOR" and not key.startswith("RQXX_")}
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
                os.execve(str(BUILD / "rqxx"), ["rqxx", "top", "--interval", "0.3", *map(str, args)], {**clean, **(env or {})})
            finally:
                os._exit(127)
        self.before = termios.tcgetattr(self.fd)
        self.status = None

    def read(self, timeout=0.05):
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False  # The other side is closed.
        self.out += data
        self.screen.feed(data)
        return bool(data)

    def see(self, *wanted, without=(), timeout=20):
        """Reads until all of these are on the screen, and none of the others."""
        def seen():
            self.read()
            return all(text in self.screen.text for text in wanted) and not any(text in self.screen.text for text in without)
        try:
            wait_for(seen, timeout, f"{wanted}")
        except AssertionError:
            raise AssertionError(f"{wanted} without {without} in\n{self.screen.text}") from None
        return self.screen.lines()

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def resize(self, width, height):
        while self.read(0.2):
            pass
        self.screen.resize(width, height)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def end(self, timeout=20):
        """The exit code; the terminal must be as it was."""
        def ended():
            while self.read(0.02):
                pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
            return pid
        wait_for(ended, timeout, "the end of top")
        while self.read(0.1):
            pass
        return os.waitstatus_to_exitcode(self.status)

    def restored(self):
        modes = self.screen.modes
        after = termios.tcgetattr(self.fd)
        return modes == {"1049": False, "25": True, "7": True} and after[3] == self.before[3]

    def kill(self):
        if self.status is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        os.close(self.fd)


@pytest.fixture
def top():
    started = []

    def start(*args, **options):
        started.append(Top(*args, **options))
        return started[-1]
    yield start
    for one in started:
        one.kill()


@pytest.fixture
def web(system, server):
    return system.serve("--no-worker", url=server.url)


def fill(connection):
    for n in range(7):
        Queue("default", connection=connection).enqueue(tasks.noop, n)
    Queue("high", connection=connection).enqueue(tasks.add, 1, 2)


def test_the_overview_shows_what_is_there_and_what_is_wrong(web, connection, top):
    fill(connection)
    shown = top("--url", web.url)
    lines = shown.see("queued 8", "default", "high", "tasks.noop", "No workers", "live", "no worker takes them")
    assert any(re.match(r"default +7 +0 +0 +0", line) for line in lines)
    assert shown.screen.modes["1049"] and shown.screen.modes["25"] is False
    Queue("default", connection=connection).enqueue(tasks.noop, 8)
    shown.see("queued 9")
    shown.press("q")
    assert shown.end() == 0 and shown.restored()


def test_redis_itself_can_be_asked_without_a_server(server, connection, top):
    fill(connection)
    shown = top("--redis-url", server.url)
    shown.see("queued 8", "tasks.add")
    shown.press("q")
    assert shown.end() == 0 and shown.restored()
    # It looked, and left nothing.
    assert not list(connection.scan_iter("rqxx:*"))


def test_keys_lead_through_the_views(web, system, connection, top):
    fill(connection)
    assert system.rq_worker("--burst", "high").wait() == 0
    system.test_worker("--queues", "elsewhere", "--name", "watcher")
    shown = top("--url", web.url, width=140)
    shown.see("queued 7")
    shown.press("2")
    shown.see("QUEUED", "default", without=["tasks.noop"])
    shown.press("3")
    shown.see("HEARD", "elsewhere", without=["QUEUED"])
    shown.press("\t")
    shown.see("STATUS", "tasks.noop", "tasks.add", "status: any")
    shown.press("f")
    shown.see("status: queued", "tasks.noop", without=["tasks.add"])
    shown.press("fff")
    shown.see("status: failed", "Nothing here")
    shown.press("\x1b[Z")
    shown.see("HEARD")
    shown.press("?")
    shown.see("quit", "PgUp")
    shown.press("?")
    shown.see("HEARD")
    shown.press("1")
    shown.see("slots:")


def test_long_lists_scroll_and_can_be_filtered(web, connection, top):
    for n in range(100):
        Queue(f"queue-{n:03d}", connection=connection).enqueue(tasks.noop, n)
    shown = top("--url", web.url, width=80, height=24)
    shown.see("queued 100")
    shown.press("2")
    shown.see("queue-000", without=["queue-050"])
    shown.press("\x1b[B")
    shown.see("queue-001", "from row 2", without=["queue-000"])
    shown.press("\x1b[6~")
    shown.see("queue-025", without=["queue-001"])
    shown.press("\x1b[F")
    shown.see("queue-099")
    shown.press("\x1b[H")
    shown.see("queue-000")
    shown.press("/")
    shown.press("-07")
    shown.see("/-07", "queue-070", "queue-079", without=["queue-001"])
    shown.press("q")  # A letter like any other there.
    shown.see("/-07q", "Nothing fits the filter")
    shown.press("\x7f\r")
    shown.see("filter: -07", "queue-070", without=["/-07"])
    shown.press("\x1b")
    shown.see("queue-000", without=["filter"])
    shown.press("q")
    assert shown.end() == 0 and shown.restored()


def test_paused_it_stays_as_it_is(web, connection, top):
    fill(connection)
    shown = top("--url", web.url)
    shown.see("queued 8")
    shown.press("p")
    shown.see("paused")
    Queue("default", connection=connection).enqueue(tasks.noop, 8)
    for _ in range(20):
        shown.read(0.1)
    assert "queued 8" in shown.screen.text
    shown.press("p")
    shown.see("queued 9", without=["paused"])


@pytest.mark.parametrize("width, height", [(80, 24), (40, 12), (20, 5), (1, 1), (250, 80)])
def test_it_fits_every_window(web, connection, top, width, height):
    fill(connection)
    Queue("a-queue-with-a-very-long-name-" * 5, connection=connection).enqueue(tasks.noop, 1)
    shown = top("--url", web.url, width=width, height=height)
    wait_for(lambda: shown.read() and shown.screen.writes > 0, what="something")
    for keys in ("2", "3", "4", "?", "?", "/", "x", "\x1b", "1"):
        shown.press(keys)
        for _ in range(3):
            shown.read(0.1)
    shown.press("q")
    assert shown.end() == 0 and shown.restored()


def test_a_window_that_changes_its_size_is_drawn_anew(web, connection, top):
    fill(connection)
    shown = top("--url", web.url, width=100, height=30)
    shown.see("queued 8", "tasks.noop")
    shown.resize(60, 18)
    shown.see("queued 8", "default")
    shown.resize(120, 40)
    shown.see("queued 8", "tasks.noop", "default")


def test_only_lines_that_changed_are_written(web, connection, top):
    shown = top("--url", web.url)
    shown.see("live")
    for _ in range(10):
        shown.read(0.2)
    before = shown.screen.writes
    for _ in range(10):
        shown.read(0.2)
    # The time, and the line of rates; not thirty lines of a hundred columns three times a second.
    assert shown.screen.writes - before < 10 * 3 * 300


HOSTILE = ["\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "line\nbreak\rreturn", "\u202eturned", "\u200bnothing", "wide 漢字漢字", "\x9b31m", "e\u0301",
           "x" * 5000]


def test_data_cannot_drive_the_terminal(web, connection, top):
    for n, name in enumerate(HOSTILE):
        connection.sadd("rq:queues", "rq:queue:" + name)
        connection.rpush("rq:queue:" + name, f"job-{n}")
        connection.hset(f"rq:job:job-{n}", mapping={"created_at": "2030-01-01T00:00:00.000000Z", "origin": name, "status": "queued",
                                                    "description": name, "enqueued_at": "2026-01-01T00:00:00.000000Z"})
        connection.hset(f"rq:worker:{name}", mapping={"queues": name, "state": name, "hostname": name, "birth": name})
        connection.sadd("rq:workers", f"rq:worker:{name}")
    connection.sadd("rq:queues", b"rq:queue:\xff\xfe\x1b[H")
    connection.rpush(b"rq:queue:\xff\xfe\x1b[H", "x")
    # The screen takes nothing but the sequences of top itself, and nothing beyond its edge.
    shown = top("--url", web.url, width=100, height=40)
    shown.see("queued 10")
    for view in "2341":
        shown.press(view)
        shown.see("\ufffd")
        for _ in range(3):
            shown.read(0.1)
    shown.press("2")
    shown.see("漢")
    once = os.popen(f"{BUILD / 'rqxx'} top --once --url {web.url} < /dev/null").read()
    assert "\x1b" not in once and "\x07" not in once and "\u202e" not in once and "\r" not in once


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back_on_a_signal(web, top, number):
    shown = top("--url", web.url)
    shown.see("live")
    os.kill(shown.pid, number)
    assert shown.end() == 0 and shown.restored()


def test_ctrl_c_ends_it(web, top):
    shown = top("--url", web.url)
    shown.see("live")
    shown.press("\x03")
    assert shown.end() == 0 and shown.restored()


def test_ctrl_z_gives_the_terminal_to_the_shell_and_takes_it_again(web, connection, top):
    shown = top("--url", web.url)
    shown.see("live")
    os.kill(shown.pid, signal.SIGTSTP)
    wait_for(lambda: (shown.read(), os.waitpid(shown.pid, os.WNOHANG | os.WUNTRACED)[0])[1], what="the stop")
    while shown.read(0.1):
        pass
    assert shown.restored()
    os.kill(shown.pid, signal.SIGCONT)
    fill(connection)
    shown.see("live", "queued 8")
    assert shown.screen.modes["1049"]
    shown.press("q")
    assert shown.end() == 0 and shown.restored()


def test_a_server_that_goes_away_and_comes_back_is_told(system, server, connection, top):
    fill(connection)
    web = system.serve("--no-worker", url=server.url)
    port = web.url.rsplit(":", 1)[1]
    shown = top("--url", web.url)
    shown.see("queued 8", "live")
    web.signal(signal.SIGKILL)
    shown.see("no answer", "queued 8")  # What was known stays.
    again = system.run(BUILD / "rqxx", "serve", "--no-worker", "--port", port, "--data-dir", system.folder / "again", "--redis-url",
                       server.url)
    shown.see("live", without=["no answer"])
    assert again.process.poll() is None
    server.stop()
    shown.see("no answer", "503")
    shown.press("q")
    assert shown.end() == 0 and shown.restored()


def test_a_token_opens_the_server(system, server, connection, top):
    fill(connection)
    token = system.folder / "token"
    token.write_text("secret-of-top\n")
    web = system.serve("--no-worker", "--token-file", token, url=server.url)
    shown = top("--url", web.url)
    shown.see("no answer", "401", "--token-file")
    shown.press("q")
    assert shown.end() == 0
    for options in ({"args": ["--token-file", token]}, {"args": [], "env": {"RQXX_TOKEN": "secret-of-top"}}):
        shown = top("--url", web.url, *options["args"], env=options.get("env"))
        shown.see("queued 8", "live")
        assert b"secret-of-top" not in shown.out
        assert b"secret-of-top" not in open(f"/proc/{shown.pid}/cmdline", "rb").read()
        shown.press("q")
        assert shown.end() == 0


def test_colours_can_be_switched_off(web, connection, top):
    fill(connection)
    for options in ({"args": ["--no-color"]}, {"args": [], "env": {"NO_COLOR": "1"}}):
        shown = top("--url", web.url, *options["args"], env=options.get("env"))
        shown.see("queued 8", "live")
        assert not shown.screen.colored and "1 Overview*" in shown.screen.text
    colored = top("--url", web.url)
    colored.see("queued 8")
    assert colored.screen.colored


def test_without_a_terminal_it_prints_once(web, system, connection):
    fill(connection)
    Queue("default", connection=connection).enqueue(tasks.noop, 8)
    result = system.rqxx("top", "--url", web.url)
    assert result.returncode == 0 and "\x1b" not in result.stdout
    for text in ("queued 9", "default", "high", "tasks.noop", "tasks.add", "no worker takes them"):
        assert text in result.stdout
    by_redis = system.rqxx("top", "--once", "--redis-url", web.redis_url)
    assert by_redis.returncode == 0 and "queued 9" in by_redis.stdout


def test_nobody_there_is_an_error_that_says_so(system):
    result = system.rqxx("top", "--url", "http://127.0.0.1:1")
    assert result.returncode == 1 and result.stdout == "" and "127.0.0.1:1" in result.stderr
    assert system.rqxx("top", "--url", "ftp://x").returncode == 2
    assert system.rqxx("top", "--interval", "0").returncode == 2


def test_top_shows_the_counts_of_the_api(web, connection, top):
    fill(connection)
    totals = http("GET", web.url + "/api/rq/stats").json["totals"]
    shown = top("--url", web.url, width=140)
    shown.see(*(f"{name} {totals[name]}" for name in ("queued", "started", "failed", "finished", "scheduled", "deferred", "canceled")))
