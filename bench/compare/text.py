"""Ranked text search beside tantivy and bm25s: the same terms, the ten best, one thread, nothing fetched.

    python text.py [--data FOLDER] [--count N] [--rounds N] [--json FILE]

Documents and queries are divided into terms here, so that all systems have the same. Queries are words that follow each
other in a document, 500 of each length. tantivy is called in the native program that calls Ochre (`bench/text`, a crate
of its own), bm25s in this process with its compiled retrieval; its filter is a weight of 0 for what does not pass. Rounds
are interleaved and the first is dropped; ratios are medians over rounds.
"""

import argparse
import json
import pathlib
import random
import re
import statistics
import subprocess
import tempfile
import time

import data

K, ASKED, FILTERED = 10, 500, 10
LENGTHS = (1, 2, 4, 8)


def terms(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def workload(arguments):
    """Documents as lists of terms, and queries by how many terms they have."""
    documents = [words for words in (terms(text) for text in data.documents(arguments)) if words]
    chance = random.Random(1)
    queries = {}
    for length in LENGTHS:
        long_enough = [words for words in documents if len(words) >= length]
        queries[length] = []
        for _ in range(ASKED):
            words = chance.choice(long_enough)
            start = chance.randrange(len(words) - length + 1)
            queries[length].append(words[start : start + length])
    return documents, queries


def native(documents, queries, rounds):
    """What the native program measured of Ochre and tantivy."""
    with tempfile.TemporaryDirectory() as folder:
        files = pathlib.Path(folder, "documents"), pathlib.Path(folder, "queries")
        for file, texts in zip(files, (documents, [words for asked in queries.values() for words in asked])):
            file.write_text("\n".join(" ".join(words) for words in texts))
        crate = data.ROOT / "bench/text"
        build = ["cargo", "build", "--quiet", "--release", "--target-dir", data.ROOT / ".cache/bench-text"]
        subprocess.run(build, cwd=crate, check=True)
        call = [data.ROOT / ".cache/bench-text/release/ochre-bench-text", *files, str(rounds)]
        return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def python(documents, queries, rounds):
    """Microseconds a query of bm25s."""
    import bm25s
    import numpy as np

    retriever = bm25s.BM25(method="lucene", k1=1.2, b=0.75, backend="numba")
    retriever.index(documents, show_progress=False)
    passing = (np.arange(len(documents)) % FILTERED == 0).astype(np.float32)
    found = {}
    for is_filtered in (False, True):
        mask = passing if is_filtered else None
        for length, asked in queries.items():
            times = []
            for _ in range(rounds + 1):
                begun = time.perf_counter()
                for words in asked:
                    retriever.retrieve([words], k=K, n_threads=0, show_progress=False, weight_mask=mask)
                times.append((time.perf_counter() - begun) * 1e6 / len(asked))
            found[length, is_filtered] = statistics.median(times[1:])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    documents, queries = workload(arguments)
    average = statistics.mean(map(len, documents))
    print(f"{len(documents)} documents of {average:.1f} terms, {ASKED} queries of each length, the {K} best")
    rows = native(documents, queries, arguments.rounds)
    others = python(documents, queries, arguments.rounds)
    print(f"{'terms':>5} {'filter':>6} {'Ochre µs':>9} {'tantivy µs':>10} {'ratio':>6} {'bm25s µs':>9} {'ratio':>6} {'same':>6}")
    for row in rows:
        row["bm25s_us"] = others[row["terms"], row["filtered"]]
        row["bm25s_ratio"] = row["bm25s_us"] / row["ochre_us"]
        share = "10 %" if row["filtered"] else ""
        print(
            f"{row['terms']:5} {share:>6} {row['ochre_us']:9.1f} {row['tantivy_us']:10.1f} {row['ratio']:6.2f}"
            f" {row['bm25s_us']:9.1f} {row['bm25s_ratio']:6.2f} {row['shared']:6.1%}"
        )
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
