"""The text format of Prometheus, read strictly. Source: prometheus.io/docs/instrumenting/exposition_formats, text format 0.0.4."""

import re
import shutil
import subprocess

from conftest import http

LINE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"(?:,|$)')


class Scrape:
    """The series of one answer: {(name, frozenset of (label, value)): number}."""

    def __init__(self, url, **options):
        answer = http("GET", url, **options)
        assert answer.status == 200, answer.body
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.text = answer.body.decode()  # Valid UTF-8, whatever names say.
        self.series = {}
        for line in self.text.split("\n"):
            if not line or line.startswith("#"):
                continue
            found = LINE.fullmatch(line)
            assert found, line
            name, labels, value = found.groups()
            pairs, at = [], 0
            while at < len(labels or ""):
                label = LABEL.match(labels, at)
                assert label, line
                pairs.append((label[1], re.sub(r'\\(.)', lambda m: "\n" if m[1] == "n" else m[1], label[2])))
                at = label.end()
            key = (name, frozenset(pairs))
            assert key not in self.series, f"twice: {line}"
            self.series[key] = float(value)

    def get(self, series, /, **labels):
        return self.series.get((series, frozenset(labels.items())))

    def all(self, name):
        """[(labels, value)] of a name."""
        return [(dict(labels), value) for (other, labels), value in self.series.items() if other == name]

    def names(self):
        return {name for name, _ in self.series}


def check_with_promtool(text):
    """What Prometheus' own tool says of it; must be there: scripts/setup installs it."""
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: scripts/setup installs the package prometheus"
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and not result.stderr, result.stdout + result.stderr
