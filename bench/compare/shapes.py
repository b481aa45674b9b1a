"""Recall of the worst queries on data as people have it: templates, copies, clusters in order, curves, outliers.

    python shapes.py [--count 12000] [--only SHAPES] [--libraries NAMES] [--space cosine|l2] [--shuffled] [--json FILE]

An average over real data hides groups of records that cannot be found. Here each shape is searched with the own vectors of
up to 2,000 of its records, those of the difficult group first, and with vectors beside them, at default parameters. Counted
are the records whose own vector does not bring a record at the least distance first, and recall@10 by distance: whatever is
as near as the tenth is right.
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np

import graph
import report

WIDTH = 100
QUERIES = 2000


def unit(rows):
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def around(chance, centre, count, spread):
    """Vectors at `spread` times its length from a centre, in all directions."""
    return centre + spread * np.linalg.norm(centre) * unit(chance.standard_normal((count, len(centre))))


def templates(chance, count, dimension):
    """120 texts with many variants each."""
    centres = unit(chance.standard_normal((120, dimension)))
    rows = np.concatenate([around(chance, centre, count // 120, 0.39) for centre in centres])
    return rows, np.arange(len(rows))


def one_template(chance, count, dimension):
    """The variants of one text among others."""
    rows = np.concatenate([around(chance, unit(chance.standard_normal((1, dimension)))[0], count // 120, 0.39),
                           unit(chance.standard_normal((count - count // 120, dimension)))])
    return rows, np.arange(count // 120)


def copies(chance, count, dimension):
    """A fifth is one vector, its neighbours follow, then others."""
    centre = unit(chance.standard_normal((1, dimension)))[0]
    same, near = count // 5, count // 24
    rows = np.concatenate([np.tile(centre, (same, 1)), around(chance, centre, near, 0.39),
                           unit(chance.standard_normal((count - same - near, dimension)))])
    return rows, np.concatenate([np.arange(same, same + near), np.arange(0, same, 50)])


def near_copies(chance, count, dimension):
    """Many that hardly differ, beside ones that do."""
    near = count // 8
    centre = unit(chance.standard_normal((1, dimension)))[0]
    rows = np.concatenate([unit(chance.standard_normal((count - near, dimension))), around(chance, centre, near, 0.05)])
    return rows, np.arange(count - near, count)


def clusters(chance, count, dimension):
    """Documents added chunk by chunk: each cluster is whole before the next begins."""
    centres = chance.standard_normal((count // 110, dimension))
    rows = np.concatenate([centre + 0.2 * chance.standard_normal((110, dimension)) for centre in centres])
    return rows, np.arange(len(rows))


def curve(chance, count, dimension):
    """Measurements that change slowly, in their order."""
    time = np.linspace(0, 40, count)[:, None]
    rows = np.sin(time * chance.uniform(0.1, 1, dimension) + chance.uniform(0, 6, dimension))
    return rows, np.arange(count)


def outliers(chance, count, dimension):
    """A zero vector and extreme ones among normal points."""
    rows = chance.standard_normal((count, dimension))
    rows[count // 2] = 0 if dimension == 48 else 1e-3
    rows[[7, count // 3, count - 5]] *= [[1e4], [-1e4], [1e3]]
    return rows, np.concatenate([[count // 2, 7, count // 3, count - 5], np.arange(8, 1000)])


SHAPES = {
    "templates": (templates, 384), "one template": (one_template, 384), "copies": (copies, 384),
    "near-copies": (near_copies, 384), "clusters": (clusters, 48), "curve": (curve, 48), "outliers": (outliers, 48),
}


class Chroma(graph.Timed):
    """The official package, in this process."""

    name = "chroma"

    def make(self, base, space, folder):
        import chromadb

        client = chromadb.PersistentClient(str(folder / "chroma"))
        self.collection = client.create_collection("shapes", configuration={"hnsw": {"space": space}})
        for start in range(0, len(base), 2000):
            part = base[start : start + 2000]
            self.collection.add(ids=[str(start + row) for row in range(len(part))], embeddings=part)

    def widen(self, width):
        assert width == WIDTH, "its default"

    def find(self, queries):
        found = []
        for start in range(0, len(queries), 100):
            found += self.collection.query(query_embeddings=queries[start : start + 100], n_results=graph.K, include=[])["ids"]
        return np.array(found, dtype=np.int64)


class Ochre(graph.Ochre):
    """As a collection answers: it scans where searches of the graph do not find their way."""

    command = "query"


LIBRARIES = {"ochre": Ochre, "chroma": Chroma, "hnswlib": graph.Hnswlib, "faiss": graph.Faiss}


def distances(queries, base, space):
    if space == "cosine":
        return 1 - unit(queries) @ unit(base).T
    return np.maximum((queries**2).sum(1)[:, None] - 2 * queries @ base.T + (base**2).sum(1)[None], 0)


def measured(base, queries, found, space, k):
    """For each query whether the first found is at the least distance, and recall by distance."""
    first, recall = np.empty(len(queries), bool), np.empty(len(queries))
    exact_base = base.astype(np.float64)
    for start in range(0, len(queries), 500):
        part = slice(start, start + 500)
        all_ = distances(queries[part].astype(np.float64), exact_base, space)
        nearest = np.partition(all_, k - 1, axis=1)[:, :k]
        slack = 1e-6 * (1 + (queries[part].astype(np.float64) ** 2).sum(1) if space == "l2" else 1 + np.zeros(len(all_)))
        theirs = np.take_along_axis(all_, found[part].astype(np.int64), axis=1)
        first[part] = theirs[:, 0] <= nearest.min(1) + slack
        recall[part] = (theirs <= (nearest.max(1) + slack)[:, None]).mean(1)
    return first, recall


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12_000)
    parser.add_argument("--dimension", type=int, help="in place of each shape's own")
    parser.add_argument("--only", help="shapes, separated by commas")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="separated by commas")
    parser.add_argument("--space", choices=["cosine", "l2"], help="in place of both")
    parser.add_argument("--shuffled", action="store_true", help="insert in random order")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    libraries = [LIBRARIES[name] for name in arguments.libraries.split(",")]
    names = [name for name in SHAPES if not arguments.only or name in arguments.only.split(",")]
    rows, result = [], []
    for name in names:
        make_shape, dimension = SHAPES[name]
        for space in [arguments.space] if arguments.space else ["cosine", "l2"]:
            chance = np.random.default_rng(arguments.seed)
            base, group = make_shape(chance, arguments.count, arguments.dimension or dimension)
            base = base.astype(np.float32)
            if arguments.shuffled:
                order = chance.permutation(len(base))
                base, group = base[order], np.flatnonzero(np.isin(order, group))
            own = chance.permutation(group)[:QUERIES]
            # As far from a record as its neighbours are, so that its tenth is not far from its first.
            beside = base[own] + 0.02 * np.linalg.norm(base[own], axis=1, keepdims=True) * unit(
                chance.standard_normal(base[own].shape))
            queries = np.concatenate([base[own], beside.astype(np.float32)])
            for make in libraries:
                # These libraries get unit vectors and measure their inner product.
                is_given_units = space == "cosine" and make in (graph.Hnswlib, graph.Faiss)
                shown = (lambda x: unit(x).astype(np.float32)) if is_given_units else (lambda x: x)
                with tempfile.TemporaryDirectory() as folder:
                    library = make(shown(base), shown(queries), pathlib.Path(folder), space)
                    found, seconds = library.search(WIDTH)
                    first, recall = measured(base, queries, np.asarray(found), space, graph.K)
                    library.close()
                lost = int((~first[: len(own)]).sum())
                entry = {"shape": name, "space": space, "library": make.name, "lost": lost, "of": len(own),
                         "mean": recall.mean(), "p1": np.quantile(recall, 0.01), "worst": recall.min(),
                         "build_seconds": library.build, "queries_per_second": len(queries) / seconds}
                result.append(entry)
                rows.append([name, space, make.name, f"{lost} of {len(own)}", f"{entry['mean']:.4f}", f"{entry['p1']:.2f}",
                             f"{entry['worst']:.2f}", f"{library.build:.1f} s", f"{entry['queries_per_second']:,.0f}"])
                print(*rows[-1], sep="\t", flush=True)
    head = ["shape", "space", "library", "not first for its own vector", "recall@10", "1st percentile", "worst", "build", "q/s"]
    print(report.table(head, rows))
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
