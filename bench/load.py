"""Loads records into Ochre and Chroma through the official client, measures both, prints the ratios.

    python load.py [--data FOLDER] [--only ochre|chroma] [--queries N] [--json FILE]
"""

import argparse
import gzip
import json
import multiprocessing
import pathlib
import platform
import statistics
import sys
import time

import chromadb
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance/python"))
from server import Server  # noqa: E402

BATCH = 1000
K = 10


def read(folder: str):
    """Ids, documents, metadata and unit embeddings of a data folder."""
    folder = pathlib.Path(folder)
    (lines,), (rows,) = list(folder.glob("*.jsonl.gz")), list(folder.glob("*.npy"))
    records = [json.loads(line) for line in gzip.open(lines, "rt")]
    vectors = np.load(rows).astype(np.float32)
    return [r["id"] for r in records], [r["document"] for r in records], [r["metadata"] for r in records], vectors


def invent(count: int = 20_000, dimension: int = 384):
    """A stand-in for real records: clustered unit vectors with sections, sizes and words."""
    chance = np.random.default_rng(7)
    centres = chance.standard_normal((200, dimension)).astype(np.float32)
    cluster = chance.integers(0, len(centres), count)
    vectors = centres[cluster] + 0.7 * chance.standard_normal((count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = [f"word{n}" for n in range(500)]
    documents = [" ".join(chance.choice(words, 8)) for _ in range(count)]
    metadatas = [
        {"section": f"s{cluster[i] % 40}", "size": int(chance.integers(0, 1_000_000)), "ndeps": int(chance.integers(0, 30))}
        for i in range(count)
    ]
    return [f"id{i}" for i in range(count)], documents, metadatas, vectors


def filters(metadatas):
    """Filters of different selectivity, each with what it means in Python."""
    sizes = np.array([m["size"] for m in metadatas])
    sections = {}
    for m in metadatas:
        sections[m["section"]] = sections.get(m["section"], 0) + 1
    one = min(sections, key=lambda s: abs(sections[s] - len(metadatas) // 100))
    ten = min(sections, key=lambda s: abs(sections[s] - len(metadatas) // 10))
    half = int(np.median(sizes))
    return {
        "equality, ~1 %": ({"section": one}, lambda m: m["section"] == one),
        "equality, ~10 %": ({"section": ten}, lambda m: m["section"] == ten),
        "range, 50 %": ({"size": {"$gt": half}}, lambda m: m["size"] > half),
        "and / or": (
            {"$and": [{"size": {"$gt": half}}, {"$or": [{"section": ten}, {"ndeps": {"$lt": 3}}]}]},
            lambda m: m["size"] > half and (m["section"] == ten or m["ndeps"] < 3),
        ),
    }


def resident(pid: int):
    """Resident bytes of a process, and the part that is not backed by files, from /proc."""
    status = dict(
        line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    kib = lambda key: int(status[key].split()[0]) * 1024
    return kib("VmRSS"), kib("RssAnon")


def disk(folder: str) -> int:
    return sum(f.stat().st_blocks * 512 for f in pathlib.Path(folder).rglob("*") if f.is_file())


def timed(call, rounds):
    """Milliseconds of each call."""
    taken = []
    for argument in rounds:
        start = time.perf_counter()
        call(argument)
        taken.append((time.perf_counter() - start) * 1000)
    return taken


def percentiles(taken):
    cut = statistics.quantiles(taken, n=100)
    return {"p50": cut[49], "p95": cut[94], "p99": cut[98]}


def recall(collection, vectors, queries, where=None, keep=None):
    allowed = np.arange(len(vectors)) if keep is None else np.flatnonzero(keep)
    distances = 1 - queries @ vectors[allowed].T
    hits = 0
    for row, query in zip(distances, queries):
        expected = {f"{allowed[i]}" for i in np.argpartition(row, K)[:K]}
        found = collection.query(query_embeddings=[query], n_results=K, where=where, include=[])["ids"][0]
        assert len(found) == min(K, len(allowed)), "exactly min(k, matches)"
        hits += len(expected & set(found))
    return hits / (K * len(queries))


def one_client(port, queries, seconds, done):
    collection = chromadb.HttpClient(host="127.0.0.1", port=port).get_collection("bench", embedding_function=None)
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        collection.query(query_embeddings=[queries[count % len(queries)]], n_results=K, include=["distances"])
        count += 1
    done.put(count / seconds)


def throughput(port, queries, clients=4, seconds=4.0):
    done = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=one_client, args=(port, queries, seconds, done)) for _ in range(clients)]
    for process in processes:
        process.start()
    total = sum(done.get() for _ in processes)
    for process in processes:
        process.join()
    return total


def wait_until_indexed(collection):
    """Ochre indexes in the background; answers are right meanwhile, but this measures the settled state."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        try:
            if collection.get_indexing_status().num_unindexed_ops < 1000:
                return
        except Exception:
            return
        time.sleep(0.2)


def measure(kind, data, count):
    _, documents, metadatas, vectors = data
    # Positions as ids: what was found is then easily compared with what should be.
    ids = [str(i) for i in range(len(vectors))]
    chance = np.random.default_rng(1)
    queries = vectors[chance.choice(len(vectors), count, replace=False)]
    queries = queries + 0.02 * chance.standard_normal(queries.shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    result = {}
    server = Server(kind).start()
    try:
        client = chromadb.HttpClient(host="127.0.0.1", port=server.port)
        collection = client.create_collection("bench", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)
        start = time.perf_counter()
        for i in range(0, len(ids), BATCH):
            part = slice(i, i + BATCH)
            collection.add(ids=ids[part], embeddings=vectors[part], documents=documents[part], metadatas=metadatas[part])
        result["ingest, records/s"] = len(ids) / (time.perf_counter() - start)
        wait_until_indexed(collection)
        result["until indexed, s"] = time.perf_counter() - start
        time.sleep(3)
        result["recall@10"] = recall(collection, vectors, queries)
        search = lambda q: collection.query(query_embeddings=[q], n_results=K, include=["distances"])
        timed(search, queries[:50])
        for name, value in percentiles(timed(search, queries)).items():
            result[f"query {name}, ms"] = value
        result["queries/s, 4 clients"] = throughput(server.port, queries)
        for name, (where, keep) in filters(metadatas).items():
            kept = np.array([keep(m) for m in metadatas])
            few = queries[: max(20, count // 5)]
            result[f"recall@10, {name}"] = recall(collection, vectors, few, where, kept)
            filtered = lambda q: collection.query(query_embeddings=[q], n_results=K, where=where, include=["distances"])
            for quantile, value in percentiles(timed(filtered, few)).items():
                if quantile != "p95":
                    result[f"{name} {quantile}, ms"] = value
        hundred = [chance.choice(ids, 100, replace=False).tolist() for _ in range(30)]
        result["get 100 by id p50, ms"] = percentiles(timed(lambda some: collection.get(ids=some), hundred))["p50"]
        words = [documents[i].split()[-1][:6] for i in chance.choice(len(documents), 30)]
        contains = lambda word: collection.get(where_document={"$contains": word}, limit=10)
        result["$contains p50, ms"] = percentiles(timed(contains, words))["p50"]
        time.sleep(15)
        result["resident, MB"], result["resident without files, MB"] = (x / 1e6 for x in resident(server.process.pid))
        result["disk, MB"] = disk(server.data) / 1e6
        server.stop()
        start = time.perf_counter()
        server.start()
        client = chromadb.HttpClient(host="127.0.0.1", port=server.port)
        search_again = client.get_collection("bench", embedding_function=None)
        search_again.query(query_embeddings=[queries[0]], n_results=K)
        result["restart to first answer, s"] = time.perf_counter() - start
        return result
    finally:
        server.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with real records; a generated stand-in without")
    parser.add_argument("--only", choices=["ochre", "chroma"])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--json", help="write the numbers here")
    arguments = parser.parse_args()
    data = read(arguments.data) if arguments.data else invent()
    print(f"{len(data[0])} records of {data[3].shape[1]} dimensions, {arguments.queries} queries, on {platform.processor() or platform.machine()}")
    results = {kind: measure(kind, data, arguments.queries) for kind in ("ochre", "chroma") if arguments.only in (None, kind)}
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")
    lines = next(iter(results.values()))
    print(f"{'':34}" + "".join(f"{kind:>12}" for kind in results) + ("       ratio (Ochre's advantage)" if len(results) == 2 else ""))
    for line in lines:
        values = [result[line] for result in results.values()]
        text = f"{line:34}" + "".join(f"{value:12.3f}" for value in values)
        if len(values) == 2:
            better = values[0] / values[1] if "recall" in line or "/s" in line else values[1] / values[0]
            text += f"{better:12.2f}"
        print(text)


if __name__ == "__main__":
    main()
