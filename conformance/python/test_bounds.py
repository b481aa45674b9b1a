"""What one caller asks for never takes the server from others: memory, time, connections, space on the disk."""

import array
import base64
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time

import pytest

from server import Server

BASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"
MB = 1 << 20


def ask(server, method, path, body=None, timeout=120):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json"} if body is not None else {})
        answer = connection.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text or b"null")
        except ValueError:
            return answer.status, text
    finally:
        connection.close()


def resident(server):
    with open(f"/proc/{server.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def small():
    """A server with 300 MB of memory, and a collection with long documents in it."""
    os.environ["OCHRE_MEMORY_LIMIT_BYTES"] = str(300 * MB)
    server = Server()
    try:
        server.start()
    finally:
        del os.environ["OCHRE_MEMORY_LIMIT_BYTES"]
    status, made = ask(server, "POST", BASE, {"name": "long", "metadata": {"chroma:schema": '{"a": "int"}', "chroma:schema_validation_type": "lax"}})
    assert status == 200
    server.long = f"{BASE}/{made['id']}"
    rng = random.Random(1)
    for part in range(10):
        ids = [f"{part}-{n}" for n in range(100)]
        body = {"ids": ids, "embeddings": [[rng.random() for _ in range(4)] for _ in ids], "documents": ["a" * 20_000 for _ in ids]}
        assert ask(server, "POST", f"{server.long}/add", body)[0] == 201
    yield server
    assert server.process.poll() is None, "nothing a reader sends ends the process"
    server.remove()


def bombs():
    """Requests of a few kilobytes, or megabytes, that stand for gigabytes; and what each is answered with."""
    chain = "[document]" + ".map(x, x + x)" * 60 + ".all(x, true)"
    yield "schema/validate", {"schema": {"properties": {}, "validators": [{"cel": chain}]}, "documents": ["aaaaaaaa"]}, {400}
    many = {"$or": [{"$regex": r"\w{200}" + str(n)} for n in range(500)]}
    yield "get", {"where_document": many}, {400}
    yield "get", {"where_document": {"$regex": "(?i)(?:a.{0,200}){1,20}z"}, "limit": 1}, {200, 400, 504}
    yield "query", {"query_embeddings": [[0.5] * 4] * 500, "n_results": 1000, "include": ["documents", "embeddings"]}, {413, 503}
    yield "get", {"where": {"$or": [0] * 15_000_000}}, {413, 503}
    yield "add", {"ids": ["x"], "embeddings": [[1] * 4], "metadatas": [{"a": [[]] * 10_000_000}]}, {413, 422, 503}
    yield "get", '{"where":' + '{"$and":[' * 100 + "{}" + "]}" * 100 + "}", {400, 422}
    yield "get", {"ids": ["x"] * 1_000_000}, {200, 413, 503}
    yield "query", {"query_embeddings": [[0.5] * 4], "n_results": 4_000_000_000}, {200, 400, 413, 422}


@pytest.mark.parametrize("bomb", bombs(), ids=lambda bomb: bomb[0])
def test_small_requests_that_stand_for_much_memory_are_refused(small, bomb):
    route, body, expected = bomb
    path = f"{BASE}/long/schema/validate" if route == "schema/validate" else f"{small.long}/{route}"
    began = time.monotonic()
    status, answer = ask(small, "POST", path, body)
    assert status in expected, (status, str(answer)[:300])
    if status in {413, 503, 504}:
        assert answer["message"] if isinstance(answer, dict) else answer
    assert time.monotonic() - began < 60
    assert resident(small) < 450 * MB, resident(small) // MB
    assert ask(small, "GET", f"{small.long}/count", timeout=10) == (200, 1000)


class Confined(Server):
    """A server that the kernel ends, or gives no memory, past 300 MB: in a control group, or by its limit of data."""

    group = pathlib.Path(f"/sys/fs/cgroup/memory/ochre-conformance-{os.getpid()}")

    def command(self):
        try:
            self.group.mkdir(exist_ok=True)
            (self.group / "memory.limit_in_bytes").write_text(str(300 * MB))
        except OSError:
            # Threads' stacks are data too, which hardly any of it is ever touched.
            limits = f"ulimit -d {600 * 1024}; export OCHRE_MEMORY_LIMIT_BYTES={300 * MB}"
        else:
            limits = f"echo $$ > {self.group}/cgroup.procs"
        return ["sh", "-c", f'{limits}; exec "$@"', "sh", *super().command()]

    def remove(self):
        super().remove()
        if self.group.exists():
            self.group.rmdir()


def test_nothing_that_readers_send_ends_a_server_with_little_memory_and_many_vectors():
    server, rng, dimension = Confined().start(), random.Random(2), 256
    try:
        made = ask(server, "POST", BASE, {"name": "long", "metadata": {"chroma:schema": '{"a": "int"}'}})[1]
        path = f"{BASE}/{made['id']}"
        for first in range(0, 160_000, 2000):
            vectors = array.array("f", (rng.getrandbits(8) for _ in range(2000 + dimension))).tobytes()
            parts = (vectors[4 * n : 4 * (n + dimension)] for n in range(2000))
            embeddings = [base64.b64encode(part).decode() for part in parts]
            ids = [str(first + n) for n in range(2000)]
            assert ask(server, "POST", f"{path}/add", {"ids": ids, "embeddings": embeddings})[0] == 201

        def send(bomb):
            route, body, expected = bomb
            text = (body if isinstance(body, str) else json.dumps(body)).replace(str([0.5] * 4), str([0.5] * dimension))
            to = f"{BASE}/long/schema/validate" if route == "schema/validate" else f"{path}/{route}"
            status, answer = ask(server, "POST", to, text)
            assert status in expected | {503}, (route, status, str(answer)[:300])

        with concurrent.futures.ThreadPoolExecutor(8) as callers:
            list(callers.map(send, [*bombs(), *bombs()]))
        assert server.process.poll() is None, "it was ended"
        assert ask(server, "GET", f"{path}/count") == (200, 160_000)
    finally:
        server.remove()


def test_a_long_read_delays_no_heartbeat_and_ends_with_its_client(small):
    slow = {"where_document": {"$regex": "(?:a[^b]{0,40}){1,9}z"}}
    body = json.dumps(slow)
    lines = f"POST {small.long}/get HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    callers = []
    for _ in range(4):
        caller = socket.create_connection(("127.0.0.1", small.port))
        caller.sendall(lines.encode())
        callers.append(caller)
    slowest = 0
    for _ in range(20):
        began = time.monotonic()
        assert ask(small, "GET", "/api/v2/heartbeat", timeout=30)[0] == 200
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.02)
    assert slowest < 2, slowest
    for caller in callers:
        caller.close()

    def busy():
        with open(f"/proc/{small.process.pid}/stat") as file:
            fields = file.read().split()
        return int(fields[13]) + int(fields[14])

    deadline = time.monotonic() + 60
    while True:
        before = busy()
        time.sleep(1)
        if busy() - before < 50:
            break
        assert time.monotonic() < deadline, "reads go on although nobody waits for them"


def test_bodies_that_are_announced_and_never_come_stop_nobody(small):
    silent = []
    for _ in range(30):
        caller = socket.create_connection(("127.0.0.1", small.port))
        head = f"POST {small.long}/add HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 41943040\r\n\r\n"
        caller.sendall(head.encode() + b'{"ids":')
        silent.append(caller)
    began = time.monotonic()
    assert ask(small, "POST", f"{small.long}/get", {"limit": 1})[0] == 200
    assert time.monotonic() - began < 5
    for caller in silent:
        caller.close()
    # What is announced too large is refused; a client that sends it all the same reads why.
    status, answer = ask(small, "POST", f"{small.long}/get", b" " * (41943040 + 1))
    assert status == 413, answer


def test_descriptions_of_collections_are_bounded(small):
    large = "x" * (1 << 20)
    assert ask(small, "POST", BASE, {"name": "large", "metadata": {"a": large}})[0] == 400
    function = {"type": "known", "name": "x", "config": {"a": large}}
    status, answer = ask(small, "POST", BASE, {"name": "large", "configuration": {"embedding_function": function}})
    assert status == 400 and "limit" in answer["message"], answer
    assert all(row["name"] != "large" for row in ask(small, "GET", BASE)[1])


def test_few_file_handles_are_no_failure():
    server = Server()
    command = server.command()
    server.command = lambda: ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command]
    server.start()
    try:
        made = ask(server, "POST", BASE, {"name": "few"})[1]["id"]
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            body = {"ids": ["x"], "embeddings": [[1, 2]]}
            answers = list(pool.map(lambda _: ask(server, "POST", f"{BASE}/{made}/upsert", body, timeout=60), range(200)))
        assert {status for status, _ in answers} <= {200, 503}, answers[:3]
        assert sum(status == 200 for status, _ in answers) > 100
        for connection in idle:
            connection.close()
    finally:
        server.remove()


@pytest.fixture
def disk(tmp_path):
    """A file system of 30 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_no_dead_end(disk):
    server = Server()
    server.data = str(disk / "data")
    server.start()
    try:
        rng = random.Random(2)
        collections = {name: ask(server, "POST", BASE, {"name": name})[1]["id"] for name in ["stays", "goes"]}
        assert os.stat(server.data).st_mode & 0o077 == 0, "for its owner only"
        status, count = 201, 0
        while status == 201:
            for made in collections.values():
                body = {"ids": [f"{count}-{n}" for n in range(200)], "embeddings": [[rng.random() for _ in range(64)] for _ in range(200)], "documents": [f"text {rng.random()} " * 40 for _ in range(200)]}
                status, answer = ask(server, "POST", f"{BASE}/{made}/add", body)
                if status != 201:
                    break
            count += 1
        assert status == 507 and "free some space" in answer["message"]
        # Somebody else takes the rest.
        with open(disk / "filler", "wb", 0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        stays = f"{BASE}/{collections['stays']}"
        before = ask(server, "GET", f"{stays}/count")[1]
        server.stop(signal.SIGKILL)
        server.start()
        assert ask(server, "GET", f"{stays}/count") == (200, before)
        assert ask(server, "POST", f"{stays}/query", {"query_embeddings": [[0.5] * 64], "n_results": 3})[0] == 200
        assert ask(server, "POST", f"{stays}/delete", {"ids": [f"0-{n}" for n in range(50)]}) == (200, {"deleted": 50})
        assert ask(server, "DELETE", f"{BASE}/goes")[0] == 200
        assert ask(server, "POST", "/_admin/jobs/sweep/run")[0] in (200, 202)
        deadline = time.monotonic() + 120
        while os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize < 3 * MB:
            assert time.monotonic() < deadline, "space does not come back"
            time.sleep(0.5)
        status, answer = ask(server, "POST", f"{stays}/add", {"ids": ["new"], "embeddings": [[1] * 64]})
        assert status == 201, answer
        assert server.stop() == 0
        checked = subprocess.run([str(server.binary), "check", "--path", server.data], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    finally:
        server.remove()


def begin_upload(server):
    """A connection that announced a body and sent a part of it."""
    upload = socket.create_connection(("127.0.0.1", server.port))
    upload.sendall(f"POST {BASE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n".encode() + b"{")
    time.sleep(0.3)
    return upload


def test_an_upload_that_stalls_does_not_keep_the_server_from_stopping():
    server = Server()
    try:
        server.start()
        with begin_upload(server):
            began = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            assert "stopping: waiting for 1 request" in server.log()
            assert server.process.wait(timeout=20) == 0
            assert time.monotonic() - began < 9, "sooner than requests that go on may take"
    finally:
        server.remove()


def test_a_second_signal_stops_the_server_at_once_and_keeps_what_was_answered():
    server = Server()
    try:
        server.start()
        status, made = ask(server, "POST", BASE, {"name": "kept"})
        assert status == 200
        with begin_upload(server) as upload:
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            # It goes on coming, so it is waited for.
            upload.sendall(b" ")
            assert server.process.poll() is None
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=5) == 130
        server.start()
        assert ask(server, "GET", f"{BASE}/kept")[1]["id"] == made["id"]
    finally:
        server.remove()
