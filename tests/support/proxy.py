"""A man in the middle of a client and Redis, who loses, holds and splits what he is told to.

    proxy = Proxy(folder, server.socket)
    proxy.trap("settle", "cut", after=True)          # the script runs, its reply is lost with the connection
    trap = proxy.trap("claim", "hold")               # stands still before Redis hears of it ...
    trap.wait(); ...; trap.release()                 # ... until told
    proxy.trap(3, lambda: kill(worker))              # before the third request

Requests are passed on one by one, whatever was pipelined: a trap may stand between any two commands. What a client
says while it gets to know the server (PING, SCRIPT LOAD, ...) is neither counted nor kept in `requests`.
"""

import hashlib
import pathlib
import re
import select
import socket
import threading

GREETINGS = {"PING", "AUTH", "SELECT", "CLIENT", "SCRIPT", "INFO", "HELLO", "SUBSCRIBE", "COMMAND"}


class Gone(Exception):
    """The other side has closed."""


class Stream:
    """A socket with what has been read of it ahead of time."""

    def __init__(self, sock):
        self.sock = sock
        self.data = b""

    def fill(self):
        try:
            piece = self.sock.recv(65536)
        except OSError:
            piece = b""
        if not piece:
            raise Gone
        self.data += piece

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            raise Gone from None

    def take(self, size):
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


def end_of(data, at=0):
    """Where the value that begins at `at` ends, or None while it is not complete. Requests are values, too."""
    line_end = data.find(b"\r\n", at)
    if line_end < 0:
        return None
    kind, rest, after = data[at:at + 1], data[at + 1:line_end], line_end + 2
    if kind == b"$":
        size = int(rest)
        after += size + 2 if size >= 0 else 0
        return after if after <= len(data) else None
    if kind == b"*":
        for _ in range(int(rest)):
            after = end_of(data, after)
            if after is None:
                return None
    return after


def arguments(raw):
    parts, at = [], raw.find(b"\r\n") + 2
    while at < len(raw):
        line_end = raw.find(b"\r\n", at)
        size = int(raw[at + 1:line_end])
        parts.append(raw[line_end + 2:line_end + 2 + size])
        at = line_end + 2 + size + 2
    return parts


class Request:
    def __init__(self, args, name, number):
        self.args = args
        self.name = name        # of the command, or of the script
        self.number = number    # from 1 on, over all connections; 0: a greeting

    def __repr__(self):
        return f"{self.number}:{self.name}"


class Trap:
    def __init__(self, match, action, after, times):
        self.match, self.action, self.after, self.left = match, action, after, times
        self.sprung, self.released, self.done = threading.Event(), threading.Event(), threading.Event()
        self.request = None

    def matches(self, request):
        if isinstance(self.match, int):
            return request.number == self.match
        if isinstance(self.match, str):
            return request.name == self.match
        return self.match(request)

    def wait(self, timeout=20):
        """Until a request is in the trap."""
        assert self.sprung.wait(timeout), f"nothing came into the trap for {self.match}"
        return self.request

    def release(self):
        self.released.set()


class Proxy:
    count = 0

    def __init__(self, folder, upstream):
        Proxy.count += 1
        self.upstream = str(upstream)
        self.socket = pathlib.Path(folder) / f"proxy{Proxy.count}.sock"
        self.url = f"unix://{self.socket}"
        self.lock = threading.Lock()
        self.names = {}
        self.streams = set()
        self.closed = False
        self.reset()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.socket))
        self.listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self):
        """Forgets traps and counts from 1 again."""
        with self.lock:
            for trap in getattr(self, "traps", []):
                trap.release()
            self.traps, self.requests = [], []

    def trap(self, match, action, after=False, times=1):
        """`match`: the number of a request, a command's or script's name, or a function of the request.

        `action`: "cut" the connection; "hold" until released; "split" the reply into single bytes; or a function, after
        which all goes on, unless it returns "cut". It happens before Redis gets the request, or `after` it has answered and
        before the client knows.
        """
        trap = Trap(match, action, after, times)
        with self.lock:
            self.traps.append(trap)
        return trap

    def cut_all(self):
        for stream in list(self.streams):
            stream.close()

    def end(self):
        self.closed = True
        self.reset()
        self.listener.close()
        self.cut_all()

    # ---- the traffic --------------------------------------------------------------------------------

    def _accept(self):
        while not self.closed:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client_socket):
        client = Stream(client_socket)
        server_socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server = Stream(server_socket)
        self.streams |= {client, server}
        try:
            server_socket.connect(self.upstream)
            while True:
                self._pass_on(client, server)
        except (Gone, OSError, ValueError):
            pass
        finally:
            self.streams -= {client, server}
            client.close()
            server.close()

    def _pass_on(self, client, server):
        raw = self._next_request(client, server)
        request, trap = self._meet(arguments(raw))
        if trap and not trap.after:
            self._spring(trap, request)
        server.send(raw)
        if request.name in ("SUBSCRIBE", "PSUBSCRIBE"):
            self._pump(client, server)
        reply = self._reply(client, server)
        if trap and trap.after:
            try:
                self._spring(trap, request)
            except Gone:
                # What the client had sent on is on its way.
                self._drain(client, server)
                raise
        for size in ([1] * len(reply) if trap and trap.action == "split" else [len(reply)]):
            client.send(reply[:size])
            reply = reply[size:]

    def _next_request(self, client, server):
        while True:
            end = end_of(client.data) if client.data else None
            if end is not None:
                return client.take(end)
            readable, _, _ = select.select([client.sock, server.sock], [], [])
            if server.sock in readable:
                server.fill()   # Redis says nothing unasked: this is its end.
            if client.sock in readable:
                client.fill()

    def _reply(self, client, server):
        while True:
            end = end_of(server.data) if server.data else None
            if end is not None:
                return server.take(end)
            readable, _, _ = select.select([client.sock, server.sock], [], [])
            if server.sock in readable:
                server.fill()
            elif client.sock in readable:
                client.fill()

    def _drain(self, client, server):
        while client.data and end_of(client.data) is not None:
            server.send(client.take(end_of(client.data)))
            while end_of(server.data) is None:
                server.fill()
            server.take(end_of(server.data))

    def _pump(self, client, server):
        while True:
            client.send(server.take(len(server.data)))
            server.send(client.take(len(client.data)))
            for sock in select.select([client.sock, server.sock], [], [])[0]:
                (client if sock is client.sock else server).fill()

    def _meet(self, args):
        command = args[0].decode().upper()
        name = command
        if command == "SCRIPT" and args[1].upper() == b"LOAD":
            name_line = re.match(rb"-- rqxx (\w+)\n", args[2])
            self.names[hashlib.sha1(args[2]).hexdigest()] = name_line[1].decode() if name_line else command
        if command == "EVALSHA":
            name = self.names.get(args[1].decode(), command)
        with self.lock:
            number = 0
            if command not in GREETINGS:
                number = len(self.requests) + 1
            request = Request(args, name, number)
            if number:
                self.requests.append(request)
            for trap in self.traps:
                if trap.left and trap.matches(request):
                    trap.left -= 1
                    trap.request = request
                    return request, trap
        return request, None

    def _spring(self, trap, request):
        trap.sprung.set()
        if trap.action == "hold":
            trap.released.wait(60)
        outcome = trap.action() if callable(trap.action) else trap.action
        trap.done.set()
        if outcome == "cut":
            raise Gone
