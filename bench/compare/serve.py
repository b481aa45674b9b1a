"""Ochre against Chroma's own server, over HTTP: the same records, the same load generator, in turn.

    python serve.py [--data FOLDER] [--rounds N] [--seconds N] [--only-ochre] [--json FILE] [--svg FILE]

Both servers run at once, on ports of their own, and are asked one after the other: each round runs every
workload on one, then on the other. A ratio is the median over rounds of the ratio within a round. Records go
in through the official Python client; requests are replayed by `wrk` over 4 connections kept alive. The
ceilings of both, against a server that only reads and answers two bytes, stand beside the results.
"""

import argparse
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import chromadb
import numpy as np

import data
import report
from server import Server

BATCH, K = 1000, 10
NOTHING = data.ROOT / "target/release/ochre-bench-nothing"
PATH = "/api/v2/tenants/default_tenant/databases/default_database/collections"
SCRIPT = """
local requests, next_one = {}, 0
function init(arguments)
  for line in io.lines("%s") do
    requests[#requests + 1] = wrk.format("POST", "%s", {["Content-Type"] = "application/json"}, line)
  end
end
function request()
  next_one = next_one + 1
  return requests[next_one %% #requests + 1]
end
"""


class Replay:
    """A list of request bodies that `wrk` sends to a server over and over."""

    def __init__(self, folder, name, path, bodies):
        self.script = folder / f"{name}.lua"
        lines = folder / f"{name}.jsonl"
        lines.write_text("\n".join(json.dumps(body, separators=(",", ":")) for body in bodies))
        self.script.write_text(SCRIPT % (lines, path))

    def run(self, port, seconds, connections=4):
        """Requests a second, and the 50th and 99th percentile of latency in milliseconds."""
        call = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30s", "--latency", "-s", self.script]
        output = subprocess.run([*call, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
        assert "Non-2xx" not in output and "Socket errors" not in output, output
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1))
        if not rate:  # nothing was answered in that time; a slow server gets more
            return self.run(port, 4 * seconds, connections)
        units = {"us": 1e-3, "ms": 1.0, "s": 1e3}
        at = lambda mark: [float(n) * units[u] for n, u in re.findall(mark + r"%\s+([\d.]+)(us|ms|s)\b", output)][0]
        return rate, at("50"), at("99")


def filters(records):
    """Filters by name, each with what it means; keys and operands are taken from the records."""
    metadatas = [record["metadata"] for record in records]
    count = len(metadatas)
    sections = {}
    for metadata in metadatas:
        sections[metadata["section"]] = sections.get(metadata["section"], 0) + 1
    close_to = lambda share: min(sections, key=lambda section: abs(sections[section] - share * count))
    sizes = np.sort([metadata["size"] for metadata in metadatas])
    above = lambda share: int(sizes[int(count * (1 - share))])
    maintainers = sorted({metadata["maintainer"] for metadata in metadatas})[:1000]
    one, ten = close_to(0.01), close_to(0.1)
    return {
        "equality, 1 %": ({"section": one}, lambda m: m["section"] == one),
        "equality, 10 %": ({"section": ten}, lambda m: m["section"] == ten),
        "range, 1 %": ({"size": {"$gt": above(0.01)}}, lambda m: m["size"] > above(0.01)),
        "range, 10 %": ({"size": {"$gt": above(0.1)}}, lambda m: m["size"] > above(0.1)),
        "range, 50 %": ({"size": {"$gt": above(0.5)}}, lambda m: m["size"] > above(0.5)),
        "and / or": (
            {"$and": [{"size": {"$gt": above(0.5)}}, {"$or": [{"section": ten}, {"ndeps": {"$lt": 3}}]}]},
            lambda m: m["size"] > above(0.5) and (m["section"] == ten or m["ndeps"] < 3),
        ),
        "$in, 1000 values": ({"maintainer": {"$in": maintainers}}, lambda m: m["maintainer"] in set(maintainers)),
    }


def workloads(records, queries):
    """Operation and request bodies by name."""
    chance = np.random.default_rng(5)
    shown = ["metadatas", "documents", "distances"]
    search = lambda extra: [{"query_embeddings": [[float(x) for x in q]], "n_results": K, "include": shown, **extra} for q in queries[:300]]
    found = {"query": ("query", search({}))}
    for name, (where, _) in filters(records).items():
        found[f"query, {name}"] = ("query", search({"where": where}))
    ids = [record["id"] for record in records]
    parts = {"include": ["metadatas", "documents"]}
    hundred = [{"ids": [ids[i] for i in chance.choice(len(ids), 100, replace=False)], **parts} for _ in range(100)]
    found["get 100 ids"] = ("get", hundred)
    where = filters(records)["equality, 1 %"][0]
    found["get with filter, limit 100"] = ("get", [{"where": where, "limit": 100, **parts}])
    words = [word for record in records[:2000] for word in record["document"].split() if len(word) > 5]
    chosen = [re.sub(r"\W", "", words[i]) for i in chance.choice(len(words), 40)]
    found["$contains, limit 10"] = ("get", [{"where_document": {"$contains": w}, "limit": 10, **parts} for w in chosen if w])
    patterns = [f"{w[:3]}[a-z]+{w[-2:]}" for w in chosen if len(w) > 5]
    found["$regex, limit 10"] = ("get", [{"where_document": {"$regex": p}, "limit": 10, **parts} for p in patterns])
    return found


def fill(client, records, vectors, name="bench"):
    """A new collection, and the seconds that adding all records took."""
    collection = client.create_collection(name, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)
    begun = time.perf_counter()
    for start in range(0, len(records), BATCH):
        part = records[start : start + BATCH]
        collection.add(
            ids=[record["id"] for record in part],
            embeddings=vectors[start : start + BATCH],
            documents=[record["document"] for record in part],
            metadatas=[record["metadata"] for record in part],
        )
    return collection, time.perf_counter() - begun


def settle(collection):
    """Waits until indexing is done. Chroma's single node does not say, so it is given a while."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        try:
            if collection.get_indexing_status().num_unindexed_ops < 1000:
                return
        except Exception:
            time.sleep(10)
            return
        time.sleep(0.2)


def ingest(servers, records, vectors, rounds):
    """Records a second that each server took in, in turn, round after round; each time into a new collection."""
    taken = {kind: [] for kind in servers}
    for number in range(rounds):
        for kind in servers if number % 2 else reversed(list(servers)):
            client = chromadb.HttpClient(host="127.0.0.1", port=servers[kind].port)
            collection, seconds = fill(client, records, vectors, "again")
            taken[kind].append(len(records) / seconds)
            settle(collection)
            client.delete_collection("again")
    return taken


def ceiling(records, vectors, folder, queries):
    """What the clients can do against a server that does nothing: records a second, requests a second."""
    process = subprocess.Popen([NOTHING], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())
        client = chromadb.HttpClient(host="127.0.0.1", port=port)
        _, seconds = fill(client, records, vectors)
        bodies = workloads(records, queries)["query"][1]
        rate, _, _ = Replay(folder, "nothing", "/", bodies).run(port, 3)
        return len(records) / seconds, rate
    finally:
        process.kill()
        process.wait()


def quality(collection, records, vectors, queries, where=None, keep=None):
    """Recall@10 on 100 queries, by id."""
    kept = None if keep is None else np.array([keep(record["metadata"]) for record in records])
    truth = data.nearest(vectors, queries[:100], K, "cosine", kept)
    found = collection.query(query_embeddings=queries[:100], n_results=K, where=where, include=[])["ids"]
    assert all(len(ids) == K for ids in found), "exactly min(k, matches)"
    expected = [{records[i]["id"] for i in row} for row in truth]
    return sum(len(set(ids) & wanted) for ids, wanted in zip(found, expected)) / truth.size


def resident(pid):
    """Resident megabytes, and those not backed by files."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    kib = lambda key: int(re.search(key + r":\s+(\d+) kB", status).group(1))
    return kib("VmRSS") / 1e3, kib("RssAnon") / 1e3


def disk(folder):
    return sum(f.stat().st_blocks * 512 for f in pathlib.Path(folder).rglob("*") if f.is_file()) / 1e6


def restart(server, queries):
    """Seconds from starting the process to its first answer."""
    server.stop()
    begun = time.perf_counter()
    server.start()
    collection = chromadb.HttpClient(host="127.0.0.1", port=server.port).get_collection("bench", embedding_function=None)
    collection.query(query_embeddings=queries[:1], n_results=K)
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each workload in each round")
    parser.add_argument("--only-ochre", action="store_true")
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        parser.error("the load generator wrk is not installed; Debian: apt-get install wrk")

    records, vectors, queries = data.records(arguments)
    kinds = ["ochre"] if arguments.only_ochre else ["ochre", "chroma"]
    result = {"machine": report.machine(), "records": len(records), "dimension": vectors.shape[1]}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ochre-bench-"))
    servers = {kind: Server(kind).start() for kind in kinds}
    try:
        print(f"{len(records):,} records of {vectors.shape[1]} dimensions, {arguments.rounds} rounds", flush=True)
        result["client ceiling"], result["generator ceiling"] = ceiling(records, vectors, folder, queries)
        settled, collections, taken = {}, {}, {}
        for kind, server in servers.items():
            client = chromadb.HttpClient(host="127.0.0.1", port=server.port)
            begun = time.perf_counter()
            collections[kind], _ = fill(client, records, vectors)  # warms up for the rounds of ingest, too
            settle(collections[kind])
            settled[kind] = {"until indexed, s": time.perf_counter() - begun}
        asked = workloads(records, queries)
        for kind, collection in collections.items():
            settled[kind]["recall@10"] = quality(collection, records, vectors, queries)
            for name, (where, keep) in filters(records).items():
                settled[kind][f"recall@10, {name}"] = quality(collection, records, vectors, queries, where, keep)
        replays = {
            kind: {name: Replay(folder, f"{kind}-{number}", f"{PATH}/{collection.id}/{operation}", bodies)
                   for number, (name, (operation, bodies)) in enumerate(asked.items())}
            for kind, collection in collections.items()
        }
        for name in asked:
            taken[name] = {kind: [] for kind in kinds}
            for number in range(arguments.rounds + 1):
                for kind in kinds if number % 2 else reversed(kinds):
                    measured = replays[kind][name].run(servers[kind].port, arguments.seconds)
                    if number > 0:  # the first round warms up
                        taken[name][kind].append(measured)
            print(f"  {name}: " + ", ".join(f"{k} {statistics.median(r[0] for r in taken[name][k]):,.0f}/s" for k in kinds), flush=True)
        time.sleep(15)
        for kind, server in servers.items():
            settled[kind]["resident, MB"], settled[kind]["resident without files, MB"] = resident(server.process.pid)
            settled[kind]["disk, MB"] = disk(server.data)
            settled[kind]["restart to first answer, s"] = statistics.median(restart(server, queries) for _ in range(3))
        result["ingest"] = ingest(servers, records, vectors, arguments.rounds)
    finally:
        for server in servers.values():
            server.remove()
        shutil.rmtree(folder, ignore_errors=True)
    result["settled"], result["requests"] = settled, taken
    show(result, kinds)
    report.save(arguments, result, lambda path: report.bars(
        path, {name: ratio(rounds, 0) for name, rounds in taken.items()}, "requests a second, times Chroma's"))


def paired(ours, theirs):
    """The median over rounds of the ratio within a round."""
    return statistics.median(one / other for one, other in zip(ours, theirs))


def ratio(rounds, what):
    """The same for one of the numbers that a round measured."""
    return paired(*([measured[what] for measured in rounds[kind]] for kind in ("ochre", "chroma")))


def show(result, kinds):
    print(f"\nThe client could send {result['client ceiling']:,.0f} records/s to a server that does nothing, "
          f"the load generator {result['generator ceiling']:,.0f} queries/s.\n")
    rows = []
    for name, rounds in result["requests"].items():
        middle = lambda kind, what: statistics.median(measured[what] for measured in rounds[kind])
        row = [name, *(f"{middle(kind, 0):,.0f}" for kind in kinds), *(f"{middle(kind, 2):.1f}" for kind in kinds)]
        if len(kinds) == 2:
            row += [f"{ratio(rounds, 0):.1f}x", f"1/{1 / ratio(rounds, 2):.1f}"]
        rows.append(row)
    head = ["over HTTP, 4 connections", *(f"{kind}, requests/s" for kind in kinds), *(f"{kind}, p99 ms" for kind in kinds)]
    print(report.table(head + (["throughput", "p99"] if len(kinds) == 2 else []), rows))
    rows = [["ingest, records/s", *(f"{statistics.median(result['ingest'][kind]):,.0f}" for kind in kinds)]]
    if len(kinds) == 2:
        rows[-1].append(f"{paired(*result['ingest'].values()):.2f}x")
    for name in result["settled"]["ochre"]:
        values = [result["settled"][kind][name] for kind in kinds]
        rows.append([name, *(f"{value:,.3f}" if value < 10 else f"{value:,.0f}" for value in values)])
        if len(kinds) == 2:
            rows[-1].append(f"{values[0] / values[1]:.2f}x")
    print()
    print(report.table(["", *kinds] + (["Ochre's is"] if len(kinds) == 2 else []), rows))


if __name__ == "__main__":
    main()
