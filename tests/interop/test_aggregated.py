"""Functions that take many jobs in one call: each job is a job of its own, whatever it shares a call with. Native handlers in
threads and processes, and Python."""

import os
import signal
import sys
import time
from collections import Counter

import aggregated_jobs
import pytest
from conftest import INTEROP, needs_rq2, wait_for
from rq import Queue, Retry
from rq.job import Callback

pytestmark = needs_rq2
KINDS = ("thread", "process", "python")


@pytest.fixture
def marks(system):
    return system.folder / "marks"


def function(kind):
    return "aggregated_jobs.together" if kind == "python" else "tasks.together"


def worker(system, kind, *args, size=50, wait=300, name=None):
    if kind == "python":
        flags = ["--python", sys.executable, "--path", INTEROP, "--preload", "aggregated_jobs"]
    else:
        flags = ["--processes"] if kind == "process" else []
    return system.test_worker(*flags, "--aggregate", f"{name or function(kind)}={size},{wait}", *args, "default")


def work_off(system, kind, *args, **kwargs):
    done = worker(system, kind, "--burst", *args, **kwargs)
    assert done.wait(60) == 0, done.log
    return done


def queue(connection):
    return Queue("default", connection=connection)


def put(connection, kind, marks, *what, **options):
    return [queue(connection).enqueue(function(kind), one, str(marks), **options) for one in what]


def calls(marks):
    return [line.split() for line in marks.read_text().splitlines()] if marks.exists() else []


def status(connection, job):
    return connection.hget(f"rq:job:{job.id}", "status").decode()


def statuses(connection, made):
    return [status(connection, job) for job in made]


def last_result(connection, job):
    entries = connection.xrevrange(f"rq:results:{job.id}", count=1)
    return {name.decode(): value.decode() for name, value in entries[0][1].items()} if entries else {}


def output(connection, job):
    newest = connection.lindex(f"rqxx:output:{job.id}", 0)
    entries = connection.xrange(f"rqxx:output:{job.id}:{newest.decode()}") if newest else []
    return b"".join(fields.get(b"1", b"") for _, fields in entries)


def stop(system, job):
    """Until the worker has acknowledged."""
    [record] = system.server.client.keys(f"rq:execution:{job.id}:*")
    done = system.rqxx("job", "stop", job.id, "--no-wait", "--redis-url", system.server.url)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: system.server.client.hget(record, "stop") in (b"acknowledged", None))


def nothing_is_left(connection):
    return not (connection.zcard("rq:wip:default") or connection.keys("rq:execution:*") or connection.llen("rq:queue:default"))


# ---- sizes and waits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_job_is_in_one_call_and_has_its_own_result(system, connection, marks, kind):
    made = put(connection, kind, marks, *["ok"] * 500)
    work_off(system, kind, "--concurrency", "3", size=20)
    assert sorted(sum(calls(marks), [])) == sorted(job.id for job in made)
    assert max(map(len, calls(marks))) == 20 and len(calls(marks)) < 100
    assert [job.return_value() for job in made] == [job.id for job in made]
    assert queue(connection).finished_job_registry.count == 500 and nothing_is_left(connection)


@pytest.mark.parametrize("slots", ["1", "8"])
def test_a_call_takes_as_many_as_it_may_where_there_are_enough(system, connection, marks, slots):
    put(connection, "thread", marks, *["ok"] * 200)
    running = worker(system, "thread", "--concurrency", slots, size=50, wait=60000)
    wait_for(lambda: len(calls(marks)) == 4)
    assert [len(call) for call in calls(marks)] == [50] * 4 and running.process.poll() is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_takes_no_more_jobs_than_the_limits_let_start(system, connection, marks, kind):
    url = ["--redis-url", system.server.url]
    for rule in (["few", "--kind", "concurrency", "--limit", "4"], ["rate", "--kind", "fixed-window", "--limit", "10", "--per", "1s"]):
        assert system.rqxx("limit", "set", *rule, "--function", function(kind), *url).returncode == 0
    made = put(connection, kind, marks, *["run"] * 25)
    work_off(system, kind, "--concurrency", "2", wait=100)
    assert statuses(connection, made) == ["finished"] * 25
    assert sorted(job_id for call in calls(marks) for job_id in call) == sorted(job.id for job in made)
    assert max(map(len, calls(marks))) <= 4
    per_second = Counter(int(job.started_at.timestamp()) for job in (job.fetch(job.id, connection=connection) for job in made))
    assert max(per_second.values()) <= 10
    assert not connection.exists("rqxx:limit:concurrency:few", "rqxx:sorted")


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_waits_for_others_no_longer_than_it_may(system, connection, marks, kind):
    worker(system, kind, wait=700)
    time.sleep(0.5)
    made = put(connection, kind, marks, *["ok"] * 3)
    wait_for(lambda: statuses(connection, made) == ["finished"] * 3)
    assert [len(call) for call in calls(marks)] == [3]
    results = [last_result(connection, job) for job in made]
    waited = [float(one["execution_ended_at"]) - float(one["execution_started_at"]) for one in results]
    assert 0.6 < max(waited) < 5   # By Redis' clock, from its claim on.


def test_jobs_that_go_on_coming_do_not_make_the_first_wait_longer(system, connection, marks):
    worker(system, "thread", "--concurrency", "2", size=1000, wait=500)
    made = []
    while len(calls(marks)) < 2:
        made += put(connection, "thread", marks, "ok")
        time.sleep(0.02)
    wait_for(lambda: statuses(connection, made) == ["finished"] * len(made))
    ended = [last_result(connection, job) for job in made]
    assert max(float(one["execution_ended_at"]) - float(one["execution_started_at"]) for one in ended) < 5
    assert sorted(sum(calls(marks), [])) == sorted(job.id for job in made)


def test_jobs_that_come_one_by_one_share_a_call(system, connection, marks):
    worker(system, "thread", "--concurrency", "1", size=5, wait=60000)
    made = []
    for _ in range(5):
        made += put(connection, "thread", marks, "ok")
        wait_for(lambda: statuses(connection, made).count("queued") == 0)
    wait_for(lambda: statuses(connection, made) == ["finished"] * 5)
    assert calls(marks) == [[job.id for job in made]]


@pytest.mark.parametrize("slots", ["1", "2", "5"])
def test_other_functions_on_the_queue_run_as_without_it(system, connection, marks, slots):
    made, others = [], []
    for n in range(100):
        made += put(connection, "thread", marks, "ok")
        others.append(queue(connection).enqueue("tasks.noop", n))
    work_off(system, "thread", "--concurrency", slots, size=10)
    assert sorted(sum(calls(marks), [])) == sorted(job.id for job in made) and max(map(len, calls(marks))) <= 10
    assert [job.return_value() for job in others] == list(range(100)) and nothing_is_left(connection)


def test_a_group_does_not_wait_for_ever_behind_a_job_that_takes_the_slot(system, connection, marks):
    made = put(connection, "thread", marks, "ok")
    long = queue(connection).enqueue("tasks.slow", 60)
    running = worker(system, "thread", "--concurrency", "1", wait=60000)
    wait_for(lambda: statuses(connection, made) == ["finished"])
    wait_for(lambda: status(connection, long) == "started")
    running.signal(signal.SIGTERM)
    running.signal(signal.SIGINT)   # Two of a kind may count as one.
    running.wait(20)
    assert status(connection, long) == "queued"


def test_a_worker_ends_after_its_jobs_though_some_wait_for_others(system, connection, marks):
    made = put(connection, "thread", marks, *["ok"] * 30)
    limited = worker(system, "thread", "--max-jobs", "12", "--concurrency", "2", size=10, wait=60000)
    assert limited.wait(30) == 0, limited.log
    assert statuses(connection, made).count("finished") == 12 and sorted(map(len, calls(marks))) == [2, 10]


def test_a_worker_is_not_idle_while_jobs_wait_for_others(system, connection, marks):
    made = put(connection, "thread", marks, "ok")
    idle = worker(system, "thread", "--max-idle-time", "1", wait=2500)
    assert idle.wait(30) == 0 and statuses(connection, made) == ["finished"]


# ---- answers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_one_job_fails_alone_and_is_retried_alone(system, connection, marks, kind):
    made = put(connection, kind, marks, "ok", "fail", "ok", retry=Retry(max=1))
    work_off(system, kind)
    assert statuses(connection, made) == ["finished", "failed", "finished"]
    assert calls(marks) == [[job.id for job in made], [made[1].id]]
    assert "of one" in made[1].latest_result().exc_string
    assert [job.id for job in made if job.id in queue(connection).failed_job_registry.get_job_ids()] == [made[1].id]


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_raises_fails_its_jobs(system, connection, marks, kind):
    made = put(connection, kind, marks, "ok", "throw", "ok")
    work_off(system, kind)
    # A native handler has answered for the first by then; what Python has not returned it has not said.
    assert statuses(connection, made) == ["failed" if kind == "python" else "finished", "failed", "failed"]
    assert all("of all" in job.latest_result().exc_string for job in made[1:])


@pytest.mark.parametrize("kind", ("thread", "process"))
def test_a_job_without_an_answer_fails(system, connection, marks, kind):
    made = put(connection, kind, marks, "ok", "none")
    work_off(system, kind)
    assert statuses(connection, made) == ["finished", "failed"]
    assert "rqxx.NoAnswer: the handler gave no answer for this job" in made[1].latest_result().exc_string


@pytest.mark.parametrize("name, text", [("too_few", "too_few returned 2 results for 3 jobs"), ("no_list", "returned dict")])
def test_a_python_call_that_does_not_answer_for_each_fails_its_jobs(system, connection, marks, name, text):
    made = [queue(connection).enqueue(f"aggregated_jobs.{name}", n) for n in range(3)]
    work_off(system, "python", name=f"aggregated_jobs.{name}")
    assert statuses(connection, made) == ["failed"] * 3 and all(text in job.latest_result().exc_string for job in made)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_a_call_may_ask_for_a_retry(system, connection, marks, kind):
    made = put(connection, kind, marks, "ok", "retry")
    work_off(system, kind)
    assert status(connection, made[0]) == "finished" and calls(marks)[1:] == [[made[1].id]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_kept_for_all_and_what_is_printed_for_one(system, connection, marks, kind):
    made = put(connection, kind, marks, "print", "ok")
    if kind != "thread":
        made += put(connection, kind, marks, "write")
    work_off(system, kind)
    kept = [output(connection, job) for job in made]
    own = b"of " + made[0].id.encode()
    if kind == "python":
        assert kept == [own + b"\nof all\n"] * 3
    else:
        assert kept == ([own, b"", b""] if kind == "thread" else [own + b"of all\n", b"of all\n", b"of all\n"])[:len(kept)] or \
            kept == [b"of all\n" + own, b"of all\n", b"of all\n"]


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_are_those_of_each_job(system, connection, marks, kind):
    if kind == "python":
        options = {"on_success": Callback(aggregated_jobs.on_end), "on_failure": Callback(aggregated_jobs.on_end)}
    else:
        options = {"on_success": Callback("tasks.on_success"), "on_failure": Callback("tasks.on_failure"),
                   "meta": {"marks": f"{marks}.called"}}
    with_one = put(connection, kind, marks, "ok", "fail", **options)
    without = put(connection, kind, marks, "ok")
    work_off(system, kind)
    assert statuses(connection, with_one + without) == ["finished", "failed", "finished"] and len(calls(marks)) == 1
    called = (system.folder / "marks.called").read_text().splitlines()
    if kind == "python":
        assert called == [f"{with_one[0].id} 1", f"{with_one[1].id} 3"]
    else:
        assert called == [f'success "{with_one[0].id}"', "failure one"]


def test_python_sees_its_jobs(system, connection, marks):
    made = [queue(connection).enqueue("aggregated_jobs.look_around", str(marks), flag=n) for n in range(2)]
    worker(system, "python", name="aggregated_jobs.look_around")
    wait_for(lambda: len(calls(marks)) == 1)

    def progress(job):
        keys = connection.keys(f"rq:execution:{job.id}:*")
        return connection.hget(keys[0], "progress") or b"" if keys else b""

    wait_for(lambda: b"first" in progress(made[0]) and b"half way" in progress(made[1]))
    (system.folder / "marks.go").touch()
    wait_for(lambda: statuses(connection, made) == ["finished"] * 2)
    for n, job in enumerate(made):
        job.refresh()
        no_current, variable, kwargs, execution = job.return_value()
        assert no_current and variable is None and kwargs == {"flag": n} and job.meta == {"place": n}
        assert execution == last_result(connection, job)["execution_id"]


def test_a_coroutine_may_take_the_jobs(system, connection):
    made = [queue(connection).enqueue("aggregated_jobs.awaited", n) for n in range(3)]
    work_off(system, "python", name="aggregated_jobs.awaited")
    assert [job.return_value() for job in made] == [0, 1, 2]


def test_a_function_that_stock_workers_run_as_well_has_one_for_many(system, connection, marks):
    made = [queue(connection).enqueue(aggregated_jobs.single, text, str(marks)) for text in "ab"]
    work_off(system, "python", name="aggregated_jobs.single")
    assert [job.return_value() for job in made] == ["together a", "together b"]
    alone = queue(connection).enqueue(aggregated_jobs.single, "c", str(marks))
    assert system.rq_worker("--burst", "default").wait(30) == 0 and alone.return_value() == "alone c"


def test_a_job_that_cannot_be_read_fails_alone(system, connection, marks):
    made = put(connection, "python", marks, "ok", aggregated_jobs.Unreadable(), "ok")
    work_off(system, "python")
    assert statuses(connection, made) == ["finished", "failed", "finished"]
    assert calls(marks) == [[made[0].id, made[2].id]] and "cannot be read" in made[1].latest_result().exc_string


def test_without_rq_plain_functions_take_lists_as_well(system, connection, marks):
    wrapper = system.folder / "python"
    wrapper.write_text(f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" -S -E "$@"\n')
    wrapper.chmod(0o755)
    made = put(connection, "python", marks, "ok", "fail", "ok")
    done = system.test_worker("--python", wrapper, "--path", INTEROP, "--burst", "--aggregate", "aggregated_jobs.together=9,100",
                              "default")
    assert done.wait(30) == 0 and "without rq" in done.log
    assert statuses(connection, made) == ["finished", "failed", "finished"] and len(calls(marks)) == 1
    assert "of one" in made[1].latest_result().exc_string


# ---- ends that nobody wanted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_time_limit_is_that_of_the_call(system, connection, marks, kind):
    made = put(connection, kind, marks, "ok", "nap", job_timeout=60) + put(connection, kind, marks, "ok", job_timeout=1)
    work_off(system, kind)
    # What was answered in time counts.
    assert statuses(connection, made) == (["failed"] * 3 if kind == "python" else ["finished", "failed", "failed"])
    assert "maximum timeout value (1 seconds)" in made[1].latest_result().exc_string
    assert last_result(connection, made[1])["cause"] == "time limit (soft)"


def test_a_call_that_takes_no_notice_of_its_time_limit_ends_with_all_its_jobs(system, connection, marks):
    made = [queue(connection).enqueue("aggregated_jobs.swallow", str(marks), job_timeout=1) for _ in range(3)]
    work_off(system, "python", "--kill-after", "1", name="aggregated_jobs.swallow")
    assert statuses(connection, made) == ["failed"] * 3 and len(calls(marks)) == 1
    assert all(last_result(connection, job)["cause"] == "time limit (hard)" for job in made)


@pytest.mark.parametrize("kind", ("process", "python"))
def test_a_process_that_dies_ends_all_jobs_of_its_call_each_with_its_retry(system, connection, marks, kind):
    made = put(connection, kind, marks, "ok", retry=Retry(max=1)) + put(connection, kind, marks, "crash", "ok")
    after = queue(connection).enqueue("tasks.noop" if kind == "process" else "tasks.add", *([1] if kind == "process" else [1, 2]))
    work_off(system, kind)
    assert statuses(connection, made) == ["finished", "failed", "failed"] and status(connection, after) == "finished"
    assert [job.id for job in made] == calls(marks)[0] and calls(marks)[1:] == [[made[0].id]]
    assert last_result(connection, made[1])["cause"] == "signal 9 (SIGKILL)" and nothing_is_left(connection)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_workers_jobs_come_back_and_take_no_others_with_them_again(system, connection, marks, kind):
    made = put(connection, kind, marks, *["wait"] * 3)
    first = worker(system, kind)
    wait_for(lambda: len(calls(marks)) == 1)
    waiting = put(connection, kind, marks, *["ok"] * 2)
    first.signal(signal.SIGKILL)
    first.wait()
    (system.folder / "marks.go").touch()
    second = worker(system, kind)
    wait_for(lambda: statuses(connection, made + waiting) == ["finished"] * 5, 40)
    assert second.process.poll() is None
    assert {job.id for job in made} <= {call[0] for call in calls(marks)[1:] if len(call) == 1}
    assert all(connection.hget(f"rq:job:{job.id}", "rqxx_recoveries") == b"1" for job in made)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_worker_loses_no_job_that_waits_for_others(system, connection, marks, kind):
    first = worker(system, kind, wait=60000)
    made = put(connection, kind, marks, *["ok"] * 3)
    wait_for(lambda: statuses(connection, made) == ["started"] * 3)
    first.signal(signal.SIGKILL)
    first.wait()
    worker(system, kind)
    wait_for(lambda: statuses(connection, made) == ["finished"] * 3, 40)
    assert sorted(sum(calls(marks), [])) == sorted(job.id for job in made)


# ---- shutdown, stop, cancel ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_at_shutdown_jobs_that_wait_for_others_go_back_in_their_order(system, connection, marks, kind):
    running = worker(system, kind, wait=60000)
    made = put(connection, kind, marks, *["ok"] * 5, retry=Retry(max=1))
    wait_for(lambda: statuses(connection, made) == ["started"] * 5)
    running.signal(signal.SIGTERM)
    assert running.wait(20) == 0, running.log
    assert connection.lrange("rq:queue:default", 0, -1) == [job.id.encode() for job in made] and not marks.exists()
    assert statuses(connection, made) == ["queued"] * 5 and all(job.refresh() or job.retries_left == 1 for job in made)
    assert not connection.zcard("rq:wip:default") and not connection.keys("rq:execution:*")


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_outlasts_the_grace_goes_back_as_a_whole(system, connection, marks, kind):
    made = put(connection, kind, marks, "nap", "nap", "nap")
    running = worker(system, kind, "--grace", "1")
    wait_for(lambda: len(calls(marks)) == 1)
    running.signal(signal.SIGTERM)
    running.wait(20)
    assert set(connection.lrange("rq:queue:default", 0, -1)) == {job.id.encode() for job in made}
    assert statuses(connection, made) == ["queued"] * 3 and not connection.zcard("rq:wip:default")


@pytest.mark.parametrize("kind", KINDS)
def test_one_job_of_a_call_that_is_stopped_ends_so_when_the_call_returns(system, connection, marks, kind):
    if kind == "python":
        options = {"on_stopped": Callback(aggregated_jobs.on_end)}
    else:
        options = {"on_stopped": Callback("tasks.on_stopped"), "meta": {"marks": f"{marks}.called"}}
    made = put(connection, kind, marks, *["wait"] * 3, **options)
    running = worker(system, kind)
    wait_for(lambda: len(calls(marks)) == 1)
    stop(system, made[1])
    (system.folder / "marks.go").touch()
    wait_for(lambda: statuses(connection, made) == ["finished", "stopped", "finished"])
    called = (system.folder / "marks.called").read_text().splitlines()
    assert called == ([f"{made[1].id} 0"] if kind == "python" else ["stopped"])
    assert len(calls(marks)) == 1 and running.process.poll() is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_none_of_whose_jobs_is_wanted_ends(system, connection, marks, kind):
    made = put(connection, kind, marks, "nap", "nap")
    worker(system, kind)
    wait_for(lambda: len(calls(marks)) == 1)
    for job in made:
        stop(system, job)
    wait_for(lambda: statuses(connection, made) == ["stopped"] * 2)
    assert len(calls(marks)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_job_of_a_call_that_is_canceled_ends_so(system, connection, marks, kind):
    options = {name: Callback(aggregated_jobs.on_end) for name in ("on_success", "on_stopped") if kind == "python"}
    made = put(connection, kind, marks, "wait", **options) + put(connection, kind, marks, "wait")
    worker(system, kind)
    wait_for(lambda: len(calls(marks)) == 1)
    made[0].cancel()
    time.sleep(4)   # It hears of it with its next heartbeat.
    (system.folder / "marks.go").touch()
    wait_for(lambda: statuses(connection, made) == ["canceled", "finished"])
    assert not (system.folder / "marks.called").exists() and len(calls(marks)) == 1
    wait_for(lambda: not connection.zcard("rq:wip:default") and not connection.keys("rq:execution:*"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_is_stopped_while_it_waits_for_others_does_not_run(system, connection, marks, kind):
    if kind == "python":
        options = {"on_stopped": Callback(aggregated_jobs.on_end)}
    else:
        options = {"on_stopped": Callback("tasks.on_stopped"), "meta": {"marks": f"{marks}.called"}}
    running = worker(system, kind, size=3, wait=60000)
    made = put(connection, kind, marks, "ok", "ok", **options)
    wait_for(lambda: statuses(connection, made) == ["started"] * 2)
    stop(system, made[0])
    wait_for(lambda: status(connection, made[0]) == "stopped")
    wait_for(lambda: (system.folder / "marks.called").exists())
    assert not marks.exists()
    made += put(connection, kind, marks, "ok", "ok")
    wait_for(lambda: statuses(connection, made[1:]) == ["finished"] * 3)
    assert calls(marks) == [[job.id for job in made[1:]]] and running.process.poll() is None


def test_a_job_that_is_canceled_or_deleted_while_it_waits_for_others_does_not_run(system, connection, marks):
    running = worker(system, "thread", size=3, wait=60000)
    made = put(connection, "thread", marks, "ok", "ok")
    wait_for(lambda: statuses(connection, made) == ["started"] * 2)
    made[0].cancel()
    made[1].delete()
    running.wait_for_log(f"Job canceled: id={made[0].id}")   # With its next heartbeat.
    running.wait_for_log(f"Job deleted while it ran: id={made[1].id}")
    later = put(connection, "thread", marks, *["ok"] * 3)
    wait_for(lambda: statuses(connection, later) == ["finished"] * 3)
    assert calls(marks) == [[job.id for job in later]] and status(connection, made[0]) == "canceled"


def test_jobs_wait_for_others_through_an_outage_of_redis_only_while_they_are_surely_theirs(system, connection, marks):
    running = worker(system, "thread", wait=12000)
    made = put(connection, "thread", marks, *["ok"] * 3)
    wait_for(lambda: statuses(connection, made) == ["started"] * 3)
    system.server.pause()
    time.sleep(13)
    assert not marks.exists()
    system.server.resume()
    wait_for(lambda: statuses(connection, made) == ["finished"] * 3, 60)
    assert sorted(sum(calls(marks), [])) == sorted(job.id for job in made)
    assert "Redis was not there when they were to start" in running.log
