"""The command line: help, exit codes, settings from flags, environment and file, output for people and scripts."""

import json

import pytest
from conftest import wait_for

COMMANDS = [[], ["serve"], ["worker"], ["enqueue"], ["info"], ["job"], ["job", "show"], ["queue"], ["queue", "list"], ["batch"],
            ["batch", "cancel"], ["cron"], ["bench"], ["doctor"], ["completion"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(system, command):
    result = system.rqxx(*command, "--help")
    assert result.returncode == 0 and "--help" in result.stdout and result.stderr == ""
    if command:
        assert command[-1] in result.stdout


@pytest.mark.parametrize(("args", "named"), [
    ([], "command is needed"), (["nonsense"], "nonsense"), (["worker", "--concurrency", "0"], "--concurrency"),
    (["worker", "--concurrency", "x"], "--concurrency"), (["worker", "--grace", "soon"], "--grace"), (["info", "--unknown"], "--unknown"),
    (["info", "--redis-url", "http://x"], "--redis-url"), (["worker", "a,b"], "QUEUE"), (["enqueue"], "FUNC"), (["job", "show"], "ID"),
    (["serve", "--port", "99999"], "--port"), (["serve", "--host", "nowhere.example", "--port", "0"], "--host"),
    (["enqueue", "f", ":{bad"], "argument 1"), (["enqueue", "f", "a=1", "a=2"], "given twice"), (["enqueue", "f", "@missing"], "missing"),
    (["enqueue", "f", "%open('x')"], "argument 1"), (["cron"], "FILE"), (["cron", "missing.toml"], "missing.toml")])
def test_usage_errors_are_one_line_that_names_the_flag_and_exit_2(system, args, named):
    result = system.rqxx(*args)
    assert result.returncode == 2, result.stderr
    assert named in result.stderr and result.stderr.count("\n") == 1 and result.stdout == ""


def test_an_absent_redis_is_one_line_and_exit_1(system):
    result = system.rqxx("info", "--redis-url", "unix:///nowhere/redis.sock")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "/nowhere/redis.sock" in result.stderr


def test_passwords_are_never_shown(system, server):
    server.client.config_set("requirepass", "right")
    url = f"unix://:wr0ng-pass@{server.socket}"
    for command in (["info"], ["worker", "--burst"], ["serve", "--port", "0", "--data-dir", "d"]):
        result = system.rqxx(*command, "--redis-url", url)
        assert result.returncode == 1
        assert "wr0ng-pass" not in result.stdout + result.stderr
    assert "WRONGPASS" in result.stderr


def test_flag_beats_environment_beats_file_beats_default(system, server):
    config = system.folder / "rqxx.toml"
    config.write_text('queue = "from-file"\ntimeout = "77"\n')

    def queue_of(*flags, **env):
        job_id = system.rqxx("enqueue", "f", "--redis-url", server.url, *flags, env=env).stdout.strip()
        return server.client.hget(f"rq:job:{job_id}", "origin").decode()

    assert queue_of() == "default"
    assert queue_of("--config", config) == "from-file"
    assert queue_of("--config", config, RQXX_QUEUE="from-env") == "from-env"
    assert queue_of("--config", config, "--queue", "from-flag", RQXX_QUEUE="from-env") == "from-flag"


def test_a_comment_ends_no_quoted_value(system, server):
    config = system.folder / "rqxx.toml"
    config.write_text('queue = "c#"  # a "sharp" name\ndescription = \'it is # 5\'\n')
    job_id = system.rqxx("enqueue", "f", "--redis-url", server.url, "--config", config).stdout.strip()
    assert server.client.hmget(f"rq:job:{job_id}", "origin", "description") == [b"c#", b"it is # 5"]


@pytest.mark.parametrize("text", ['colour = "red"\n', '[serve]\nprot = 1\n', 'port = "x"\n', 'host = "x\n', None])
def test_bad_configuration_is_refused(system, text):
    config = system.folder / "bad.toml"
    if text is not None:
        config.write_text(text)
    result = system.rqxx("serve", "--config", config, "--data-dir", "d")
    assert result.returncode == 2 and result.stderr.count("\n") == 1


def test_enqueue_reads_arguments_as_rq_does(system, server):
    from rq.job import Job

    (system.folder / "file.txt").write_text("content")
    (system.folder / "file.json").write_text('{"a": [1]}')
    result = system.rqxx("enqueue", "tasks.echo", "text", "42", ":42", ":[1, null]", "%3.5", "%None", "%'quoted'", "@file.txt", ":@file.json",
                         "key=value", "number:=7", "flag%=True", "--redis-url", server.url)
    assert result.returncode == 0, result.stderr
    job = Job.fetch(result.stdout.strip(), connection=server.client)
    assert job.args == ("text", "42", 42, [1, None], 3.5, None, "quoted", "content", {"a": [1]})
    assert job.kwargs == {"key": "value", "number": 7, "flag": True}
    result = system.rqxx("enqueue", "tasks.echo", "1", '"a=b"', "null", "--json-args", "--redis-url", server.url)
    assert Job.fetch(result.stdout.strip(), connection=server.client).args == (1, "a=b", None)


def test_enqueue_waits_for_the_result(system, server):
    system.test_worker("default")
    good = system.rqxx("enqueue", "tasks.add", ":20", ":22", "--wait", "--redis-url", server.url)
    assert good.returncode == 0 and good.stdout.splitlines()[1] == "42"
    bad = system.rqxx("enqueue", "tasks.fail", "boom", "--wait", "--redis-url", server.url)
    assert bad.returncode == 1 and "boom" in bad.stderr


def test_unique_ids_are_enqueued_once(system, server):
    flags = ["--job-id", "once", "--unique", "--redis-url", server.url]
    assert system.rqxx("enqueue", "f", *flags).returncode == 0
    second = system.rqxx("enqueue", "f", *flags)
    assert second.returncode == 1 and "exists already" in second.stderr
    assert server.client.llen("rq:queue:default") == 1


def test_info_and_lists_for_people_and_scripts(system, server):
    empty = system.rqxx("info", "--redis-url", server.url)
    assert "No queues yet" in empty.stdout and "No workers" in empty.stdout
    for queue in ("default", "high"):
        system.rqxx("enqueue", "f", "--queue", queue, "--redis-url", server.url)
    system.test_worker("--name", "w1", "other").wait_for_log("Worker started")
    text = system.rqxx("info", "--redis-url", server.url).stdout
    assert text.splitlines()[0].split() == ["QUEUE", "QUEUED", "STARTED", "FINISHED", "FAILED", "DEFERRED", "SCHEDULED", "CANCELED"]
    assert "total" in text and "w1" in text and "\x1b" not in text
    info = json.loads(system.rqxx("info", "--json", "--redis-url", server.url).stdout)
    assert [queue["queue_name"] for queue in info["queues"]] == ["default", "high"]
    assert info["totals"]["queued"] == 2 and info["workers"][0]["name"] == "w1"
    assert len(json.loads(system.rqxx("queue", "list", "--json", "--redis-url", server.url).stdout)) == 2


def test_looking_changes_nothing(system, server):
    system.rqxx("enqueue", "f", "--job-id", "a", "--redis-url", server.url)
    server.client.zadd("rq:finished:default", {"lapsed": 1})
    server.client.zadd("rq:wip:default", {"lapsed:0123": 1})
    before = {key: server.client.dump(key) for key in server.client.keys("*")}
    for args in (["info"], ["queue", "list"], ["job", "show", "a"]):
        assert system.rqxx(*args, "--redis-url", server.url).returncode == 0
    assert {key: server.client.dump(key) for key in server.client.keys("*")} == before


def test_job_show_of_unknown_jobs_fails(system, server):
    result = system.rqxx("job", "show", "nope", "--redis-url", server.url)
    assert result.returncode == 1 and "nope was not found" in result.stderr


def test_commands_find_the_redis_of_serve_in_its_data_directory(system):
    system.serve("--demo")
    # Serve says where it listens before its worker has signed on.
    wait_for(lambda: json.loads(system.rqxx("info", "--data-dir", system.folder / "data", "--json").stdout)["workers"])


def test_bench_measures_on_a_redis_of_its_own(system):
    result = system.rqxx("bench", "--jobs", "500", "--repetitions", "1", "--json", timeout=120)
    figures = json.loads(result.stdout)
    assert figures["enqueue_many_per_second"] > 0 and figures["process_per_second"] > 0 and figures["latency_ms"]["p50"] > 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_commands_and_flags(system, shell):
    script = system.rqxx("completion", shell)
    assert script.returncode == 0
    assert "serve" in script.stdout and "concurrency" in script.stdout
