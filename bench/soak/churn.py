"""Churn: inserts and deletes the same records ten times, gives no command, waits, and compares disk, memory and the
length of the log with those of a freshly loaded database.

    python bench/soak/churn.py [--data FOLDER] [--count N] [--peer]

With `--peer` Chroma's server does the same beside it (needs `chromadb` in this Python). Fails if Ochre ends above
1.3 times of fresh. Waits for four minutes, and until disk and memory were the same for one, five minutes at most.
"""

import argparse
import contextlib
import json
import pathlib
import sqlite3
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "compare"), str(HERE.parents[1] / "conformance/python")]
import chromadb  # noqa: E402
import data  # noqa: E402
import psutil  # noqa: E402
from server import Server  # noqa: E402

BATCH = 1000


def disk(server):
    return sum(file.stat().st_blocks * 512 for file in pathlib.Path(server.data).rglob("*") if file.is_file())


def log_entries(server):
    """Entries of Ochre's log, read beside the server."""
    path = pathlib.Path(server.data) / "ochre.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*) FROM log").fetchone()[0]


def settle(server):
    """Waits until nothing changes any more; bytes on disk, and resident bytes."""
    measure = lambda: {"disk": disk(server), "resident": psutil.Process(server.process.pid).memory_info().rss}
    began, since, last = time.time(), time.time(), measure()
    # Some jobs only begin once nothing was written for minutes.
    while time.time() - began < 240 or (time.time() - since < 60 and time.time() - began < 300):
        time.sleep(1)
        now = measure()
        if any(abs(now[part] - last[part]) > 1 << 20 for part in now):
            since, last = time.time(), now
    return measure()


def fill(collection, records, vectors):
    for first in range(0, len(records), BATCH):
        part = records[first : first + BATCH]
        collection.add(
            ids=[record["id"] for record in part],
            embeddings=vectors[first : first + BATCH],
            documents=[record["document"] for record in part],
            metadatas=[record["metadata"] for record in part],
        )


def churn(kind, records, vectors, rounds):
    measured = {}
    server = Server(kind).start()
    try:
        collection = chromadb.HttpClient(host="127.0.0.1", port=server.port).create_collection("churned", embedding_function=None)
        fill(collection, records, vectors)
        # The index is built, and asked once, as it is in use.
        collection.query(query_embeddings=vectors[:1], n_results=10)
        measured["fresh"] = settle(server)
        if kind == "ochre":
            measured["fresh"]["log"] = log_entries(server)
        ids = [record["id"] for record in records]
        for _ in range(rounds):
            for first in range(0, len(ids), 5000):
                collection.delete(ids=ids[first : first + 5000])
            fill(collection, records, vectors)
        collection.query(query_embeddings=vectors[:1], n_results=10)
        measured["churned"] = settle(server)
        if kind == "ochre":
            measured["churned"]["log"] = log_entries(server)
        # A log of a few entries is short whatever it is compared with.
        ratio = lambda part: max(measured["churned"][part], 100) / max(measured["fresh"][part], 100)
        measured["ratio"] = {part: round(ratio(part), 2) for part in measured["fresh"]}
    finally:
        server.remove()
    return measured


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", help="a folder of real records, as for the comparisons; generated ones without it")
    arguments.add_argument("--count", type=int, default=60_000)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--peer", action="store_true")
    given = arguments.parse_args()
    records, vectors = data.read(given.data) if given.data else data.invented(given.count)
    records, vectors = records[: given.count], vectors[: given.count]
    report = {}
    for kind in ["ochre", *(["chroma"] if given.peer else [])]:
        report[kind] = churn(kind, records, vectors, given.rounds)
        print(json.dumps({kind: report[kind]}, indent=2), flush=True)
    return 0 if max(report["ochre"]["ratio"].values()) <= 1.3 else 1


if __name__ == "__main__":
    sys.exit(main())
