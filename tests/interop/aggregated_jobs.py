"""Functions that take the jobs of one call; tests/support/test_worker.cpp has the native one of the same name."""

import os
import signal
import time


class Refused(Exception):
    pass


def leave(path, text):
    with open(path, "a") as out:
        out.write(text + "\n")


def together(calls):
    """Leaves a line with the ids of each call. What a job of the call does is its first argument."""
    leave(calls[0].args[1], " ".join(call.job_id for call in calls))
    return [answer(call) for call in calls]


def answer(call):
    (what, path), kwargs = call
    if what == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "throw":
        raise RuntimeError("of all")
    if what == "fail":
        return RuntimeError("of one")
    if what == "retry":
        from rq import Retry

        return Retry(max=1)
    if what == "print":
        print("of " + call.job_id)
    if what == "write":
        print("of all")
    if what == "nap":
        time.sleep(60)
    if what == "wait":
        while not os.path.exists(path + ".go"):
            time.sleep(0.005)
    return call.job_id


def look_around(calls):
    from rq import get_current_job

    import rqxx

    rqxx.progress(0.5, "half way")
    for call in calls:
        call.job.meta["place"] = calls.index(call)
        call.job.save_meta()
    calls[0].progress(0.75, "first")
    leave(calls[0].args[0], " ".join(call.job_id for call in calls))
    while not os.path.exists(calls[0].args[0] + ".go"):
        time.sleep(0.005)
    return [[get_current_job() is None, os.environ.get("RQ_JOB_ID"), call.kwargs, call.execution_id] for call in calls]


def too_few(calls):
    return [1] * (len(calls) - 1)


def no_list(calls):
    return {"a": 1}


async def awaited(calls):
    return [args[0] for args, kwargs in calls]


def single(text, path):
    return "alone " + text


def many(calls):
    return ["together " + args[0] for args, kwargs in calls]


single.aggregated = many


def swallow(calls):
    """Takes no notice of its time limit."""
    leave(calls[0].args[0], " ".join(call.job_id for call in calls))
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass


class Unreadable:
    """Pickles, and cannot be read again."""

    def __reduce__(self):
        return refuse, ()


def refuse():
    raise Refused("cannot be read")


def on_end(job, connection, *args):
    leave(job.args[1] + ".called", "%s %d" % (job.id, len(args)))
