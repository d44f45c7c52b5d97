"""Redis over TCP and TLS, with users, passwords and databases."""

import socket
import subprocess

import pytest
import redis
from conftest import Running, wait_for


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def certificates(system):
    folder = system.folder / "tls"
    folder.mkdir()

    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test ca", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "redis.key", "-out", "redis.csr")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-days", "2", "-in", "redis.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names",
            "-out", "redis.crt")
    return folder


def start(system, *args, ping):
    running = Running(["redis-server", "--save", "", "--dir", str(system.folder), "--bind", "127.0.0.1", *args], system.folder, "redis")
    system.things.append(running)

    def answers():
        try:
            return ping()
        except redis.RedisError:
            return False

    wait_for(answers, what="redis-server")


def test_tls_is_verified_and_used(system, certificates):
    port = free_port()
    client = redis.Redis(port=port, ssl=True, ssl_ca_certs=str(certificates / "ca.crt"), host="localhost")
    start(system, "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--tls-cert-file", str(certificates / "redis.crt"),
          "--tls-key-file", str(certificates / "redis.key"), "--tls-ca-cert-file", str(certificates / "ca.crt"), ping=client.ping)
    url = f"rediss://localhost:{port}/2"
    enqueued = system.rqxx("enqueue", "tasks.noop", ":1", "--redis-url", url, "--redis-ca-file", certificates / "ca.crt")
    assert enqueued.returncode == 0, enqueued.stderr
    assert redis.Redis(port=port, ssl=True, ssl_ca_certs=str(certificates / "ca.crt"), host="localhost", db=2).llen("rq:queue:default") == 1
    untrusted = system.rqxx("info", "--redis-url", url)
    assert untrusted.returncode == 1 and "TLS" in untrusted.stderr and "certificate" in untrusted.stderr
    plain = system.rqxx("info", "--redis-url", f"redis://localhost:{port}")
    assert plain.returncode == 1


def test_users_passwords_and_databases(system):
    port = free_port()
    start(system, "--port", str(port), "--user", "default", "off", "--user", "ann", "on", ">p@ss:w/rd", "~*", "&*", "+@all",
          ping=redis.Redis(port=port, username="ann", password="p@ss:w/rd").ping)
    url = f"redis://ann:p%40ss%3Aw%2Frd@127.0.0.1:{port}"
    for database in (0, 3):
        job_id = system.rqxx("enqueue", "tasks.noop", ":1", "--redis-url", f"{url}/{database}").stdout.strip()
        client = redis.Redis(port=port, username="ann", password="p@ss:w/rd", db=database)
        assert client.hget(f"rq:job:{job_id}", "status") == b"queued"
    worker = system.test_worker("--burst", "default", url=f"{url}/3")
    assert worker.wait() == 0
    assert client.hget(f"rq:job:{job_id}", "status") == b"finished"
    refused = system.rqxx("info", "--redis-url", f"redis://ann:wrong-one@127.0.0.1:{port}")
    assert refused.returncode == 1 and "WRONGPASS" in refused.stderr and "wrong-one" not in refused.stderr
