"""What size costs: the graph over ever more vectors, beside hnswlib on the same ones.

    python growth.py [--sizes 60000,250000,1000000] [--only NAMES] [--rounds N] [--json FILE] [--svg FILE]

Runs the comparison of `graph.py` for each size, on clusters that grow, which make data harder, and on clusters within clusters,
which do not; and draws queries a second at recall@10 0.99 against the number of vectors. Last, Ochre's graphs of all sizes of the
latter are asked in turn, in one run, so that a slow minute of the machine hits all of them.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

import data
import graph
import report

NARROWEST, TURNS = 10, 40
HERE = pathlib.Path(__file__).resolve().parent


def in_turn(sizes):
    """By size: the recall of the narrowest search, queries a second, and that as a part of the first size's, medians over rounds."""
    with tempfile.TemporaryDirectory() as folder:
        running, recalls = [], []
        for size in sizes:
            rows = data.nested(size + data.QUERIES)
            base, queries = rows[: -data.QUERIES], rows[-data.QUERIES :]
            (part := pathlib.Path(folder) / str(size)).mkdir()
            running.append(graph.Ochre(base, queries, part, "cosine"))
            found, _ = running[-1].search(NARROWEST)
            recalls.append(data.recall(found, data.nearest(base, queries, graph.K, "cosine")))
        rounds = [[library.search(NARROWEST)[1] for library in running] for _ in range(TURNS)]
        for library in running:
            library.close()
    return {
        size: {
            "recall": recalls[index],
            "qps": data.QUERIES / statistics.median(seconds[index] for seconds in rounds),
            "part_of_first": statistics.median(seconds[0] / seconds[index] for seconds in rounds),
        }
        for index, size in enumerate(sizes)
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="60000,250000,1000000")
    parser.add_argument("--only", default="ochre,hnswlib", help="libraries to run, separated by commas; ochre first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write all numbers to this file")
    parser.add_argument("--svg", help="draw to this file")
    arguments = parser.parse_args()

    result, rows, lines = {"machine": report.machine(), "data": {}}, [], {}
    sizes = list(map(int, arguments.sizes.split(",")))
    for kind, options in {"clusters that grow": [], "nested clusters": ["--nested"]}.items():
        for size in sizes:
            with tempfile.NamedTemporaryFile(suffix=".json") as file:
                call = [sys.executable, HERE / "graph.py", "--synthetic", str(size), *options, "--only", arguments.only]
                subprocess.run([*call, "--rounds", str(arguments.rounds), "--json", file.name], check=True, cwd=HERE)
                libraries = json.loads(pathlib.Path(file.name).read_text())["libraries"]
            result["data"].setdefault(kind, {})[size] = libraries
            for name, library in libraries.items():
                at = {wanted: library.get(f"qps_at_{wanted}") for wanted in (0.95, 0.99)}
                rows.append([kind, f"{size:,}", name, *(f"{rate:,.0f}" if rate else "never" for rate in at.values()),
                             f"{library['build_seconds']:.0f} s", f"{library['bytes'] / size:.0f}" if library["bytes"] else ""])
                if at[0.99]:
                    lines.setdefault(f"{name}, {kind}", []).append((size, at[0.99]))
    print(report.table(["data", "vectors", "library", "q/s at 0.95", "q/s at 0.99", "build", "bytes a vector"], rows))
    result["in turn"] = in_turn(sizes)
    print("\nNested clusters, all sizes in turn:\n")
    print(report.table(["vectors", "recall@10", "q/s", "of the first", "by the logarithm"], [
        [f"{size:,}", f"{one['recall']:.4f}", f"{one['qps']:,.0f}", f"{one['part_of_first']:.2f}",
         f"{math.log(sizes[0]) / math.log(size):.2f}"] for size, one in result["in turn"].items()
    ]))
    report.save(arguments, result, lambda path: report.curves(
        path, lines, "vectors", "queries a second at recall@10 0.99, one thread", x_log=True))


if __name__ == "__main__":
    main()
