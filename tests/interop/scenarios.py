"""What both sides of the differential suite do, as data.

A scenario is a list of steps; a step is (what, arguments). Options have rqxx's names (tests/support/test_driver.cpp);
times are seconds from now. "{marks}" stands for a file that the functions of tasks.py write to.
"""

import pickle

HOUR = 3600


def enqueue(func, *args, id="a", **options):
    """With `id=None`, one is made up."""
    return ("enqueue", {"func": func, "args": list(args), **({"job_id": id} if id else {}), **options})


def many(*jobs, **where):
    """enqueue_many; with `group`, that of a Group."""
    return ("many", {"jobs": [options for _, options in jobs], **where})


def work(*queues, **options):
    """A worker until its queues are empty. `max_jobs`."""
    return ("work", {"queues": list(queues) or ["default"], **options})


def while_running(id, *steps, **options):
    """A worker until its queues are empty; the steps are done once the job has started."""
    return ("work", {"queues": ["default"], "once": id, "steps": list(steps), **options})


def look():
    """What stands there at this moment is compared, too."""
    return ("look", {})


def promote(*ids):
    """Lets the jobs be due, and a scheduler of RQ find them."""
    return ("promote", {"ids": list(ids)})


def redis(*command):
    """Something that a third party does, the same for both sides."""
    return ("redis", command)


def action(what):
    return lambda id, **options: (what, {"id": id, **options})


cancel, delete, requeue, stop = action("cancel"), action("delete"), action("requeue"), action("stop")


def after(*ids, **options):
    return {"job_ids": list(ids), **options}


def callbacks(**names):
    """Callbacks, and where they leave their marks."""
    return {name: {"name": f"tasks.{function}", "timeout": 1} for name, function in names.items()} | {
        "meta": {"marks": "{marks}"}}


ALL_CALLBACKS = callbacks(on_success="on_success", on_failure="on_failure", on_stopped="on_stopped")
ADD, FAIL, NONE, SLOW, ECHO, FLAKY = "tasks.add", "tasks.fail", "tasks.none", "tasks.slow", "tasks.echo", "tasks.flaky"
HOOK = {"url": "http://127.0.0.1:9/hook", "job_status": "finished", "method": "POST", "headers": {"X-A": "b"}, "timeout": 1}

BASICS = {
    "success": [enqueue(ADD, 1, 2), work()],
    "success_with_everything": [
        enqueue(ADD, 1, 2, timeout=77, result_ttl=600, failure_ttl=700, ttl=800, meta={"k": [1], "ü": None}, description="täxt",
                retry={"max": 3, "intervals": [10, 20], "enqueue_at_front": True}),
        work()],
    "everything_and_no_worker": [
        enqueue(ADD, 1, 2, timeout=77, result_ttl=600, failure_ttl=700, ttl=800, meta={"k": [1]}, description="text",
                retry={"max": 3, "intervals": [10, 20], "enqueue_at_front": True},
                repeat={"times": 2, "intervals": [5]}, webhooks=[HOOK],
                on_success={"name": "tasks.on_success", "timeout": 120}, on_failure={"name": "tasks.on_failure"},
                on_stopped={"name": "tasks.on_stopped", "timeout": 7})],
    "nothing_but_a_function": [enqueue(NONE)],
    "nothing_but_a_function_with_id_made_up": [enqueue(NONE, id=None), work()],
    "while_it_runs": [enqueue(SLOW, 0.3, timeout=60), enqueue(ADD, 1, 2, id="b", depends_on=after("a")),
                      enqueue(ADD, 1, 2, id="c"), while_running("a", look())],
    "while_it_runs_with_ttl": [enqueue(SLOW, 0.3, ttl=300, timeout=-1, meta={"k": 1}), while_running("a", look())],
    "refused_options": [
        enqueue(ADD, timeout=0), enqueue(ADD, ttl=0), enqueue(ADD, ttl=-1), enqueue(ADD, id="no id"), enqueue(ADD, id="a:b"),
        enqueue(ADD, retry={"max": 1, "intervals": [-1]}), enqueue(ADD, repeat={"times": 0}),
        enqueue(ADD, repeat={"times": 1, "intervals": [-1]}),
        enqueue(ADD, webhooks=[{"url": "ftp://x", "job_status": "failed"}]),
        enqueue(ADD, webhooks=[{"url": "http://x/", "job_status": "stopped"}]),
        enqueue(ADD, webhooks=[{"url": "http://x/", "job_status": "failed", "timeout": 0}]), enqueue(ADD, timeout="1y"),
        enqueue(ADD, unique=True, id=None)],
    "units_in_times": [enqueue(ADD, 1, 2, timeout="2h", result_ttl="10m", failure_ttl="1d", ttl="90s"), work()],
    "keyword_arguments": [enqueue(ECHO, 1, "two", kwargs={"three": 3.5, "four": [None, True, {"five": "6"}]}), work()],
    "no_arguments": [enqueue(ECHO), work()],
    "unicode_arguments": [enqueue(ECHO, "grüße 你好 🙂", "\x00\n\"'\\", kwargs={"schlüssel": "ß"}), work()],
    "big_and_odd_numbers": [enqueue(ECHO, 2**31, -1, 2**62, 1e-300, 0.1, -0.0, 255, 256, 65536), work()],
    "binary_arguments": [enqueue(ECHO, {"$bytes": "AAH/gA=="}, {"$bytes": ""}), work()],
    "times_and_sets_as_arguments": [
        enqueue(ECHO, {"$datetime": "2026-11-23T17:47:37.728246"}, {"$date": "2026-02-28"}, {"$set": [1]}, {"$tuple": [1, "b"]},
                {"$decimal": "1.10"}, {"$uuid": "12345678-1234-5678-1234-567812345678"}),
        work()],
    "long_text": [enqueue(ECHO, "x" * 70000), work()],
    "a_result_of_nothing": [enqueue(NONE), work()],
    "result_kept_for_ever": [enqueue(ADD, 1, 2, result_ttl=-1), work()],
    "result_not_kept": [enqueue(ADD, 1, 2, result_ttl=0), work()],
    "result_not_kept_of_nothing": [enqueue(NONE, result_ttl=0), work()],
    "unserializable_result": [enqueue("tasks.unserializable"), work()],
    "waiting_ttl": [enqueue(ADD, 1, 2, ttl=300)],
    "waiting_ttl_ends_at_the_start": [enqueue(ADD, 1, 2, ttl=300, result_ttl=-1), work()],
    "no_time_limit": [enqueue(ADD, 1, 2, timeout=-1), work()],
    "time_limit_exceeded": [enqueue(SLOW, 20, timeout=1), work()],
    "at_front": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", at_front=True)],
    "at_front_of_a_worker": [enqueue("tasks.leave", "{marks}", "last"), enqueue("tasks.leave", "{marks}", "first", id="b",
                                                                               at_front=True), work()],
    "many_jobs": [*[enqueue(ADD, n, n, id=f"j{n}") for n in range(6)], work()],
    "two_queues": [enqueue("tasks.leave", "{marks}", "default"), enqueue("tasks.leave", "{marks}", "high", id="b", queue="high"),
                   work("high", "default")],
    "queues_in_turn": [*[enqueue("tasks.leave", "{marks}", f"{queue} {n}", id=f"{queue}{n}", queue=queue)
                         for queue in ("high", "default") for n in range(3)],
                       work("high", "default", strategy="round_robin")],
    "a_queue_that_nobody_serves": [enqueue(ADD, 1, 2, queue="other"), enqueue(ADD, 1, 2, id="b"), work()],
    "an_empty_queue": [work()],
    "a_job_at_most": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b"), work(max_jobs=1)],
    "suspended": [enqueue(ADD, 1, 2), ("suspend", {}), work()],
    "suspended_for_a_while": [enqueue(ADD, 1, 2), ("suspend", {"seconds": 100}), work()],
    "resumed": [enqueue(ADD, 1, 2), ("suspend", {}), work(), ("resume", {}), work()],
    "unknown_function": [enqueue("nowhere.to_be_found", 1), work()],
    "arguments_that_do_not_fit": [enqueue(ADD, 1), work()],
    "unreadable_call": [enqueue(ADD, 1, 2), redis("HSET", "rq:job:a", "data", "garbage"), work()],
    "a_job_of_few_fields": [redis("HSET", "rq:job:a", "data", pickle.dumps((NONE, None, (), {})), "origin", "default"),
                            redis("SADD", "rq:queues", "rq:queue:default"), redis("RPUSH", "rq:queue:default", "a"), work()],
    "an_id_without_job": [enqueue(ADD, 1, 2, id="b"), redis("LPUSH", "rq:queue:default", "ghost"), work()],
    "an_id_without_job_among_queues": [enqueue(ADD, 1, 2, id="b"), redis("LPUSH", "rq:queue:default", "ghost"),
                                       work("high", "default")],
    "fields_of_the_future": [enqueue(ADD, 1, 2), redis("HSET", "rq:job:a", "new_in_3", "kept"), work()],
    "meta_changed_meanwhile": [enqueue(ADD, 1, 2, meta={"k": 1}), redis("HSET", "rq:job:a", "meta", '{"k": 2}'), work()],
}

FAILURES = {
    "failure": [enqueue(FAIL, "boom"), work()],
    "failure_kept_a_while": [enqueue(FAIL, "boom", failure_ttl=123), work()],
    "failure_kept_for_ever": [enqueue(FAIL, "boom", failure_ttl=-1), work()],
    "failure_not_kept": [enqueue(FAIL, "boom", failure_ttl=0), work()],
    "failure_with_unicode": [enqueue(FAIL, "böom 你"), work()],
    "retries_exhausted": [enqueue(FAIL, "boom", retry={"max": 2}), work()],
    "retry_succeeds": [enqueue(FLAKY, "{marks}", 1, retry={"max": 2}), work()],
    "retry_later": [enqueue(FAIL, "boom", retry={"max": 2, "intervals": [60, 120]}), work()],
    "retry_later_twice": [enqueue(FAIL, "boom", retry={"max": 2, "intervals": [60, 120]}), work(), promote("a"), work()],
    "retry_later_to_the_end": [enqueue(FAIL, "boom", retry={"max": 1, "intervals": [60]}), work(), promote("a"), work()],
    "retry_with_few_intervals": [enqueue(FAIL, "boom", retry={"max": 5, "intervals": [10, 20, 30]}), work()],
    "retry_with_many_intervals": [enqueue(FAIL, "boom", retry={"max": 1, "intervals": [10, 20, 30]}), work()],
    "retry_at_once_then_later": [enqueue(FAIL, "boom", retry={"max": 2, "intervals": [0, 40]}), work()],
    "retry_at_front": [enqueue(FLAKY, "{marks}", 1, retry={"max": 1, "enqueue_at_front": True}),
                       enqueue(ADD, 1, 2, id="b"), work(max_jobs=1)],
    "retry_at_the_back": [enqueue(FLAKY, "{marks}", 1, retry={"max": 1}), enqueue(ADD, 1, 2, id="b"), work(max_jobs=1)],
    "retry_at_front_of_others": [enqueue(FLAKY, "{marks}", 1, retry={"max": 1, "enqueue_at_front": True}),
                                 enqueue("tasks.leave", "{marks}", "other", id="b"), work()],
    "retry_later_at_front": [enqueue(FAIL, "boom", retry={"max": 2, "intervals": [60], "enqueue_at_front": True}), work(),
                             enqueue(ADD, 1, 2, id="b"), promote("a")],
    "retry_with_waiting_ttl": [enqueue(FAIL, "boom", ttl=300, retry={"max": 1, "intervals": [60]}), work()],
    "asked_for_a_retry": [enqueue("tasks.ask_retry", 1, 0), work()],
    "asked_for_two_retries": [enqueue("tasks.ask_retry", 2, 0, result_ttl=100, failure_ttl=200), work()],
    "asked_for_a_late_retry": [enqueue("tasks.ask_retry", 3, 70), work()],
    "asked_for_a_late_retry_twice": [enqueue("tasks.ask_retry", 3, 70), work(), promote("a"), work()],
    "asked_and_granted_retries": [enqueue("tasks.ask_retry", 1, 0, retry={"max": 2}), work()],
}

REPEATS = {
    "repeat_at_once": [enqueue(ADD, 1, 2, repeat={"times": 2}), work()],
    "repeat_later": [enqueue(ADD, 1, 2, repeat={"times": 2, "intervals": [60]}), work()],
    "repeat_with_intervals": [enqueue(ADD, 1, 2, repeat={"times": 3, "intervals": [10, 20, 30]}), work()],
    "repeat_with_few_intervals": [enqueue(ADD, 1, 2, repeat={"times": 4, "intervals": [10, 20]}), work()],
    "repeat_later_to_the_end": [enqueue(ADD, 1, 2, repeat={"times": 1, "intervals": [60]}), work(), promote("a"), work()],
    "repeat_without_result": [enqueue("tasks.leave", "{marks}", "ran", result_ttl=0, repeat={"times": 2}), work()],
    "repeat_with_result_for_ever": [enqueue(ADD, 1, 2, result_ttl=-1, repeat={"times": 1}), work()],
    "repeat_with_waiting_ttl": [enqueue(ADD, 1, 2, ttl=300, repeat={"times": 1, "intervals": [60]}), work()],
    "repeat_after_a_retry": [enqueue(FLAKY, "{marks}", 1, retry={"max": 1}, repeat={"times": 1, "intervals": [60]}), work()],
    "repeat_of_a_failure": [enqueue(FAIL, "boom", repeat={"times": 2}), work()],
}

DEPENDENCIES = {
    "dependent": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), work()],
    "dependent_waits": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a"))],
    "dependent_with_everything_waits": [
        enqueue(ADD, 1, 2),
        enqueue(ADD, 3, 4, id="b", ttl=300, meta={"k": 1}, description="d", result_ttl=7, failure_ttl=8, timeout=9,
                depends_on=after("a", allow_failure=True, enqueue_at_front=True))],
    "two_dependencies": [enqueue(ADD, 1, 2), enqueue(ADD, 1, 2, id="b"),
                         enqueue(ADD, 3, 4, id="c", depends_on=after("a", "b")), work()],
    "two_dependencies_one_done": [enqueue(ADD, 1, 2), enqueue(ADD, 1, 2, id="b"),
                                  enqueue(ADD, 3, 4, id="c", depends_on=after("a", "b")), work(max_jobs=1)],
    "two_dependents": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")),
                       enqueue(ADD, 3, 4, id="c", depends_on=after("a")), work()],
    "chain": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")),
              enqueue(ADD, 5, 6, id="c", depends_on=after("b")), enqueue(ADD, 7, 8, id="d", depends_on=after("c")), work()],
    # Which of several dependents is released first is chance; b comes before c, because it goes to the front.
    "diamond": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a", enqueue_at_front=True)),
                enqueue(ADD, 5, 6, id="c", depends_on=after("a")),
                enqueue(ADD, 7, 8, id="d", depends_on=after("b", "c")), work()],
    "dependent_on_another_queue": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", queue="high", depends_on=after("a")), work()],
    "dependent_at_front": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a", enqueue_at_front=True)),
                           enqueue("tasks.leave", "{marks}", "other", id="c"), work(max_jobs=1)],
    "dependent_asked_at_front": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", at_front=True, depends_on=after("a")),
                                 enqueue(ADD, 5, 6, id="c"), work(max_jobs=1)],
    "dependent_of_failure": [enqueue(FAIL, "x"), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), work()],
    "allowed_failure": [enqueue(FAIL, "x"), enqueue(ADD, 3, 4, id="b", depends_on=after("a", allow_failure=True)), work()],
    "allowed_failure_and_a_success": [
        enqueue(FAIL, "x"), enqueue(ADD, 1, 2, id="b"),
        enqueue(ADD, 3, 4, id="c", depends_on=after("a", "b", allow_failure=True)), work()],
    "allowed_failure_without_trace": [
        enqueue(FAIL, "x", failure_ttl=0), enqueue(ADD, 3, 4, id="b", depends_on=after("a", allow_failure=True)), work()],
    "dependent_of_a_retried": [enqueue(FLAKY, "{marks}", 1, retry={"max": 1}),
                               enqueue(ADD, 3, 4, id="b", depends_on=after("a")), work()],
    "dependent_of_a_late_retry": [enqueue(FAIL, "x", retry={"max": 1, "intervals": [60]}),
                                  enqueue(ADD, 3, 4, id="b", depends_on=after("a", allow_failure=True)), work()],
    "dependent_of_a_requeued": [enqueue(FLAKY, "{marks}", 1), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), work(),
                                requeue("a"), work()],
    "dependent_of_finished": [enqueue(ADD, 1, 2), work(), enqueue(ADD, 3, 4, id="b", depends_on=after("a"))],
    "dependent_of_failed": [enqueue(FAIL, "x"), work(), enqueue(ADD, 3, 4, id="b", depends_on=after("a"))],
    "allowed_failure_of_failed": [enqueue(FAIL, "x"), work(),
                                  enqueue(ADD, 3, 4, id="b", depends_on=after("a", allow_failure=True)), work()],
    "dependent_of_canceled": [enqueue(ADD, 1, 2), cancel("a"), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), work()],
    "dependent_of_a_canceled_and_requeued": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), cancel("a"),
                                             requeue("a", canceled=True), work()],
    "dependent_of_nothing": [enqueue(ADD, 3, 4, id="b", depends_on=after("missing")), work()],
    "dependent_of_nothing_and_something": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("missing", "a")),
                                           work()],
    "dependent_of_an_unkept_result": [enqueue(ADD, 1, 2, result_ttl=0), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), work()],
    "dependent_of_a_result_for_ever": [enqueue(ADD, 1, 2, result_ttl=-1), enqueue(ADD, 3, 4, id="b", depends_on=after("a")),
                                       work()],
    "dependent_of_a_repeated": [enqueue(ADD, 1, 2, repeat={"times": 1, "intervals": [60]}),
                                enqueue(ADD, 3, 4, id="b", depends_on=after("a")), work()],
    "dependent_with_waiting_ttl": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", ttl=300, depends_on=after("a")),
                                   work(max_jobs=1)],
}

CALLBACKS = {
    "callback_of_success": [enqueue(ADD, 1, 2, **ALL_CALLBACKS), work()],
    "callback_of_failure": [enqueue(FAIL, "boom", **ALL_CALLBACKS), work()],
    "callback_of_each_attempt": [enqueue(FAIL, "boom", retry={"max": 1}, **ALL_CALLBACKS), work()],
    "callback_of_a_stop": [enqueue(SLOW, 20, **ALL_CALLBACKS), while_running("a", stop("a"))],
    "callback_of_an_asked_retry": [enqueue("tasks.ask_retry", 1, 0, **ALL_CALLBACKS), work()],
    "callback_of_a_repeat": [enqueue(ADD, 1, 2, repeat={"times": 1}, **ALL_CALLBACKS), work()],
    "callback_of_an_unkept_result": [enqueue(ADD, 1, 2, result_ttl=0, **ALL_CALLBACKS), work()],
    "broken_callback_of_success": [enqueue(ADD, 1, 2, **callbacks(on_success="bad_callback", on_failure="on_failure")), work()],
    "broken_callback_and_a_retry": [enqueue(ADD, 1, 2, retry={"max": 1, "intervals": [60]},
                                            **callbacks(on_success="bad_callback")), work()],
    "broken_callback_of_failure": [enqueue(FAIL, "boom", **callbacks(on_failure="bad_callback")), work()],
    "broken_callback_of_a_stop": [enqueue(SLOW, 20, **callbacks(on_stopped="bad_callback")), while_running("a", stop("a"))],
    "slow_callback_of_success": [enqueue(ADD, 1, 2, **callbacks(on_success="slow_callback")), work()],
    "slow_callback_of_failure": [enqueue(FAIL, "boom", **callbacks(on_failure="slow_callback")), work()],
    "unknown_callback": [enqueue(ADD, 1, 2, **callbacks(on_success="nowhere")), work()],
    "callback_and_dependent": [enqueue(ADD, 1, 2, **callbacks(on_success="on_success")),
                               enqueue(ADD, 3, 4, id="b", depends_on=after("a"), **callbacks(on_success="on_success")), work()],
}

ACTIONS = {
    "cancel_queued": [enqueue(ADD, 1, 2), cancel("a"), work()],
    "cancel_queued_with_ttl": [enqueue(ADD, 1, 2, ttl=300), cancel("a")],
    "cancel_deferred": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), cancel("b"), work()],
    "cancel_scheduled": [enqueue(ADD, 1, 2, in_=HOUR), cancel("a")],
    "cancel_finished": [enqueue(ADD, 1, 2), work(), cancel("a")],
    "cancel_failed": [enqueue(FAIL, "x"), work(), cancel("a")],
    "cancel_twice": [enqueue(ADD, 1, 2), cancel("a"), cancel("a")],
    "cancel_nothing": [cancel("missing")],
    "cancel_with_dependent": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), cancel("a"), work()],
    "cancel_and_enqueue_dependents": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")),
                                      enqueue(ADD, 3, 4, id="c", depends_on=after("a")),
                                      cancel("a", dependents="enqueue"), work()],
    "cancel_and_enqueue_some_dependents": [
        enqueue(ADD, 1, 2), enqueue(ADD, 1, 2, id="b"), enqueue(ADD, 3, 4, id="c", depends_on=after("a", "b")),
        enqueue(ADD, 3, 4, id="d", depends_on=after("a")), cancel("a", dependents="enqueue")],
    "cancel_and_forget_dependencies": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")),
                                       cancel("b", remove_from_dependencies=True), work()],
    "cancel_running": [enqueue(SLOW, 0.5), while_running("a", cancel("a"))],
    "cancel_group_member": [many(enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b"), group="g"), cancel("a"), work()],
    "delete_queued": [enqueue(ADD, 1, 2), delete("a"), work()],
    "delete_deferred": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), delete("b"), work()],
    "delete_scheduled": [enqueue(ADD, 1, 2, in_=HOUR), delete("a")],
    "delete_finished": [enqueue(ADD, 1, 2), work(), delete("a")],
    "delete_failed": [enqueue(FAIL, "x"), work(), delete("a")],
    "delete_canceled": [enqueue(ADD, 1, 2), cancel("a"), delete("a")],
    "delete_nothing": [delete("missing")],
    "delete_with_dependent": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), delete("a"), work()],
    "delete_dependents_too": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")),
                              delete("a", dependents="cascade")],
    "delete_group_member": [many(enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b"), group="g"), delete("a"), work()],
    "delete_running": [enqueue(SLOW, 0.5), while_running("a", delete("a"))],
    "requeue_failed": [enqueue(FAIL, "x"), work(), requeue("a")],
    "requeue_and_work": [enqueue(FLAKY, "{marks}", 1), work(), requeue("a"), work()],
    "requeue_at_front": [enqueue(FAIL, "x"), work(), enqueue(ADD, 1, 2, id="b"), requeue("a", at_front=True)],
    "requeue_with_waiting_ttl": [enqueue(FAIL, "x", ttl=300, failure_ttl=400), work(), requeue("a")],
    "requeue_canceled": [enqueue(ADD, 1, 2), cancel("a"), requeue("a", canceled=True), work()],
    "requeue_canceled_deferred": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), cancel("b"),
                                  requeue("b", canceled=True), work()],
    "requeue_canceled_scheduled": [enqueue(ADD, 1, 2, in_=HOUR), cancel("a"), requeue("a", canceled=True), work()],
    "requeue_finished": [enqueue(ADD, 1, 2), work(), requeue("a")],
    "requeue_nothing": [requeue("missing")],
    "requeue_exhausted": [enqueue(FAIL, "x", retry={"max": 1}), work(), requeue("a"), work()],
    "stop_running": [enqueue(SLOW, 20), while_running("a", stop("a"))],
    "stop_running_with_retries": [enqueue(SLOW, 20, retry={"max": 3}), while_running("a", stop("a"))],
    "stop_running_with_dependents": [
        enqueue(SLOW, 20), enqueue(ADD, 1, 2, id="b", depends_on=after("a")),
        enqueue(ADD, 1, 2, id="c", depends_on=after("a", allow_failure=True)), while_running("a", stop("a"))],
    "stop_and_requeue": [enqueue(SLOW, 20), while_running("a", stop("a")), requeue("a")],
    "stop_queued": [enqueue(ADD, 1, 2), stop("a"), work()],
    "empty_queue": [enqueue(ADD, 1, 2), enqueue(ADD, 1, 2, id="b", meta={"k": 1}), enqueue(ADD, 1, 2, id="c", queue="high"),
                    ("empty", {})],
    "empty_queue_with_dependent": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")), ("empty", {})],
    "empty_queue_of_group_members": [many(enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b"), group="g"), ("empty", {})],
    "empty_queue_without_jobs": [("empty", {})],
    "empty_queue_of_a_requeued": [enqueue(FAIL, "x"), work(), requeue("a"), ("empty", {})],
    "compact": [enqueue(ADD, 1, 2), enqueue(ADD, 1, 2, id="b"), enqueue(ADD, 1, 2, id="c"), redis("DEL", "rq:job:b"),
                redis("RPUSH", "rq:queue:default", "ghost"), ("compact", {})],
}

SCHEDULES = {
    "scheduled_at": [enqueue(ADD, 1, 2, at=HOUR)],
    "scheduled_in": [enqueue(ADD, 1, 2, in_=HOUR)],
    "scheduled_with_everything": [
        enqueue(ADD, 1, 2, in_=HOUR, timeout=77, result_ttl=600, failure_ttl=700, ttl=8000, meta={"k": [1]}, description="text",
                retry={"max": 3, "intervals": [10, 20]}, repeat={"times": 2, "intervals": [5]}, webhooks=[HOOK], at_front=True,
                on_success={"name": "tasks.on_success", "timeout": 120})],
    "scheduled_and_due": [enqueue(ADD, 1, 2, in_=HOUR), promote("a"), work()],
    "scheduled_in_the_past": [enqueue(ADD, 1, 2, at=-HOUR), promote(), work()],
    "scheduled_at_front": [enqueue(ADD, 1, 2, in_=HOUR, at_front=True), enqueue(ADD, 1, 2, id="b"), promote("a")],
    "scheduled_and_not_due": [enqueue(ADD, 1, 2, in_=HOUR), work()],
    "unique": [enqueue(ADD, 1, 2, unique=True), enqueue(ADD, 3, 4, unique=True), work()],
    "unique_with_ttl_at_front": [enqueue(ADD, 1, 2, id="b"), enqueue(ADD, 1, 2, unique=True, ttl=300, at_front=True)],
    "unique_after_the_end": [enqueue(ADD, 1, 2, unique=True), work(), enqueue(ADD, 3, 4, unique=True), work()],
    "unique_after_an_unkept_result": [enqueue(ADD, 1, 2, unique=True, result_ttl=0), work(), enqueue(ADD, 3, 4, unique=True)],
    "an_id_used_again": [enqueue(ADD, 1, 2, meta={"k": 1}, retry={"max": 3}), work(), enqueue(ADD, 3, 4), work()],
    "an_id_used_while_it_waits": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4), work()],
    "many_at_once": [many(*[enqueue(ADD, n, n, id=f"j{n}") for n in range(5)]), work()],
    "many_with_ids_made_up": [many(enqueue(ADD, 1, 1, id=None, ttl=300), enqueue(ADD, 2, 2, id=None, at_front=True),
                                   enqueue(ADD, 3, 3, id=None, retry={"max": 2}, meta={"k": 1}, timeout=7))],
    "many_with_ids_made_up_done": [many(enqueue(ADD, 1, 1, id=None), enqueue(FAIL, "x", id=None), enqueue(ADD, 3, 3, id=None)),
                                   work()],
    "scheduled_with_dependency": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", in_=HOUR, depends_on=after("a"))],
    "unique_with_dependency": [enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", unique=True, depends_on=after("a")), work()],
    "many_with_options": [
        many(enqueue(ADD, 1, 2, timeout=7, result_ttl=8, failure_ttl=9, ttl=10, description="d", meta={"k": 1}),
             enqueue(FAIL, "x", id="b", retry={"max": 1, "intervals": [60]}),
             enqueue(ADD, 1, 2, id="c", at_front=True, repeat={"times": 1, "intervals": [60]}))],
    "many_with_dependencies": [
        many(enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")),
             enqueue(ADD, 5, 6, id="c", depends_on=after("a", "b")), enqueue(ADD, 7, 8, id="d", depends_on=after("missing")))],
    "many_with_dependencies_done": [
        many(enqueue(ADD, 1, 2), enqueue(ADD, 3, 4, id="b", depends_on=after("a")),
             enqueue(ADD, 5, 6, id="c", depends_on=after("a", "b"))), work()],
    "many_on_two_queues": [many(enqueue(ADD, 1, 2)), many(enqueue(ADD, 1, 2, id="b"), queue="high"), work("high", "default")],
    "group": [many(enqueue(ADD, 1, 2), enqueue(FAIL, "x", id="b"), group="g")],
    "group_done": [many(enqueue(ADD, 1, 2), enqueue(FAIL, "x", id="b"), group="g"), work()],
    "group_of_unkept_results": [many(enqueue(ADD, 1, 2, result_ttl=0), enqueue(ADD, 1, 2, id="b"), group="g"), work()],
    "group_with_dependencies": [many(enqueue(ADD, 1, 2), enqueue(ADD, 1, 2, id="b", depends_on=after("a")), group="g"), work()],
    "two_groups": [many(enqueue(ADD, 1, 2), group="g"), many(enqueue(ADD, 1, 2, id="b"), group="h"), work()],
    "webhooks": [enqueue(ADD, 1, 2, webhooks=[HOOK, {"url": "https://localhost/x", "job_status": "failed"}])],
    "webhooks_of_a_failure": [enqueue(FAIL, "x", webhooks=[{"url": "http://127.0.0.1:9/", "job_status": "failed"}]), work()],
}

SCENARIOS = BASICS | FAILURES | REPEATS | DEPENDENCIES | CALLBACKS | ACTIONS | SCHEDULES

#: Values that JSON does not carry.
PICKLE_ONLY = {"binary_arguments", "times_and_sets_as_arguments", "a_job_of_few_fields"}
