"""`rqxx cron`: each slot is enqueued once, whoever dies; what RQ sees of it; the file and its errors."""

import json
import signal
import time

import pytest
from conftest import BUILD, ROOT, needs_rq2, wait_for
from rq.job import Job

TICK = '[tick]\nfunc = "tasks.add"\nargs = \'[1, 2]\'\nevery = "1s"\n'
# Far from the next slot on both sides, whenever the test runs.
FAR = 1_000_000


def far_interval():
    """An interval whose slots are at least a quarter of it away from now."""
    now = int(time.time())
    return next(every for every in range(FAR, FAR + 10_000) if every // 4 < now % every < every * 3 // 4)


def write(system, text, name="cron.toml"):
    path = system.folder / name
    path.write_text(text)
    return path


def cron(system, text):
    process = system.run(BUILD / "rqxx", "cron", write(system, text), "--redis-url", system.server.url)
    process.wait_for_log("Cron started")
    return process


def slots(connection, name="tick", queue="default"):
    prefix = f"cron-{name}-"
    return [int(job_id.decode().removeprefix(prefix)) for job_id in connection.lrange(f"rq:queue:{queue}", 0, -1)
            if job_id.decode().startswith(prefix)]


def state(connection, name="tick"):
    return {key.decode(): value.decode() for key, value in connection.hgetall(f"rqxx:cron:{name}").items()}


def leader_pid(connection):
    keys = connection.keys("rqxx:cron:leader:*")
    value = connection.get(keys[0]) if keys else None
    return int(value.decode().rsplit(":", 2)[1]) if value else None


def stop(process):
    process.signal(signal.SIGTERM)
    assert process.wait(10) == 0, process.log


def test_two_processes_enqueue_each_slot_once(system, server, connection):
    first, second = cron(system, TICK), cron(system, TICK)
    wait_for(lambda: len(slots(connection)) >= 6)
    stop(first)
    stop(second)
    fired = slots(connection)
    assert fired == list(range(fired[0], fired[0] + len(fired)))
    lines = [line for line in (first.log + second.log).splitlines() if "Job enqueued" in line]
    assert sorted(lines) == sorted(f"INFO: Job enqueued: id=cron-tick-{slot}, queue=default, timeout=180" for slot in fired)
    assert (first.log + second.log).count("Cron leads") >= 1
    assert connection.keys("rqxx:cron:leader:*") == [] and connection.keys("rq:cron_scheduler*") == []


@needs_rq2
def test_jobs_are_as_rq_reads_them(system, server, connection):
    process = cron(system, TICK.replace("args", 'kwargs = \'{"y": [null, "z"]}\'\nmeta = \'{"m": 1}\'\ntimeout = "5m"\nresult_ttl = 60\n'
                                                'failure_ttl = "1d"\nretry = 3\ndescription = "adds #1"\nqueue = "low"\nargs'))
    wait_for(lambda: slots(connection, queue="low"))
    slot = slots(connection, queue="low")[0]
    job = Job.fetch(f"cron-tick-{slot}", connection=connection)
    assert (job.func_name, job.args, job.kwargs, job.meta) == ("tasks.add", (1, 2), {"y": [None, "z"]}, {"m": 1})
    assert (job.timeout, job.result_ttl, job.failure_ttl, job.retries_left) == (300, 60, 86400, 3)
    assert (job.description, job.origin, job.get_status()) == ("adds #1", "low", "queued")
    assert 0 <= job.enqueued_at.timestamp() - slot < 1
    history = connection.zrange("rq:cron_job:tick:jobs", 0, -1, withscores=True)
    assert history[0][0].decode() == job.id and abs(history[0][1] - job.enqueued_at.timestamp()) < 1e-3
    assert 31_535_000 < connection.ttl("rq:cron_job:tick:jobs") <= 31_536_000
    assert connection.smembers("rq:queues") == {b"rq:queue:low"}
    stop(process)


@needs_rq2
def test_a_stock_worker_runs_them(system, server, connection):
    process = cron(system, TICK)
    wait_for(lambda: len(slots(connection)) >= 2)
    stop(process)
    ids = [f"cron-tick-{slot}" for slot in slots(connection)]
    assert system.rq_worker("--burst", "default").wait(60) == 0
    assert [Job.fetch(job_id, connection=connection).return_value() for job_id in ids] == [3] * len(ids)


def test_another_process_takes_over_from_a_killed_leader(system, server, connection):
    text = TICK + 'catch_up = "all"\n'
    processes = {process.process.pid: process for process in (cron(system, text), cron(system, text))}
    wait_for(lambda: len(slots(connection)) >= 2)
    leader = processes.pop(leader_pid(connection))
    leader.signal(signal.SIGKILL)
    killed = time.time()
    other, = processes.values()
    wait_for(lambda: max(slots(connection)) > killed + 2)
    assert time.time() - killed < 14
    fired = slots(connection)
    assert fired == list(range(fired[0], fired[0] + len(fired)))
    stop(other)


def test_another_process_takes_over_at_once_from_a_stopped_leader(system, server, connection):
    processes = {process.process.pid: process for process in (cron(system, TICK), cron(system, TICK))}
    wait_for(lambda: slots(connection))
    stop(processes.pop(leader_pid(connection)))
    other, = processes.values()
    other.wait_for_log("Cron leads", timeout=5)


def test_a_frozen_leader_enqueues_nothing_twice(system, server, connection):
    text = TICK + 'catch_up = "all"\n'
    processes = {process.process.pid: process for process in (cron(system, text), cron(system, text))}
    wait_for(lambda: slots(connection))
    frozen = processes.pop(leader_pid(connection))
    frozen.signal(signal.SIGSTOP)
    other, = processes.values()
    other.wait_for_log("Cron leads", timeout=15)
    frozen.signal(signal.SIGCONT)
    count = len(slots(connection))
    wait_for(lambda: len(slots(connection)) > count + 3)
    fired = slots(connection)
    assert fired == list(range(fired[0], fired[0] + len(fired)))


def test_an_outage_of_redis_is_outlived(system):
    server = system.redis(persistent=True)
    process = cron(system, TICK + 'catch_up = "all"\n')
    wait_for(lambda: len(slots(server.client)) >= 2)
    server.stop(signal.SIGTERM)
    time.sleep(2)   # Slots pass meanwhile.
    server.start()
    before = time.time()
    wait_for(lambda: slots(server.client) and max(slots(server.client)) > before + 1)
    fired = slots(server.client)
    assert fired == list(range(fired[0], fired[0] + len(fired)))
    stop(process)


def test_it_stops_while_redis_is_away(system, server):
    process = cron(system, TICK)
    process.wait_for_log("Cron leads")
    server.stop()
    process.wait_for_log("Cron cannot reach its data")
    stop(process)


def test_overlap_skip_leaves_slots_out_while_the_last_job_is_unfinished(system, server, connection):
    process = cron(system, TICK + 'overlap = "skip"\n')
    wait_for(lambda: int(state(connection).get("skipped", 0)) >= 2)
    first = f"cron-tick-{slots(connection)[0]}"
    assert len(slots(connection)) == 1
    assert f"unfinished={first}" in process.log
    assert state(connection)["last_slot"] == state(connection)["last_skipped_slot"]
    for status in ("started", "deferred", "scheduled"):
        connection.hset(f"rq:job:{first}", "status", status)
        skipped = int(state(connection)["skipped"])
        wait_for(lambda: int(state(connection)["skipped"]) > skipped + 1)
        assert len(slots(connection)) == 1
    connection.hset(f"rq:job:{first}", "status", "failed")
    wait_for(lambda: len(slots(connection)) == 2)
    stop(process)


@pytest.mark.parametrize(("policy", "missed"), [("skip", []), ("one", [0]), ("all", [-2, -1, 0])])
def test_missed_slots_after_an_absence(system, server, connection, policy, missed):
    every = far_interval()
    newest = int(time.time()) // every * every
    text = f'[tick]\nfunc = "tasks.add"\nevery = {every}\ncatch_up = "{policy}"\n'
    process = cron(system, text)
    wait_for(lambda: state(connection))
    stop(process)
    assert slots(connection) == []
    connection.hset("rqxx:cron:tick", "last_slot", newest - 3 * every)
    process = cron(system, text)
    wait_for(lambda: len(slots(connection)) == len(missed))
    process.wait_for_log("Cron leads")
    if policy != "all":
        process.wait_for_log("Cron slots missed")
    stop(process)
    assert slots(connection) == [newest + step * every for step in missed]
    stop(cron(system, text))
    assert len(slots(connection)) == len(missed)


def test_catching_up_is_bounded(system, server, connection):
    text = TICK + 'catch_up = "all"\n'
    stop(cron(system, text))
    connection.hset("rqxx:cron:tick", mapping={"rule": "every 1", "last_slot": int(time.time()) - 5000})
    process = cron(system, text)
    wait_for(lambda: len(slots(connection)) >= 1015)
    stop(process)
    fired = slots(connection)
    assert fired == list(range(fired[0], fired[0] + len(fired))) and len(fired) < 1030
    assert process.log.count("Cron slots missed beyond the limit") == 1
    assert connection.zcard("rq:cron_job:tick:jobs") == 1000


def test_a_new_schedule_and_a_changed_rule_begin_now(system, server, connection):
    every = far_interval()
    text = f'[tick]\nfunc = "tasks.add"\nevery = {every}\ncatch_up = "all"\n'
    before = int(time.time())
    process = cron(system, text)
    wait_for(lambda: state(connection))
    stop(process)
    assert slots(connection) == [] and int(state(connection)["last_slot"]) >= before
    connection.hset("rqxx:cron:tick", "last_slot", before - 5 * every)
    stop(cron(system, text.replace(str(every), str(every + 1))))
    assert slots(connection) == [] and int(state(connection)["last_slot"]) >= before


def test_slots_are_not_repeated_when_the_state_is_lost(system, server, connection):
    process = cron(system, TICK)
    wait_for(lambda: len(slots(connection)) >= 3)
    connection.hset("rqxx:cron:tick", "last_slot", slots(connection)[0] - 1)
    stop(process)
    process = cron(system, TICK)
    count = len(slots(connection))
    wait_for(lambda: len(slots(connection)) >= count + 2)
    assert len(set(slots(connection))) == len(slots(connection))
    stop(process)


@needs_rq2
def test_jitter_delays_a_slot_and_its_id_keeps_it(system, server, connection):
    process = cron(system, TICK.replace("1s", "2s") + 'jitter = "2s"\n')
    wait_for(lambda: len(slots(connection)) >= 4)
    stop(process)
    fired = slots(connection)
    assert all(slot % 2 == 0 for slot in fired)
    delays = [Job.fetch(f"cron-tick-{slot}", connection=connection).enqueued_at.timestamp() - slot for slot in fired]
    assert all(0 <= delay < 2.5 for delay in delays) and max(delays) > 0.05


def test_one_schedule_that_cannot_be_enqueued_does_not_stop_the_others(system, server, connection):
    connection.set("rq:queue:broken", "a string")
    process = cron(system, TICK + '[bad]\nfunc = "f"\nevery = 1\nqueue = "broken"\n')
    wait_for(lambda: len(slots(connection)) >= 3)
    assert "Cron job could not be enqueued: id=cron-bad-" in process.log
    assert connection.keys("rq:job:cron-bad-*") == []
    connection.delete("rq:queue:broken")
    wait_for(lambda: slots(connection, "bad", "broken"))
    stop(process)


def test_processes_with_other_schedules_do_not_wait_for_each_other(system, server, connection):
    first = cron(system, TICK)
    second = system.run(BUILD / "rqxx", "cron", write(system, TICK.replace("tick", "tock"), "other.toml"), "--redis-url", server.url)
    wait_for(lambda: slots(connection) and slots(connection, "tock"))
    stop(first)
    stop(second)


@needs_rq2
def test_rq_sees_the_scheduler_and_its_jobs(system, server, connection):
    from rq.cron import CronScheduler

    process = cron(system, TICK + 'kwargs = \'{"k": [1]}\'\nmeta = \'{"m": 2}\'\ntimeout = 20\nresult_ttl = 77\n'
                   '[night]\nfunc = "tasks.night"\ncron = "30 0 3 * * mon-fri"\ntimezone = "Europe/Berlin"\nqueue = "low"\n')
    wait_for(lambda: any(job.latest_enqueue_time for job in CronScheduler.all(connection)[0].get_jobs())
             if CronScheduler.all(connection) else False)
    scheduler, = CronScheduler.all(connection)
    assert scheduler.pid == process.process.pid and scheduler.config_file.endswith("cron.toml")
    assert time.time() - scheduler.last_heartbeat.timestamp() < 5
    tick, night = scheduler.get_jobs()
    assert (tick.func_name, tick.queue_name, tick.args, tick.kwargs, tick.interval, tick.cron) == \
        ("tasks.add", "default", (1, 2), {"k": [1]}, 1, None)
    assert tick.job_options == {"job_timeout": 20, "result_ttl": 77, "meta": {"m": 2}}
    assert (tick.next_enqueue_time - tick.latest_enqueue_time).total_seconds() < 1.1
    assert (night.func_name, night.queue_name, night.args, night.cron) == ("tasks.night", "low", (), "0 3 * * mon-fri 30")
    assert night.latest_enqueue_time is None and night.next_enqueue_time.second == 30
    assert 60 < connection.ttl(f"rq:cron_scheduler:{scheduler.name}") <= 120
    stop(process)
    assert CronScheduler.all(connection) == [] and not connection.exists(f"rq:cron_scheduler:{scheduler.name}")


@needs_rq2
def test_expressions_mean_what_they_mean_to_croniter(system):
    from datetime import datetime, timezone

    from croniter import croniter

    expressions = ["* * * * *", "*/7 * * * *", "5,50 */3 * * *", "0 9-17 * * mon-fri", "30 4 1,15 * 5", "0 0 31 * *", "0 12 * jan,JUL *",
                   "0 0 * * 7", "0 0 * * fri-sun", "10/20 1-5/2 * * *", "@hourly", "@daily", "@weekly", "@monthly", "@yearly", "0 0 29 2 *",
                   "0 0 13 * fri", "*/10 * * * * *", "30 15 10 * * sat"]
    text = "".join(f'[s{i}]\nfunc = "f"\ncron = "{expression}"\n' for i, expression in enumerate(expressions))
    before = datetime.now(timezone.utc)
    result = system.rqxx("cron", write(system, text), "--check", "--json")
    assert result.returncode == 0, result.stderr
    for expression, schedule in zip(expressions, json.loads(result.stdout)):
        fields = expression.split()
        theirs = croniter(" ".join(fields[1:] + fields[:1]) if len(fields) == 6 else expression.lower(), before)
        expected = [theirs.get_next(datetime) for _ in range(5)]
        got = [datetime.fromisoformat(run) for run in schedule["next"]]
        assert got[1:] == expected[1:] or got[:-1] == expected[1:], expression


def test_check_shows_the_next_runs_in_the_zone(system):
    path = write(system, TICK + '# night\n[night]  # shift\nfunc = "app.night"  # why\ncron = "0 3 * * *"\ntimezone = "Asia/Kathmandu"\n'
                                'queue = "low"\n')
    result = system.rqxx("cron", path, "--check")
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["SCHEDULE", "WHEN", "ZONE", "QUEUE", "FUNCTION", "NEXT", "RUNS"] and len(lines) == 11
    assert lines[6].startswith("night") and "Asia/Kathmandu" in lines[6] and lines[6].endswith("03:00:00 +05:45")
    schedules = json.loads(system.rqxx("cron", path, "--check", "--json").stdout)
    assert [schedule["name"] for schedule in schedules] == ["tick", "night"]
    assert schedules[0]["every"] == 1 and schedules[0]["args"] == [1, 2] and schedules[1]["cron"] == "0 3 * * *"
    assert len(schedules[1]["next"]) == 5 and schedules[1]["next"][0].endswith("T03:00:00+05:45")


@pytest.mark.parametrize(("text", "named"), [
    ("", ["has no schedules"]), ("[a]\n", ["[a] func"]), ('[a]\nfunc = "f"\n', ["[a] cron", "every"]),
    ('[a]\nfunc = "f"\nevery = 5\ncron = "* * * * *"\n', ["[a] every"]), ('[a]\nfunc = "f"\nevery = 5\ncolour = 1\n', ["[a] colour"]),
    ('[a]\nfunc = "f"\ncron = "* 25 * * *"\n', ["[a] cron", "hour"]), ('[a]\nfunc = "f"\ncron = "0 0 30 2 *"\n', ["[a] cron"]),
    ('[a]\nfunc = "f"\ncron = "* * * * *"\ntimezone = "Mars/Base"\n', ["[a] timezone", "Mars/Base"]),
    ('[a]\nfunc = "f"\nevery = "soon"\n', ["[a] every"]), ('[a]\nfunc = "f"\nevery = 0\n', ["[a] every"]),
    ('[a]\nfunc = "f"\nevery = 5\nargs = \'{"a": 1}\'\n', ["[a] args"]), ('[a]\nfunc = "f"\nevery = 5\nkwargs = "x"\n', ["[a] kwargs"]),
    ('[a]\nfunc = "f"\nevery = 5\ncatch_up = "some"\n', ["[a] catch_up"]), ('[a]\nfunc = "f"\nevery = 5\noverlap = "no"\n', ["[a] overlap"]),
    ('[a]\nfunc = "f"\nevery = 5\nretry = "x"\n', ["[a] retry"]), ('[a]\nfunc = "f"\nevery = 5\nserializer = "xml"\n', ["[a] serializer"]),
    ('[a]\nfunc = "f"\nevery = 5\ntimeout = 0\n', ["[a] timeout"]), ('[a]\nfunc = "f"\nevery = 5\nqueue = "a,b"\n', ["[a] queue"]),
    ('[a]\nfunc = "f"\nevery = 5\nevery = 6\n', ["line 4", "every"]), ('[a]\nfunc = "f"\nevery = 5\n[a]\n', ["line 4", "table 'a'"]),
    ('func = "f"\n', ["func", "table"]), ('[a.b]\nfunc = "f"\nevery = 5\n', ["[a.b]"]), ('["a b"]\nfunc = "f"\nevery = 5\n', ["name"]),
    ('[a]\nfunc = "f\nevery = 5\n', ["line 2", "string"])])
@pytest.mark.parametrize("flags", [[], ["--check"]], ids=["run", "check"])
def test_a_bad_file_is_one_line_and_exit_2(system, text, named, flags):
    result = system.rqxx("cron", write(system, text), *flags, "--redis-url", "unix:///nowhere/redis.sock")
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1 and result.stdout == ""
    for word in ["cron.toml", *named]:
        assert word in result.stderr


def test_the_example_of_the_documentation_is_valid(system):
    example = (ROOT / "docs" / "cron.md").read_text().split("```toml\n")[1].split("```")[0]
    result = system.rqxx("cron", write(system, example), "--check")
    assert result.returncode == 0 and "daily-report" in result.stdout and "every 90s" in result.stdout, result.stderr
