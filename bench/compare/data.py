"""What is measured on: real records if there are some, else generated ones; and what the right answers are."""

import gzip
import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
sys.path.insert(0, str(ROOT / "conformance/python"))

QUERIES = 1000


def add_arguments(parser):
    parser.add_argument("--data", help="a folder with NAME.jsonl.gz and NAME.f16.npy; generated records without it")
    parser.add_argument("--synthetic", type=int, default=0, help="this many clustered vectors of 128 dimensions instead")
    parser.add_argument("--nested", action="store_true", help="clusters within clusters: no harder the more there are")
    parser.add_argument("--count", type=int, default=60_000, help="use at most this many records")
    parser.add_argument("--json", help="write all numbers to this file")
    parser.add_argument("--svg", help="draw to this file")


def read(folder):
    """Records (dictionaries) and unit vectors of a data folder."""
    folder = pathlib.Path(folder)
    (lines,), (rows,) = list(folder.glob("*.jsonl.gz")), list(folder.glob("*.npy"))
    records = [json.loads(line) for line in gzip.open(lines, "rt")]
    vectors = np.load(rows).astype(np.float32)
    return records, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clustered(count, dimension=128, seed=7):
    """Vectors around √count centres, unit length: what embeddings of texts look like from afar."""
    chance = np.random.default_rng(seed)
    centres = chance.standard_normal((int(count**0.5), dimension)).astype(np.float32)
    vectors = np.empty((count, dimension), np.float32)
    for start in range(0, count, 100_000):
        size = min(100_000, count - start)
        noise = chance.standard_normal((size, dimension)).astype(np.float32)
        vectors[start : start + size] = centres[chance.integers(0, len(centres), size)] + 0.8 * noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nested(count, dimension=128, branching=16, intrinsic=12, seed=7):
    """Clusters of clusters, down to `branching` vectors each, unit length. Distances grow with the number of neighbours by the
    same power at every scale, so data of any size look alike from near by: their intrinsic dimension over 100 neighbours
    (Levina and Bickel, 2004) is 16 for 60,000 as for a million, which is that of the Debian records."""
    chance = np.random.default_rng(seed)
    sizes = [count]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // branching))
    spread = branching ** (2 / intrinsic)
    rows = np.zeros((1, dimension), np.float32)
    for above, size in reversed(list(enumerate(sizes[:-1]))):
        variance = spread**above * (1 - 1 / spread) if above else 1
        rows = rows[np.arange(size) // branching]
        for start in range(0, size, 100_000):
            part = rows[start : start + 100_000]
            part += chance.standard_normal(part.shape).astype(np.float32) * np.float32(variance**0.5)
    rows = rows[chance.permutation(count)]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def invented(count, dimension=384):
    """Records with vectors, for those who have no data folder."""
    chance = np.random.default_rng(11)
    vectors = clustered(count, dimension)
    words = [f"word{n}" for n in range(2000)]
    sections = chance.zipf(1.5, count) % 60
    records = [
        {
            "id": f"id{i}",
            "document": " ".join(words[w] for w in chance.integers(0, len(words), 8)),
            "metadata": {
                "section": f"s{sections[i]}",
                "size": int(chance.integers(0, 1_000_000)),
                "ndeps": int(chance.integers(0, 30)),
                "maintainer": f"m{chance.integers(0, 900)}",
            },
        }
        for i in range(count)
    ]
    return records, vectors


def records(arguments):
    """Records, their vectors, and vectors of other records to use as queries."""
    found, vectors = read(arguments.data) if arguments.data else invented(arguments.count + QUERIES)
    order = np.random.default_rng(1).permutation(len(vectors))
    count = min(arguments.count, len(vectors) - QUERIES)
    base, queries = order[:count], order[count : count + QUERIES]
    return [found[i] for i in base], vectors[base], vectors[queries]


def documents(arguments):
    """The texts of records, in a mixed order."""
    found, _ = read(arguments.data) if arguments.data else invented(arguments.count)
    order = np.random.default_rng(1).permutation(len(found))[: arguments.count]
    return [found[i]["document"] or "" for i in order]


def vectors(arguments):
    """Vectors to index, vectors to search for, and the space."""
    if arguments.synthetic:
        rows = (nested if arguments.nested else clustered)(arguments.synthetic + QUERIES)
        return rows[:-QUERIES], rows[-QUERIES:], "cosine"
    _, base, queries = records(arguments)
    return base, queries, "cosine"


def nearest(base, queries, k, space, keep=None):
    """The exact answers: row numbers of the k nearest of `base`, those in `keep` only if given. Unit vectors,
    so that all spaces order them alike."""
    del space
    rows = np.arange(len(base)) if keep is None else np.flatnonzero(keep)
    answers = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), 100):
        likeness = queries[start : start + 100] @ base[rows].T
        best = np.argpartition(-likeness, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(likeness, best, axis=1), axis=1)
        answers[start : start + 100] = rows[np.take_along_axis(best, order, axis=1)]
    return answers


def recall(found, truth):
    """The share of the right answers that was found."""
    return sum(len(set(map(int, a)) & set(map(int, b))) for a, b in zip(found, truth)) / truth.size
