"""One TOML file for a worker: settings, and how functions run; what beats it; `--check`; every error."""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
from conftest import BUILD, INTEROP, ROOT, needs_rq2
from rq import Queue

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RQXX_")}
SECRET = "s3cret-word"


def write(system, text):
    path = system.folder / "rqxx.toml"
    path.write_text(text)
    return path


def worker(system, *args, env=None, cwd=None):
    return subprocess.run([str(BUILD / "rqxx"), "worker", *map(str, args)], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, cwd=cwd or system.folder, env={**ENVIRONMENT, **(env or {})})


def check(system, text, *args, env=None):
    """What --check --json says of a file."""
    done = worker(system, "--config", write(system, text), "--check", "--json", *args, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def function(said, name):
    found, = [one for one in said["functions"] if one["function"] == name]
    return found


def program(system, name, text):
    path = system.folder / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps([job["function"], self.headers["Authorization"]]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@needs_rq2
def test_one_file_says_all_of_a_worker(system, server, connection, receiver):
    thumb = program(system, "thumb", 'printf \'["%s", "%s"]\\n\' "$1" "$2"\n')
    config = write(system, f"""
        [worker]
        redis-url = "{server.url}"
        queues = ["files", "hooks"]
        concurrency = 2
        burst = true
        python = '{sys.executable}'
        path = ["{INTEROP}"]   # "quoted" in a comment
        preload = [
            "python_jobs",     # with a comment in a list
        ]

        [functions."thumbnail.make"]
        command = "{thumb} --size {{size}}"
        [functions."list.*"]
        command = ["echo", "one \\"word\\"\\u0021"]
        result = 'text'
        [functions.shell]
        command = "echo {{0}} | tr a-z A-Z"
        shell = true
        result = "text"
        [functions.busy]
        command = "while :; do :; done"
        shell = true
        max-cpu = 1
        [functions."hooks.*"]
        http = "http://user:{SECRET}@{receiver}/jobs"
        [functions."eval_worker.evaluate"]
        runs-in = "process"
        [functions."python_jobs.plain"]
        runs-in = "python"
        [functions."*"]
        command = "echo 404"
        """)
    files, hooks, other = (Queue(name, connection=connection) for name in ("files", "hooks", "default"))
    jobs = [files.enqueue("thumbnail.make", size="2 3"), files.enqueue("list.x"), files.enqueue("shell", "it's"),
            hooks.enqueue("hooks.a"), files.enqueue("python_jobs.plain", 1), files.enqueue("no.such.thing")]
    busy, evaluation, elsewhere = files.enqueue("busy"), files.enqueue("eval_worker.evaluate", 77), other.enqueue("shell", "x")
    done = worker(system, "--config", config)
    assert done.returncode == 0, done.stderr
    assert [job.return_value() for job in jobs] == [
        ["--size", "2 3"], 'one "word"!', "IT'S", ["hooks.a", "Basic dXNlcjpzM2NyZXQtd29yZA=="], 3, 404]
    assert "CPU" in busy.latest_result().exc_string
    assert evaluation.get_status() == "failed" and "77" in evaluation.latest_result().exc_string
    assert "Native process is ready" in done.stderr and elsewhere.get_status() == "queued"
    assert SECRET not in done.stderr


def test_flag_beats_environment_beats_file(system):
    text = """
        [worker]
        queues = ["from-file"]
        concurrency = 3
        http = ["pkg.a=http://file/"]
        """

    def setting(name, *flags, **env):
        found = check(system, text, *flags, env=env)["settings"][name]
        return found["value"], found["from"]

    assert setting("queues") == (["from-file"], "file")
    assert setting("queues", RQXX_QUEUES="a, b c") == (["a", "b", "c"], "environment")
    assert setting("queues", "--queues", "d,e", RQXX_QUEUES="a") == (["d", "e"], "flag")
    assert setting("queues", "f", "g", "--queues", "d") == (["f", "g"], "argument")
    assert setting("concurrency", RQXX_CONCURRENCY="4") == (4, "environment")
    assert setting("concurrency", "--concurrency", "5", RQXX_CONCURRENCY="4") == (5, "flag")
    assert setting("grace") == ("25s", "default")
    assert setting("max-rss", RQXX_MAX_RSS="2MB") == (2 << 20, "environment")

    def places(*flags, **env):
        return [(one["function"], one["with"], one["from"]) for one in check(system, text, *flags, env=env)["functions"]
                if one["runs_in"] == "http"]

    assert places() == [("pkg.a", "http://file/", "file")]
    assert places(RQXX_HTTP="pkg.b=http://env/a,b") == [("pkg.b", "http://env/a,b", "environment")]
    assert places("--http", "pkg.c=http://flag/", RQXX_HTTP="pkg.b=http://env/") == [("pkg.c", "http://flag/", "flag")]


def test_a_flag_beats_the_table_of_its_function_and_leaves_its_limits(system):
    text = """
        max-cpu = "9s"
        [functions."a.*"]
        command = "cat"
        result = "text"
        max-rss = "1GB"
        [functions."b"]
        http = "https://host/"
        [functions."c"]
        max-cpu = 0
        """
    said = check(system, text, "--command", "a.*=ls -l", env={"RQXX_COMMAND": "b=echo a, b"})
    assert function(said, "a.*") == {"function": "a.*", "runs_in": "command", "command": ["ls", "-l"], "result": "text",
                                     "max_rss": 1 << 30, "max_cpu": 9, "from": "flag, file"}
    assert function(said, "b")["runs_in"] == "http" and function(said, "c")["max_cpu"] is None
    said = check(system, text, env={"RQXX_COMMAND": "b=echo a, b"})
    assert function(said, "b")["command"] == ["echo", "a,", "b"] and function(said, "b")["from"] == "environment, file"


def test_the_first_table_that_fits_counts_whatever_its_kind(system):
    said = check(system, """
        [functions."a.*"]
        http = "https://host/"
        [functions."a.b"]
        command = "cat"
        [functions."eval*"]
        max-rss = "1MB"
        """, "--native-isolation", "process")
    assert [(one["function"], one["runs_in"]) for one in said["functions"]] == [
        ("a.*", "http"), ("a.b", "never"), ("eval*", "as others"), ("eval_worker.evaluate", "process")]
    assert function(said, "eval_worker.evaluate")["max_rss"] == 1 << 20
    assert said["others"]["runs_in"] == "fails"


def test_with_a_serializer_of_its_own_all_runs_in_python(system):
    said = check(system, '[functions.f]\ncommand = "cat"\n', "--python", sys.executable, "--path", INTEROP,
                 "--serializer", "plain_serializer.Reversed")
    assert [(one["function"], one["runs_in"]) for one in said["functions"]] == [("f", "never")]
    assert said["others"]["runs_in"] == "python"


def test_lists_in_the_environment(system):
    (system.folder / "a b").mkdir()
    said = check(system, "", env={"RQXX_PYTHON": sys.executable, "RQXX_PATH": f"{system.folder / 'a b'}:{INTEROP}",
                                  "RQXX_PRELOAD": "json, python_jobs os.path", "RQXX_JSON": "true"})
    values = {name: one["value"] for name, one in said["settings"].items()}
    assert values["path"] == [str(system.folder / "a b"), str(INTEROP)] and values["preload"] == ["json", "python_jobs", "os.path"]


def test_check_shows_what_a_worker_does_and_no_password(system):
    config = write(system, f"""
        redis-url = "redis://me:{SECRET}@nowhere.invalid:1/2"
        max-rss = "500MB"
        [functions.a]
        http = "https://user:{SECRET}@host/path?key={SECRET}"
        [functions."b.c"]
        command = 'cat "two words"'
        """)
    done = worker(system, "--config", config, "--check", "--python", sys.executable, "--preload", "json")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    for row in (["redis-url", "redis://me:***@nowhere.invalid:1/2", "file"], ["max-rss", "500MB", "file"],
                ["python", sys.executable, "flag"], ["grace", "25s", "default"], ["a", "http", "https://host/path", "file"],
                ["b.c", "command", "cat", "'two", "words'", "max-rss", "500MB", "file"], ["eval_worker.evaluate", "thread", "registered"],
                ["all", "others", "python", sys.executable, "max-rss", "500MB", "default"]):
        assert row in lines, done.stdout
    assert SECRET not in done.stdout + done.stderr and "Python is ready" in done.stderr and "\x1b" not in done.stdout
    assert "is not available" not in done.stderr and not (system.folder / "rqxx-data").exists()


@pytest.mark.parametrize(("flags", "named"), [
    (["--python", sys.executable, "--preload", "no_such_module"], ["no_such_module"]),
    (["--python", sys.executable, "--init", "os:nothing"], ["os:nothing"]),
    (["--python", sys.executable, "--exception-handler", "os.nothing"], ["os.nothing"]),
    (["--python", sys.executable, "--serializer", "os.nothing"], ["os.nothing"]),
    (["--python", "./no-python"], ["no-python"]), (["--command", "f=./no-program {0}"], ["--command: f", "./no-program"]),
    (["--command", "f=no-program-in-path"], ["no-program-in-path"]), (["--command", "f={"], ["--command: f"]),
    (["--queues", ","], []), (["--max-rss", "-1"], ["--max-rss", "-1"]), (["--max-rss", "much"], ["--max-rss"]),
    (["--strategy", "x"], ["--strategy"]), (["--redis-url", "ftp://x"], ["--redis-url"])])
def test_check_finds_what_cannot_be_run(system, flags, named):
    done = worker(system, "--check", *flags)
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert done.stderr.count("rqxx: ") == 1 and all(word in done.stderr for word in named), done.stderr


def test_json_goes_with_check(system):
    assert "--check" in worker(system, "--json").stderr


TABLE = '[functions."a.b"]\n'


@pytest.mark.parametrize(("text", "named"), [
    ('colour = "red"', ["colour"]), ("[wroker]\nconcurrency = 1", ["wroker"]), ("[worker]\nconcurrency = true", ["worker.concurrency"]),
    ("[worker]\nburst = 1", ["worker.burst"]), ('[worker]\nconcurrency = ["1"]', ["worker.concurrency"]),
    ('[worker]\nconcurrency = "x"', ["--concurrency"]), ("[worker.more]\nburst = true", ["worker.more"]),
    # Tables of functions
    (TABLE, ["says nothing"]), (TABLE + "colour = 1", ["colour", "max-rss"]), (TABLE + "command = 1", ["command", "text"]),
    (TABLE + 'command = ""', ["command"]), (TABLE + "command = []", ["command"]), (TABLE + 'command = "\'"', ["command"]),
    (TABLE + 'command = "cat {"', ["command", "{"]), (TABLE + 'command = "./no-program"', ["command", "./no-program"]),
    (TABLE + 'command = ["cat"]\nshell = true', ["command", "shell"]), (TABLE + 'command = "cat"\nshell = "true"', ["shell"]),
    (TABLE + "shell = true", ["shell", "command"]), (TABLE + 'http = "http://h/"\nresult = "text"', ["result", "command"]),
    (TABLE + 'command = "cat"\nresult = "xml"', ["result", "xml"]), (TABLE + 'command = "cat"\nhttp = "http://h/"', ["http", "command"]),
    (TABLE + 'command = "cat"\nruns-in = "thread"', ["runs-in", "command"]), (TABLE + 'runs-in = "moon"', ["runs-in", "moon", "process"]),
    (TABLE + 'runs-in = "python"', ["runs-in", "--python"]), (TABLE + 'runs-in = "thread"\nmax-rss = "1MB"', ["max-rss", "thread"]),
    (TABLE + f'http = "ftp://u:{SECRET}@h/"', ["http", "url"]), (TABLE + f'http = "http://u:{SECRET}@/"', ["http", "url"]),
    (TABLE + 'http = "http://h/"\nmax-cpu = 1', ["max-cpu", "http"]), (TABLE + 'http = ["http://h/"]', ["http", "text"]),
    (TABLE + 'max-rss = "much"', ["max-rss", "much"]), (TABLE + "max-rss = -1", ["max-rss"]), (TABLE + "max-rss = true", ["max-rss"]),
    (TABLE + 'max-cpu = "1y"', ["max-cpu", "1y"]), (TABLE + "max-cpu = [1]", ["max-cpu"]),
    ("[functions.a.b]\nmax-cpu = 1", ["functions.a.b", "quotes"]), ('[functions]\na = "x"', ["[functions] a"]),
    ('functions = "x"', ["functions"]), ('[functions.""]\nmax-cpu = 1', ["name"]),
    # What is no TOML, or not that of settings
    (TABLE + "max-cpu = 1\n" + TABLE, ["line 3", "existing table", "functions"]), ("burst = true\nburst = true", ["line 2", "burst"]),
    ("name = abc", ["line 1", "value"]), ("name = 1979-05-27", ["line 1"]), ("name = {}", ["line 1", "a table"]),
    ("name =", ["line 1", "value"]), ("name", ["line 1", "="]), ('name = "a" "b"', ["line 1", "whitespace"]),
    ("[[worker]]\n", ["line 1", "a table"]), ("[worker\n", ["line 1", "]"]), ("preload = [\n'a'\n'b']", ["line 3", "array"]),
    ("preload = [1, 'b']", ["line 1", "kinds"]), ("preload = ['b'", ["line 1", "array"]), ('name = "\\q"', ["line 1", "escape"]),
    ("preload = [['b']]", ["line 1", "list in a list"]), ("a+b = 1", ["line 1"]), ("name = 'x", ["line 1", "string"])])
def test_a_bad_file_is_one_line_and_exit_2(system, text, named):
    done = worker(system, "--config", write(system, text + "\n"), "--check", "--log-level", "error")
    assert done.returncode == 2 and done.stdout == "", done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and SECRET not in done.stderr, done.stderr
    if "functions." in text and "line" not in named[0] and "quotes" not in named and named != ["name"]:
        named = [*named, 'functions."a.b"']
    for word in named if named == ["--concurrency"] else ["rqxx.toml", *named]:
        assert word in done.stderr


def test_other_commands_pass_over_the_tables_of_functions(system, server):
    text = '[functions."a.b"]\ncommand = "./no-program"\n'
    assert system.rqxx("queue", "list", "--config", write(system, text), "--redis-url", server.url).returncode == 0
    refused = system.rqxx("queue", "list", "--config", write(system, text + "colour = 1\n"), "--redis-url", server.url)
    assert refused.returncode == 2 and "colour" in refused.stderr


def test_the_example_is_valid(system):
    done = worker(system, "--config", "examples/worker.toml", "--check", "--json", "--python", sys.executable, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["settings"]["preload"]["value"] == ["example_tasks"] and said["others"]["runs_in"] == "python"
    assert [one["runs_in"] for one in said["functions"]] == ["command", "shell", "http", "process", "python", "as others"]
    assert function(said, "example_tasks.import_rows")["aggregate"] == {"max_size": 50, "max_wait": 2}
