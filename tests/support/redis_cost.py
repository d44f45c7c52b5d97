"""What one request costs Redis: round trips, seen by a man in the middle, and keys, told by MONITOR.

    meter = Meter(folder, server)
    web = system.serve(..., url=meter.url)
    cost = meter.measure(lambda: http("GET", web.url + "/api/rq/stats"))
    cost.trips, cost.keys

A *round trip* begins when the program under test sends something while it waits for no reply: a pipeline is one, and so
are two questions that are asked side by side. The *keys* are all that any command names, those inside scripts included,
each once. What the server asks for itself is no part of a request and left out: whether Redis is there, and what the index of
jobs asks, which shows by its commands. One of those anybody may ask (which queues there are): a request that it came between is
measured again. Nothing else may go on.
"""

import hashlib
import re
import select
import socket
import threading
import time

from conftest import ROOT, wait_for
from proxy import Gone, Stream, arguments, end_of

#: The index's own.
BACKGROUND_KEYS = (b"rqxx:changes", b"rqxx:index:")
PEEK = "index_peek"   # It looks at all queues, and before that for their names.
BACKGROUND_SCRIPTS = {"index_jobs", PEEK}
QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')


class Cost:
    def __init__(self, trips, keys, commands):
        self.trips, self.keys, self.commands = trips, keys, commands

    def __repr__(self):
        return f"{self.trips} round trips, {len(self.keys)} keys, {len(self.commands)} commands"


class Meter:
    def __init__(self, folder, server):
        self.server = server
        self.path = folder / "meter.sock"
        self.url = f"unix://{self.path}"
        self.scripts = {}
        self.lock = threading.Lock()
        self.trips = 0
        self.heard = []
        self.first_key = {name.lower().encode(): (info["first_key_pos"], info["last_key_pos"], info["step_count"], "movablekeys" in info["flags"])
                          for name, info in server.client.execute_command("COMMAND").items()}
        self.marks, self.marked = 0, {}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()
        self.monitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.monitor.connect(str(server.socket))
        self.monitor.sendall(b"MONITOR\r\n")
        assert self.monitor.recv(5) == b"+OK\r\n"   # From here on all is told.
        threading.Thread(target=self._listen, daemon=True).start()
        self._catch_up()

    def measure(self, request):
        """Of a request at a moment when the server asks nothing for itself, repeated until there is one."""
        for _ in range(20):
            cost = self._measure(request)
            if cost is not None:
                return cost
            time.sleep(1.3)   # What the server does for itself, it does each second; what it has kept of an answer is old by then.
        raise AssertionError("the server never stops asking Redis for itself")

    def _measure(self, request):
        begin = self._catch_up()
        with self.lock:
            self.trips = 0
        request()
        with self.lock:
            trips = self.trips
        time.sleep(0.003)
        heard = self.heard[begin + 1:self._catch_up()]
        del self.heard[:]
        commands, keys, own = [], set(), False
        for inside, words in heard:
            if not inside:
                if self._script(words) == PEEK:
                    return None
                own = not self._is_background(words)
            if own:
                commands.append(words)
                keys.update(self._keys(words))
        return Cost(trips, keys, commands)

    def end(self):
        self.listener.close()
        self.monitor.close()

    # ---- commands -----------------------------------------------------------------------------------

    def _script(self, words):
        return self.scripts.get(words[1].decode()) if words[0].lower() == b"evalsha" else None

    def _is_background(self, words):
        command = words[0].lower()
        if command == b"exists":
            return words[1].startswith(b"rq:job:")
        return command in (b"ping", b"script", b"scan") or self._script(words) in BACKGROUND_SCRIPTS or any(
            word.startswith(BACKGROUND_KEYS) for word in words[1:])

    def _keys(self, words):
        command = words[0].lower()
        if command in (b"evalsha", b"eval"):
            return words[3:3 + int(words[2])]
        if command == b"memory":
            return words[2:3]
        first, last, step, movable = self.first_key.get(command, (0, 0, 0, False))
        assert not movable, f"the test does not know the keys of {words}"
        if first == 0:
            return []
        return words[first:(last if last >= 0 else len(words) + last) + 1:step]

    # ---- MONITOR ------------------------------------------------------------------------------------

    def _catch_up(self):
        """Until MONITOR has told all that was asked before; where that is in `heard`."""
        self.marks += 1
        mark = f"meter-{self.marks}".encode()
        self.server.client.echo(mark)
        wait_for(lambda: mark in self.marked, what="MONITOR")
        return self.marked.pop(mark)

    def _listen(self):
        with self.monitor.makefile("rb") as lines:
            for line in lines:
                head, _, _ = line.partition(b'"')
                words = QUOTED.findall(line)
                if words:
                    self.heard.append((head.rstrip().endswith(b" lua]"), words))
                    if words[0].lower() == b"echo":
                        self.marked[words[-1]] = len(self.heard) - 1

    # ---- the man in the middle ----------------------------------------------------------------------

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client_socket):
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        upstream.connect(str(self.server.socket))
        client, server = Stream(client_socket), Stream(upstream)
        waiting = []   # For each reply that is to come, whether it is the background's.
        try:
            while True:
                for sock in select.select([client.sock, server.sock], [], [])[0]:
                    if sock is client.sock:
                        client.fill()
                        self._note(client, server, waiting)
                    else:
                        server.fill()
                        while waiting and server.data and (end := end_of(server.data)) is not None:
                            client.send(server.take(end))
                            waiting.pop(0)
        except (Gone, OSError):
            pass
        finally:
            client.close()
            server.close()

    def _note(self, client, server, waiting):
        whole = b""
        while client.data and (end := end_of(client.data)) is not None:
            raw = client.take(end)
            words = arguments(raw)
            if words[0].upper() == b"SCRIPT" and words[1].upper() == b"LOAD":
                named = re.match(rb"-- rqxx (\w+)\n", words[2])
                if named:
                    self.scripts[hashlib.sha1(words[2]).hexdigest()] = named[1].decode()
            background = self._is_background(words)
            if not background and all(waiting):
                with self.lock:
                    self.trips += 1
            waiting.append(background)
            whole += raw
        server.send(whole)
