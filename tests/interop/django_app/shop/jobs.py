"""What workers run."""

import os
import time

import django_rq
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from rq import get_current_job

from .models import Order


def open_databases():
    """How often this process has the database open."""
    paths = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return paths.count(os.path.realpath(settings.DATABASES["default"]["NAME"]))


def create(name, amount=0):
    return Order.objects.create(name=name, amount=amount).pk


@django_rq.job
def create_decorated(name):
    return Order.objects.create(name=name)  # An instance is pickled.


@django_rq.job("at_once", timeout=5, result_ttl=40)
def create_soon(name):
    return Order.objects.create(name=name).pk


def grow(order, by):
    order.refresh_from_db()
    order.amount += by
    order.save()
    return order


def add_one(name):
    Order.objects.filter(name=name).update(amount=F("amount") + 1)
    return os.getpid()


def missing(name):
    return Order.objects.get(name=name)


def break_constraint(name):
    with transaction.atomic():
        Order.objects.create(name=f"{name} before")
        Order.objects.create(name=name, amount=-1)


def time_out_in_a_transaction(name):
    with transaction.atomic():
        Order.objects.create(name=name)
        time.sleep(30)


def enqueue_on_commit(name, fail):
    """The job that it enqueues comes into being with the transaction."""
    with transaction.atomic():
        job = django_rq.get_queue("default").enqueue(create, f"{name} of {get_current_job().id}")
        transaction.on_commit(lambda: Order.objects.create(name=f"{name} committed"))
        Order.objects.create(name=name)
        if fail:
            raise ValueError("rolled back")
    return job


def leave_without_commit(name):
    transaction.set_autocommit(False)
    Order.objects.create(name=name)


def leave_in_a_transaction(name):
    transaction.atomic().__enter__()
    Order.objects.create(name=name)


def break_the_connection(name):
    Order.objects.count()
    connection.connection.close()
    Order.objects.create(name=name)


def look(name):
    """What a job finds at its begin, and what it has done."""
    found = [open_databases(), len(connection.queries), connection.in_atomic_block]
    Order.objects.create(name=name)
    return [*found, os.getpid()]


async def create_async(name):
    order = await Order.objects.acreate(name=name)
    return [await Order.objects.filter(pk=order.pk).acount(), os.getpid()]


def note_success(job, connection, result):
    Order.objects.create(name=f"{job.id} succeeded: {type(result).__name__}")


def note_failure(job, connection, exc_type, exc_value, tb):
    Order.objects.create(name=f"{job.id} failed: {exc_type.__name__}")


def handle(job, exc_type, exc_value, tb):
    Order.objects.create(name=f"{job.id} handled: {exc_type.__name__}")
