"""Python functions in warm processes of a native worker: they see what they see under `rq worker`, and what they do to
themselves stays theirs. The scenarios of test_differential.py run through them as well."""

import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
import python_jobs as jobs
from conftest import BUILD, INTEROP, needs_no_descriptors_itself, needs_rq2, wait_for
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.job import Callback, Job
from rq3 import PYTHON as RQ3_PYTHON
from rq3 import needs_rq3

pytestmark = needs_rq2
PYTHON = ["--python", sys.executable, "--path", INTEROP, "--preload", "python_jobs"]


def worker(system, *args, python=PYTHON, url=None, env=None):
    return system.run(BUILD / "rqxx", "worker", "--redis-url", url or system.server.url, *python, "--data-dir", system.folder / "data",
                      *args, env=env)


def work_off(system, *args, **kwargs):
    done = worker(system, "--burst", "default", *args, **kwargs)
    assert done.wait(60) == 0, done.log
    return done


def stock_work_off(system, *args, serializer=None):
    done = system.rq_worker("--burst", "default", *args, serializer=serializer)
    assert done.wait(60) == 0, done.log


def queue(connection):
    return Queue("default", connection=connection)


def status(connection, job_id):
    value = connection.hget(f"rq:job:{job_id}", "status")
    return value and value.decode()


def lines(path):
    return path.read_text().split() if path.exists() else []


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children(running):
    return psutil.Process(running.process.pid).children(recursive=True)


def exc_text(text):
    """Without the frames of the worker and of RQ, whose number and lines are their own."""
    text = re.sub(r'  File "[^"]*(site-packages/rq/|rqxx/python/)[^"]*".*\n(    .*\n)*', "", text)
    return re.sub(r"repeated \d+ more times", "repeated", re.sub(r"0x[0-9a-f]+", "0x", text))


def without_rq(system):
    """An interpreter that has the standard library only."""
    wrapper = system.folder / "python"
    wrapper.write_text(f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" -S -E "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def seen(connection, job_id, serializer=None):
    job = Job.fetch(job_id, connection=connection, serializer=serializer)
    result = job.latest_result()
    return {"status": job.get_status(), "value": job.return_value(), "meta": job.meta,
            "type": result and result.type, "exc": result and result.exc_string and exc_text(result.exc_string),
            "finished": queue(connection).finished_job_registry.get_job_ids(cleanup=False),
            "failed": queue(connection).failed_job_registry.get_job_ids(cleanup=False)}


CALLS = {
    "keyword_arguments": (jobs.keywords, (1, 2, 3), {"flag": True, "other": b"\x00"}),
    "an_instance": (jobs.give, (jobs.Account(5),), {}),
    "a_method": (jobs.Account(3).grown, (), {"by": 4}),
    "a_class_method": (jobs.Account.of_rate, (21,), {}),
    "a_static_method": ("python_jobs.Account.fixed", (), {}),
    "a_builtin": ("math.hypot", (3, 4), {}),
    "a_coroutine": (jobs.awaited, (0.01,), {}),
    "the_current_job_and_its_meta": (jobs.note_in_meta, ("step", [1, {"two": 3}]), {}),
    "a_refreshed_job": (jobs.look_again, (), {}),
    "a_job_that_enqueues_another": (jobs.enqueue_another, (), {}),
    "a_result_that_cannot_be_pickled": (jobs.unpicklable, (), {}),
    "a_large_result": (jobs.give, ("x" * 3_000_000,), {}),
    "an_exception_with_a_cause": (jobs.chained, (), {}),
    "an_exception_in_a_handler": (jobs.in_context, (), {}),
    "an_endless_recursion": (jobs.deep, (), {}),
    "sys_exit": (jobs.leave, (3,), {}),
    "sys_exit_with_success": (jobs.leave, (0,), {}),
    "keyboard_interrupt": (jobs.interrupt, (), {}),
    "os_exit": (jobs.drop_dead, (3,), {}),
    "a_segmentation_fault": (jobs.crash, (), {}),
    "a_signal": (jobs.kill_yourself, (int(signal.SIGTERM),), {}),
    "output_without_a_newline": (jobs.talk, ("half a line",), {}),
    "an_argument_that_does_not_fit": (jobs.awaited, (), {}),
    "an_argument_that_our_decoder_refuses": (jobs.length, ([[0]] * 600_000 + [[1] for _ in range(600_000)],), {}),
    "a_child_that_comes_back": (jobs.fork_and_come_back, (3,), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_function_ends_as_it_does_under_rq(system, connection, name):
    function, args, kwargs = CALLS[name]
    ends = []
    for run in (stock_work_off, work_off):
        connection.flushall()
        queue(connection).enqueue(function, args=args, kwargs=kwargs, job_id="a")
        run(system)
        ends.append(seen(connection, "a"))
    assert ends[0] == ends[1]


def test_slots_are_warm_and_share_what_was_imported(system, connection):
    made = [queue(connection).enqueue(jobs.counted) for _ in range(20)]
    work_off(system, "--concurrency", "2")
    results = [job.return_value() for job in made]
    assert len({pid for pid, _ in results}) <= 2
    assert max(count for _, count in results) >= 10


def test_with_isolation_by_fork_each_job_has_a_process_of_its_own(system, connection):
    made = [queue(connection).enqueue(jobs.counted) for _ in range(20)]
    work_off(system, "--concurrency", "2", "--isolation", "fork")
    results = [job.return_value() for job in made]
    assert len({pid for pid, _ in results}) == 20 and {count for _, count in results} == {1}


def test_native_functions_stay_native(system, connection):
    job = queue(connection).enqueue("eval_worker.evaluate", "1")
    plain = queue(connection).enqueue(jobs.plain, 1)
    work_off(system)
    assert "rqxx" in job.latest_result().exc_string and plain.return_value() == 3


def test_a_function_that_swallows_its_time_limit_is_killed_and_others_do_not_notice(system, connection):
    over = system.folder / "over"
    bad = queue(connection).enqueue(jobs.swallow_everything, 60, job_timeout=1)
    good = queue(connection).enqueue(jobs.wait_for_file, str(over))
    running = worker(system, "--concurrency", "2", "--kill-after", "1s", "default")
    wait_for(lambda: status(connection, bad.id) == "failed")
    after = queue(connection).enqueue(jobs.plain, 5)
    wait_for(lambda: status(connection, after.id) == "finished")
    assert status(connection, good.id) == "started"
    over.touch()
    wait_for(lambda: status(connection, good.id) == "finished")
    assert "JobTimeoutException: Task exceeded maximum timeout value (1 seconds)" in bad.latest_result().exc_string
    assert running.process.poll() is None


def test_a_crash_costs_its_own_job_only(system, connection):
    marks = system.folder / "marks"
    good = queue(connection).enqueue(jobs.sleep_marked, str(marks), 1)
    crashes = [queue(connection).enqueue(jobs.crash) for _ in range(5)]
    again = queue(connection).enqueue(jobs.kill_yourself, int(signal.SIGKILL), retry=Retry(max=1))
    after = queue(connection).enqueue(jobs.plain, 5)
    work_off(system, "--concurrency", "2")
    assert good.return_value() and after.return_value() == 7
    assert all("signal 11" in job.latest_result().exc_string for job in crashes)
    assert "signal 9" in again.latest_result().exc_string and len(again.results()) == 1
    assert connection.hget(f"rq:job:{again.id}", "rqxx_retries") == b"1"


def test_a_child_that_keeps_the_socket_open_does_not_hide_the_end_of_its_parent(system, connection):
    marks = system.folder / "marks"
    job = queue(connection).enqueue(jobs.leave_a_child, str(marks), 300)
    after = queue(connection).enqueue(jobs.plain, 5)
    try:
        work_off(system, "--concurrency", "1")
        assert "waitpid returned 2304" in job.latest_result().exc_string and after.return_value() == 7
    finally:
        for pid in lines(marks):
            psutil.Process(int(pid)).kill()


def test_what_a_function_writes_into_the_socket_harms_its_own_job_at_most(system, connection):
    job = queue(connection).enqueue(jobs.write_to_all_descriptors)
    after = queue(connection).enqueue(jobs.plain, 5)
    work_off(system, "--concurrency", "1")
    assert status(connection, job.id) in ("failed", "finished") and after.return_value() == 7


def test_a_stopped_job_is_gone_at_once_and_its_callback_is_called(system, connection):
    marks = system.folder / "marks"
    job = queue(connection).enqueue(jobs.sleep_marked, str(system.folder / "pids"), 60, meta={"marks": str(marks)},
                                    on_stopped=Callback("tasks.on_stopped"))
    running = worker(system, "default")
    pid = int(wait_for(lambda: lines(system.folder / "pids"))[0])
    wait_for(lambda: connection.pubsub_channels("rq:pubsub:*"))
    send_stop_job_command(connection, job.id)
    wait_for(lambda: status(connection, job.id) == "stopped")
    assert lines(marks) == ["stopped"] and not is_alive(pid)
    after = queue(connection).enqueue(jobs.plain, 5)
    wait_for(lambda: status(connection, after.id) == "finished")
    assert running.process.poll() is None


def test_a_stopped_callback_has_a_limit_of_its_own(system, connection):
    marks = system.folder / "marks"
    job = queue(connection).enqueue(jobs.swallow_everything, 60, meta={"marks": str(marks)},
                                    on_stopped=Callback("python_jobs.slow_to_note", timeout=10))
    worker(system, "--kill-after", "1s", "default")
    wait_for(lambda: status(connection, job.id) == "started" and connection.pubsub_channels("rq:pubsub:*"))
    send_stop_job_command(connection, job.id)
    wait_for(lambda: status(connection, job.id) == "stopped")
    assert lines(marks) == ["noted"]


def test_a_job_over_its_limit_can_be_stopped_while_its_failure_callback_runs(system, connection):
    marks = system.folder / "marks"
    job = queue(connection).enqueue("time.sleep", 60, job_timeout=1, meta={"marks": str(marks)},
                                    on_failure=Callback("python_jobs.sleep_long"))
    worker(system, "--kill-after", "1h", "default")
    pid = int(wait_for(lambda: lines(marks))[0])
    send_stop_job_command(connection, job.id)
    wait_for(lambda: not is_alive(pid))
    wait_for(lambda: status(connection, job.id) in ("stopped", "failed"))


def test_callbacks_see_when_the_job_ended_and_may_be_without_limit(system, connection):
    job = queue(connection).enqueue(jobs.plain, 1, on_success=Callback("python_jobs.note_times", timeout=-1))
    work_off(system)
    job.refresh()
    assert job.get_status() == "finished" and job.meta == {"took": True}


def test_what_a_stopped_job_has_started_is_ended_with_it(system, connection):
    pids = system.folder / "pids"
    job = queue(connection).enqueue(jobs.start_a_program, str(pids))
    worker(system, "default")
    pid = int(wait_for(lambda: lines(pids))[0])
    wait_for(lambda: connection.pubsub_channels("rq:pubsub:*"))
    send_stop_job_command(connection, job.id)
    wait_for(lambda: not is_alive(pid), timeout=5)
    wait_for(lambda: status(connection, job.id) == "stopped")


def test_more_slots_than_can_be_forked_at_once_all_get_their_jobs(system, connection):
    made = [queue(connection).enqueue(jobs.counted) for _ in range(400)]
    work_off(system, "--concurrency", "100")
    assert all(job.get_status() == "finished" for job in made)


@needs_no_descriptors_itself
def test_where_descriptors_run_out_jobs_wait_for_a_slot(system, connection):
    made = [queue(connection).enqueue(jobs.counted) for _ in range(200)]
    done = system.run("sh", "-c", 'ulimit -n 60; exec "$@"', "sh", BUILD / "rqxx", "worker", "--redis-url", system.server.url,
                      *PYTHON, "--data-dir", system.folder / "data", "--concurrency", "60", "--burst", "default")
    assert done.wait(60) == 0, done.log
    assert all(job.get_status() == "finished" for job in made)
    assert "no descriptor for a job" in done.log


def test_where_processes_run_out_jobs_wait_for_a_slot(system, connection):
    made = [queue(connection).enqueue(jobs.counted) for _ in range(6)]
    done = work_off(system, "--concurrency", "3", "--preload", "scarce_processes")
    assert [job.get_status() for job in made] == ["finished"] * 6
    assert done.log.count("Python could not fork") == 5


def test_a_worker_whose_name_is_taken_ends(system, connection):
    first = worker(system, "--name", "same", "default")
    first.wait_for_log("Worker started")
    second = worker(system, "--name", "same", "default")
    assert second.wait(20) == 2 and "lives already" in second.log


def test_a_canceled_job_is_ended(system, connection):
    job = queue(connection).enqueue(jobs.sleep_marked, str(system.folder / "pids"), 60)
    worker(system, "default")
    pid = int(wait_for(lambda: lines(system.folder / "pids"))[0])
    job.cancel()
    wait_for(lambda: not is_alive(pid))
    wait_for(lambda: connection.scard(next(iter(connection.keys("rq:worker:*:executions")), "none")) == 0)
    assert status(connection, job.id) == "canceled"


def test_a_first_signal_waits_for_what_runs_and_a_second_puts_it_back(system, connection):
    pids = system.folder / "pids"
    short, long = (queue(connection).enqueue(jobs.sleep_marked, str(pids), seconds) for seconds in (1.5, 60))
    running = worker(system, "--concurrency", "2", "default")
    wait_for(lambda: len(lines(pids)) == 2)
    running.signal(signal.SIGTERM)
    wait_for(lambda: status(connection, short.id) == "finished")
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 1
    assert status(connection, long.id) == "queued" and connection.lrange("rq:queue:default", 0, -1) == [long.id.encode()]
    wait_for(lambda: not any(is_alive(int(pid)) for pid in lines(pids)), timeout=5)


def test_a_killed_worker_leaves_no_process_and_its_job_runs_again(system, connection):
    pids = system.folder / "pids"
    job = queue(connection).enqueue(jobs.sleep_marked, str(pids), 2)
    victim = worker(system, "default")
    wait_for(lambda: lines(pids))
    family = children(victim)
    assert len(family) >= 2
    victim.signal(signal.SIGKILL)
    wait_for(lambda: not any(is_alive(one.pid) for one in family), timeout=5)
    worker(system, "default")
    wait_for(lambda: status(connection, job.id) == "finished", timeout=25)
    assert len(lines(pids)) == 2


def test_a_killed_zygote_costs_what_ran_and_is_replaced(system, connection):
    pids = system.folder / "pids"
    job = queue(connection).enqueue(jobs.sleep_marked, str(pids), 60)
    running = worker(system, "--concurrency", "1", "default")
    slot = int(wait_for(lambda: lines(pids))[0])
    zygote = psutil.Process(slot).parent()
    zygote.kill()
    wait_for(lambda: status(connection, job.id) == "failed")
    assert "terminated unexpectedly" in job.latest_result().exc_string and not is_alive(slot)
    after = queue(connection).enqueue(jobs.plain, 5)
    wait_for(lambda: status(connection, after.id) == "finished")
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 0


def test_an_interpreter_or_module_that_is_not_there_is_named_before_anything_is_registered(system, connection):
    for python, word in ((["--python", "/nowhere/python"], "/nowhere/python"),
                         ([*PYTHON, "--preload", "no_such_module"], "no_such_module"),
                         (["--path", INTEROP], "--path")):
        refused = worker(system, "--burst", "default", python=python)
        assert refused.wait(20) == 2
        assert word in refused.log and "Worker started" not in refused.log
    assert connection.scard("rq:workers") == 0


def test_plain_functions_run_without_rq(system, connection):
    good = queue(connection).enqueue(jobs.plain, 40)
    bad = queue(connection).enqueue(jobs.in_context)
    method = queue(connection).enqueue(jobs.Account(3).grown)
    done = worker(system, "--burst", "default", python=["--python", without_rq(system), "--path", INTEROP])
    assert done.wait(30) == 0, done.log
    assert "without rq" in done.log
    assert good.return_value() == 42 and method.return_value() == jobs.Account(4)
    assert bad.latest_result().exc_string.strip().endswith("OwnError: code 4")


def needs_the_rq_of_debian():
    old = subprocess.run(["/usr/bin/python3", "-c", "import rq; print(rq.VERSION)"], capture_output=True, text=True)
    if not old.stdout.startswith("1."):
        pytest.skip("Debian's RQ 1.x is not installed")


def test_functions_run_with_the_rq_of_debian(system, connection):
    needs_the_rq_of_debian()
    made = [queue(connection).enqueue(*call) for call in ((jobs.plain, 1), (jobs.note_in_meta, "k", 1), (jobs.awaited, 0.01))]
    bad = queue(connection).enqueue(jobs.in_context, on_failure=Callback("python_jobs.note_failure"), retry=Retry(max=3))
    done = worker(system, "--burst", "default", "--exception-handler", "python_hooks.keep_in_meta", "--exception-handler",
                  "python_hooks.forbid_retries", python=["--python", "/usr/bin/python3", "--path", INTEROP])
    assert done.wait(30) == 0, done.log
    assert [job.return_value() for job in made] == [3, (made[1].id, "default", "started", "python_jobs.note_in_meta"), "awaited"]
    bad.refresh()
    assert bad.get_status() == "failed" and bad.meta == {"failed": "code 4", "handled": "OwnError"}


@pytest.mark.parametrize("isolation", ["warm", "fork"])
def test_the_current_connection_of_rq_1_is_that_of_the_job(system, connection, isolation):
    needs_the_rq_of_debian()
    names = ["through_the_current_connection", "inside_another", "leave_others_behind", "through_the_current_connection", "use_another",
             "through_the_current_connection"]
    made = [queue(connection).enqueue(f"python_old_rq.{name}") for name in names]
    done = worker(system, "--burst", "default", "--concurrency", "1", "--isolation", isolation,
                  python=["--python", "/usr/bin/python3", "--path", INTEROP])
    assert done.wait(30) == 0, done.log
    assert [job.return_value() for job in made] == [("started", "other"), (True, True), None, ("started", "other"), None,
                                                    ("started", "other")]


SECRET = "s3cret-of-redis"


def protect(system, connection):
    """The URL with the password that is needed from now on."""
    connection.config_set("requirepass", SECRET)
    connection.execute_command("AUTH", SECRET)
    return system.server.url.replace("unix://", f"unix://:{SECRET}@")


def guarded_worker(system, url, how, *args):
    """With everything that has processes, and the password where `how` says."""
    given = ["--redis-url", url] if how == "flag" else []
    env = {name: value for name, value in os.environ.items() if name != "RQXX_REDIS_URL"}
    if how == "config":
        file = system.folder / "rqxx.toml"
        file.write_text(f'redis-url = "{url}"\n')
        given = ["--config", file]
    return system.run(BUILD / "rqxx", "worker", *PYTHON, *given, "--data-dir", system.folder / "data", "--concurrency", "4",
                      "--native-isolation", "process", "--command", "shell.sleep=sh -c 'sleep 63; true'", "--command",
                      "shell.tell=sh -c 'env; cat; env >&2; exit 3'", *args, "default",
                      env={**env, **({"RQXX_REDIS_URL": url} if how == "environment" else {})})


@pytest.mark.parametrize("unusual", ["no environment", "a long command line"])
def test_no_child_repeats_a_command_line_of_any_kind(system, connection, unusual):
    url = protect(system, connection)
    many = [part for n in range(100 if unusual == "a long command line" else 0) for part in ("--command", f"{'f' * 50}{n}=true")]
    running = system.run(BUILD / "rqxx", "worker", "--redis-url", url, "--data-dir", system.folder / "data", "--native-isolation", "process",
                         *many, "default", env={} if unusual == "no environment" else None)
    running.wait_for_log("Worker started")
    assert len(children(running)) >= 2
    wait_for(lambda: not tellers(running, SECRET), 5, f"{tellers(running, SECRET)} to be silent")


def tellers(running, secret):
    """The children whose command line or environment has it. One that has just been forked still has its parent's."""
    found = []
    for one in children(running):
        try:
            with open(f"/proc/{one.pid}/cmdline", "rb") as cmdline, open(f"/proc/{one.pid}/environ", "rb") as environ:
                if secret.encode() in cmdline.read() + environ.read():
                    found.append(one.name())
        except (OSError, psutil.Error):
            pass   # It has ended.
    return found


@pytest.mark.parametrize("isolation", ["warm", "fork"])
@pytest.mark.parametrize("how", ["environment", "flag", "config"])
def test_the_password_of_redis_stands_where_it_is_needed_only(system, connection, how, isolation):
    pids = system.folder / "pids"
    url = protect(system, connection)
    failing = [queue(connection).enqueue(function, *args) for function, args in
               ((jobs.tell_all, ()), ("shell.tell", ()), ("eval_worker.evaluate", ("1",)), (jobs.drop_dead, (3,)))]
    running = guarded_worker(system, url, how, "--isolation", isolation, "--log-level", "debug")
    wait_for(lambda: all(status(connection, job.id) == "failed" for job in failing))
    asleep = [queue(connection).enqueue(jobs.sleep_marked, str(pids), 60), queue(connection).enqueue("shell.sleep")]
    wait_for(lambda: lines(pids) and all(status(connection, job.id) == "started" for job in asleep))
    names = wait_for(lambda: (found := " ".join(f"{one.name()} {one.cmdline()}" for one in children(running))) and "sleep" in found and found)
    assert all(name in names for name in ("rqxx-guardian", "rqxx-zygote", "rqxx-slot", "executor.py", "sleep"))
    wait_for(lambda: not tellers(running, SECRET), 5, f"{tellers(running, SECRET)} to be silent")
    shown = [system.rqxx("job", what, job.id, env={"RQXX_REDIS_URL": url}) for job in failing for what in ("show", "logs")]
    assert all(one.returncode == 0 for one in shown), shown
    assert SECRET not in "".join(one.stdout + one.stderr for one in shown)
    assert all(SECRET not in job.latest_result().exc_string for job in failing)
    assert SECRET not in running.log + running.out
    kept = [connection.xrange(key) for key in connection.keys("rqxx:output:*:*")]
    assert kept and SECRET not in str(kept)


@pytest.mark.parametrize("how", ["environment", "flag", "config"])
def test_a_worker_that_redis_refuses_does_not_tell_the_password(system, connection, how):
    url = protect(system, connection).replace(SECRET, "wr0ng-password")
    running = guarded_worker(system, url, how, "--log-level", "debug")
    wait_for(lambda: running.process.poll() is not None or re.search("WRONGPASS|invalid", running.log))
    assert "wr0ng-password" not in running.log + running.out
    wait_for(lambda: running.process.poll() is not None or not tellers(running, "wr0ng-password"), 5, "its processes to be silent")


@needs_rq3
def test_jobs_run_with_rq_3_in_the_interpreter(system, connection):
    path = system.folder / "marks"
    asks, fails = queue(connection).enqueue("tasks.mark", str(path), 0), queue(connection).enqueue("tasks.fail", "as told")
    done = work_off(system, python=["--python", RQ3_PYTHON, "--path", INTEROP])
    assert "rq 3." in done.log
    # The function asks RQ which job it runs in.
    assert asks.get_status() == "finished" and asks.return_value() == asks.id
    assert fails.get_status() == "failed" and "RuntimeError: as told" in fails.latest_result().exc_string
