"""What was claimed when, and what ran at the same time: as Redis and the jobs themselves saw it."""

import re
import threading

# "[0 lua] "HSET" "rq:execution:ID:EXECUTION" "id" "EXECUTION" "created_at" "1795456544.965519" ...
CLAIM = re.compile(r'"?HSET"? "?rq:execution:([\w-]+):(\w+)"? .*?created_at"? "?([\d.]+)')


class Claims:
    """Watches a Redis by MONITOR; knows every claim, also those of workers that died."""

    def __init__(self, server):
        self.server = server
        self.list = []   # (time, job id, execution id)
        self.commands = 0
        self.ready = threading.Event()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def watch(self):
        with self.server.client.monitor() as monitor:
            self.ready.set()
            for entry in monitor.listen():
                command = entry["command"]
                if command.startswith("PING claims-are-over"):
                    break
                self.commands += 1
                if "rq:execution:" in command and command.startswith("HSET"):
                    found = CLAIM.search(command)
                    if found:
                        self.list.append((float(found[3]), found[1], found[2]))
        self.done.set()

    def end(self):
        """All claims so far, in their order."""
        self.server.client.execute_command("PING", "claims-are-over")
        assert self.done.wait(20)
        return self.list


def most_in_any_window(times, length):
    """The greatest number of times within any half-open stretch of this length."""
    most, begin = 0, 0
    for end, time in enumerate(times):
        while time - times[begin] >= length:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def spans(path, killed=None):
    """The runs that `tasks.timed` left: (start, end, what). `killed`: pid -> when; whoever has no end ended then."""
    runs = {}
    for line in open(path):
        time, event, execution, pid, what = line.rstrip("\n").split(" ", 4)
        run = runs.setdefault(execution, [None, None, int(pid), what])
        run[0 if event == "start" else 1] = float(time)
    for run in runs.values():
        if run[1] is None:
            run[1] = (killed or {})[run[2]]
    return [(run[0], run[1], run[3]) for run in runs.values()]


def most_at_once(runs):
    events = sorted([(start, 1) for start, _, _ in runs] + [(end, -1) for _, end, _ in runs])
    now = most = 0
    for _, step in events:
        now += step
        most = max(most, now)
    return most
