"""What an application gives to `rqxx worker --python` by name, as it would to `rq worker`."""

import json

import pytest
import python_hooks as hooks
from conftest import INTEROP, needs_rq2, wait_for
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.job import Callback
from test_python import is_alive, queue, seen, status, stock_work_off, without_rq, work_off, worker

pytestmark = needs_rq2
ISOLATIONS = ["warm", "fork"]


def notes(connection):
    return [json.loads(line) for line in connection.lrange("notes", 0, -1)]


# ---- before the first job ----


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_init_is_called_once_in_order_before_anything_is_preloaded(system, connection, isolation):
    made = [queue(connection).enqueue(hooks.calls) for _ in range(4)]
    work_off(system, "--isolation", isolation, "--concurrency", "2", "--init", "python_inits:first", "--init",
             "python_inits:Application.settings.load")
    assert [job.return_value() for job in made] == [["first, False", "second, False"]] * 4


def test_what_cannot_be_shared_can_be_renewed_in_each_process(system, connection):
    job = queue(connection).enqueue(hooks.calls)
    work_off(system, "--init", "python_inits:renew_in_each_process")
    assert job.return_value() == ["forked"]


# ---- serializers ----


SERIALIZED = {
    "a_result": (hooks.remember, {"args": ("k", [1, "two"]), "meta": {"before": 1}}),
    "a_keyword": (hooks.succeed, {"kwargs": {"value": {"a": [None, 1.5]}}}),
    "none": (hooks.succeed, {"args": (None,)}),
    "a_result_that_cannot_be_serialized": (hooks.lock, {}),
    "a_failure": (hooks.fail, {"args": ("why",)}),
    "a_retry_as_a_result": (hooks.ask_again, {}),
    "callbacks": (hooks.succeed, {"on_success": Callback(hooks.on_success_raising), "on_failure": Callback(hooks.on_failure_raising)}),
}


@pytest.mark.parametrize("serializer", ["python_hooks.Packed", "python_hooks.LikePickle", "python_hooks.signed",
                                        "rq.serializers.JSONSerializer", "rq.serializers.DefaultSerializer"])
def test_a_serializer_of_its_own_reads_jobs_and_writes_results(system, connection, serializer):
    jobs_of = Queue("default", connection=connection, serializer=serializer)
    ends = []
    for run in (lambda: stock_work_off(system, serializer=serializer),
                lambda: work_off(system, "--concurrency", "1", "--serializer", serializer)):
        connection.flushall()
        for name, (function, how) in SERIALIZED.items():
            jobs_of.enqueue(function, job_id=name, **how)
        run()
        ends.append({name: {**seen(connection, name, serializer=serializer), "raw": connection.xrange(f"rq:results:{name}", count=1)}
                     for name in SERIALIZED})
        for end in ends[-1].values():
            end["finished"], end["failed"] = sorted(end["finished"]), sorted(end["failed"])   # Ordered by the second.
            end["raw"] = [fields.get(b"return_value") for _, fields in end["raw"]]
    assert ends[0] == ends[1]
    assert ends[1]["a_result"]["meta"] == {"before": 1, "k": [1, "two"]}


def test_jobs_of_a_strange_serializer_are_shown_as_unreadable(system, connection):
    jobs_of = Queue("default", connection=connection, serializer="python_hooks.LikePickle")
    job = jobs_of.enqueue(hooks.remember, "k", 1)
    work_off(system, "--serializer", "python_hooks.LikePickle")
    shown = json.loads(system.rqxx("job", "show", "--json", job.id, "--redis-url", system.server.url).stdout)
    shown = shown[0] if isinstance(shown, list) else shown
    assert shown["status"] == "finished" and shown["func_name"] is None
    assert all("$undecodable" in shown[field] for field in ("args", "result", "meta"))


def test_jobs_of_other_serializers_fail_as_they_do_under_rq(system, connection):
    ends = []
    for run in (lambda: stock_work_off(system, serializer="python_hooks.signed"),
                lambda: work_off(system, "--serializer", "python_hooks.signed")):
        connection.flushall()
        job = queue(connection).enqueue(hooks.succeed)
        run()
        ends.append((status(connection, job.id), job.latest_result().exc_string.strip().splitlines()[-1]))
    assert ends[0] == ends[1] and ends[0][0] == "failed"


def test_serializers_work_without_rq(system, connection):
    job = Queue("default", connection=connection, serializer="plain_serializer.Reversed").enqueue("math.hypot", 3, 4)
    done = worker(system, "--burst", "default", "--serializer", "plain_serializer.Reversed",
                  python=["--python", without_rq(system), "--path", INTEROP])
    assert done.wait(30) == 0, done.log
    assert "without rq" in done.log and job.return_value() == 5


# ---- exception handlers ----


def handlers(*names):
    return [arg for name in names for arg in ("--exception-handler", f"python_hooks.{name}")]


FAILURES = {
    "a_failure": (("tell", "tell_status"), hooks.fail, {"args": ("why",)}),
    "a_chain_that_ends": (("go_on", "tell", "end_chain", "tell"), hooks.fail, {}),
    "a_chain_that_ends_with_zero": (("tell", "end_with_zero", "tell"), hooks.fail, {}),
    "a_method": (("Handlers.as_static_method",), hooks.fail, {}),
    "a_retry_at_once": (("tell", "tell_status"), hooks.fail, {"retry": Retry(max=1)}),
    "a_retry_later": (("tell", "tell_status"), hooks.fail, {"retry": Retry(max=1, interval=100)}),
    "a_handler_that_forbids_retries": (("tell", "forbid_retries"), hooks.fail, {"retry": Retry(max=3)}),
    "a_handler_that_forbids_retries_and_saves": (("tell", "save_that_retries_are_forbidden"), hooks.fail, {"retry": Retry(max=3)}),
    "a_handler_that_grants_a_retry": (("tell", "grant_a_retry"), hooks.fail, {}),
    "a_success": (("tell",), hooks.succeed, {}),
    "a_retry_as_a_result": (("tell",), hooks.ask_again, {}),
    "a_success_callback_that_raises": (("tell",), hooks.succeed, {"on_success": Callback(hooks.on_success_raising)}),
    "a_failure_callback_that_raises": (("tell",), hooks.fail, {"on_failure": Callback(hooks.on_failure_raising)}),
    "a_time_limit": (("tell",), "time.sleep", {"args": (10,), "job_timeout": 1}),
    "a_function_that_is_not_there": (("tell",), "python_hooks.nothing", {}),
    "sys_exit": (("tell",), "sys.exit", {"args": (3,)}),
    "os_exit": (("tell",), "os._exit", {"args": (3,)}),
    "a_handler_that_saves_meta": (("keep_in_meta", "tell"), hooks.fail, {}),
    "a_handler_that_raises": (("raise_another", "tell"), hooks.fail, {}),
    "a_handler_that_raises_before_a_retry": (("raise_another", "tell"), hooks.fail, {"retry": Retry(max=1)}),
    "a_handler_that_leaves": (("leave", "tell"), hooks.fail, {}),
    "a_handler_that_ends_the_process": (("drop_dead", "tell"), hooks.fail, {}),
}


@pytest.mark.parametrize("name", FAILURES)
def test_exception_handlers_are_called_as_under_rq(system, connection, name):
    names, function, how = FAILURES[name]
    ends = []
    for run in (lambda: stock_work_off(system, *handlers(*names)), lambda: work_off(system, *handlers(*names)),
                lambda: work_off(system, "--isolation", "fork", *handlers(*names))):
        connection.flushall()
        queue(connection).enqueue(function, job_id="a", **how)
        run()
        ends.append((seen(connection, "a"), notes(connection)))
    assert ends[1] == ends[0] and ends[2] == ends[0]
    assert bool(ends[0][1]) == (name not in ("a_success", "a_retry_as_a_result", "os_exit", "a_handler_that_leaves",
                                             "a_handler_that_ends_the_process"))


def test_what_a_handler_raised_stands_in_the_log_and_others_go_on(system, connection):
    bad = queue(connection).enqueue(hooks.fail)
    good = queue(connection).enqueue(hooks.succeed, 5)
    done = work_off(system, "--concurrency", "1", "--forward-output", *handlers("raise_another"))
    assert "of the handler" in done.log + done.out
    assert "waitpid returned 256" in bad.latest_result().exc_string and good.return_value() == 5


def test_a_handler_that_hangs_is_ended_and_so_is_one_whose_job_is_stopped(system, connection):
    slow = queue(connection).enqueue(hooks.fail)
    running = worker(system, "default", *handlers("hang"))
    pid = wait_for(lambda: notes(connection))[0]["pid"]
    assert status(connection, slow.id) == "started"
    send_stop_job_command(connection, slow.id)
    wait_for(lambda: status(connection, slow.id) == "stopped")
    wait_for(lambda: not is_alive(pid))
    assert running.process.poll() is None


def test_a_worker_that_dies_in_a_handler_loses_nothing(system, connection):
    job = queue(connection).enqueue(hooks.fail)
    victim = worker(system, "default", *handlers("hang"))
    pid = wait_for(lambda: notes(connection))[0]["pid"]
    victim.process.kill()
    wait_for(lambda: not is_alive(pid), timeout=5)
    worker(system, "default", *handlers("tell"))
    wait_for(lambda: status(connection, job.id) == "failed", timeout=25)
    assert "ValueError: no" in job.latest_result().exc_string
    assert notes(connection)[1]["handler"] == "tell"


@pytest.mark.parametrize("flags, words", [
    (["--exception-handler", "no_such_module.handler"], ["--exception-handler no_such_module.handler", "Invalid attribute name"]),
    (["--exception-handler", "python_hooks.nothing"], ["--exception-handler python_hooks.nothing", "has no attribute"]),
    (["--init", "no_such_module:setup"], ["--init no_such_module:setup", "No module named"]),
    (["--init", "python_inits:nothing"], ["--init python_inits:nothing", "has no attribute"]),
    (["--init", "python_inits:Application.nothing"], ["--init python_inits:Application.nothing", "has no attribute"]),
    (["--init", "python_inits:value"], ["--init python_inits:value", "not callable"]),
    (["--init", "python_inits:broken"], ["--init python_inits:broken", "LookupError: no settings"]),
    (["--init", "python_inits:leave"], ["--init python_inits:leave", "SystemExit: not today"]),
    (["--init", "python_inits.first"], ["--init python_inits.first", "MODULE:CALLABLE is expected"]),
    (["--init", "python_inits:"], ["--init python_inits:", "MODULE:CALLABLE is expected"]),
    (["--serializer", "no_such_module.Class"], ["--serializer no_such_module.Class", "Invalid attribute name"]),
    (["--serializer", "python_hooks.nothing"], ["--serializer python_hooks.nothing", "has no attribute"]),
    (["--serializer", "python_hooks.note"], ["--serializer python_hooks.note", "no methods dumps and loads"]),
    (["--serializer", "nothing"], ["serializer", "nothing"]),
    (["--preload", "no_such_module"], ["--preload no_such_module", "No module named"]),
])
def test_a_name_that_leads_nowhere_is_told_at_the_start(system, connection, flags, words):
    refused = worker(system, "--burst", "default", *flags)
    assert refused.wait(20) == 2
    assert all(word in refused.log for word in words) and "Worker started" not in refused.log
    assert connection.scard("rq:workers") == 0


def test_queues_may_be_named_behind_what_may_be_repeated(system, connection):
    job = Queue("other", connection=connection).enqueue(hooks.succeed)
    done = worker(system, "--burst", "--path", INTEROP, "--init", "python_inits:first", "--exception-handler", "python_hooks.tell",
                  "--preload", "python_jobs", "other")
    assert done.wait(30) == 0 and job.return_value() == 1


@pytest.mark.parametrize("flag, value", [("--exception-handler", "python_hooks.tell"), ("--init", "python_inits:first"),
                                         ("--serializer", "python_hooks.Packed")])
def test_without_python_its_flags_are_refused(system, connection, flag, value):
    refused = worker(system, "--burst", "default", flag, value, python=[])
    assert refused.wait(20) == 2
    assert flag in refused.log and "needs --python" in refused.log
