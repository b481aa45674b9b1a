"""What a change costs: two binaries of Ochre over the same work in turn, in processor time of the server for each request.

    python bench/compare/versions.py OLD NEW [--rounds 7] [--records 20000]

Each round asks both the same, in alternating order; the ratio is NEW / OLD of each round, and the interval is that of the
rounds. Processor time is what the kernel counted for the server's process, so a slow client does not matter.
"""

import argparse
import contextlib
import glob
import http.client
import json
import random
import signal
import socket
import statistics
import subprocess
import tempfile
import time

BASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"
DIMENSION = 128


class Server:
    def __init__(self, binary):
        self.directory = tempfile.TemporaryDirectory(prefix="ochre-versions-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [binary, "run", "--path", self.directory.name + "/data", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port)
                self.ask("GET", "/api/v2/heartbeat")
                return
            except OSError:
                time.sleep(0.05)

    def ask(self, method, path, body=None):
        self.connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status < 300, text[:300]
        return text

    def cpu(self):
        """Seconds that its threads have run, in nanosecond steps (`/proc/PID/stat` counts in steps of 10 ms)."""
        nanoseconds = 0
        for thread in glob.glob(f"/proc/{self.process.pid}/task/*/schedstat"):
            with contextlib.suppress(FileNotFoundError), open(thread) as file:
                nanoseconds += int(file.read().split()[0])
        return nanoseconds / 1e9


CENTRES = [[rng.gauss(0, 1) for _ in range(DIMENSION)] for rng in map(random.Random, range(200))]


def embedding(rng):
    """Around one of 200 centres, as embeddings of texts are: any version finds all neighbours of these."""
    return [round(value + rng.gauss(0, 0.4), 4) for value in rng.choice(CENTRES)]


def batch(rng, first, count):
    ids = [str(number) for number in range(first, first + count)]
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()
    return json.dumps({
        "ids": ids,
        "embeddings": [embedding(rng) for _ in ids],
        "documents": [" ".join(rng.choice(words) for _ in range(40)) + f" n{number}" for number in ids],
        "metadatas": [{"n": int(number), "group": f"g{int(number) % 50}"} for number in ids],
    })


def work(rng, collection, records, round_number):
    """Names with the requests of one round."""
    path = f"{BASE}/{collection}"
    queries = [json.dumps({"query_embeddings": [embedding(rng)], "n_results": 10}) for _ in range(400)]
    filtered = [json.dumps({"query_embeddings": [embedding(rng)], "n_results": 10, "where": {"group": f"g{n % 50}"}}) for n in range(200)]
    gets = [json.dumps({"ids": [str(rng.randrange(records)) for _ in range(100)]}) for _ in range(200)]
    contains = [json.dumps({"where_document": {"$contains": f"n{rng.randrange(records)}"}, "limit": 5}) for _ in range(100)]
    first = records + round_number * 4000
    adds = [batch(rng, first + part * 400, 400) for part in range(10)]
    return [
        ("query", "query", queries), ("query with a filter", "query", filtered), ("get 100 ids", "get", gets),
        ("get with $contains", "get", contains), ("add 400", "add", adds),
    ], path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--records", type=int, default=20_000)
    options = parser.parse_args()
    servers = [Server(options.old), Server(options.new)]
    try:
        collections = []
        for server in servers:
            rng = random.Random(1)
            collections.append(json.loads(server.ask("POST", BASE, json.dumps({"name": "versions"})))["id"])
            for first in range(0, options.records, 1000):
                server.ask("POST", f"{BASE}/{collections[-1]}/add", batch(rng, first, 1000))
        time.sleep(20)
        ratios = {}
        # Reads before writes: after a write, jobs run in the same process.
        for is_write in (False, True):
            for number in range(options.rounds + 1):
                used = [{}, {}]
                for which in ((0, 1), (1, 0))[number % 2]:
                    server = servers[which]
                    parts, path = work(random.Random(number), collections[which], options.records, number)
                    for name, route, bodies in (part for part in parts if (part[1] == "add") == is_write):
                        before = server.cpu()
                        for body in bodies:
                            server.ask("POST", f"{path}/{route}", body)
                        used[which][name] = server.cpu() - before
                # The first round warms up.
                for name in used[0] if number else ():
                    ratios.setdefault(name, []).append(used[1][name] / used[0][name])
        print(f"processor time of the server, new / old, {options.rounds} rounds in turn, {options.records} records")
        for name, found in ratios.items():
            print(f"{name:22} median {statistics.median(found):.2f}  from {min(found):.2f} to {max(found):.2f}")
    finally:
        for server in servers:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait()


if __name__ == "__main__":
    main()
