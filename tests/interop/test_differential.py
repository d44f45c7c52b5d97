"""The same scenario run by stock RQ and by rqxx must leave the same keys, types, fields and TTLs, and Python must read
the same from them: rqxx on both sides, each side with the other, Python functions in rqxx, and both in turn, job by job.

Differences are allowed only where `ALLOWED` names them; each is explained in docs/compatibility.md.
"""

import functools
import pathlib
import re
import shutil
import tempfile

import pytest

pytest.importorskip("rq.webhook", reason="needs RQ 2.10; Debian's package is older")

from conftest import ROOT, RedisServer
from remains import difference, everything
from scenarios import PICKLE_ONLY, SCENARIOS
from two_sides import Stage

#: Producers and workers, which take turns.
MODES = {"rqxx": (["rqxx"], ["rqxx"]), "python_to_rqxx": (["stock"], ["rqxx"]), "rqxx_to_python": (["rqxx"], ["stock"]),
         "python_in_rqxx": (["stock"], ["python"]), "rqxx_first": (["rqxx", "stock"], ["rqxx", "stock"]), "python_first": (["stock", "rqxx"], ["stock", "rqxx"])}

#: (scenarios, modes, differences) as patterns, and the window, or the words of docs/compatibility.md,
#: that tells why they may differ.
WORKER, PRODUCER = "rqxx|python_to_rqxx|python_in_rqxx|.*_first", "rqxx|rqxx_to_python|.*_first"
ALLOWED = [
    (".*", ".*", r"(look: )?rqxx:\S+ .*", "`rqxx:leases`, `rqxx:sweeper`"),
    (".*", WORKER, r"(look: )?rq:worker:worker (version|python_version|ip_address): .*",
     "`version`, `python_version`, `ip_address`"),
    ("while_it_runs.*", WORKER, r"look: rq:execution:a:EXECUTION (job_id|worker_name): 'absent' and .*", "`rq:execution:*`"),
    ("while_it_runs.*", WORKER, r"look: rq:execution:a:EXECUTION ttl: 90 s and 150 s", "W18"),
    ("while_it_runs.*", WORKER, r"look: rq:worker:worker:executions .*: 'absent' and .*", "W1"),
    (".*", WORKER, r"rq:job:\w+ rqxx_retries: 'absent' and .*", "`rqxx_retries`"),
    (".*", ".*", r"(?s)rq:job:\w+ rqxx_timeline: 'absent' and .*", "`rqxx_timeline`"),
    (".*", WORKER, r"rq:results:.+ \d+\.(cause|max_rss_kb|cpu_seconds): 'absent' and .*", "`cause`"),
    (".*", WORKER, r"rq:results:\S+ ttl: 'none' and \d+ s", "W36"),
    ("(asked|repeat).*|.*repeat(ed)?|.*_retry", WORKER, r"rq:job:a result: .* and 'absent'", "`result`"),
    ("unknown_function|arguments_that_do_not_fit|unreadable_call|unknown_callback", WORKER,
     r"(rq:results:a 0.exc_string|seen: job a (exc_info|latest_result|results)): .*", "texts of errors"),
    ("a_job_of_few_fields", WORKER, r"rq:job:a (created_at|group_id|\w+_callback_name): .* and 'absent'", "W19"),
    ("an_id_without_job", WORKER, r"rq:queue:default:intermediate .* and 'absent'", "W27"),
    ("failure_not_kept", WORKER, r"rq:failed:default .* and 'absent'", "W8"),
    ("delete_(finished|failed)", PRODUCER, r"rq:results:a .* and 'absent'", "W23"),
    ("delete_deferred", PRODUCER, r"(rq:job:a:dependents .* and 'absent'|seen: job a dependents: .*)", "W23"),
    ("empty_queue_.*", PRODUCER, r"rq:(groups?:?g?|results:a) .* and 'absent'|seen: group g: .*", "W30"),
    (".*", WORKER, r"rq:job:\w+:dependents .* and 'absent'|seen: job \w+ dependents: .*", "W24"),
    ("requeue_(failed|at_front)|stop_and_requeue", PRODUCER, r"rq:job:a ttl: \d+ s and 'none'", "W28"),
    ("(callback_of_a_)?stop.*", WORKER,
     r"(rq:job:a (ended_at|last_heartbeat|worker_name): '' and .*|rq:results:a 0.execution_ended_at: 'absent' and True|"
     r"rq:worker:worker total_working_time: 'absent' and True|seen: job a (worker|times|latest_result|results): .*)",
     "W19"),
    ("many_with_dependencies", PRODUCER, r"rq:job:(:d:dependencies|missing:dependents) .* and 'absent'", "W24"),
]

#: Scenarios that end otherwise, because RQ loses a job, runs it twice or does not do what was asked: modes, the words of
#: docs/compatibility.md, and what must hold for rqxx.
WINDOWS = {
    "allowed_failure_without_trace": (WORKER, "W8", {"seen: job b status": "FINISHED"}),
    "allowed_failure_of_failed": (PRODUCER, "W25", {"seen: job b status": "FINISHED"}),
    "broken_callback_of_a_stop": (WORKER, "W7", {"seen: job a status": "STOPPED", "seen: job a executions": 0,
                                                               "seen: queue default failed": (1, ["a"])}),
    "cancel_running": (WORKER, "W20", {"seen: job a status": "CANCELED", "seen: queue default finished": (0, []),
                                       "seen: queue default started": (0, []), "seen: queue default canceled": (1, ["a"])}),
    "delete_running": (WORKER, "W19", {"rq:job:a type": "absent", "rq:results:a type": "absent",
                                       "seen: queue default finished": (0, []), "seen: queue default started": (0, [])}),
    "an_id_used_again": (PRODUCER, "W26", {"seen: job a meta": {}, "seen: job a retries_left": None,
                                           "seen: job a return_value": "7"}),
    "an_id_used_while_it_waits": (".*", "W26", {"rq:results:a entries": 1, "seen: queue default ids": (0, [])}),
    "requeue_canceled_deferred": (WORKER, "W24", {"rq:results:b entries": 1, "seen: job b status": "FINISHED",
                                                             "seen: job a dependents": []}),
    "scheduled_with_dependency": (PRODUCER, "W24", {"step 1": "refused", "rq:job:b type": "absent"}),
    "unique_with_dependency": (PRODUCER, "W26", {"step 1": "done", "seen: job b status": "FINISHED"}),
    "group_with_dependencies": (".*", "W24", {"rq:results:b entries": 1, "seen: job b status": "FINISHED"}),
}

#: All in one process: the last but one test looks back at all of them.
pytestmark = pytest.mark.xdist_group("differential")

used = set()
done = set()


@pytest.fixture(scope="module")
def stage():
    # Not pytest's own folder: unix socket paths must be short.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rqxx-test-"))
    server = RedisServer(folder)
    stage = Stage(server, folder)
    yield stage
    stage.end()
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def outcome(stage, scenario, serializer, producer, worker):
    came_to = stage.run(SCENARIOS[scenario], producer, worker, serializer)
    remains = {f"step {n}": answer for n, answer in enumerate(came_to)}
    remains["marks"] = stage.marks.read_text().splitlines() if stage.marks.exists() else []
    remains |= {f"look: {path}": value for look in stage.looks for path, value in look.items()}
    return remains | everything(stage.connection, stage.url, serializer)


@functools.cache
def stock_outcome(stage, scenario, serializer):
    return outcome(stage, scenario, serializer, ["stock"], ["stock"])


def allowed(scenario, mode, path, how):
    for rule, (scenarios, modes, differences, _) in enumerate(ALLOWED):
        if re.fullmatch(scenarios, scenario) and re.fullmatch(modes, mode) and re.fullmatch(differences, f"{path}: {how}"):
            used.add(rule)
            return True
    return False


def compare(scenario, mode, stock, ours):
    """What differs and must not."""
    found = difference(stock, ours)
    modes, _, expected = WINDOWS.get(scenario, ("", None, {}))
    if not re.fullmatch(modes, mode):
        return {path: how for path, how in found.items() if not allowed(scenario, mode, path, how)}
    assert found, "the window is no longer there"
    return difference(expected, {path: ours.get(path, "absent") for path in expected})


def cases():
    for scenario, steps in SCENARIOS.items():
        for mode in MODES:
            turns = mode.endswith("_first")
            # Nobody can take over from a single step; and who takes which step decides whether a window is open.
            if turns and (len(steps) < 3 or scenario in WINDOWS):
                continue
            for serializer in ["pickle"] if turns or scenario in PICKLE_ONLY else ["pickle", "json"]:
                yield pytest.param(scenario, serializer, mode, id=f"{scenario}-{mode}-{serializer}")


CASES = list(cases())


@pytest.mark.parametrize("scenario, serializer, mode", CASES)
def test_rqxx_leaves_what_rq_leaves(stage, scenario, serializer, mode):
    stock = stock_outcome(stage, scenario, serializer)
    ours = outcome(stage, scenario, serializer, *MODES[mode])
    assert compare(scenario, mode, stock, ours) == {}
    done.add((scenario, serializer, mode))


def test_each_difference_that_is_allowed_is_met():
    """After all scenarios: no permission outlives what it was for."""
    if len(done) < len(CASES):
        pytest.skip("not all scenarios were run")
    assert [ALLOWED[rule] for rule in range(len(ALLOWED)) if rule not in used] == []


def test_each_difference_is_explained():
    text = (ROOT / "docs" / "compatibility.md").read_text()
    words = [reason for *_, reason in ALLOWED] + [reason for _, reason, _ in WINDOWS.values()]
    assert [word for word in words if word not in text] == []
