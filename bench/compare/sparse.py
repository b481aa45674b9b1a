"""Exact searches of sparse vectors beside qdrant-edge: the ten best, one thread, nothing fetched.

    python sparse.py [--data FOLDER] [--count N] [--asked N] [--rounds N] [--json FILE]

Vectors look like those of a learned sparse encoder (SPLADE), made from documents without a model: each word of a document
with ln(1 + count) · idf, and the 8 words that occur with it most often beyond chance, at a share of that; indices are
words. Queries are made likewise from three words of a document. Ochre runs in a native program (`ochre-bench-sparse`),
qdrant-edge is called from Python; what such a call costs for a query without matches is measured and taken off. Rounds
are interleaved, the first is dropped, ratios are medians over rounds.
"""

import argparse
import collections
import json
import math
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

import numpy as np

import data
import report

K, EXPANDED, FILTERED, BATCH = 10, 8, 10, 1000


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


class Encoder:
    """Sparse vectors of texts, by the statistics of documents."""

    def __init__(self, documents):
        self.documents = [words(text) for text in documents]
        having = collections.Counter(word for found in self.documents for word in set(found))
        self.index = {word: number for number, word in enumerate(having)}
        self.rarity = {word: math.log(len(documents) / count) for word, count in having.items()}
        together = collections.defaultdict(collections.Counter)
        for found in self.documents:
            known = list(dict.fromkeys(found))[:32]
            for word in known:
                together[word].update(other for other in known if other != word)
        self.related = {}
        for word, others in together.items():
            # How much more often than by chance, damped for those that were seen together rarely.
            lift = lambda item: item[1] / having[item[0]] ** 0.5
            best = sorted(others.items(), key=lambda item: (-lift(item), item[0]))[:EXPANDED]
            self.related[word] = [(other, min(1.0, count / having[word])) for other, count in best]

    def encode(self, found):
        weights = collections.defaultdict(float)
        for word, count in collections.Counter(found).items():
            own = math.log1p(count) * self.rarity[word]
            weights[word] = max(weights[word], own)
            for other, share in self.related.get(word, ()):
                weights[other] = max(weights[other], 0.5 * own * share)
        pairs = sorted((self.index[word], weight) for word, weight in weights.items() if weight > 0)
        return np.array([i for i, _ in pairs], np.uint32), np.array([w for _, w in pairs], np.float32)


def write(path, vectors):
    with open(path, "wb") as file:
        file.write(np.uint32(len(vectors)).tobytes())
        for indices, values in vectors:
            file.write(np.uint32(len(indices)).tobytes() + indices.tobytes() + values.tobytes())


class Ochre:
    name = "Ochre"

    def __init__(self, folder, vectors, queries):
        files = pathlib.Path(folder, "vectors"), pathlib.Path(folder, "queries")
        for file, written in zip(files, (vectors, queries)):
            write(file, written)
        call = [data.ROOT / "target/release/ochre-bench-sparse", *files]
        self.process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def run(self, kind):
        self.process.stdin.write(kind + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["seconds"], answer["found"]


class QdrantEdge:
    name = "qdrant-edge"

    def __init__(self, folder, vectors, queries):
        import qdrant_edge as q

        self.q, self.queries = q, [q.SparseVector(i.tolist(), v.tolist()) for i, v in queries]
        config = q.EdgeConfig(
            sparse_vectors={"s": q.EdgeSparseVectorParams(full_scan_threshold=0)},
            optimizers=q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
        )
        self.shard = q.EdgeShard.create(str(folder), config)
        self.shard.update(q.UpdateOperation.create_field_index("flag", q.PayloadSchemaType.Integer))
        for start in range(0, len(vectors), BATCH):
            points = [
                q.Point(start + at, {"s": q.SparseVector(i.tolist(), v.tolist())}, {"flag": int((start + at) % FILTERED == 0)})
                for at, (i, v) in enumerate(vectors[start : start + BATCH])
            ]
            self.shard.update(q.UpdateOperation.upsert_points(points))
        while self.shard.optimize():
            pass
        nothing = q.SparseVector([2**31], [1.0])
        self.call = min(self.timed([nothing] * 200, None)[0] / 200 for _ in range(3))

    def timed(self, queries, chosen):
        q = self.q
        requests = [q.SearchRequest(q.Query.Nearest(query, using="s"), K, filter=chosen) for query in queries]
        begun = time.perf_counter()
        found = [self.shard.search(request) for request in requests]
        return time.perf_counter() - begun, [[point.id for point in points] for points in found]

    def run(self, kind):
        q = self.q
        chosen = q.Filter(must=[q.FieldCondition("flag", match=q.MatchValue(1))]) if kind == "filtered" else None
        seconds, found = self.timed(self.queries, chosen)
        return seconds - self.call * len(self.queries), found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--asked", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    encoder = Encoder(data.documents(arguments))
    vectors = [encoder.encode(found) for found in encoder.documents]
    chance = np.random.default_rng(3)
    chosen = chance.choice([number for number, found in enumerate(encoder.documents) if len(found) >= 3], arguments.asked)
    queries = [encoder.encode([encoder.documents[n][at] for at in chance.permutation(len(encoder.documents[n]))[:3]]) for n in chosen]
    size = lambda encoded: statistics.mean(len(indices) for indices, _ in encoded)
    print(f"{len(vectors)} vectors of {size(vectors):.0f} values, {len(queries)} queries of {size(queries):.0f}, the {K} best")
    result = {"machine": report.machine(), "vectors": len(vectors), "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "edge").mkdir()
        systems = [Ochre(folder, vectors, queries), QdrantEdge(pathlib.Path(folder, "edge"), vectors, queries)]
        print(f"a call of qdrant-edge from Python costs {systems[1].call * 1e6:.0f} µs, which is taken off")
        for kind in ("all", "filtered"):
            times = {system.name: [] for system in systems}
            for number in range(arguments.rounds + 1):
                answers = {}
                for system in systems if number % 2 else systems[::-1]:
                    seconds, answers[system.name] = system.run(kind)
                    times[system.name].append(seconds * 1e6 / len(queries))
            ours, theirs = (np.array(times[system.name][1:]) for system in systems)
            same = statistics.mean(
                len(set(a) & set(b)) / max(1, len(a)) for a, b in zip(answers["Ochre"], answers["qdrant-edge"])
            )
            result["rows"].append(
                {"kind": kind, "ochre_us": float(np.median(ours)), "qdrant_edge_us": float(np.median(theirs)),
                 "ratio": float(np.median(theirs / ours)), "same": same}
            )
    head = ["kind", "Ochre µs", "qdrant-edge µs", "throughput", "same"]
    rows = [[r["kind"], f"{r['ochre_us']:.1f}", f"{r['qdrant_edge_us']:.1f}", f"{r['ratio']:.2f}x", f"{r['same']:.1%}"] for r in result["rows"]]
    print(report.table(head, rows))
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
