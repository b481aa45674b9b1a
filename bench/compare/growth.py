"""What size costs: the graph over ever more vectors, beside hnswlib on the same ones.

    python growth.py [--sizes 60000,250000,1000000] [--only NAMES] [--rounds N] [--json FILE] [--svg FILE]

Runs the comparison of `graph.py` on clustered vectors for each size, and draws queries a second at recall@10 0.99 against
the number of vectors.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import report

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="60000,250000,1000000")
    parser.add_argument("--only", default="ochre,hnswlib", help="libraries to run, separated by commas; ochre first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write all numbers to this file")
    parser.add_argument("--svg", help="draw to this file")
    arguments = parser.parse_args()

    result, rows, lines = {"machine": report.machine(), "sizes": {}}, [], {}
    for size in map(int, arguments.sizes.split(",")):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            call = [sys.executable, HERE / "graph.py", "--synthetic", str(size), "--only", arguments.only]
            subprocess.run([*call, "--rounds", str(arguments.rounds), "--json", file.name], check=True, cwd=HERE)
            libraries = json.loads(pathlib.Path(file.name).read_text())["libraries"]
        result["sizes"][size] = libraries
        for name, library in libraries.items():
            at = {wanted: library.get(f"qps_at_{wanted}") for wanted in (0.95, 0.99)}
            rows.append([f"{size:,}", name, *(f"{rate:,.0f}" if rate else "never" for rate in at.values()),
                         f"{library['build_seconds']:.0f} s", f"{library['bytes'] / size:.0f}" if library["bytes"] else ""])
            if at[0.99]:
                lines.setdefault(name, []).append((size, at[0.99]))
    print(report.table(["vectors", "library", "q/s at 0.95", "q/s at 0.99", "build", "bytes a vector"], rows))
    report.save(arguments, result, lambda path: report.curves(
        path, lines, "vectors", "queries a second at recall@10 0.99, one thread", x_log=True))


if __name__ == "__main__":
    main()
