"""What holds for jobs in processes, whatever runs in them: Python, native handlers, commands. Output, limits, causes,
renewal, and that nothing is left behind."""

import os
import signal
import sys
import time

import psutil
import pytest
import python_jobs as jobs
from conftest import BUILD, INTEROP, needs_no_descriptors_itself, needs_rq2, wait_for
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.job import Callback

pytestmark = needs_rq2
MB = 1 << 20


def python_worker(system, *args, env=None):
    return system.run(BUILD / "rqxx", "worker", "--redis-url", system.server.url, "--python", sys.executable, "--path", INTEROP,
                      "--preload", "python_jobs", "--data-dir", system.folder / "data", *args, "default", env=env)


def native_worker(system, *args):
    return system.test_worker("--processes", *args, "default")


def command_worker(system, commands, *args, env=None):
    flags = [part for one in commands for part in ("--command", one)]
    return system.run(BUILD / "rqxx", "worker", "--redis-url", system.server.url, "--data-dir", system.folder / "data", *flags,
                      *args, "default", env=env)


def work_off(start, system, *args, **kwargs):
    done = start(system, *args, "--burst", **kwargs)
    assert done.wait(60) == 0, done.log
    return done


def queue(connection):
    return Queue("default", connection=connection)


def status(connection, job):
    return connection.hget(f"rq:job:{job.id}", "status").decode()


def lines(path):
    return path.read_text().split() if path.exists() else []


def last_result(connection, job):
    """All fields of the newest entry: RQ shows only those that it knows."""
    entries = connection.xrevrange(f"rq:results:{job.id}", count=1)
    return {name.decode(): value.decode() for name, value in entries[0][1].items()} if entries else {}


def output(connection, job, stream=b"1"):
    """What is kept of the newest execution."""
    newest = connection.lindex(f"rqxx:output:{job.id}", 0)
    if newest is None:
        return b""
    entries = connection.xrange(f"rqxx:output:{job.id}:{newest.decode()}")
    return b"".join(fields.get(stream, b"") for _, fields in entries)


def is_alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def family(running):
    return psutil.Process(running.process.pid).children(recursive=True)


# ---- output ----------------------------------------------------------------------------------------------------------------


def test_what_a_python_job_writes_is_kept_for_as_long_as_its_result(system, connection):
    said = queue(connection).enqueue(jobs.say, "hello", result_ttl=60)
    failed = queue(connection).enqueue(jobs.say_and_die, "last words", failure_ttl=70)
    broken = queue(connection).enqueue(jobs.talk, "half a line")
    program = queue(connection).enqueue(jobs.say_by_a_program, "from-a-program")
    silent = queue(connection).enqueue(jobs.plain, 1)
    forgotten = queue(connection).enqueue(jobs.say, "gone", result_ttl=0)
    work_off(python_worker, system)
    assert output(connection, said) == b"hello\n" and output(connection, said, b"2") == b"in red\n"
    assert output(connection, failed) == b"last words\n"
    assert output(connection, broken) == b"half a line" and output(connection, broken, b"2") == b"\xff\xfe half a line"
    assert output(connection, program) == b"from-a-program\n" and output(connection, program, b"2") == b"err\n"
    assert not connection.keys(f"rqxx:output:{silent.id}*") and not connection.keys(f"rqxx:output:{forgotten.id}*")
    for job, most in ((said, 60), (failed, 70)):
        keys = connection.keys(f"rqxx:output:{job.id}*")
        assert len(keys) == 2 and all(0 < connection.ttl(key) <= most for key in keys)


def test_output_can_be_read_while_the_job_runs(system, connection):
    over = system.folder / "over"
    job = queue(connection).enqueue(jobs.say_and_wait, "so far", str(over))
    python_worker(system)
    wait_for(lambda: output(connection, job) == b"so far\n")
    assert status(connection, job) == "started"
    over.touch()
    wait_for(lambda: status(connection, job) == "finished")


def test_of_much_output_the_beginning_and_the_end_are_kept(system, connection):
    job = queue(connection).enqueue(jobs.say, "x" * 99, 1000)
    work_off(python_worker, system, "--max-output", "10kb")
    kept, cut = output(connection, job) + output(connection, job, b"2"), int(output(connection, job, b"x"))
    assert len(kept) == 10 * 1024 and len(kept) + cut == 100_000 + len("in red\n")
    assert output(connection, job, b"2") == b"in red\n"


def test_output_that_is_not_captured_goes_where_the_workers_goes(system, connection):
    job = queue(connection).enqueue(jobs.say, "to the worker")
    done = work_off(python_worker, system, "--max-output", "0")
    assert "to the worker" in done.out and "in red" in done.log
    assert not connection.keys(f"rqxx:output:{job.id}*")
    job = queue(connection).enqueue(jobs.say, "to both")
    done = work_off(python_worker, system, "--forward-output")
    assert "to both" in done.out and output(connection, job) == b"to both\n"


def test_a_command_whose_output_is_not_kept_writes_where_the_worker_does_and_still_says_why_it_failed(system, connection):
    good, bad = (queue(connection).enqueue(name) for name in ("good", "bad"))
    done = command_worker(system, ["good=echo 7", "bad=sh -c 'echo reason >&2; exit 1'"], "--max-output", "0", "--burst")
    assert done.wait(30) == 0, done.log
    assert good.return_value() == 7 and "reason" in bad.latest_result().exc_string
    assert "7\n" in done.out and "reason" in done.log and not connection.keys("rqxx:output:*")


def test_many_small_writes_are_kept_in_their_order(system, connection):
    job = queue(connection).enqueue(jobs.stutter, 3000)
    work_off(python_worker, system)
    newest = connection.lindex(f"rqxx:output:{job.id}", 0).decode()
    entries = connection.xrange(f"rqxx:output:{job.id}:{newest}")
    assert output(connection, job) == b"a" * 3000 and output(connection, job, b"2") == b"b" * 3000
    assert len(entries) > 1


def test_each_execution_has_an_output_of_its_own(system, connection):
    job = queue(connection).enqueue(jobs.say_and_die, "again", retry=Retry(max=12))
    work_off(python_worker, system)
    executions = connection.lrange(f"rqxx:output:{job.id}", 0, -1)
    assert len(executions) == 10 and len(connection.keys(f"rqxx:output:{job.id}:*")) == 10
    assert output(connection, job) == b"again\n"
    job.delete()


def test_output_of_a_job_that_is_deleted_goes_with_it(system, connection):
    job = queue(connection).enqueue(jobs.say, "hello")
    work_off(python_worker, system)
    assert system.rqxx("job", "delete", job.id, "--redis-url", system.server.url).returncode == 0
    assert not connection.keys("*output*")


def test_a_native_handler_prints_in_a_thread_and_in_a_process(system, connection):
    threaded = queue(connection).enqueue("tasks.talk", "hello")
    assert system.test_worker("--burst", "default").wait(20) == 0
    own = queue(connection).enqueue("tasks.talk", "hello")
    work_off(native_worker, system)
    assert output(connection, threaded) == output(connection, own) == b"hello"
    assert output(connection, own, b"2") == b"to stderr"


def test_output_that_came_early_is_kept_for_as_long_as_the_result(system, connection):
    over = system.folder / "over"
    made = [queue(connection).enqueue(jobs.say_and_wait, "early", str(over), result_ttl=ttl) for ttl in (60, -1)]
    python_worker(system, "--concurrency", "2")
    wait_for(lambda: all(output(connection, job) == b"early\n" for job in made))
    over.touch()
    wait_for(lambda: all(status(connection, job) == "finished" for job in made))
    for job, ttls in zip(made, (range(1, 61), (-1,))):
        keys = connection.keys(f"rqxx:output:{job.id}*")
        assert len(keys) == 2 and all(connection.ttl(key) in ttls for key in keys)


# ---- jobs claimed before there is a slot -------------------------------------------------------------------------------------


def test_what_was_claimed_behind_a_job_that_is_not_short_is_left_to_others(system, connection):
    short = [queue(connection).enqueue("tasks.noop", n) for n in range(300)]
    long = queue(connection).enqueue("tasks.slow", 60)
    behind = [queue(connection).enqueue("tasks.noop", n) for n in range(3)]
    busy = system.test_worker("--concurrency", "1", "default")
    wait_for(lambda: status(connection, long) == "started")
    wait_for(lambda: connection.lrange("rq:queue:default", 0, -1) == [job.id.encode() for job in behind])
    assert all(status(connection, job) == "finished" for job in short)
    assert connection.zcard("rq:wip:default") == 1 and connection.scard(connection.keys("rq:worker:*:executions")[0]) == 1
    other = system.test_worker("--burst", "default")
    assert other.wait(20) == 0 and all(status(connection, job) == "finished" for job in behind)
    busy.signal(signal.SIGTERM)
    busy.signal(signal.SIGINT)   # Two of a kind may count as one.
    assert busy.wait(20) == 0 and status(connection, long) == "queued"


def test_a_worker_that_ends_among_short_jobs_puts_back_what_it_has_not_started(system, connection):
    marks = system.folder / "marks"
    made = [queue(connection).enqueue("tasks.mark", str(marks), 0) for _ in range(3000)]
    for sig in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        before = len(lines(marks))
        running = system.test_worker("--concurrency", "2", "default")
        wait_for(lambda: len(lines(marks)) > before + 100)
        running.signal(sig)
        assert running.wait(20) == 0, running.log
        assert not connection.zcard("rq:wip:default")
    assert system.test_worker("--burst", "default").wait(60) == 0
    assert sorted(lines(marks)) == sorted(job.id for job in made)


# ---- limits and causes -----------------------------------------------------------------------------------------------------


def test_the_record_says_how_a_python_job_ended_and_what_it_used(system, connection):
    plain = queue(connection).enqueue(jobs.take_at_once, 100)
    busy = queue(connection).enqueue(jobs.burn, 0.3)
    soft = queue(connection).enqueue("time.sleep", 60, job_timeout=1)
    hard = queue(connection).enqueue(jobs.swallow_everything, 60, job_timeout=1)
    crash = queue(connection).enqueue(jobs.crash)
    leave = queue(connection).enqueue(jobs.drop_dead, 3)
    work_off(python_worker, system, "--kill-after", "1s")
    assert "cause" not in last_result(connection, plain)
    assert int(last_result(connection, plain)["max_rss_kb"]) > 100 * 1024
    assert float(last_result(connection, busy)["cpu_seconds"]) > 0.2
    assert float(last_result(connection, plain)["cpu_seconds"]) < float(last_result(connection, busy)["cpu_seconds"])
    causes = [last_result(connection, job).get("cause") for job in (soft, hard, crash, leave)]
    assert causes == ["time limit (soft)", "time limit (hard)", "signal 11 (SIGSEGV)", "exit status 3"]
    assert int(last_result(connection, hard)["max_rss_kb"]) > 1024


def test_a_python_job_that_takes_memory_without_end_is_ended_and_nothing_else(system, connection):
    over = system.folder / "over"
    other = queue(connection).enqueue(jobs.wait_for_file, str(over))
    job = queue(connection).enqueue(jobs.hog)
    running = python_worker(system, "--concurrency", "2", "--max-rss", "200MB")
    wait_for(lambda: status(connection, job) == "failed")
    record = last_result(connection, job)
    assert record["cause"] == "memory limit" and int(record["max_rss_kb"]) > 200 * 1024
    assert "MemoryLimitExceeded" in job.latest_result().exc_string or "MemoryError" in job.latest_result().exc_string
    after = queue(connection).enqueue(jobs.plain, 1)
    wait_for(lambda: status(connection, after) == "finished")
    over.touch()
    wait_for(lambda: status(connection, other) == "finished")
    assert running.process.poll() is None


def test_a_python_job_that_asks_for_too_much_at_once_is_refused_it(system, connection):
    job = queue(connection).enqueue(jobs.take_at_once, 4000)
    work_off(python_worker, system, "--max-rss", "200MB")
    assert status(connection, job) == "failed" and last_result(connection, job)["cause"] == "memory limit"
    assert "MemoryError" in job.latest_result().exc_string


def test_a_job_may_use_so_much_cpu_and_no_more_also_in_its_children(system, connection):
    first = [queue(connection).enqueue(jobs.burn, 0.7) for _ in range(3)]   # together they may
    own, child = queue(connection).enqueue(jobs.burn, 30), queue(connection).enqueue(jobs.burn_in_a_child, 30)
    work_off(python_worker, system, "--max-cpu", "1", "--concurrency", "1")
    assert [status(connection, job) for job in first] == ["finished"] * 3
    for job in (own, child):
        record = last_result(connection, job)
        assert record["cause"] == "CPU limit" and 0.9 < float(record["cpu_seconds"]) < 10
        assert "CpuLimitExceeded" in job.latest_result().exc_string


# ---- renewal of slots ------------------------------------------------------------------------------------------------------


def test_a_slot_is_renewed_after_so_many_jobs(system, connection):
    made = [queue(connection).enqueue(jobs.counted) for _ in range(30)]
    work_off(python_worker, system, "--concurrency", "1", "--recycle-jobs", "10")
    results = [job.return_value() for job in made]
    assert max(count for _, count in results) == 10 and len({pid for pid, _ in results}) == 3


def test_slots_that_leak_are_renewed_and_no_job_is_lost_or_run_twice(system, connection):
    made = [queue(connection).enqueue(jobs.leak, 50) for _ in range(40)]
    running = python_worker(system, "--concurrency", "2", "--recycle-growth", "120MB")
    highest = 0
    while not all(status(connection, job) == "finished" for job in made):
        for one in family(running):
            try:
                highest = max(highest, one.memory_info().rss)
            except psutil.NoSuchProcess:
                pass
        assert running.process.poll() is None
    results = [job.return_value() for job in made]
    assert len({tuple(result) for result in results}) == 40, "each run counted once in its process"
    assert max(count for _, count in results) <= 4
    assert highest < 400 * MB


# ---- native handlers in processes ------------------------------------------------------------------------------------------


def test_native_handlers_in_processes_do_what_they_do_in_threads(system, connection):
    def outcomes():
        made = [queue(connection).enqueue("tasks.add", 2, 3), queue(connection).enqueue("tasks.fail", "broke"),
                queue(connection).enqueue("tasks.echo", 1, "zwei", key=[3]), queue(connection).enqueue("tasks.none"),
                queue(connection).enqueue("tasks.ask_retry", 1, 0), queue(connection).enqueue("tasks.unserializable"),
                queue(connection).enqueue("no.such.function"), queue(connection).enqueue("tasks.slow", 30, job_timeout=1)]
        yield made
        yield [(status(connection, job), job.return_value(), job.latest_result() and job.latest_result().exc_string,
                len(job.results()), last_result(connection, job).get("cause")) for job in made]

    ends = []
    for start in (lambda *args: system.test_worker(*args, "default"), lambda *args: native_worker(system, *args)):
        run = outcomes()
        next(run)
        assert start("--burst", "--kill-after", "2").wait(30) == 0
        ends.append(next(run))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("function, args, cause",
                         [("tasks.crash", (), "signal 11 (SIGSEGV)"), ("tasks.abort", (), "signal 6 (SIGABRT)"),
                          ("tasks.exit", (3,), "exit status 3")])
def test_a_handler_that_ends_its_process_fails_its_own_job(system, connection, function, args, cause):
    over = [queue(connection).enqueue("tasks.mark", str(system.folder / "marks"), 0.5) for _ in range(2)]
    job = queue(connection).enqueue(function, *args)
    after = queue(connection).enqueue("tasks.add", 1, 1)
    work_off(native_worker, system, "--concurrency", "3")
    assert cause in job.latest_result().exc_string and last_result(connection, job)["cause"] == cause
    assert after.return_value() == 2 and [status(connection, one) for one in over] == ["finished"] * 2
    assert len(lines(system.folder / "marks")) == 2


def test_a_handler_in_a_deadlock_is_killed_at_its_limit_and_the_slot_is_back(system, connection):
    pids = system.folder / "pids"
    job = queue(connection).enqueue("tasks.deadlock", str(pids), job_timeout=1)
    running = native_worker(system, "--concurrency", "1", "--kill-after", "1")
    wait_for(lambda: status(connection, job) == "failed")
    assert last_result(connection, job)["cause"] == "time limit (hard)"
    after = queue(connection).enqueue("tasks.add", 1, 1)
    wait_for(lambda: status(connection, after) == "finished", timeout=5)
    assert not is_alive(int(lines(pids)[0])) and running.process.poll() is None


def test_a_handler_that_takes_memory_without_end_is_ended(system, connection):
    job = queue(connection).enqueue("tasks.hog", 100_000)
    fits = queue(connection).enqueue("tasks.hog", 20)
    work_off(native_worker, system, "--max-rss", str(200 * MB))
    assert last_result(connection, job)["cause"] == "memory limit" and fits.return_value() == 20


def test_a_stopped_native_process_runs_the_stopped_callback(system, connection):
    for function, args in (("tasks.slow", (60,)), ("tasks.deadlock", (str(system.folder / "pids"),))):
        marks = system.folder / f"marks-{function}"
        job = queue(connection).enqueue(function, *args, meta={"marks": str(marks)}, on_stopped=Callback("tasks.on_stopped"))
        running = native_worker(system, "--kill-after", "60")
        wait_for(lambda: status(connection, job) == "started" and connection.pubsub_channels("rq:pubsub:*"))
        wait_for(lambda: function != "tasks.deadlock" or lines(system.folder / "pids"))
        send_stop_job_command(connection, job.id)
        wait_for(lambda: status(connection, job) == "stopped", timeout=8)
        assert lines(marks) == ["stopped"]
        running.end()


@pytest.mark.parametrize("processes", [[], ["--processes"]], ids=["thread", "process"])
def test_a_job_that_is_stopped_while_its_success_callback_runs_ends_as_stopped(system, connection, processes):
    marks = system.folder / "marks"
    job = queue(connection).enqueue("tasks.noop", 1, meta={"marks": str(marks)}, on_success=Callback("tasks.slow_callback", timeout=30),
                                    on_stopped=Callback("tasks.on_stopped"))
    system.test_worker(*processes, "default")
    wait_for(lambda: status(connection, job) == "started" and connection.pubsub_channels("rq:pubsub:*"))
    send_stop_job_command(connection, job.id)
    wait_for(lambda: status(connection, job) == "stopped", timeout=8)
    assert lines(marks) == ["stopped"]


def test_the_progress_of_a_python_job_is_shown(system, connection):
    over = system.folder / "over"
    job = queue(connection).enqueue(jobs.report_progress, str(over))
    python_worker(system)
    wait_for(lambda: b'"fraction": 0.25, "text": "a quarter"' in b"".join(
        connection.hget(key, "progress") or b"" for key in connection.keys(f"rq:execution:{job.id}:*")))
    over.touch()
    wait_for(lambda: status(connection, job) == "finished")


def test_the_progress_of_a_native_process_is_shown(system, connection):
    job = queue(connection).enqueue("tasks.slow", 60)
    native_worker(system)
    wait_for(lambda: b"half way" in b"".join(connection.hget(key, "progress") or b"" for key in
                                             connection.keys(f"rq:execution:{job.id}:*")))


def test_a_native_process_hears_a_stop_that_comes_while_it_still_reads_its_job(system, connection):
    marks = system.folder / "marks"
    job = queue(connection).enqueue("tasks.slow_raw", str(marks), ["x"] * 900_000, job_id="a")
    native_worker(system, "--kill-after", "60")
    wait_for(lambda: status(connection, job) == "started" and connection.pubsub_channels("rq:pubsub:*"))
    send_stop_job_command(connection, job.id)
    wait_for(lambda: status(connection, job) == "stopped", timeout=8)
    assert lines(marks) == ["asked"]


# ---- what is left behind ---------------------------------------------------------------------------------------------------


def test_a_killed_worker_leaves_nothing_that_its_jobs_have_started(system, connection):
    pids = system.folder / "pids"
    queue(connection).enqueue(jobs.start_a_program, str(pids))
    queue(connection).enqueue("thumb", str(pids))
    running = system.run(BUILD / "rqxx", "worker", "--redis-url", system.server.url, "--python", sys.executable, "--path", INTEROP,
                         "--data-dir", system.folder / "data", "--command",
                         "thumb=sh -c 'sleep 61 & echo $! >> \"$0\"; sleep 62' {0}", "default")
    wait_for(lambda: len(lines(pids)) == 2)
    left = [one.pid for one in family(running)]
    assert all(int(pid) in left for pid in lines(pids)) and len(left) >= 6
    running.signal(signal.SIGKILL)
    wait_for(lambda: not any(is_alive(pid) for pid in left), timeout=5)


@pytest.mark.parametrize("start", [python_worker, native_worker])
def test_a_killed_zygote_is_replaced(system, connection, start):
    pids = system.folder / "pids"
    function = (jobs.sleep_marked, str(pids), 60) if start is python_worker else ("tasks.deadlock", str(pids))
    job = queue(connection).enqueue(*function)
    running = start(system, "--concurrency", "1")
    slot = int(wait_for(lambda: lines(pids))[0])
    psutil.Process(slot).parent().kill()
    wait_for(lambda: status(connection, job) == "failed")
    wait_for(lambda: not is_alive(slot), timeout=5)
    after = queue(connection).enqueue(*((jobs.plain, 5) if start is python_worker else ("tasks.add", 3, 4)))
    wait_for(lambda: after.return_value() == 7)
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 0


def test_what_a_job_inherits_is_no_connection_of_the_worker(system, connection):
    python = queue(connection).enqueue(jobs.open_descriptors)
    command = queue(connection).enqueue("show")
    work_off(python_worker, system, "--concurrency", "2", "--command", f"show={sys.executable} -c 'import json, python_jobs; "
             "print(json.dumps(list(python_jobs.open_descriptors().values())))'", env={**os.environ, "PYTHONPATH": str(INTEROP)})
    assert len([what for what in python.return_value().values() if "socket" in what]) == 1   # its own
    assert not [what for what in command.return_value() if not what.startswith("/")], command.return_value()


def test_what_a_job_has_started_ends_when_its_process_dies(system, connection):
    pids = system.folder / "pids"
    job = queue(connection).enqueue(jobs.start_a_program_and_die, str(pids))
    after = queue(connection).enqueue(jobs.plain, 1)
    work_off(python_worker, system)
    assert status(connection, job) == "failed" and status(connection, after) == "finished"
    wait_for(lambda: not is_alive(int(lines(pids)[0])), timeout=5)


@needs_no_descriptors_itself
def test_where_descriptors_run_out_jobs_of_every_kind_wait(system, connection):
    commands = [queue(connection).enqueue("f") for _ in range(20)]
    functions = [queue(connection).enqueue(jobs.plain, 1) for _ in range(2)]
    done = system.run("sh", "-c", 'ulimit -n 40; exec "$@"', "sh", BUILD / "rqxx", "worker", "--redis-url", system.server.url, "--python",
                      sys.executable, "--path", INTEROP, "--preload", "python_jobs", "--data-dir", system.folder / "data", "--command",
                      "f=sleep 1", "--concurrency", "22", "--burst", "default")
    assert done.wait(60) == 0, done.log
    assert [status(connection, job) for job in commands + functions] == ["finished"] * 22
    assert "There is no process for a job" in done.log


def test_a_guardian_that_is_killed_is_replaced(system, connection):
    pids = system.folder / "pids"
    running = command_worker(system, [f"f=sh -c 'sleep 61 & echo $! >> {pids}; sleep 62'"], "--concurrency", "2")
    running.wait_for_log("Worker started")
    queue(connection).enqueue("f")
    wait_for(lambda: len(lines(pids)) == 1)
    wait_for(lambda: [one for one in family(running) if one.name() == "rqxx-guardian"])[0].kill()
    queue(connection).enqueue("f")
    wait_for(lambda: len(lines(pids)) == 2)
    left = [one.pid for one in family(running)]
    assert all(int(pid) in left for pid in lines(pids))
    running.signal(signal.SIGKILL)
    wait_for(lambda: not any(is_alive(pid) for pid in left), timeout=5)


def test_an_idle_worker_ends_at_once(system, connection):
    job = queue(connection).enqueue(jobs.plain, 1)
    running = python_worker(system, "--native-isolation", "process")
    wait_for(lambda: status(connection, job) == "finished")
    begin = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 0
    assert time.monotonic() - begin < 0.8


def test_growth_counts_from_what_a_process_has_at_its_beginning(system, connection):
    made = [queue(connection).enqueue(jobs.counted) for _ in range(20)]
    work_off(python_worker, system, "--concurrency", "1", "--preload", "large_module")
    assert len({job.return_value()[0] for job in made}) == 1


def test_a_worker_that_ends_leaves_no_process(system, connection):
    queue(connection).enqueue(jobs.plain, 1)
    running = python_worker(system, "--native-isolation", "process")
    wait_for(lambda: connection.zcard("rq:finished:default"))
    left = [one.pid for one in family(running)]
    assert len(left) >= 4   # guardian, both zygotes, a slot
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 0
    wait_for(lambda: not any(is_alive(pid) for pid in left), timeout=5)


def test_while_python_cannot_be_started_again_no_job_is_taken(system, connection):
    module = system.folder / "fragile.py"
    module.write_text("")
    first = queue(connection).enqueue(jobs.plain, 1)
    running = python_worker(system, "--path", system.folder, "--preload", "fragile")
    wait_for(lambda: status(connection, first) == "finished")
    module.write_text("raise RuntimeError('broken meanwhile')")
    zygote = next(one for one in family(running) if "executor.py" in " ".join(one.cmdline()))
    zygote.kill()
    running.wait_for_log("broken meanwhile")
    waiting = [queue(connection).enqueue(jobs.plain, 1) for _ in range(3)]
    running.wait_for_log("broken meanwhile")
    assert all(status(connection, job) in ("queued", "started") for job in waiting)
    module.write_text("")
    wait_for(lambda: all(status(connection, job) == "finished" for job in waiting))
    assert not connection.zcard("rq:failed:default")


@pytest.mark.skipif(not os.environ.get("RQXX_FULL"), reason="takes over a minute; only in scripts/test --full")
def test_a_zygote_that_hangs_when_it_is_started_again_is_given_up(system, connection):
    module, hang = system.folder / "fragile.py", system.folder / "hang"
    module.write_text(f"import os, time\nwhile os.path.exists({str(hang)!r}): time.sleep(0.1)\n")
    running = python_worker(system, "--path", system.folder, "--preload", "fragile")
    running.wait_for_log("Worker started")
    hang.touch()
    next(one for one in family(running) if "executor.py" in " ".join(one.cmdline())).kill()
    running.wait_for_log("Python has ended")
    hang_ends = running.log.count("Python has ended") + 1
    wait_for(lambda: running.log.count("Python has ended") >= hang_ends, 80)
    assert "it took over a minute to start" in running.log
    hang.unlink()
    job = queue(connection).enqueue(jobs.plain, 1)
    wait_for(lambda: status(connection, job) == "finished", 60)


# ---- commands --------------------------------------------------------------------------------------------------------------


def run_commands(system, commands, *args, **kwargs):
    done = command_worker(system, commands, *args, "--burst", **kwargs)
    assert done.wait(60) == 0, done.log
    return done


def error_of(job):
    return job.latest_result().exc_string


def test_a_command_gets_the_job_as_json_and_its_last_line_is_the_result(system, connection):
    script = system.folder / "script.py"
    script.write_text("import json, sys, os\njob = json.load(sys.stdin)\nprint('working')\nprint('noise', file=sys.stderr)\n"
                      "print(json.dumps({'argv': sys.argv[1:], 'job': job, 'id': os.environ['RQ_JOB_ID']}))\n")
    job = queue(connection).enqueue("thumb.make", "a b.png", size={"w": 3}, quiet=True, job_id="j1", meta={"who": "me"})
    run_commands(system, [f"thumb.*={sys.executable} {script} --size {{size}} {{0}} --{{quiet}} '{{{{x}}}}' {{job_id}}"])
    result = job.return_value()
    assert result["argv"] == ["--size", '{"w":3}', "a b.png", "--true", "{x}", "j1"] and result["id"] == "j1"
    assert result["job"]["args"] == ["a b.png"] and result["job"]["kwargs"] == {"size": {"w": 3}, "quiet": True}
    assert result["job"]["function"] == "thumb.make" and result["job"]["meta"] == {"who": "me"}
    assert result["job"]["attempt"] == 1 and result["job"]["timeout"] == 180
    assert output(connection, job).startswith(b"working\n") and output(connection, job, b"2") == b"noise\n"
    assert int(last_result(connection, job)["max_rss_kb"]) > 1000


def test_a_command_learns_its_own_job_also_where_the_worker_itself_runs_inside_a_job(system, connection):
    names = ["RQ_JOB_ID", "RQ_EXECUTION_ID", "RQ_WORKER_ID"]
    job = queue(connection).enqueue("show", job_id="inner")
    script = system.folder / "env.py"
    script.write_text("import json\nentries = open('/proc/self/environ').read().split('\\0')\n"
                      f"print(json.dumps([e.split('=', 1) for e in entries if e.split('=')[0] in {names}]))\n")
    run_commands(system, [f"show={sys.executable} {script}"], env={**os.environ, **dict.fromkeys(names, "outer")})
    told = job.return_value()
    assert sorted(name for name, _ in told) == sorted(names)
    assert ["RQ_JOB_ID", "inner"] in told and "outer" not in dict(told).values()


def test_what_a_value_holds_never_becomes_more_than_a_word(system, connection):
    bad = "'; touch PWNED; $(touch PWNED) `touch PWNED` \n* ~ \\"
    job = queue(connection).enqueue("show", bad)
    run_commands(system, [f"show={sys.executable} -c 'import sys, json; print(json.dumps(sys.argv[1:]))' {{0}}"])
    assert job.return_value() == [bad]
    nul = queue(connection).enqueue("show", "a\0b")
    missing = queue(connection).enqueue("show")
    run_commands(system, ["show=/bin/true {0}"])
    assert "NUL" in error_of(nul) and "no argument 0" in error_of(missing)


@pytest.mark.parametrize("command, words", [
    ("sh -c 'echo out; echo reason >&2; exit 3'", ["reason", "exit status 3"]),
    ("sh -c 'kill -SEGV $$'", ["signal 11 (SIGSEGV)"]),
    ("/nowhere/program", ["cannot run /nowhere/program: No such file or directory"]),
    ("/etc/passwd", ["cannot run /etc/passwd: Permission denied"]),
    ("echo not json", ["not JSON", "not json"]),
    ("sh -c 'exec <&- ; exec >&- ; exit 4'", ["exit status 4"]),
])
def test_a_command_that_fails_says_how(system, connection, command, words):
    job = queue(connection).enqueue("f")
    run_commands(system, [f"f={command}"])
    assert status(connection, job) == "failed"
    assert all(word in error_of(job) for word in ["rqxx.CommandFailed", *words]), error_of(job)


def test_a_command_without_output_has_no_result_and_much_output_no_harm(system, connection):
    silent = queue(connection).enqueue("silent")
    huge = queue(connection).enqueue("huge")
    long_line = queue(connection).enqueue("line")
    run_commands(system, ["silent=true", "huge=sh -c 'yes | head -c 300000000; echo; echo 7'", "line=sh -c 'head -c 20000000 /dev/zero | tr \\\\0 1'"])
    assert silent.return_value() is None and status(connection, silent) == "finished"
    assert huge.return_value() == 7 and len(output(connection, huge)) == MB
    assert "larger than 16 MB" in error_of(long_line)


def test_a_command_over_its_limit_is_asked_to_end_and_then_killed(system, connection):
    marks = system.folder / "marks"
    soft = queue(connection).enqueue("soft", job_timeout=1)
    hard = queue(connection).enqueue("hard", job_timeout=1)
    run_commands(system, [f"soft=sh -c 'trap \"echo asked > {marks}; exit 0\" TERM; sleep 60 & wait'",
                          "hard=sh -c 'trap \"\" TERM; sleep 60; sleep 60'"], "--kill-after", "1s")
    for job, cause in ((soft, "time limit (soft)"), (hard, "time limit (hard)")):
        assert "JobTimeoutException" in error_of(job) and last_result(connection, job)["cause"] == cause
    assert lines(marks) == ["asked"]


def test_a_command_can_be_stopped_and_canceled(system, connection):
    pids = system.folder / "pids"
    stubborn = f"f=sh -c 'trap \"\" TERM; echo $$ >> {pids}; sleep 60; sleep 60'"
    stop, cancel = (queue(connection).enqueue("f") for _ in range(2))
    command_worker(system, [stubborn], "--kill-after", "60s")
    wait_for(lambda: len(lines(pids)) == 2 and connection.pubsub_channels("rq:pubsub:*"))
    send_stop_job_command(connection, stop.id)
    wait_for(lambda: status(connection, stop) == "stopped", timeout=6)


def test_a_commands_limits_are_kept(system, connection):
    hog = queue(connection).enqueue("hog")
    burn = queue(connection).enqueue("burn")
    run_commands(system, [f"hog={sys.executable} -c 'a = []\nwhile True: a.append(b\"x\" * 8000000)'", "burn=sh -c 'while :; do :; done'"],
                 "--max-rss", "100MB", "--max-cpu", "1s")
    assert last_result(connection, hog)["cause"] in ("memory limit", "exit status 1")
    assert last_result(connection, burn)["cause"] == "CPU limit"


def test_what_a_command_leaves_running_is_ended_with_it(system, connection):
    pids = system.folder / "pids"
    job = queue(connection).enqueue("f")
    run_commands(system, [f"f=sh -c 'sleep 60 & echo $! > {pids}'"])
    assert status(connection, job) == "finished"
    wait_for(lambda: not is_alive(int(lines(pids)[0])), timeout=5)


def test_a_command_is_given_no_password(system, connection):
    connection.config_set("requirepass", "s3cret-of-redis")
    connection.execute_command("AUTH", "s3cret-of-redis")
    job = queue(connection).enqueue("f")
    url = system.server.url.replace("unix://", "unix://:s3cret-of-redis@")
    done = system.run(BUILD / "rqxx", "worker", "--burst", "--data-dir", system.folder / "data", "--command", "f=sh -c 'env; cat; exit 1'",
                      "default", env={**os.environ, "RQXX_REDIS_URL": url})
    assert done.wait(30) == 0, done.log
    assert b"RQ_JOB_ID" in output(connection, job)
    assert "s3cret" not in done.log + error_of(job) and b"s3cret" not in output(connection, job)


@pytest.mark.parametrize("command, word", [("f", "--command"), ("f=", "--command"), ("=x", "--command"), ("f=x {", "f"),
                                           ("f=x {}", "f")])
def test_a_command_that_cannot_be_meant_is_refused_at_the_start(system, server, command, word):
    done = command_worker(system, [command], "--burst")
    assert done.wait(20) == 2 and word in done.log, done.log


def test_a_job_with_callbacks_that_no_command_can_have_is_refused_or_runs_without(system, connection):
    made = [queue(connection).enqueue("f", on_success=Callback("tasks.on_success")) for _ in range(2)]
    run_commands(system, ["f=true"], "--max-jobs", "1")
    run_commands(system, ["f=true"], "--callbacks", "skip")
    assert "tasks.on_success" in error_of(made[0]) and status(connection, made[1]) == "finished"
