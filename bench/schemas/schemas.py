"""What schemas cost and what introspection takes, on one server.

    python bench/schemas/schemas.py [--data FOLDER] [--million] [--peer] [--json FILE]

Writes: the same batches into a collection without a schema and into one with ten declared keys, in turn; the ratio is the
median over rounds. Introspection: fast and full, against reading all metadata through the official client and counting
in Python; with `--peer` also from Chroma's server. `--million` adds a collection of 1,000,000 records with 20 keys: full introspection, the server's resident memory
meanwhile, and fast introspection against that of 10,000 records. Fails if a bound is broken: writes 1.10x, counting
100x slower than fast introspection, a million records in 3 seconds.
"""

import argparse
import base64
import collections
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "soak"), str(HERE.parent / "compare"), str(HERE.parents[1] / "conformance/python")]
import chromadb  # noqa: E402
import data  # noqa: E402
import numpy as np  # noqa: E402
from server import Server  # noqa: E402
from memory import BASE, OCHRE, Client, resident, sample, wait_for  # noqa: E402

SCHEMA = {
    "k0": {"type": "int", "min": 0, "required": True}, "k1": {"type": "int", "max": 1_000_000},
    "k2": {"type": "float", "min": 0}, "k3": "float", "k4": {"type": "string", "max_length": 100},
    "k5": {"type": "string", "pattern": "^name"}, "k6": {"type": "string", "enum": [f"v{n}" for n in range(20)]},
    "k7": "bool", "k8": {"type": "list[string]", "max_items": 10}, "k9": {"type": "date"},
}


def record(n):
    return {
        "k0": n, "k1": n % 1000, "k2": n / 4, "k3": n * 0.5, "k4": f"some text of record {n}", "k5": f"name {n % 5000}",
        "k6": f"v{n % 20}", "k7": n % 2 == 0, "k8": ["a", f"b{n % 7}"], "k9": f"2026-{n % 12 + 1:02}-{n % 28 + 1:02}",
    }


def get(client, path):
    began = time.perf_counter()
    client.connection.request("GET", path)
    answer = client.connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text[:300]
    return time.perf_counter() - began, json.loads(text)


def introspect(client, name, rounds=20, **parameters):
    query = "&".join(f"{key}={value}" for key, value in parameters.items())
    taken = [get(client, f"/api/v1/collections/{name}/introspect?{query}") for _ in range(rounds)]
    return statistics.median(seconds for seconds, _ in taken), taken[-1][1]


def writes(client, rounds=12, batch=1000, dimension=384):
    rows = np.random.default_rng(3).standard_normal((batch, dimension)).astype(np.float32)
    encoded = [base64.b64encode(row.tobytes()).decode() for row in rows]
    plain = client.post(BASE, {"name": "plain"})["id"]
    validated = client.post(BASE, {"name": "validated", "metadata": {"chroma:schema": SCHEMA}})["id"]
    ratios = []
    for number in range(rounds):
        seconds = {}
        order = [("plain", plain), ("validated", validated)]
        for name, id in order if number % 2 else reversed(order):
            began = time.perf_counter()
            for part in range(4):
                first = (number * 4 + part) * batch
                body = {"ids": [str(first + n) for n in range(batch)], "embeddings": encoded,
                        "metadatas": [record(first + n) for n in range(batch)]}
                client.post(f"{BASE}/{id}/add", body)
            seconds[name] = time.perf_counter() - began
        ratios.append(seconds["validated"] / seconds["plain"])
    return statistics.median(ratios[2:])


def count_in_python(collection, page=5000):
    """What people do today: every record's metadata through the client, counted by key, type and value."""
    types, values = collections.Counter(), collections.defaultdict(collections.Counter)
    for first in range(0, collection.count(), page):
        for metadata in collection.get(include=["metadatas"], limit=page, offset=first)["metadatas"]:
            for key, value in (metadata or {}).items():
                types[key, type(value).__name__] += 1
                values[key][str(value)] += 1
    return types


def by_hand(port, records, vectors):
    """Fills a collection through the official client; seconds to count it from outside."""
    collection = chromadb.HttpClient(host="127.0.0.1", port=port).create_collection("real", embedding_function=None)
    for first in range(0, len(records), 1000):
        part = records[first : first + 1000]
        collection.add(ids=[r["id"] for r in part], embeddings=vectors[first : first + 1000], metadatas=[r["metadata"] for r in part])
    began = time.perf_counter()
    count_in_python(collection)
    return time.perf_counter() - began


def counting(port, client, records, vectors, with_peer):
    taken = {"python_s": by_hand(port, records, vectors)}
    if with_peer:
        peer = Server("chroma").start()
        try:
            taken["python_chroma_s"] = by_hand(peer.port, records, vectors)
        finally:
            peer.remove()
    fast, _ = introspect(client, "real", mode="fast")
    full, report = introspect(client, "real", mode="full")
    assert report["records"] == len(records)
    ratios = {f"{name}_over_{mode}": round(seconds / took) for name, seconds in taken.items() for mode, took in (("fast", fast), ("full", full))}
    return {"records": len(records), "keys": len(report["keys"]), "fast_ms": round(fast * 1e3, 2), "full_ms": round(full * 1e3, 1),
            **{name: round(seconds, 2) for name, seconds in taken.items()}, **ratios}


def million(client, pid, count=1_000_000, batch=5000):
    encoded = base64.b64encode(np.zeros(2, np.float32).tobytes()).decode()
    ids = {name: client.post(BASE, {"name": name})["id"] for name in ("million", "small")}
    for name, records in (("small", 10_000), ("million", count)):
        for first in range(0, records, batch):
            metadatas = [{**record(n), **{f"x{key}": (n * key) % 997 for key in range(10)}} for n in range(first, first + batch)]
            body = {"ids": [str(n) for n in range(first, first + batch)], "embeddings": [encoded] * batch, "metadatas": metadatas}
            client.post(f"{BASE}/{ids[name]}/add", body)
    introspect(client, "small", rounds=2, mode="fast"), introspect(client, "million", rounds=2, mode="fast")
    fast = {name: introspect(client, name, rounds=50, mode="fast")[0] for name in ids}
    before, peaks, stop = resident(pid), [], threading.Event()
    thread = threading.Thread(target=sample, args=(pid, peaks, stop))
    thread.start()
    full, report = introspect(client, "million", rounds=3, mode="full")
    stop.set()
    thread.join()
    assert report["records"] == count and len(report["keys"]) == 20
    return {"fast_ms": {name: round(seconds * 1e3, 2) for name, seconds in fast.items()}, "full_s": round(full, 2),
            "resident_mb": round(before / 2**20), "peak_mb": round(max(peaks) / 2**20)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data")
    arguments.add_argument("--count", type=int, default=60_000)
    arguments.add_argument("--million", action="store_true")
    arguments.add_argument("--peer", action="store_true")
    arguments.add_argument("--port", type=int, default=8461)
    arguments.add_argument("--json")
    given = arguments.parse_args()
    records, vectors = data.read(given.data) if given.data else data.invented(given.count)
    folder = tempfile.TemporaryDirectory(prefix="ochre-schemas-")
    server = subprocess.Popen([OCHRE, "run", "--path", folder.name, "--port", str(given.port)], stderr=subprocess.DEVNULL)
    try:
        wait_for(given.port)
        client = Client(given.port)
        result = {"writes_with_schema": round(writes(client), 3), "introspection": counting(given.port, client, records, vectors, given.peer)}
        if given.million:
            result["million"] = million(client, server.pid)
    finally:
        server.terminate()
        server.wait()
        folder.cleanup()
    print(json.dumps(result, indent=2))
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(result, indent=2) + "\n")
    fine = result["writes_with_schema"] <= 1.10 and result["introspection"]["python_s_over_fast"] >= 100
    return 0 if fine and result.get("million", {}).get("full_s", 0) <= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
