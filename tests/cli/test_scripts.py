"""The two commands that a newcomer types; the build folder is used as it is."""

import os
import signal

from conftest import ROOT, http, wait_for


def test_scripts_run_ends_with_the_page_answering_and_a_sample_evaluated(system):
    run = system.run(ROOT / "scripts" / "run", "--port", "0", "--data-dir", system.folder / "data",
                     env={**os.environ, "HOME": str(system.folder)})
    wait_for(lambda: "Redis: " in run.out or run.process.poll() is not None, timeout=600, what="scripts/run")
    assert run.process.poll() is None, run.log
    first, second = run.out.splitlines()[:2]
    url = first.removeprefix("Dashboard: ").rstrip("/")
    assert first == f"Dashboard: {url}/" and second.startswith("Redis: unix://")
    page = http("GET", url + "/")
    assert page.status == 200 and "text/html" in page.headers["Content-Type"]
    jobs = wait_for(lambda: [job for job in http("GET", url + "/api/rq/jobs/recent").json["jobs"] if job["status"] == "finished"])
    assert jobs[0]["func_name"] == "eval_worker.evaluate"
    assert set(jobs[0]["result"]) == {"session_id", "score", "grade", "tp", "fp", "fn"}
    run.signal(signal.SIGTERM)
    assert run.wait() == 0, run.log


def test_the_readme_opens_with_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert readme.index("scripts/run") < readme.index("scripts/test") < readme.index("## ")
