"""The screenshots of the README: starts the demo, gives it a minute of work, and takes the pictures.

    screenshots.py PROGRAM OUT [--seconds N]
"""

import argparse
import json
import pathlib
import random
import shutil
import subprocess
import tempfile
import time
import urllib.request

from playwright.sync_api import sync_playwright

FUNCTIONS = ["app.mail.send", "app.images.resize", "app.reports.build"]


class Demo:
    def __init__(self, program, folder):
        self.folder = pathlib.Path(folder)
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen([program, "serve", "--demo", "--port", "0", "--data-dir", self.folder / "data"],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.url = self.process.stdout.readline().split("Dashboard: ")[1].strip().rstrip("/")

    def send(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, method=method, data=None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.loads(response.read() or b"null")

    def end(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


def work(demo, seconds):
    """Evaluations all the time, some functions that nobody has registered, jobs that wait for others."""
    chance = random.Random(7)
    demo.send("PUT", "/api/v1/limits/mail", {"kind": "token-bucket", "limit": 5, "per": 1, "function": "app.mail.*"})
    first = demo.send("POST", "/api/v1/jobs", {"func": "app.reports.build", "args": ["july"], "queue": "reports"})["job_id"]
    parts = [demo.send("POST", "/api/v1/jobs", {"func": "app.images.resize", "args": [n], "queue": "reports", "depends_on": [first]})["job_id"]
             for n in range(3)]
    last = demo.send("POST", "/api/v1/jobs", {"func": "app.mail.send", "args": ["july.pdf"], "queue": "reports", "depends_on": parts})["job_id"]
    demo.send("POST", "/api/v1/jobs", {"func": "app.reports.build", "args": ["august"], "queue": "reports", "in": 86400})
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        for _ in range(chance.randint(1, 12) if int(passed / 15) % 2 == 0 else chance.randint(0, 4)):
            demo.send("POST", f"/api/reviewer/sessions/{chance.randint(1, 5)}/evaluate", {"priority": chance.choice(["high", "normal", "normal", "low"])})
        if chance.random() < 0.15:
            demo.send("POST", "/api/v1/jobs", {"func": chance.choice(FUNCTIONS), "args": [chance.randint(1, 99)], "queue": "default"})
        time.sleep(0.25)
    return last


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=75)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rqxx-shots-") as folder, sync_playwright() as driver:
        demo = Demo(options.program, folder)
        try:
            last = work(demo, options.seconds)
            chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for name, address, scheme, height in [("overview", "#/", "light", 900), ("failures", "#/failures", "dark", 560), ("job", f"#/jobs/{last}", "light", 900)]:
                page = chromium.new_page(base_url=demo.url, viewport={"width": 1280, "height": height}, color_scheme=scheme, locale="en")
                page.goto(f"/{address}")
                page.wait_for_timeout(3000)
                page.screenshot(path=options.out / f"{name}.png")
                page.close()
            chromium.close()
        finally:
            demo.end()


if __name__ == "__main__":
    main()
