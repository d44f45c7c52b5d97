"""A Django application with django-rq, whose jobs run in `rqxx worker --python` as in its own `rqworker`."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys

import pytest
from conftest import BUILD, INTEROP, needs_rq2
from rq.job import Job
from test_python import exc_text

pytestmark = [needs_rq2, pytest.mark.skipif(importlib.util.find_spec("django_rq") is None,
                                            reason="needs Django and django-rq; Debian has no package of django-rq")]
APPLICATION = INTEROP / "django_app"
QUEUES = ["default", "at_once", "packed"]


class Shop:
    def __init__(self, system, connection):
        self.system, self.connection = system, connection
        self.database = system.folder / "shop.sqlite3"
        self.env = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings", "PYTHONPATH": str(APPLICATION),
                    "SHOP_DATABASE": str(self.database), "SHOP_REDIS": system.server.url}
        self.clean()

    def clean(self):
        self.connection.flushall()
        self.database.unlink(missing_ok=True)
        self.python("-m", "django", "migrate", "--run-syncdb", "--verbosity", "0")

    def python(self, *args):
        done = subprocess.run([sys.executable, *args], env=self.env, capture_output=True, text=True, timeout=60, cwd=self.system.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(self, scenario):
        return json.loads(self.python("-m", "shop.call", scenario))

    def stock_work_off(self):
        done = self.system.run(sys.executable, "-m", "django", "rqworker", *QUEUES, "--burst", env=self.env)
        assert done.wait(60) == 0, done.log

    def work_off(self, *args, concurrency=4):
        env = {name: value for name, value in self.env.items() if name != "PYTHONPATH"}
        done = self.system.run(BUILD / "rqxx", "worker", "--redis-url", self.system.server.url, "--burst", *QUEUES, "--concurrency",
                               concurrency, "--python", sys.executable, "--path", APPLICATION, "--init", "django:setup",
                               "--data-dir", self.system.folder / "data", *args, env=env)
        assert done.wait(60) == 0, done.log
        return done

    def rows(self):
        with sqlite3.connect(self.database) as database:
            return sorted(database.execute("select name, amount from shop_order"))

    def names(self):
        return [name for name, _ in self.rows()]

    def job(self, job_id):
        return Job.fetch(job_id, connection=self.connection)

    def value(self, job_id):
        return self.job(job_id).return_value()

    def end(self, job_id):
        """Of a job whose result needs no Django to be read."""
        job = self.job(job_id)
        result = job.latest_result()
        return job.get_status().value, result.exc_string and exc_text(result.exc_string)


@pytest.fixture
def shop(system, connection):
    return Shop(system, connection)


def compared(shop, scenario, seen):
    """What is seen after the application's own worker and after ours."""
    ends = []
    for run in (shop.stock_work_off, shop.work_off, lambda: shop.work_off("--isolation", "fork")):
        shop.clean()
        ids = shop.call(scenario)
        run()
        ends.append(seen(ids))
    assert ends[1] == ends[2]
    return ends[:2]


def test_jobs_write_rows_and_give_results(shop):
    stock, ours = compared(shop, "rows", lambda ids: (shop.rows(), [shop.job(one).get_status() for one in ids],
                                                             [round(shop.connection.ttl(f"rq:job:{one}"), -1) for one in ids]))
    assert stock == ours and len(ours[0]) == 6 and {40, 500, 700} >= set(ours[2])


def test_each_queue_may_have_a_serializer_of_its_own(shop):
    """Of which rqworker has one."""
    ids = shop.call("serializers")
    shop.work_off()
    assert shop.names() == ["packed", "plain"] and [shop.job(one).get_status() for one in ids] == ["finished"] * 2


def test_failures_keep_their_traceback_and_roll_back(shop):
    stock, ours = compared(shop, "failures", lambda ids: (shop.names(), [shop.end(one) for one in ids]))
    assert stock == ours
    assert ours[0] == ["good"] and "shop.models.Order.DoesNotExist" in ours[1][0][1] and "not_negative" in ours[1][1][1]


def test_callbacks_use_the_database(shop):
    stock, ours = compared(shop, "callbacks", lambda ids: (shop.names(), [shop.end(one) for one in ids]))
    assert stock == ours and ours[0] == ["a", "bad failed: DoesNotExist", "good succeeded: int"]


def test_jobs_are_enqueued_with_the_transaction(shop):
    stock, ours = compared(shop, "commits", lambda ids: shop.names())
    assert stock == ours
    assert ours == ["at once", "kept", "kept committed", "kept of kept", "with the transaction"]


def test_exception_handlers_use_the_database(shop):
    shop.call("failures")
    shop.work_off("--exception-handler", "shop.jobs.handle")
    assert [name for name in shop.names() if "handled" in name] == [
        "constraint handled: IntegrityError", "late handled: JobTimeoutException", "missing handled: DoesNotExist"]


def test_slots_side_by_side_lose_no_write(shop):
    ids = shop.call("counting")
    shop.work_off(concurrency=4)
    assert len({shop.value(one) for one in ids}) > 1
    assert shop.rows() == [("counter", 60)]


@pytest.mark.parametrize("isolation", ["warm", "fork"])
def test_no_slot_inherits_what_was_opened_while_modules_were_loaded(shop, isolation):
    ids = shop.call("looks")
    done = shop.work_off("--isolation", isolation, "--preload", "shop.at_import", "--preload", "shop.jobs", concurrency=3)
    found = [shop.value(one) for one in ids]
    assert "Job failed" not in done.log and len(shop.names()) == 12
    assert [one[:3] for one in found] == [[0, 0, False]] * 12


def test_what_a_job_leaves_open_ends_with_it(shop):
    """As it does with the process of each job under rqworker."""
    def seen(ids):
        return shop.names(), [self and self[:3] for self in map(shop.value, ids)], [shop.job(one).get_status() for one in ids]

    ends = []
    for run in (shop.stock_work_off, lambda: shop.work_off(concurrency=1)):
        shop.clean()
        ids = shop.call("leftovers")
        run()
        ends.append(seen(ids))
    assert ends[0] == ends[1] and ends[1][0] == ["1", "2", "3", "4"]
    assert len({shop.value(one)[3] for one in ids[::2]}) == 1


def test_connections_may_be_kept_for_the_next_job(shop):
    shop.env["SHOP_CONN_MAX_AGE"] = "600"
    ids = shop.call("looks")
    shop.work_off("--preload", "shop.at_import", concurrency=1)
    assert [shop.value(one)[:3] for one in ids] == [[0, 0, False]] + [[1, 0, False]] * 11


def test_a_setup_that_fails_is_told_at_the_start(shop):
    env = {**shop.env, "DJANGO_SETTINGS_MODULE": "project.nothing"}
    refused = shop.system.run(BUILD / "rqxx", "worker", "--redis-url", shop.system.server.url, "--burst", "--python", sys.executable,
                              "--path", APPLICATION, "--init", "django:setup", "--data-dir", shop.system.folder / "data", env=env)
    assert refused.wait(20) == 2
    assert "--init django:setup: ModuleNotFoundError: No module named 'project.nothing'" in refused.log
