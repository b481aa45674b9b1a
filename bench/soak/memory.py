"""Many collections under a small memory limit: fills them, queries all of them again and again, and samples the
server's resident memory meanwhile. Prints one JSON line; fails if the limit is not kept or an answer is wrong.

    python bench/soak/memory.py --collections 1000 --records 2000 --dimension 384 --limit-mb 256
"""

import argparse
import array
import base64
import http.client
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

OCHRE = pathlib.Path(os.environ.get("OCHRE_BIN", pathlib.Path(__file__).resolve().parents[2] / "target/release/ochre"))
BASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def post(self, path, body):
        self.connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {answer.status} {text[:300]!r}")
        return json.loads(text or b"null")


def resident(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def sample(pid, peaks, stop):
    while not stop.is_set():
        peaks.append(resident(pid))
        time.sleep(0.02)


def wait_for(port):
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/api/v2/heartbeat")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not answer")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--collections", type=int, default=1000)
    arguments.add_argument("--records", type=int, default=2000)
    arguments.add_argument("--dimension", type=int, default=384)
    arguments.add_argument("--limit-mb", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--port", type=int, default=8457)
    arguments.add_argument("--path", help="keep the database here, and use it if it is there")
    given = arguments.parse_args()
    limit = given.limit_mb << 20
    folder = pathlib.Path(given.path or tempfile.mkdtemp(prefix="ochre-memory-"))
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "ochre.toml"
    config.write_text(f"[memory]\nlimit_bytes = {limit}\n")
    command = [OCHRE, "run", "--path", folder / "data", "--port", str(given.port), "--config", config]
    server = subprocess.Popen(command, stderr=open(folder / "log", "w"))
    peaks, stop = [], threading.Event()
    try:
        wait_for(given.port)
        threading.Thread(target=sample, args=(server.pid, peaks, stop), daemon=True).start()
        client = Client(given.port)
        rng = random.Random(5)
        began, ids = time.time(), []
        # One pool of floats for all: what is measured is the server.
        pool = array.array("f", (rng.gauss(0, 1) for _ in range(given.dimension * 4096)))
        row = given.dimension * 4
        encoded = [base64.b64encode(pool.tobytes()[at * row : (at + 1) * row]).decode() for at in range(4096)]
        for number in range(given.collections):
            made = client.post(BASE, {"name": f"collection-{number}", "get_or_create": True})
            ids.append(made["id"])
            picks = [(number * 37 + record * 11) % 4096 for record in range(given.records)]
            client.post(
                f"{BASE}/{made['id']}/upsert",
                {
                    "ids": [str(record) for record in range(given.records)],
                    "embeddings": [encoded[pick] for pick in picks],
                    "metadatas": [{"n": record} for record in range(given.records)],
                },
            )
        filled = time.time() - began
        peak_filling = max(peaks)
        peaks.clear()
        began, queries, wrong = time.time(), 0, 0
        for _ in range(given.rounds):
            for number in rng.sample(range(given.collections), given.collections):
                record = rng.randrange(given.records)
                pick = (number * 37 + record * 11) % 4096
                query = pool[pick * given.dimension : (pick + 1) * given.dimension].tolist()
                answer = client.post(
                    f"{BASE}/{ids[number]}/query", {"query_embeddings": [query], "n_results": 3, "include": ["distances"]}
                )
                queries += 1
                wrong += answer["distances"][0][0] > 1e-3
        asked = time.time() - began
        stop.set()
        report = {
            "collections": given.collections,
            "records": given.collections * given.records,
            "limit_mb": given.limit_mb,
            "fill_seconds": round(filled, 1),
            "peak_filling_mb": round(peak_filling / 2**20, 1),
            "queries": queries,
            "queries_per_second": round(queries / asked, 1),
            "peak_querying_mb": round(max(peaks) / 2**20, 1),
            "wrong": wrong,
            "segments_mb": round(sum(f.stat().st_size for f in (folder / "data/segments").iterdir()) / 2**20, 1),
        }
        print(json.dumps(report))
        return 0 if not wrong and max(peak_filling, max(peaks)) <= limit else 1
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
