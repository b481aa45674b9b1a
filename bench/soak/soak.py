"""A soak: mixed reads and writes for half an hour or longer, in rounds that alternate between every job running all
the time and every job paused, on one server with one set of data.

    python bench/soak/soak.py --minutes 30 [--json FILE]

Readers and writers keep a fixed pace, the same in both kinds of rounds. A ratio is the median over pairs of
rounds of the ratio within a pair. Prints a table; fails if a request failed, if a job never did anything, or if
maintenance costs more than it may: p99 of reads 1.25x, throughput 0.9x.
"""

import argparse
import array
import base64
import http.client
import json
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from memory import BASE, OCHRE, Client, resident, wait_for  # noqa: E402

import subprocess  # noqa: E402

# Every job that is on by default, as often as it can have something to do.
INTERVALS = {
    "index-sync": "1s", "index-rebuild": "5s", "memory": "5s", "compact": "3s", "vacuum": "5s", "checkpoint": "3s",
    "log-prune": "3s", "sweep": "3s", "erase": "30s", "optimize": "10s", "orphans": "5s", "check": "30s",
    "history-prune": "10s", "backup": "30s", "backup-incremental": "10s", "backup-retention": "30s", "backup-verify": "30s",
}
KNOBS = {
    "log-prune": {"entries": 50}, "checkpoint": {"wal_bytes": 1 << 20}, "vacuum": {"free_share": 0.0},
    "index-rebuild": {"dead_share": 0.05}, "compact": {"dead_share": 0.1, "seal_bytes": 4 << 20},
    "memory": {"idle_unload": "2s"}, "backup-retention": {"chains": 2}, "index-sync": {"tail_age": "2s"},
}


def configuration(folder):
    lines = [f'[backup]\ntarget = "{folder / "backups"}"\n']
    for job, interval in INTERVALS.items():
        knobs = ", ".join(f"{name} = {json.dumps(value)}" for name, value in KNOBS.get(job, {}).items())
        lines.append(f'[jobs.{job}]\ninterval = "{interval}"\nknobs = {{ {knobs} }}\n')
    return "\n".join(lines)


def plant(folder):
    """What a process leaves that dies while it writes the index of a collection that is deleted then."""
    stray = folder / "data" / "cache" / str(uuid.uuid4())
    stray.mkdir(parents=True)
    (stray / "graph.writing").write_bytes(bytes(1 << 20))


class Load:
    """Readers and writers at a fixed pace; each keeps its own connection."""

    def __init__(self, port, given):
        self.port, self.given = port, given
        self.rng = random.Random(3)
        pool = array.array("f", (self.rng.gauss(0, 1) for _ in range(given.dimension * 4096)))
        row = given.dimension * 4
        self.encoded = [base64.b64encode(pool.tobytes()[at * row : (at + 1) * row]).decode() for at in range(4096)]
        self.queries = [pool[at * given.dimension : (at + 1) * given.dimension].tolist() for at in range(200)]
        client = Client(port)
        self.main = client.post(BASE, {"name": "main", "get_or_create": True})["id"]
        for first in range(0, given.records, 1000):
            client.post(f"{BASE}/{self.main}/upsert", self.batch(range(first, first + 1000)))
        self.errors, self.latencies, self.writes = [], [], 0
        self.stop = threading.Event()

    def batch(self, numbers, salt=0):
        return {
            "ids": [str(number) for number in numbers],
            "embeddings": [self.encoded[(number * 7 + salt) % 4096] for number in numbers],
            "metadatas": [{"n": number % 100, "salt": salt} for number in numbers],
            "documents": [f"record {number} of round {salt}, with some words to fill a line or two " * 4 for number in numbers],
        }

    def paced(self, per_second, work):
        client, next_at = Client(self.port), time.monotonic()
        while not self.stop.is_set():
            next_at += 1 / per_second
            time.sleep(max(0, next_at - time.monotonic()))
            try:
                work(client)
            except Exception as error:  # noqa: BLE001
                self.errors.append(str(error))
                client = Client(self.port)

    def read(self, client):
        body = {"query_embeddings": [random.choice(self.queries)], "n_results": 10, "include": ["distances", "metadatas"]}
        if random.random() < 0.5:
            body["where"] = {"n": random.randrange(100)}
        began = time.perf_counter()
        client.post(f"{BASE}/{self.main}/query", body)
        self.latencies.append(time.perf_counter() - began)

    def write(self, client):
        kind, salt = random.random(), random.randrange(1 << 20)
        first = random.randrange(self.given.records - 50)
        if kind < 0.7:
            client.post(f"{BASE}/{self.main}/upsert", self.batch(range(first, first + 50), salt))
        elif kind < 0.85:
            client.post(f"{BASE}/{self.main}/delete", {"ids": [str(number) for number in range(first, first + 50)]})
        elif kind < 0.975:
            client.post(f"{BASE}/{self.main}/update", {"ids": [str(first)], "metadatas": [{"salt": salt}]})
        else:
            name = f"passing-{salt}"
            made = client.post(BASE, {"name": name})["id"]
            # Large enough that its end leaves free pages worth giving back.
            for first in range(0, 2500, 500):
                client.post(f"{BASE}/{made}/add", self.batch(range(first, first + 500), salt))
            client.connection.request("DELETE", f"{BASE}/{name}")
            client.connection.getresponse().read()
        self.writes += 1

    def round(self, seconds):
        self.latencies, self.writes, self.stop = [], 0, threading.Event()
        given = self.given
        threads = [threading.Thread(target=self.paced, args=(given.reads / 2, self.read)) for _ in range(2)]
        threads.append(threading.Thread(target=self.paced, args=(given.writes, self.write)))
        [thread.start() for thread in threads]
        time.sleep(seconds)
        self.stop.set()
        [thread.join() for thread in threads]
        ordered = sorted(self.latencies)
        at = lambda share: ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000
        return {"p50": at(0.5), "p99": at(0.99), "throughput": (len(ordered) + self.writes) / seconds}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--round", type=float, default=30, help="seconds of a round")
    arguments.add_argument("--records", type=int, default=20_000)
    arguments.add_argument("--dimension", type=int, default=384)
    arguments.add_argument("--reads", type=float, default=150, help="reads a second")
    arguments.add_argument("--writes", type=float, default=4, help="writes a second, of 50 records mostly")
    arguments.add_argument("--port", type=int, default=8458)
    arguments.add_argument("--json")
    given = arguments.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ochre-soak-"))
    (folder / "ochre.toml").write_text(configuration(folder))
    command = [OCHRE, "run", "--path", folder / "data", "--port", str(given.port), "--config", folder / "ochre.toml"]
    server = subprocess.Popen(command, stderr=open(folder / "log", "w"))
    try:
        wait_for(given.port)
        admin = Client(given.port)

        def ask(path):
            admin.connection.request("GET", path)
            return json.loads(admin.connection.getresponse().read())

        load = Load(given.port, given)
        load.round(10)
        pairs, sizes = [], []
        for number in range(max(1, int(given.minutes * 60 / given.round / 2))):
            pair = {}
            # The order alternates, so that whatever a round leaves behind hits both kinds alike.
            for kind in ("on", "off") if number % 2 else ("off", "on"):
                for job in INTERVALS:
                    admin.post(f"/_admin/jobs/{job}/{'resume' if kind == 'on' else 'pause'}", None)
                if kind == "off":
                    while any(job["state"] in ("running", "waiting") for job in ask("/_admin/jobs")["jobs"]):
                        time.sleep(0.2)
                if kind == "on":
                    plant(folder)
                pair[kind] = load.round(given.round)
            pairs.append(pair)
            disk = sum(file.stat().st_size for file in (folder / "data").rglob("*") if file.is_file())
            sizes.append({"resident_mb": resident(server.pid) / 2**20, "disk_mb": disk / 2**20})
            print(number, {kind: {k: round(v, 2) for k, v in r.items()} for kind, r in pair.items()}, sizes[-1], file=sys.stderr)
        ratio = lambda key: statistics.median(pair["on"][key] / pair["off"][key] for pair in pairs)
        jobs = {}
        for job in INTERVALS:
            runs = ask(f"/_admin/jobs/{job}?history=1000")["history"]
            jobs[job] = {
                "succeeded": sum(run["status"] == "succeeded" for run in runs),
                "failed": sum(run["status"] in ("failed", "timed-out", "lost") for run in runs),
                "last": next((run["message"] for run in runs), None),
                "failures": [run["message"] for run in runs if run["status"] in ("failed", "timed-out", "lost")][:5],
            }
        report = {
            "pairs": len(pairs), "round_seconds": given.round, "errors": len(load.errors), "first_error": load.errors[:1],
            "p99_ratio": round(ratio("p99"), 3), "p50_ratio": round(ratio("p50"), 3),
            "throughput_ratio": round(ratio("throughput"), 3),
            "p99_off_ms": round(statistics.median(pair["off"]["p99"] for pair in pairs), 2),
            "resident_mb": [round(size["resident_mb"]) for size in sizes], "disk_mb": [round(size["disk_mb"]) for size in sizes],
            "jobs": jobs,
        }
        if given.json:
            pathlib.Path(given.json).write_text(json.dumps(report, indent=2) + "\n")
        print(f"| p99 of reads | {report['p99_ratio']}x |\n| throughput | {report['throughput_ratio']}x |\n| errors | {report['errors']} |")
        for job, counted in jobs.items():
            print(f"| {job} | {counted['succeeded']} runs, {counted['failed']} failed: {counted['last']} |")
            print("".join(f"failed: {message}\n" for message in counted["failures"]), end="")
        fine = not load.errors and report["p99_ratio"] <= 1.25 and report["throughput_ratio"] >= 0.9
        return 0 if fine and all(counted["failed"] == 0 for counted in jobs.values()) else 1
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
