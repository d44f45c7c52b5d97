#!/usr/bin/env python3
"""Records bytes of the real RQ and CPython: tests/golden/pickles.json and the fuzzers' corpora.

Run it with a Python that has rq installed (build/venv/bin/python). The versions are recorded too.
"""

import collections
import datetime
import decimal
import json
import pathlib
import pickle
import sys
import uuid
import zlib

import rq
from rq.job import Job, Retry
from rq.serializers import JSONSerializer

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"

UTC = datetime.timezone.utc
VALUES = [
    None, True, False, 0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**64, -(2**70), 10**40,
    0.0, -0.0, 1.5, 1e16, 1e-5, 123456.789, 1e300, 5e-324, "", "text", "é☃😀", "a'b", 'a"b', "line\nbreak\t\x00", "x" * 300,
    b"", b"\x00\xff", b"y" * 300, bytearray(b"ba"), (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, [2, [3]]], list(range(5)),
    {}, {"a": 1, "b": [1, {"c": None}]}, {1: 2, None: "x", (1, 2): 3}, set(), {7}, frozenset({8}),
    datetime.datetime(2026, 11, 23, 17, 47, 37, 728246), datetime.datetime(2026, 1, 2, tzinfo=UTC),
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=-5, minutes=-30))),
    datetime.date(2026, 2, 28), datetime.time(23, 59, 58, 1), datetime.timedelta(days=-1, seconds=5, microseconds=6),
    uuid.UUID("12345678-1234-5678-1234-567812345678"), uuid.UUID(int=1), decimal.Decimal("1.50"), collections.OrderedDict(a=1),
]
FOREIGN = [Retry(max=3, interval=[1, 2]), ValueError("boom"), len, collections.Counter("aab"), range(3), 1j, UTC,
           collections.defaultdict(list, a=[1])]


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    entries = []
    for number, value in enumerate([*VALUES, *FOREIGN]):
        for protocol in (2, 3, 4, 5):
            if protocol < 5 and isinstance(value, bytearray):
                continue
            data = pickle.dumps(value, protocol)
            entry = {"protocol": protocol, "hex": data.hex(), "repr": repr(value), "foreign": number >= len(VALUES)}
            try:
                entry["json"] = json.dumps(value)
            except (TypeError, ValueError):
                pass
            entries.append(entry)
            if protocol in (2, 5) and len(data) < 200:
                write("pickle_decoder", f"value-{number}-{protocol}", data)
    call = ("tasks.add", None, (1, "é"), {"y": [2.5, None]})
    calls = [{"serializer": "pickle", "hex": zlib.compress(pickle.dumps(call, p)).hex()} for p in (2, 3, 4, 5)]
    calls.append({"serializer": "pickle", "hex": pickle.dumps(call).hex()})
    calls.append({"serializer": "json", "hex": zlib.compress(JSONSerializer.dumps(call)).hex()})
    (ROOT / "tests" / "golden").mkdir(exist_ok=True)
    (ROOT / "tests" / "golden" / "pickles.json").write_text(json.dumps(
        {"python": sys.version.split()[0], "rq": rq.VERSION, "values": entries, "calls": calls}, indent=0) + "\n")

    for name, text in {"nan": b'[NaN, -Infinity, 1e400]', "nested": b'{"a": [1, {"b": null}]}', "big": b"[123456789012345678901234567890]"}.items():
        write("pickle_decoder", f"json-{name}", text)
    jobs = {
        "plain": Job.create("tasks.add", args=(1, 2), connection=__import__("redis").Redis()),
        "full": Job.create("tasks.add", args=(1,), kwargs={"y": 2}, timeout=60, result_ttl=-1, failure_ttl=0, ttl=9, meta={"a": 1},
                           connection=__import__("redis").Redis(), description="text"),
    }
    for name, job in jobs.items():
        fields = job.to_dict()
        parts = [key.encode() + b"\x1f" + (value if isinstance(value, bytes) else str(value).encode()) for key, value in fields.items()]
        write("job_hash", name, b"\x1e".join(parts))
    write("job_hash", "result", b"type\x1f1\x1eworker_name\x1fw1\x1ereturn_value\x1fgAVLAy4=\x1eexecution_started_at\x1f1795456544.965519")
    for name, data in {"ok": b"+OK\r\n", "error": b"-ERR no\r\n", "integer": b":-42\r\n", "string": b"$3\r\nabc\r\n", "nil": b"$-1\r\n",
                       "array": b"*3\r\n:1\r\n$1\r\na\r\n*1\r\n*-1\r\n", "empty": b"*0\r\n$0\r\n\r\n"}.items():
        write("resp_reply", name, data)
    for name, data in {
        "get": b"GET /api/rq/stats?queue=a%20b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "post": b'POST /api/sessions/1/comments HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n{"a": 1}',
        "chunked": b"POST /api/sessions/1/comments HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "limit": b"HEAD /api/rq/jobs/recent?limit=5 HTTP/1.0\r\nX-Request-Id: a\r\nOrigin: http://x\r\n\r\n"}.items():
        write("http_request", name, data)


if __name__ == "__main__":
    main()
