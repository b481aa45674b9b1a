"""Graph libraries against Ochre's graph: the same vectors, one process each search, one thread, equal recall.

    python graph.py [--data FOLDER | --synthetic COUNT] [--only NAMES] [--rounds N] [--json FILE] [--svg FILE]

Every library builds once, on two threads. Then each round runs each library once through its list of search
widths, in turn, so that a slow minute of the machine hits all of them. Throughput at a recall is read off
each round's curve by interpolation; what is printed is the median over rounds of the ratio within a round.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np

import data
import report

K = 10
BINARY = data.ROOT / "target/release/ochre-bench-graph"
WIDTHS = [10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256]


class Ochre:
    name = "ochre"
    # The graph is searched whatever the planner would do.
    command = "search"

    def __init__(self, base, queries, folder, space):
        self.folder, self.count = folder, len(queries)
        base.tofile(folder / "base.f32")
        queries.tofile(folder / "queries.f32")
        call = [BINARY, "--base", folder / "base.f32", "--queries", folder / "queries.f32", "--space", space]
        call += ["--dimension", str(base.shape[1]), "--k", str(K), "--found", folder / "found.u32"]
        self.process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        built = json.loads(self.process.stdout.readline())
        self.build, self.bytes = built["build_seconds"], built["codes_bytes"] + built["links_bytes"]
        self.note = f"codes {built['codes_bytes'] / len(base):.0f} B, links {built['links_bytes'] / len(base):.0f} B a vector"

    def search(self, width):
        self.process.stdin.write(f"{self.command} {width}\n")
        self.process.stdin.flush()
        seconds = json.loads(self.process.stdout.readline())["seconds"]
        return np.fromfile(self.folder / "found.u32", np.uint32).reshape(self.count, K), seconds

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class Timed:
    """A library that builds and searches within this process."""

    note, bytes = "", None

    def __init__(self, base, queries, folder, space):
        self.queries = queries
        begun = time.perf_counter()
        self.make(base, space, folder)
        self.build = time.perf_counter() - begun

    def search(self, width):
        self.widen(width)
        begun = time.perf_counter()
        found = self.find(self.queries)
        return found, time.perf_counter() - begun

    def close(self):
        pass


class Hnswlib(Timed):
    name = "hnswlib"

    def make(self, base, space, folder):
        import hnswlib

        self.index = hnswlib.Index({"cosine": "ip", "l2": "l2"}[space], base.shape[1])
        self.index.init_index(len(base), M=16, ef_construction=100)
        self.index.add_items(base, num_threads=2)

    def widen(self, width):
        self.index.set_ef(width)

    def find(self, queries):
        return self.index.knn_query(queries, K, num_threads=1)[0]


class Usearch(Timed):
    name, dtype = "usearch f32", "f32"

    def make(self, base, space, folder):
        from usearch.index import Index

        metric = {"cosine": "cos", "l2": "l2sq"}[space]
        self.index = Index(ndim=base.shape[1], metric=metric, dtype=self.dtype, connectivity=16, expansion_add=100)
        self.index.add(np.arange(len(base)), base, threads=2)

    def widen(self, width):
        self.index.expansion_search = width

    def find(self, queries):
        return self.index.search(queries, K, threads=1).keys


class UsearchBytes(Usearch):
    name, dtype = "usearch i8", "i8"


class Faiss(Timed):
    name = "faiss HNSW16,SQ8"

    def make(self, base, space, folder):
        import faiss

        faiss.omp_set_num_threads(2)
        metric = {"cosine": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}[space]
        self.index = faiss.index_factory(base.shape[1], "HNSW16,SQ8", metric)
        self.index.hnsw.efConstruction = 100
        self.index.train(base)
        self.index.add(base)
        faiss.omp_set_num_threads(1)

    def widen(self, width):
        self.index.hnsw.efSearch = width

    def find(self, queries):
        return self.index.search(queries, K)[1]


class Svs(Timed):
    name = "svs f32"

    def vectors(self, base, folder):
        return base

    def make(self, base, space, folder):
        import svs

        distance, alpha = {"cosine": (svs.DistanceType.MIP, 0.95), "l2": (svs.DistanceType.L2, 1.2)}[space]
        parameters = svs.VamanaBuildParameters(graph_max_degree=32, window_size=128, alpha=alpha)
        self.index = svs.Vamana.build(parameters, self.vectors(base, folder), distance, num_threads=2)
        self.index.num_threads = 1

    def widen(self, width):
        self.index.search_window_size = width

    def find(self, queries):
        return self.index.search(queries, K)[0]


class SvsLvq(Svs):
    """Locally-adaptive quantisation: the library has it on Intel processors only, and ends the process elsewhere."""

    name, bits = "svs LVQ4x8", (4, 8)

    def vectors(self, base, folder):
        import svs

        path = str(folder / "base.fvecs")
        svs.write_vecs(base, path)
        loader = svs.VectorDataLoader(path, svs.DataType.float32, dims=base.shape[1])
        return svs.LVQLoader(loader, primary=self.bits[0], residual=self.bits[1])


class SvsLvq8(SvsLvq):
    name, bits = "svs LVQ8", (8, 0)


LIBRARIES = [Ochre, Hnswlib, Usearch, UsearchBytes, Faiss, Svs, SvsLvq, SvsLvq8]


def is_intel():
    return "GenuineIntel" in pathlib.Path("/proc/cpuinfo").read_text()


def at_recall(curve, wanted):
    """Queries a second at a recall, interpolated on the curve; None if it is never reached."""
    curve = sorted(curve)
    for (low, slow), (high, fast) in zip(curve, curve[1:]):
        if low <= wanted <= high:
            share = (wanted - low) / (high - low) if high > low else 0.0
            return slow + share * (fast - slow)
    # The narrowest search already is better than wanted.
    return curve[0][1] if curve and curve[0][0] >= wanted else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--only", help="libraries to run, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    base, queries, space = data.vectors(arguments)
    truth = data.nearest(base, queries, K, space)
    chosen = [one for one in LIBRARIES if not arguments.only or one.name in arguments.only.split(",")]
    result = {"machine": report.machine(), "count": len(base), "dimension": base.shape[1], "libraries": {}}
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for make in chosen:
            if issubclass(make, SvsLvq) and not is_intel():
                result["libraries"][make.name] = {"skipped": "this library offers it on Intel processors only"}
                continue
            try:
                library = make(base, queries, pathlib.Path(folder), space)
            except Exception as error:  # a library that is not installed, or has another interface
                result["libraries"][make.name] = {"skipped": str(error).splitlines()[0]}
                continue
            print(f"{library.name}: built in {library.build:.1f} s {library.note}", flush=True)
            running.append(library)
        rounds = {library.name: [] for library in running}
        for number in range(arguments.rounds + 1):
            for library in running:
                curve = []
                for width in WIDTHS:
                    found, seconds = library.search(width)
                    curve.append((data.recall(found, truth), len(queries) / seconds))
                if number > 0:  # the first round warms up
                    rounds[library.name].append(curve)
        for library in running:
            entry = {"build_seconds": library.build, "bytes": library.bytes, "curve": [
                [statistics.median(curve[i][axis] for curve in rounds[library.name]) for axis in (0, 1)]
                for i in range(len(WIDTHS))
            ]}
            for wanted in (0.95, 0.99):
                ours = [at_recall(curve, wanted) for curve in rounds[running[0].name]]
                theirs = [at_recall(curve, wanted) for curve in rounds[library.name]]
                pairs = [a / b for a, b in zip(ours, theirs) if a and b]
                entry[f"qps_at_{wanted}"] = statistics.median(theirs) if all(theirs) else None
                entry[f"ratio_at_{wanted}"] = statistics.median(pairs) if pairs else None
            result["libraries"][library.name] = entry
            library.close()

    rows = []
    for name, entry in result["libraries"].items():
        if "skipped" in entry:
            rows.append([name, "", "", "", "", entry["skipped"]])
            continue
        at = lambda key, form: form.format(entry[key]) if entry[key] else "never"
        rows.append([name, at("qps_at_0.95", "{:,.0f}"), at("ratio_at_0.95", "{:.2f}x"), at("qps_at_0.99", "{:,.0f}"),
                     at("ratio_at_0.99", "{:.2f}x"), f"{entry['build_seconds']:.1f} s"])
    print(report.table(["library", "q/s at 0.95", "Ochre is", "q/s at 0.99", "Ochre is", "build"], rows))
    curves = {name: entry["curve"] for name, entry in result["libraries"].items() if "curve" in entry}
    report.save(arguments, result, lambda path: report.curves(
        path, curves, "recall@10", "queries a second, one thread", x_range=(0.90, 1.0)))


if __name__ == "__main__":
    main()
