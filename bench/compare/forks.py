"""What a fork of a large collection takes, beside copying its records through the client.

    python forks.py [--count N] [--dimension N] [--forks N] [--copied N] [--json FILE]

One collection of random clustered vectors with metadata and short documents; measured once all vectors are in the graph.
A fork is measured as the official client sees it; disk is what the files of the database take (hard links count once),
memory is the server's private memory. What one fork takes is the median over forks; a record is then written to each.
"""

import argparse
import json
import pathlib
import statistics
import time

import chromadb
import numpy as np

import report
from server import Server

BATCH = 5000


def vectors(random, count, dimension):
    centres = random.standard_normal((200, dimension), dtype=np.float32)
    return centres[random.integers(0, 200, count)] + 0.3 * random.standard_normal((count, dimension), dtype=np.float32)


def disk(folder):
    """Bytes on disk of a folder; a file that has two names counts once."""
    files = {}
    for path in pathlib.Path(folder).rglob("*"):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        files[found.st_ino] = found.st_blocks * 512
    return sum(files.values())


def memory(server):
    """Bytes of private memory of the server."""
    lines = pathlib.Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def settle(server, collection):
    """Waits until all vectors are in the graph, and nothing is written any more."""
    before = None
    while True:
        status, now = collection.get_indexing_status(), disk(server.data)
        if status.num_unindexed_ops == 0 and now == before:
            return
        before = now
        time.sleep(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--forks", type=int, default=20)
    parser.add_argument("--copied", type=int, default=20_000, help="records that are copied, to be scaled")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    random = np.random.default_rng(7)
    server = Server("ochre").start()
    try:
        client = chromadb.HttpClient(host="127.0.0.1", port=server.port)
        source = client.create_collection("source", embedding_function=None)
        for first in range(0, arguments.count, BATCH):
            count = min(BATCH, arguments.count - first)
            numbers = range(first, first + count)
            source.add(
                ids=[f"record-{number}" for number in numbers],
                embeddings=vectors(random, count, arguments.dimension),
                metadatas=[{"number": number, "kind": f"kind-{number % 10}"} for number in numbers],
                documents=[f"what record {number} is about" for number in numbers],
            )
        settle(server, source)
        took, on_disk, in_memory, forks = [], [], [], []
        for number in range(arguments.forks):
            before = disk(server.data), memory(server)
            began = time.perf_counter()
            forks.append(source.fork(f"fork-{number}"))
            took.append(time.perf_counter() - began)
            assert forks[-1].count() == source.count()
            on_disk.append(disk(server.data) - before[0])
            in_memory.append(memory(server) - before[1])
        query = vectors(random, 1, arguments.dimension)
        assert all(fork.query(query)["ids"] == source.query(query)["ids"] for fork in forks), "they answer alike"
        diverged = []
        for fork in forks:
            began = time.perf_counter()
            fork.upsert(ids=["record-1"], embeddings=query, documents=["changed"])
            diverged.append(time.perf_counter() - began)
        assert source.get("record-1")["documents"] == ["what record 1 is about"]
        began, copied = time.perf_counter(), client.create_collection("copied", embedding_function=None)
        for first in range(0, arguments.copied, BATCH):
            page = source.get(limit=BATCH, offset=first, include=["embeddings", "metadatas", "documents"])
            copied.add(page["ids"], page["embeddings"], page["metadatas"], page["documents"])
        copying = (time.perf_counter() - began) * arguments.count / arguments.copied
        result = {
            "records": arguments.count, "dimension": arguments.dimension, "forks": arguments.forks,
            "fork_ms": statistics.median(took) * 1e3, "fork_ms_max": max(took) * 1e3,
            "disk_bytes": statistics.median(on_disk), "memory_bytes": statistics.median(in_memory),
            "first_write_ms": statistics.median(diverged) * 1e3, "copying_seconds": copying, "machine": report.machine(),
        }
        rows = [
            [f"fork of {arguments.count:,} records", f"{result['fork_ms']:.1f} ms (largest {result['fork_ms_max']:.1f})"],
            ["disk of a fork", f"{result['disk_bytes'] / 2**20:.2f} MiB"],
            ["memory of a fork", f"{result['memory_bytes'] / 2**20:.2f} MiB"],
            ["first write to a fork", f"{result['first_write_ms']:.1f} ms"],
            ["copying as many records with the client", f"{copying:.0f} s, {copying * 1e3 / result['fork_ms']:,.0f}x"],
        ]
        print(report.table(["what", "takes"], rows))
        if arguments.json:
            pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    finally:
        server.remove()


if __name__ == "__main__":
    main()
