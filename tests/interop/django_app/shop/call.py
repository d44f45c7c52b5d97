"""What web requests and shells do: `python -m shop.call SCENARIO` prints the ids of the jobs that it enqueued."""

import json
import sys

import django

django.setup()

import django_rq  # noqa: E402
from django.db import transaction  # noqa: E402
from rq.job import Callback  # noqa: E402

from shop import jobs  # noqa: E402
from shop.models import Order  # noqa: E402

queue = django_rq.get_queue("default")


def rows():
    created = Order.objects.create(name="old", amount=5)
    return [queue.enqueue(jobs.create, "new", amount=3, job_id="plain"), jobs.create_decorated.delay("decorated"),
            jobs.create_soon.delay("soon"), queue.enqueue(jobs.grow, created, 2), queue.enqueue(jobs.create_async, "async"),
            django_rq.enqueue(jobs.create, "short", 1)]


def serializers():
    return [queue.enqueue(jobs.create, "plain"), django_rq.get_queue("packed").enqueue(jobs.create, "packed")]


def failures():
    return [queue.enqueue(jobs.missing, "nothing", job_id="missing"), queue.enqueue(jobs.break_constraint, "bad", job_id="constraint"),
            queue.enqueue(jobs.time_out_in_a_transaction, "late", job_timeout=1, job_id="late"),
            queue.enqueue(jobs.create, "good", job_id="good")]


def callbacks():
    return [queue.enqueue(jobs.create, "a", job_id="good", on_success=Callback(jobs.note_success)),
            queue.enqueue(jobs.missing, "b", job_id="bad", on_failure=Callback(jobs.note_failure))]


def commits():
    made = [queue.enqueue(jobs.enqueue_on_commit, "kept", False, job_id="kept"),
            queue.enqueue(jobs.enqueue_on_commit, "lost", True, job_id="lost")]
    with transaction.atomic():
        assert queue.enqueue(jobs.create, "with the transaction", job_id="with") is None
        assert queue.count == 2
    try:
        with transaction.atomic():
            queue.enqueue(jobs.create, "never")
            raise LookupError
    except LookupError:
        pass
    assert queue.count == 3
    with transaction.atomic():
        made.append(django_rq.get_queue("default", commit_mode="auto").enqueue(jobs.create, "at once", job_id="at-once"))
    return made


def leftovers():
    return [queue.enqueue(function, name) for function, name in (
        (jobs.look, "1"), (jobs.leave_without_commit, "uncommitted"), (jobs.look, "2"), (jobs.leave_in_a_transaction, "in transaction"),
        (jobs.look, "3"), (jobs.break_the_connection, "broken"), (jobs.look, "4"))]


def counting():
    Order.objects.create(name="counter")
    return [queue.enqueue(jobs.add_one, "counter") for _ in range(60)]


def looks():
    return [queue.enqueue(jobs.look, f"look {n}") for n in range(12)]


if __name__ == "__main__":
    print(json.dumps([job.id for job in globals()[sys.argv[1]]()]))
