"""Batches: each end is counted once and what follows is enqueued once, whoever works, dies, or comes second."""

import json
import os
import random
import signal
import subprocess

import psutil
import tasks
from conftest import BUILD, http, needs_rq2, wait_for
from invariants import check
from rq import Queue
from rq.group import Group
from rq.job import Job

pytestmark = needs_rq2


def lines(jobs):
    return "".join(json.dumps(job) + "\n" for job in jobs).encode()


def noops(count):
    return lines({"func": "tasks.noop", "args": [n]} for n in range(count))


def write(system, content, name="jobs.ndjson"):
    path = system.folder / name
    path.write_bytes(content)
    return path


def enqueue(system, content, *flags):
    done = system.rqxx("enqueue", "--redis-url", system.server.url, "--batch", write(system, content), *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def show(system, batch):
    done = system.rqxx("batch", "show", batch, "--json", "--redis-url", system.server.url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def raw(connection, batch):
    return {key.decode(): value.decode() for key, value in connection.hgetall(f"rqxx:batch:{batch}").items()}


def wait_until_complete(connection, batch, timeout=60):
    wait_for(lambda: raw(connection, batch).get("state") == "complete", timeout, "the batch")


def by_status(connection, batch):
    """What the jobs' own hashes say."""
    counts = {}
    for job_id in connection.smembers(f"rq:group:{batch}"):
        status = (connection.hget(f"rq:job:{job_id.decode()}", "status") or b"gone").decode()
        counts[status] = counts.get(status, 0) + 1
    return counts


def counts(shown):
    return {name: shown[name] for name in ("finished", "failed", "stopped", "canceled") if shown[name]}


def runs(connection, job_id):
    """How often a job has ended."""
    return connection.xlen(f"rq:results:{job_id}")


def after(system):
    """A worker for what follows a batch, which nobody kills."""
    return system.test_worker("--name", "after", "--concurrency", 1, "after")


FOLLOWED = ("--on-complete", "tasks.echo", "--on-success", "tasks.echo", "--on-first-failure", "tasks.echo", "--follow-queue", "after")


def test_a_batch_is_counted_and_followed(system, connection):
    batch = enqueue(system, noops(500), *FOLLOWED)
    assert show(system, batch)["pending"] == 500
    after(system)
    system.test_worker("default").wait_for_log("Job finished")
    wait_until_complete(connection, batch)
    shown = show(system, batch)
    assert shown["successful"] and shown["finished"] == shown["done"] == 500
    wait_for(lambda: runs(connection, shown["on_success"]) == 1)
    assert Job.fetch(shown["on_complete"], connection=connection).return_value() == [[batch], {}]
    assert not connection.exists(f"rq:job:{shown['on_first_failure']}")
    check(connection)


def test_what_follows_comes_once_though_workers_are_killed(system, connection):
    names = iter(range(1000))

    def start():
        return system.test_worker("--name", f"w{next(names)}", "--concurrency", 4, "default")

    jobs = [{"func": "tasks.slow", "args": [0.002], "retry": 50} for _ in range(3000)]
    batch = enqueue(system, lines(jobs), *FOLLOWED)
    after(system)
    workers = [start(), start()]
    seed = random.randrange(10**6)
    print("seed", seed)
    choice = random.Random(seed)
    for _ in range(4):
        before = connection.scard(f"rqxx:batch:{batch}:pending")
        wait_for(lambda: connection.scard(f"rqxx:batch:{batch}:pending") < max(before - 200, 1))  # noqa: B023
        victim = choice.randrange(2)
        workers[victim].signal(signal.SIGKILL)
        workers[victim] = start()
    wait_until_complete(connection, batch, 120)
    shown = show(system, batch)
    assert shown["done"] == shown["total"] == 3000 and shown["finished"] == 3000
    assert by_status(connection, batch) == {"finished": 3000}
    wait_for(lambda: runs(connection, shown["on_success"]) == 1)
    assert runs(connection, shown["on_complete"]) == 1
    check(connection)


def test_a_hundred_thousand_over_http_though_workers_and_server_are_killed(system, connection):
    count = 100_000
    seed = random.randrange(10**6)
    print("seed", seed)
    choice = random.Random(seed)
    names = iter(range(1000))

    def start():
        return system.run(BUILD / "test_worker", system.server.url, "--name", f"w{next(names)}", "default")

    def left():
        return connection.scard("rqxx:batch:big:pending")

    server = system.serve("--no-worker", url=system.server.url)
    query = "name=big&on_complete=tasks.echo&on_success=tasks.echo&follow_queue=after"
    body = lines({"func": "tasks.noop", "args": [n], "retry": 50, "result_ttl": 3600} for n in range(count))
    answer = http("POST", f"{server.url}/api/v1/batches?{query}", body, timeout=120)
    assert answer.status == 201 and answer.json["jobs"] == count, answer.body
    after(system)
    workers = [start(), start()]
    for quarter in (4, 3, 2, 1):
        wait_for(lambda: left() < count * quarter / 5, 120, "progress")  # noqa: B023
        victim = choice.randrange(2)
        workers[victim].signal(signal.SIGKILL)
        workers[victim] = start()
        if quarter == 3:
            server.signal(signal.SIGKILL)
            server.wait()
            server = system.serve("--no-worker", url=system.server.url)
    wait_until_complete(connection, "big", 120)
    batch = http("GET", f"{server.url}/api/v1/batches/big").json["batch"]
    assert batch["finished"] == batch["total"] == count and batch["successful"]
    assert connection.zcard("rq:finished:default") == count and not connection.exists("rq:failed:default", "rq:wip:default")
    wait_for(lambda: runs(connection, batch["on_success"]) == 1)
    assert runs(connection, batch["on_complete"]) == 1
    assert connection.hget("rqxx:totals", "finished|after") == b"2"


def test_a_batch_survives_the_server_that_is_killed(system):
    server = system.redis(persistent=True)
    batch = enqueue(system, lines({"func": "tasks.slow", "args": [0.005], "retry": 5} for _ in range(600)), *FOLLOWED)
    after(system)
    system.test_worker("--concurrency", 4, "default")
    wait_for(lambda: server.client.scard(f"rqxx:batch:{batch}:pending") < 400)
    server.stop(signal.SIGKILL)
    server.start()
    wait_until_complete(server.client, batch, 120)
    shown = show(system, batch)
    assert shown["finished"] == 600 and shown["pending"] == 0
    wait_for(lambda: runs(server.client, shown["on_success"]) == 1)
    assert runs(server.client, shown["on_complete"]) == 1
    check(server.client)


def test_the_last_two_jobs_end_at_once(system, connection):
    after(system)
    system.test_worker("--name", "one", "--concurrency", 1, "default")
    system.test_worker("--name", "other", "--concurrency", 1, "default")
    batches = [enqueue(system, noops(2), "--batch-name", f"b{n}", *FOLLOWED) for n in range(25)]
    for batch in batches:
        wait_until_complete(connection, batch)
    followers = [raw(connection, batch)[what] for batch in batches for what in ("on_complete", "on_success")]
    wait_for(lambda: all(runs(connection, job) for job in followers))
    assert {runs(connection, job) for job in followers} == {1}
    assert connection.hget("rqxx:totals", "finished|after") == b"50"


def test_stock_workers_take_part(system, connection):
    jobs = [{"func": "tasks.noop", "args": [n]} for n in range(40)] + [{"func": "tasks.fail", "args": ["as asked"]}] * 3
    batch = enqueue(system, lines(jobs), *FOLLOWED)
    stock = system.rq_worker("--burst", "default")
    assert stock.wait(120) == 0, stock.log
    assert raw(connection, batch)["state"] == "running", "nobody of ours was there"
    system.test_worker("--name", "after", "after")
    wait_until_complete(connection, batch)
    shown = show(system, batch)
    assert counts(shown) == by_status(connection, batch) == {"finished": 40, "failed": 3}
    wait_for(lambda: runs(connection, shown["on_complete"]) == 1)
    wait_for(lambda: runs(connection, shown["on_first_failure"]) == 1)
    assert not connection.exists(f"rq:job:{shown['on_success']}")
    # Python has a failed one run again, and it fails once more.
    job = next(job for job in Group.fetch(batch, connection).get_jobs() if job.is_failed)
    job.requeue()
    wait_for(lambda: raw(connection, batch)["failed"] == "2")
    stock = system.rq_worker("--burst", "default")
    assert stock.wait(60) == 0, stock.log
    wait_for(lambda: raw(connection, batch)["failed"] == "3" and raw(connection, batch)["state"] == "complete")
    assert runs(connection, shown["on_complete"]) == 1


def test_python_sees_a_group(system, connection):
    batch = enqueue(system, noops(5), "--batch-name", "nightly")
    assert [group.name for group in Group.all(connection)] == ["nightly"]
    jobs = Group.fetch("nightly", connection).get_jobs()
    assert len(jobs) == 5 and {job.group_id for job in jobs} == {"nightly"} and {job.func_name for job in jobs} == {"tasks.noop"}
    jobs[0].delete()
    jobs[1].cancel()
    system.test_worker("--burst", "default").wait()
    system.test_worker("other")   # Its janitor counts what Python did.
    wait_until_complete(connection, batch)
    assert {name: n for name, n in show(system, batch).items() if n and name in ("finished", "canceled", "deleted")} == {
        "finished": 3, "canceled": 1, "deleted": 1}


def test_a_group_of_python_is_no_batch(system, connection):
    Group.create(connection, name="plain").enqueue_many(Queue(connection=connection), [Queue.prepare_data(tasks.noop, args=(1,))])
    assert system.test_worker("--burst", "default").wait() == 0
    assert not connection.keys("rqxx:batch*:plain*")
    refused = system.rqxx("enqueue", "--redis-url", system.server.url, "--batch", write(system, noops(1)), "--batch-name", "plain")
    assert refused.returncode == 2 and "plain" in refused.stderr


def test_a_batch_in_a_batch(system, connection):
    top = enqueue(system, noops(1), "--batch-name", "top", *FOLLOWED)
    inner = enqueue(system, noops(3), "--batch-name", "inner", "--parent", "top")
    assert show(system, top)["children"] == {"total": 1, "waiting": 1, "failed": 0, "ids": [inner]}
    assert system.test_worker("--burst", "default").wait() == 0
    assert show(system, top)["successful"] and show(system, inner)["successful"]
    assert connection.llen("rq:queue:after") == 2
    late = system.rqxx("enqueue", "--redis-url", system.server.url, "--batch", write(system, noops(1)), "--parent", "top")
    assert late.returncode == 2 and "complete" in late.stderr


def test_cancel_and_retry_as_a_whole(system, connection):
    jobs = [{"func": "tasks.fail", "args": ["x"]}] * 5 + [{"func": "tasks.noop", "args": [1], "queue": "idle"}] * 1000
    batch = enqueue(system, lines(jobs), *FOLLOWED)
    assert system.test_worker("--burst", "default").wait() == 0
    url = ("--redis-url", system.server.url)
    assert "5 jobs requeued" in system.rqxx("batch", "retry-failed", batch, *url).stdout
    assert show(system, batch)["failed"] == 0 and connection.llen("rq:queue:default") == 5
    assert system.test_worker("--burst", "default").wait() == 0
    assert json.loads(system.rqxx("batch", "cancel", batch, "--json", *url).stdout) == {"id": batch, "canceled": 1000}
    shown = show(system, batch)
    assert shown["state"] == "complete" and counts(shown) == by_status(connection, batch) == {"failed": 5, "canceled": 1000}
    assert connection.llen("rq:queue:idle") == 0 and connection.zcard("rq:canceled:idle") == 1000
    assert connection.llen("rq:queue:after") == 2   # First failure and completion.
    again = system.rqxx("batch", "cancel", batch, *url)
    assert again.returncode == 1 and "complete" in again.stderr
    check(connection)


def test_it_expires_after_completion(system, connection):
    server = system.serve("--no-worker", url=system.server.url)
    answer = http("POST", f"{server.url}/api/v1/batches?ttl=1s&name=brief", noops(2))
    assert answer.status == 201, answer.body
    assert connection.ttl("rqxx:batch:brief") == -1
    assert system.test_worker("--burst", "default").wait() == 0
    wait_for(lambda: http("GET", f"{server.url}/api/v1/batches/brief").status == 404)
    wait_for(lambda: not [key for key in connection.keys("rqxx:batch:brief*") if b":loader:" not in key])
    wait_for(lambda: http("GET", f"{server.url}/api/v1/batches").json["count"] == 0)
    assert len(Group.fetch("brief", connection).get_jobs()) == 2   # RQ's own maintenance sees to the group.


def test_a_batch_whose_loader_dies_is_not_complete(system, connection):
    """The server is killed between two calls of a loader, as seen from Redis."""
    server = system.serve("--no-worker", url=system.server.url)
    body = noops(200_000)
    upload = system.run("curl", "-sS", "-X", "POST", "--data-binary", f"@{write(system, body)}",
                        f"{server.url}/api/v1/batches?name=b&on_complete=tasks.echo&follow_queue=after")
    wait_for(lambda: int(connection.hget("rqxx:batch:b", "total") or 0) > 0, 60)
    server.signal(signal.SIGKILL)
    upload.wait()
    total = int(connection.hget("rqxx:batch:b", "total"))
    assert 0 < total < 200_000 and raw(connection, "b")["state"] == "open"
    assert connection.scard("rqxx:batch:b:pending") == total == connection.llen("rq:queue:default")
    connection.hset("rqxx:batch:b", "open_until", 1)
    assert show(system, "b")["state"] == "abandoned"
    canceled = system.rqxx("batch", "cancel", "b", "--redis-url", system.server.url)
    assert f"{total} jobs canceled" in canceled.stdout
    assert show(system, "b")["state"] == "complete" and connection.llen("rq:queue:after") == 1


def test_memory_stays_flat(system, connection):
    """Of the server and of the client: ten times as many jobs take little more."""
    count = 100_000
    server = system.serve("--no-worker", "--no-sampler", "--no-maintenance", url=system.server.url)
    process = psutil.Process(server.process.pid)

    def upload(jobs):
        answer = http("POST", f"{server.url}/api/v1/batches", noops(jobs), timeout=120)
        assert answer.status == 201 and answer.json["jobs"] == jobs, answer.body
        return process.memory_info().rss

    def client(jobs):
        path = write(system, noops(jobs))
        program = subprocess.Popen([BUILD / "rqxx", "enqueue", "--batch", path, "--redis-url", system.server.url],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(program.pid, 0)
        assert status == 0
        return usage.ru_maxrss * 1024

    few_server, few_client = upload(count // 10), client(count // 10)
    connection.flushall()
    many_server = upload(count)
    assert connection.llen("rq:queue:default") == count
    connection.flushall()
    many_client = client(count)
    print("server", few_server, many_server, "client", few_client, many_client)
    assert many_server - few_server < 20 << 20
    assert many_client - few_client < 20 << 20
