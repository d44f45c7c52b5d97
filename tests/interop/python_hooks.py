"""What test_python_options.py gives to workers by name: exception handlers, and functions that end as they need."""

import hmac
import json
import os
import pickle
import sys
import threading
import time
import traceback
import zlib

from rq import Retry, get_current_job


def note(job, **what):
    job.connection.rpush("notes", json.dumps(what, sort_keys=True))


def fail(text="no"):
    raise ValueError(text)


def succeed(value=1):
    return value


def ask_again():
    return Retry(max=1)


def on_success_raising(job, connection, result):
    raise KeyError("callback")


def on_failure_raising(job, connection, *error):
    raise LookupError("callback")


def calls():
    return list(sys.modules.get("python_inits").calls)


def remember(key, value):
    job = get_current_job()
    job.meta[key] = value
    job.save_meta()
    return job.args, job.kwargs


def lock():
    return threading.Lock()


# ---- serializers ----


class Packed:
    """JSON in zlib in the zlib that RQ adds."""

    @staticmethod
    def dumps(value):
        return zlib.compress(json.dumps(value).encode())

    @staticmethod
    def loads(data):
        return json.loads(zlib.decompress(data))


class LikePickle:
    """Begins as a pickle, which it is not."""

    @staticmethod
    def dumps(value):
        return b"\x80\x05" + json.dumps(value).encode()[::-1]

    @staticmethod
    def loads(data):
        assert data[:2] == b"\x80\x05"
        return json.loads(data[2:][::-1])


class Signed:
    def __init__(self, key):
        self.key = key

    def dumps(self, value):
        data = pickle.dumps(value)
        return hmac.digest(self.key, data, "sha256") + data

    def loads(self, data):
        if not hmac.compare_digest(hmac.digest(self.key, data[32:], "sha256"), data[:32]):
            raise ValueError("not signed by us")
        return pickle.loads(data[32:])


signed = Signed(b"key")


# ---- exception handlers ----


def tell(job, exc_type, exc_value, tb, name="tell"):
    """All that can be seen where it is called."""
    frames = tb.stack if hasattr(tb, "stack") else traceback.extract_tb(tb)
    note(job, handler=name, id=job.id, type=exc_type.__name__, value=str(exc_value), last=exc_type is ValueError and frames[-1].name,
         status_in_redis=job.get_status(refresh=True).value, ended=job.ended_at is not None, retries_left=job.retries_left,
         stored=job.latest_result() is not None, current=get_current_job() is not None, worker=job.worker_name is not None,
         arguments=[list(job.args), job.kwargs] if exc_type is ValueError else [])


def tell_status(job, *error):
    note(job, status=job.get_status(refresh=False).value)


def end_chain(job, *error):
    tell(job, *error, name="end_chain")
    return False


def end_with_zero(job, *error):
    tell(job, *error, name="end_with_zero")
    return 0


def go_on(job, *error):
    tell(job, *error, name="go_on")
    return True


def keep_in_meta(job, exc_type, exc_value, tb):
    job.meta["handled"] = exc_type.__name__
    job.save_meta()


def forbid_retries(job, *error):
    job.retries_left = 0


def save_that_retries_are_forbidden(job, *error):
    job.retries_left = 0
    job.save()


def grant_a_retry(job, *error):
    if not job.meta:
        job.meta["granted"] = True
        job.save_meta()
        job.retries_left = 1


def raise_another(job, *error):
    tell(job, *error, name="raise_another")
    raise RuntimeError("of the handler")


def leave(job, *error):
    sys.exit(0)


def drop_dead(job, *error):
    os._exit(7)


def hang(job, *error):
    note(job, pid=os.getpid())
    time.sleep(600)


class Handlers:
    @staticmethod
    def as_static_method(job, *error):
        tell(job, *error, name="as_static_method")
