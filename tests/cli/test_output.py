"""What jobs write: `rqxx job logs`, `GET /api/v1/jobs/{id}/output`. The streams are written here, as a worker does."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time

import pytest
from conftest import BUILD, http, wait_for

FIRST, SECOND, THIRD = (f"0193aaaa{n:04d}7000800000000000000{n}" for n in (1, 2, 3))
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


class Output:
    """A job and its streams."""

    def __init__(self, connection, job_id="a"):
        self.connection = connection
        self.job_id = job_id
        self.status("finished")

    def status(self, word):
        self.connection.hset(f"rq:job:{self.job_id}", mapping={
            "status": word, "origin": "default", "created_at": "2026-11-23T17:47:37.728246Z"})

    def run(self, execution):
        self.status("started")
        record = f"rq:execution:{self.job_id}:{execution}"
        self.connection.hset(record, mapping={"id": execution, "created_at": "1795456544.965519", "worker_name": "w"})
        self.connection.zadd(f"rq:executions:{self.job_id}", {execution: time.time() + 90})

    def end(self, execution, word):
        """As lua/settle.lua: both at once."""
        with self.connection.pipeline() as pipe:
            pipe.delete(f"rq:execution:{self.job_id}:{execution}").zrem(f"rq:executions:{self.job_id}", execution)
            pipe.xadd(f"rq:results:{self.job_id}", {"type": 1, "execution_id": execution})
            pipe.hset(f"rq:job:{self.job_id}", "status", word).execute()

    def write(self, execution, *pieces):
        key = f"rqxx:output:{self.job_id}"
        for field, text in pieces:
            if not self.connection.exists(f"{key}:{execution}"):
                self.connection.lpush(key, execution)
            self.connection.xadd(f"{key}:{execution}", {field: text})


@pytest.fixture
def output(connection):
    return Output(connection)


@pytest.fixture
def logs(system, server):
    """Runs the command to its end; output as bytes."""
    def run(*args, code=0, env=None):
        result = subprocess.run([BUILD / "rqxx", "job", "logs", *args, "--redis-url", server.url], capture_output=True,
                                timeout=60, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        assert result.returncode == code, result.stderr
        return result
    return run


@pytest.fixture
def follow(system, server):
    def start(*args):
        return system.run(BUILD / "rqxx", "job", "logs", "--follow", *args, "--redis-url", server.url)
    return start


@pytest.fixture
def get(system, server):
    web = system.serve("--no-worker", url=server.url)

    def ask(query="", job_id="a", method="GET"):
        return http(method, f"{web.url}/api/v1/jobs/{job_id}/output{query}")
    ask.web = web
    return ask


def on_terminal(*args, env=None):
    """What the command writes to a terminal."""
    main, side = pty.openpty()
    process = subprocess.Popen([BUILD / "rqxx", *args], stdin=subprocess.DEVNULL, stdout=side, stderr=side,
                               env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, **(env or {})})
    os.close(side)
    received = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        if not piece:
            break
        received += piece
    os.close(main)
    assert process.wait(30) == 0
    return received


# ---- rqxx job logs -----------------------------------------------------------------------------------

def test_stdout_goes_to_stdout_and_stderr_to_stderr_byte_by_byte(logs, output):
    noise = bytes(range(256))
    output.write(FIRST, ("1", b"one\r\n"), ("2", b"careful\x1b[2J"), ("1", noise), ("2", b"\xff\xfe"), ("1", b"no newline"))
    result = logs("a")
    assert result.stdout == b"one\r\n" + noise + b"no newline"
    assert result.stderr == b"careful\x1b[2J\xff\xfe"
    assert logs("a", "--stream", "stdout").stderr == b""
    assert logs("a", "--stream", "stderr").stdout == b""


def test_the_newest_execution_is_shown_or_the_one_that_is_named(logs, output):
    output.write(FIRST, ("1", "first\n"))
    output.write(SECOND, ("1", "second\n"))
    assert logs("a").stdout == b"second\n"
    assert logs("a", "--execution", FIRST).stdout == b"first\n"
    assert logs("a", "--execution", FIRST[:12]).stdout == b"first\n"
    several = logs("a", "--execution", FIRST[:8], code=1).stderr
    assert several == b"rqxx: --execution: more than one execution of job a begins with 0193aaaa\n"
    assert b"no execution of job a begins with ffff" in logs("a", "--execution", "ffff", code=1).stderr


def test_what_there_is_to_say_where_there_is_no_output(logs, output):
    assert logs("nope", code=1).stderr == b"rqxx: job nope was not found\n"
    output.status("queued")
    result = logs("a")
    assert (result.stdout, result.stderr) == (b"", b"rqxx: job a has not run, it is queued\n")
    output.write(FIRST, ("1", "first\n"))
    output.run(SECOND)      # A retry that has written nothing yet: the output of the first is not passed off as its.
    result = logs("a")
    assert result.stdout == b""
    assert f"execution {SECOND} of job a has written nothing that is kept; another has: --execution {FIRST}" in result.stderr.decode()
    assert logs("a", "--execution", SECOND).stdout == b""


def test_missing_bytes_are_told_on_stderr(logs, output):
    output.write(FIRST, ("1", "begin"), ("x", "12345"), ("1", "end\n"))
    result = logs("a")
    assert result.stdout == b"beginend\n"
    assert result.stderr.decode() == "[… 12345 bytes are missing …]\n"


def test_timestamps_stand_before_each_line_and_only_there(logs, output):
    output.write(FIRST, ("1", "one\ntw"), ("2", "warn\n"), ("1", "o\n\nlast"))
    result = logs("a", "--timestamps")
    assert re.fullmatch(f"{TIME} one\n{TIME} two\n{TIME} \n{TIME} last", result.stdout.decode())
    assert re.fullmatch(f"{TIME} warn\n", result.stderr.decode())


def test_json_is_a_line_for_each_piece(logs, output):
    output.write(FIRST, ("1", "one\n"), ("2", b"caf\xc3"), ("1", "mid"), ("2", b"\xa9\n"), ("x", "7"), ("1", b"\xffend\xe2\x82"))
    lines = [json.loads(line) for line in logs("a", "--json").stdout.splitlines()]
    assert all(re.fullmatch(TIME, line.pop("at")) and line.pop("execution") == FIRST for line in lines)
    assert lines == [{"stream": "stdout", "text": "one\n"}, {"stream": "stderr", "text": "caf"}, {"stream": "stdout", "text": "mid"},
                     {"stream": "stderr", "text": "é\n"}, {"stream": "cut", "missing_bytes": 7},
                     {"stream": "stdout", "text": "\ufffdend"}, {"stream": "stdout", "text": "\ufffd\ufffd"}]


def test_a_terminal_is_not_driven_by_a_job(server, output):
    pieces = [("1", b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x1b[H ca"), ("1", b"f\xc3"), ("1", b"\xa9 \x1b[3"), ("1", b"2mgreen\r50%\r\n"),
              ("1", "\u202egnp.exe \x9b31m \u0085".encode()), ("1", b"\x1b"), ("1", b"c\x1b[1mbold")]
    output.write(FIRST, *pieces)
    shown = on_terminal("job", "logs", "a", "--redis-url", server.url)
    text = shown.decode().replace("\r\n", "\n")
    assert "\x1b[31mred\x1b[0m" in text and "café \x1b[32mgreen\n50%\n" in text
    assert set(re.findall("\x1b(.{0,4})", text)) == {"[31m", "[0m ", "[32m", "[1mb", "[0m"}
    assert not re.search("[\x07\x80-\x9f\u202e]", text) and "\ufffdgnp.exe" in text
    assert text.endswith("bold\x1b[0m\n")
    assert b"\x1b" not in on_terminal("job", "logs", "a", "--redis-url", server.url, env={"NO_COLOR": "1"})


def peak_kb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def test_much_output_is_read_in_pieces(server, output, get):
    line = b"x" * 65535 + b"\n"
    key = f"rqxx:output:a:{FIRST}"
    output.connection.lpush("rqxx:output:a", FIRST)
    with output.connection.pipeline() as pipe:
        for _ in range(1600):   # 100 MB
            pipe.xadd(key, {"1": line})
        pipe.execute()
    output.run(FIRST)
    process = subprocess.Popen([BUILD / "rqxx", "job", "logs", "a", "--follow", "--redis-url", server.url], stdout=subprocess.PIPE)
    for _ in range(1600):
        assert process.stdout.read(len(line)) == line
    assert peak_kb(process.pid) < 64 * 1024
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    after, total = "", 0
    for _ in range(20):
        answer = get(f"?limit=1048576&after={after}").json
        size = sum(len(entry["text"]) for entry in answer["entries"])
        assert 0 < size <= 1048576 and not answer["ended"]
        after, total = answer["next_after"], total + size
    assert total == 20 * 1048576
    assert peak_kb(get.web.process.pid) < 128 * 1024


def test_one_huge_entry_is_cut(logs, output, get):
    output.write(FIRST, ("1", b"y" * (3 << 20)), ("1", b"end\n"))
    result = logs("a")
    assert result.stdout == b"y" * (1 << 20) + b"end\n"
    assert result.stderr.decode() == f"[… {2 << 20} bytes are missing …]\n"
    entries = get().json["entries"]
    assert [entry["stream"] for entry in entries] == ["stdout", "cut"] and len(entries[0]["text"]) == 1 << 20


def test_a_reader_that_goes_away_ends_it(server, output):
    for _ in range(100):
        output.write(FIRST, ("1", "z" * 60000))
    result = subprocess.run(f"'{BUILD}/rqxx' job logs a --redis-url {server.url} | head -c 10", shell=True, capture_output=True, timeout=30)
    assert result.stdout == b"z" * 10 and result.stderr == b""


# ---- --follow ----------------------------------------------------------------------------------------

def test_follow_shows_what_comes_until_the_end(follow, output):
    output.run(FIRST)
    following = follow("a")
    output.write(FIRST, ("1", "one\n"))
    wait_for(lambda: following.out == "one\n")
    output.write(FIRST, ("1", "two\n"), ("2", "warn\n"))
    wait_for(lambda: following.out == "one\ntwo\n")
    assert following.process.poll() is None
    output.write(FIRST, ("1", "last"))
    output.end(FIRST, "finished")
    assert following.wait() == 0
    assert (following.out, following.log) == ("one\ntwo\nlast", "warn\n")


def test_follow_waits_for_the_first_run_and_goes_on_with_retries(follow, output):
    output.status("queued")
    following = follow("a")
    named = follow("a", "--execution", FIRST[:12])
    assert named.wait() == 1    # There is none such yet.
    output.run(FIRST)
    output.write(FIRST, ("1", "first\n"))
    wait_for(lambda: "first" in following.out)
    named = follow("a", "--execution", FIRST[:12])
    output.end(FIRST, "queued")
    assert named.wait() == 0 and named.out == "first\n"
    output.write(SECOND, ("1", "second\n"))
    output.write(THIRD, ("1", "third\n"))
    output.end(THIRD, "failed")
    assert following.wait() == 0
    assert following.out == "first\nsecond\nthird\n"
    assert following.log == f"rqxx: execution {SECOND}\nrqxx: execution {THIRD}\n"


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_follow_ends_quietly_on_a_signal(follow, output, sig):
    output.run(FIRST)
    output.write(FIRST, ("1", "one\n"))
    following = follow("a")
    wait_for(lambda: following.out == "one\n")
    following.signal(sig)
    assert following.wait(5) == 0 and following.log == ""


def test_follow_gets_over_an_outage_of_redis(follow, output, server, system):
    output.run(FIRST)
    output.write(FIRST, ("1", "one\n"))
    following = follow("a")
    wait_for(lambda: following.out == "one\n")
    for _ in range(3):
        server.client.client_kill_filter(_type="normal", skipme=True)
        time.sleep(0.2)
    server.pause()
    time.sleep(1)
    server.resume()
    output.write(FIRST, ("1", "two\n"))
    wait_for(lambda: following.out == "one\ntwo\n")
    output.end(FIRST, "finished")
    assert following.wait() == 0 and following.out == "one\ntwo\n"


def test_follow_ends_with_a_deleted_job(follow, output, connection):
    output.run(FIRST)
    output.write(FIRST, ("1", "one\n"))
    following = follow("a")
    wait_for(lambda: following.out == "one\n")
    connection.delete("rq:job:a")
    assert following.wait() == 0 and following.log == "rqxx: job a is deleted\n"


def test_nothing_is_lost_or_doubled_while_it_is_written(follow, output):
    output.run(FIRST)
    following = follow("a")
    lines = [f"line {n}\n" for n in range(3000)]

    def write():
        for n in range(0, len(lines), 7):
            output.write(FIRST, ("1", "".join(lines[n:n + 7])))
        output.end(FIRST, "finished")
    writer = threading.Thread(target=write)
    writer.start()
    writer.join()
    assert following.wait() == 0 and following.out == "".join(lines)


# ---- GET /api/v1/jobs/{id}/output --------------------------------------------------------------------

def test_output_over_http(get, output):
    output.run(SECOND)
    output.write(FIRST, ("1", "first\n"))
    output.write(SECOND, ("1", "one\n"), ("2", "warn\n"), ("x", "99"))
    body = get().json
    assert list(body) == ["status", "job_id", "job_status", "execution", "executions", "entries", "next_after", "ended"]
    assert (body["status"], body["job_id"], body["job_status"], body["execution"]) == ("ok", "a", "started", SECOND)
    assert body["executions"] == [SECOND, FIRST] and body["ended"] is False
    assert [(e["stream"], e.get("text"), e.get("missing_bytes")) for e in body["entries"]] == [
        ("stdout", "one\n", None), ("stderr", "warn\n", None), ("cut", None, 99)]
    assert all(re.fullmatch(TIME, e["at"]) for e in body["entries"]) and body["next_after"] == body["entries"][-1]["id"]
    again = get(f"?after={body['next_after']}").json
    assert again["entries"] == [] and again["next_after"] == body["next_after"]
    output.end(SECOND, "finished")
    assert get(f"?after={body['next_after']}").json["ended"] is True
    other = get(f"?execution={FIRST[:12]}").json
    assert other["execution"] == FIRST and other["ended"] is True and other["entries"][0]["text"] == "first\n"
    head = get(method="HEAD")
    assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) > 0


def test_a_limit_gives_the_output_in_parts(get, output):
    output.write(FIRST, *[("1", f"{n:09d}\n") for n in range(50)])
    after, text, calls = "", "", 0
    while True:
        body = get(f"?limit=100&after={after}").json
        text += "".join(entry["text"] for entry in body["entries"])
        after, calls = body["next_after"], calls + 1
        if body["ended"]:
            break
    assert text == "".join(f"{n:09d}\n" for n in range(50)) and calls == 5
    assert len(get("?limit=1").json["entries"]) == 1


def test_split_characters_are_whole_across_answers(get, output):
    output.run(FIRST)
    whole = "añ€𝄞" * 3
    text, after = "", ""
    for byte in whole.encode():     # The worst: a piece for each byte.
        output.write(FIRST, ("1", bytes([byte])))
        body = get(f"?after={after}").json
        text, after = text + "".join(entry["text"] for entry in body["entries"]), body["next_after"]
    assert text == whole
    output.write(FIRST, ("1", b"\xe2"), *[("2", f"{n}") for n in range(9)])    # No text at all does not hold up the rest.
    body = get(f"?after={after}").json
    assert [entry["text"] for entry in body["entries"]] == ["\ufffd", *"012345678"]
    assert "".join(entry["text"] for entry in get("?limit=7").json["entries"]) in whole


@pytest.mark.parametrize("query, status, detail", [
    ("?limit=0", 422, "limit"), ("?limit=1048577", 422, "limit"), ("?limit=x", 422, "limit"), ("?after=x", 422, "after"),
    ("?after=1-", 422, "after"), ("?after=1-1-1", 422, "after"), ("?after=99999999999999999999", 422, "after"), ("?after=%2B", 422, "after"),
    ("?execution=0193", 422, "execution"), ("?execution=ffff", 404, "Execution not found"), ("?execution=%00*", 404, "Execution")])
def test_bad_parameters_of_output(get, output, query, status, detail):
    output.write(FIRST, ("1", "x"))
    output.write(SECOND, ("1", "x"))
    answer = get(query)
    assert answer.status == status and detail in answer.json["detail"]
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_output_of_no_job_and_of_one_that_has_not_run(get, output):
    for job_id in ["nope", "a%20b", "%00"]:
        answer = get(job_id=job_id)
        assert answer.status == 404 and answer.json["detail"] == "Job not found"
    output.status("queued")
    body = get().json
    assert (body["execution"], body["executions"], body["entries"], body["ended"]) == (None, [], [], False)
    output.status("finished")
    assert get().json["ended"] is True
    assert get("?after=18446744073709551615-18446744073709551615").status == 200


def test_output_is_in_the_openapi_document(get):
    document = http("GET", get.web.url + "/api/v1/openapi.json").json
    operation = document["paths"]["/api/v1/jobs/{job_id}/output"]["get"]
    assert {param["name"] for param in operation["parameters"]} == {"job_id", "execution", "after", "limit"}
    assert {"200", "404", "422", "503"} <= set(operation["responses"])
    assert http("POST", get.web.url + "/api/v1/jobs/a/output").status == 405


# ---- hostile data, deletion --------------------------------------------------------------------------

def test_odd_data_breaks_nothing_and_reading_changes_nothing(get, logs, output, connection):
    output.write(FIRST, ("1", "good\n"), ("y", "what"), ("x", "-5"), ("x", "1e9"), ("", ""), ("1", ""), ("x", "18446744073709551615"))
    connection.xadd(f"rqxx:output:a:{FIRST}", {"1": "two fields\n", "2": "z"})
    connection.xadd(f"rqxx:output:a:{FIRST}", {"1": "late\n"}, id="18446744073709551615-1")
    connection.lpush("rqxx:output:a", *[b"\xff\x00*"], *["z" * 1000], "")
    connection.lpush("rqxx:output:list", "e")
    connection.set("rqxx:output:list:e", "text")
    connection.set("rqxx:output:str", "text")
    connection.set("rqxx:output:nohash", "text")
    connection.set("rq:executions:str", "text")
    connection.set("rq:results:str", "text")
    connection.set("rq:job:nohash", "text")
    for job_id in ("list", "str"):
        Output(connection, job_id)
    def stored():   # but for what the server notes of itself
        return {key: connection.dump(key) for key in connection.keys("*") if not key.startswith((b"rqxx:changes", b"rqxx:index", b"rqxx:history", b"rqxx:sampler", b"rqxx:metrics"))}

    before = stored()
    body = get(f"?execution={FIRST}").json
    assert [(e["stream"], e.get("text")) for e in body["entries"]] == [
        ("stdout", "good\n"), ("stdout", ""), ("cut", None), ("stdout", "two fields\n"), ("stdout", "late\n")]
    assert logs("a", "--execution", FIRST).stdout == b"good\ntwo fields\nlate\n"
    for job_id in ("list", "str", "nohash"):
        assert get(job_id=job_id).json["entries"] == []
        assert logs(job_id).stdout == b""
    assert stored() == before


def test_deleting_a_job_deletes_its_output(system, server, output, connection):
    output.write(FIRST, ("1", "x"))
    output.write(SECOND, ("1", "x"))
    assert system.rqxx("job", "delete", "a", "--redis-url", server.url).returncode == 0
    assert connection.keys("rqxx:output*") == []


def test_the_doctor_has_nothing_to_say_of_output(system, server, output, connection):
    output.write(FIRST, ("1", "x"))
    connection.expire("rq:job:a", 100)
    found = json.loads(system.rqxx("doctor", "--json", "--recheck", "0s", "--redis-url", server.url).stdout)
    assert "output" not in json.dumps(found)
