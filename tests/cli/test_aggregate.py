"""`rqxx worker --aggregate` and its table in the configuration file."""

import json
import os
import sys

import pytest
from conftest import INTEROP, needs_rq2
from rq import Queue

pytestmark = needs_rq2
PYTHON = ("--python", sys.executable, "--path", INTEROP)
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RQXX_")}


def check(system, *args, table=None, env=None):
    if table:
        config = system.folder / "rqxx.toml"
        config.write_text(table)
        args = ("--config", config, *args)
    return system.rqxx("worker", "--check", *args, env={**ENVIRONMENT, **(env or {})})


def functions(done):
    assert done.returncode == 0, done.stderr
    return {one["function"]: one for one in json.loads(done.stdout)["functions"]}


def test_jobs_of_a_function_share_calls_as_the_flag_says(system, connection):
    marks = system.folder / "marks"
    made = [Queue("default", connection=connection).enqueue("aggregated_jobs.together", "ok", str(marks)) for _ in range(7)]
    done = system.rqxx("worker", "--burst", "--redis-url", system.server.url, *PYTHON, "--aggregate",
                       "aggregated_jobs.together=5,50ms", "default")
    assert done.returncode == 0, done.stderr
    assert [job.return_value() for job in made] == [job.id for job in made]
    assert sorted(len(line.split()) for line in marks.read_text().splitlines()) == [2, 5]


def test_the_file_says_it_in_a_table_or_as_the_flag(system):
    done = check(system, "--json", *PYTHON, table="""
        [functions."a.table"]
        aggregate = {max_size = 50, max_wait = "2s"}
        max-rss = "100MB"
        [functions."a.dashed"]
        aggregate = {max-size = 3, max-wait = "100ms"}
        [functions."a.text"]
        aggregate = "7,1m"
        [functions."a.python"]
        runs-in = "python"
        [functions."a.python".aggregate]
        max_size = 1
        max_wait = 0
    """)
    said = functions(done)
    assert said["a.table"]["aggregate"] == {"max_size": 50, "max_wait": 2} and said["a.table"]["max_rss"] == 100 << 20
    assert said["a.dashed"]["aggregate"] == {"max_size": 3, "max_wait": 0.1}
    assert said["a.text"]["aggregate"] == {"max_size": 7, "max_wait": 60}
    assert said["a.python"]["aggregate"] == {"max_size": 1, "max_wait": 0}
    assert all(one["runs_in"] == "python" for name, one in said.items() if name.startswith("a."))


def test_a_flag_beats_the_environment_and_the_table(system):
    table = '[functions."a.f"]\naggregate = "2,2s"\nmax-cpu = "9s"\n'
    one = functions(check(system, "--json", *PYTHON, "--aggregate", "a.f=3,3s", table=table))["a.f"]
    assert one["aggregate"] == {"max_size": 3, "max_wait": 3} and one["max_cpu"] == 9 and one["from"] == "flag, file"
    said = functions(check(system, "--json", *PYTHON, env={"RQXX_AGGREGATE": "a.f=4,4s a.g=5,5s"}))
    assert [said[name]["aggregate"]["max_size"] for name in ("a.f", "a.g")] == [4, 5] and said["a.f"]["from"] == "environment"
    said = functions(check(system, "--json", *PYTHON, "--aggregate", "a.f=3,3s", env={"RQXX_AGGREGATE": "a.g=5,5s"}))
    assert "a.f" in said and "a.g" not in said


def test_the_check_shows_it(system):
    done = check(system, *PYTHON, "--aggregate", "a.f=50,1500ms")
    assert done.returncode == 0 and "(up to 50 jobs in a call, waiting for 1.5s)" in done.stdout


@pytest.mark.parametrize("args, text", [
    (("--aggregate", "a.f"), "--aggregate"),
    (("--aggregate", "a.f=50"), '--aggregate: a.f: "50" is not SIZE,WAIT such as 50,2s'),
    (("--aggregate", "a.f=many,2s"), '--aggregate: a.f max_size: "many" is not a number'),
    (("--aggregate", "a.f=-1,2s"), '--aggregate: a.f max_size: "-1" is not a number'),
    (("--aggregate", "a.f=0,2s"), "--aggregate: a.f: max_size: must be from 1 to 1000"),
    (("--aggregate", "a.f=1001,2s"), "--aggregate: a.f: max_size: must be from 1 to 1000"),
    (("--aggregate", "a.f=50,soon"), "--aggregate: a.f max_wait: "),
    (("--aggregate", "a.f=50,xms"), '--aggregate: a.f max_wait: "x" is not a number'),
    (("--aggregate", "a.f=50,2h"), "--aggregate: a.f: max_wait: must be from 0 to 1h"),
    (("--aggregate", "a.f=50,99999999999999999999ms"), "--aggregate: a.f max_wait: "),
    (("--aggregate", "eval_worker.evaluate=50,2s"), "its native handler takes one job at a time"),
    (("--aggregate", "a.f=5,2s", "--command", "a.f=true"), "aggregate: a command or server takes one job at a time"),
    (("--aggregate", "a.f=5,2s", "--serializer", "plain_serializer.Plain"), "aggregate: does not go with a serializer"),
])
def test_what_cannot_be_is_refused(system, args, text):
    done = check(system, *PYTHON, *args)
    assert done.returncode == 2 and text in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_list_needs_somebody_who_takes_it(system):
    done = check(system, "--aggregate", "a.f=5,2s")
    assert done.returncode == 2 and "--aggregate: a.f: aggregate: needs --python" in done.stderr


@pytest.mark.parametrize("value, text", [
    ("{max_size = 5}", "aggregate: needs both max_size and max_wait"),
    ("{max_size = 5, max_wait = '1s', min = 1}", "aggregate: unknown key min; known are max_size, max_wait"),
    ("{max_size = true, max_wait = '1s'}", "aggregate max_size: a number, or text with a number and a unit is needed"),
    ("{max_size = 'x', max_wait = '1s'}", 'aggregate max_size: "x" is not a number'),
    ("{max_size = [5], max_wait = '1s'}", "aggregate max_size: "),
    ("{}", "aggregate: needs both"),
    ("5", "aggregate: text is needed"),
    ("{max_size = 0, max_wait = '1s'}", "max_size: must be from 1 to 1000"),
])
def test_a_table_that_cannot_be_is_refused_with_its_place(system, value, text):
    done = check(system, *PYTHON, table=f'[functions."a.f"]\naggregate = {value}\n')
    assert done.returncode == 2 and text in done.stderr and '[functions."a.f"]' in done.stderr, done.stderr
