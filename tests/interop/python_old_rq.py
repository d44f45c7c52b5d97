"""For test_python.py: what RQ 1.x had and RQ 2.x has not."""

from redis import Redis
from rq import Connection, Queue, get_current_connection, get_current_job, push_connection, use_connection
from rq.job import Job


def through_the_current_connection():
    assert get_current_connection() is get_current_job().connection
    return Job.fetch(get_current_job().id).get_status(), Queue("other").enqueue("math.hypot", 3, 4).origin


def inside_another():
    outer = get_current_connection()
    with Connection(Redis()):
        inner = get_current_connection()
    return inner is not outer, get_current_connection() is outer


def leave_others_behind():
    """Which the next job must not see."""
    push_connection(Redis(port=1))
    push_connection(Redis(port=2))


def use_another():
    use_connection(Redis(port=1))
