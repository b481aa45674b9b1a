"""What declared metadata indexes bring, on one server; with `--peer` beside Chroma's server.

    python bench/indexes/indexes.py [--count 1000000] [--peer] [--json FILE]

Records of ten keys and 16 dimensions. Filters of equality and a range that let 0.01 %, 0.1 % and 1 % of the records pass, as a get
with a limit and as a query with k = 10, with the composite index and without it in turn (`ignore_index=*`): medians of what the
server takes for the filter (`explain`) and of whole requests. Then reads go on while the index is rebuilt again and again, against
the same reads without: their p99. `--peer` does the same requests on 100,000 records here and on Chroma's server. Fails if the index
does not make the filter of 0.01 % 10 times faster, or if building raises the p99 of reads beyond 1.25x.
"""

import argparse
import base64
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "soak"), str(HERE.parents[1] / "conformance/python")]
import numpy as np  # noqa: E402
from memory import BASE, OCHRE, Client, wait_for  # noqa: E402
from server import Server  # noqa: E402

DIMENSION = 16
# Shops are of three sizes: one record in 10,000, in 1,000 and in 100 is of a given shop and above the median price.
FILTERS = {"0.01 %": ("small", 5000), "0.1 %": ("middle", 500), "1 %": ("large", 50)}


def record(n):
    return {
        "small": f"s{n % 5000}", "middle": f"m{n % 500}", "large": f"l{n % 50}", "price": (n * 7919) % 10_000, "rank": n / 8,
        "category": f"c{n % 20}", "year": 1990 + n % 30, "flag": n % 2 == 0, "name": f"name {n}", "seller": f"seller {n % 700}",
    }


def where(key, number):
    return {"$and": [{key: f"{key[0]}{number}"}, {"price": {"$gte": 5000}}]}


def fill(post, base, count, batch=5000, encoded=True):
    rng = np.random.default_rng(4)
    name = post(base, {"name": f"records-{count}"})["id"]
    for first in range(0, count, batch):
        rows = rng.standard_normal((batch, DIMENSION)).astype(np.float32)
        rows = [base64.b64encode(row.tobytes()).decode() for row in rows] if encoded else rows.tolist()
        numbers = range(first, first + batch)
        post(f"{base}/{name}/add", {"ids": [str(n) for n in numbers], "embeddings": rows, "metadatas": [record(n) for n in numbers]})
    return name


def request(kind, key, number):
    body = {"where": where(key, number), "include": []}
    return body | ({"limit": 10} if kind == "get" else {"query_embeddings": [[0.1] * DIMENSION], "n_results": 10})


def timed(client, path, body):
    began = time.perf_counter()
    answer = client.post(path, body)
    return (time.perf_counter() - began) * 1e6, answer


def with_and_without(client, collection, rounds):
    found = {}
    for share, (key, values) in FILTERS.items():
        for kind in ("get", "query"):
            taken = {"index": [], "scan": [], "index_filter": [], "scan_filter": []}
            for number in range(rounds):
                body = request(kind, key, number % values)
                sides = [("index", ""), ("scan", "ignore_index=*")]
                for side, hint in sides if number % 2 else reversed(sides):
                    whole, _ = timed(client, f"{BASE}/{collection}/{kind}?{hint}", body)
                    _, answer = timed(client, f"{BASE}/{collection}/{kind}?explain=true&{hint}", body)
                    assert (answer["explain"]["index"] is None) == (side == "scan"), answer["explain"]
                    taken[side].append(whole)
                    taken[f"{side}_filter"].append(answer["explain"]["filter_micros"])
            middle = {name: statistics.median(values[len(values) // 5:]) for name, values in taken.items()}
            found[f"{kind} {share}"] = {
                "filter_us": [middle["index_filter"], middle["scan_filter"]], "request_us": [round(middle["index"]), round(middle["scan"])],
                "filter_ratio": round(middle["scan_filter"] / max(middle["index_filter"], 1), 1),
                "request_ratio": round(middle["scan"] / middle["index"], 1),
            }
    return found


def p99_while_building(port, client, collection, seconds):
    """The p99 of reads with builds against that without, in turn."""
    def reads(until, taken):
        own = Client(port)
        number = 0
        while time.monotonic() < until:
            taken.append(timed(own, f"{BASE}/{collection}/get?ignore_index=*", request("get", "middle", number % 500))[0])
            number += 1
            time.sleep(0.002)

    def phase(with_builds):
        taken, until = [], time.monotonic() + seconds
        threads = [threading.Thread(target=reads, args=(until, taken)) for _ in range(2)]
        [thread.start() for thread in threads]
        builds = 0
        while time.monotonic() < until:
            if with_builds and status(client, "other") == "ready":
                client.post("/_admin/metadata_index/other/rebuild", None)
                builds += 1
            time.sleep(0.05)
        [thread.join() for thread in threads]
        return float(np.percentile(taken, 99)), builds

    ratios, builds = [], 0
    for _ in range(5):
        quiet, _ = phase(False)
        busy, done = phase(True)
        ratios.append(busy / quiet)
        builds += done
    return {"p99_ratio": round(statistics.median(ratios), 2), "builds": builds, "ratios": [round(ratio, 2) for ratio in ratios]}


def status(client, name):
    client.connection.request("GET", f"/_admin/metadata_index/{name}")
    return json.loads(client.connection.getresponse().read())["status"]


def declare(client, name, collection, columns):
    client.post("/_admin/metadata_indexes", {"index_name": name, "collection": collection, "columns": columns})
    began = time.monotonic()
    while status(client, name) != "ready":
        assert time.monotonic() - began < 300
        time.sleep(0.05)
    return time.monotonic() - began


def beside_peer(client, rounds, count=100_000):
    ours = fill(client.post, BASE, count)
    for key in ("small", "middle", "large"):
        declare(client, f"{key}_100k", ours, [key, "price"])
    server = Server("chroma").start()
    try:
        peer = Client(server.port)
        theirs = fill(peer.post, BASE, count, batch=1000, encoded=False)
        found = {}
        for share, (key, values) in FILTERS.items():
            for kind in ("get", "query"):
                ratios = []
                for number in range(rounds):
                    body = request(kind, key, number % values)
                    mine, _ = timed(client, f"{BASE}/{ours}/{kind}", body)
                    other, _ = timed(peer, f"{BASE}/{theirs}/{kind}", body)
                    ratios.append(other / mine)
                found[f"{kind} {share}"] = round(statistics.median(ratios[2:]), 1)
        return found
    finally:
        server.remove()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=60)
    arguments.add_argument("--seconds", type=float, default=6)
    arguments.add_argument("--peer", action="store_true")
    arguments.add_argument("--port", type=int, default=8462)
    arguments.add_argument("--json")
    given = arguments.parse_args()
    folder = tempfile.TemporaryDirectory(prefix="ochre-indexes-")
    server = subprocess.Popen([OCHRE, "run", "--path", folder.name, "--port", str(given.port)], stderr=subprocess.DEVNULL)
    try:
        wait_for(given.port)
        client = Client(given.port)
        collection = fill(client.post, BASE, given.count)
        seconds = [round(declare(client, key, collection, [key, "price"]), 2) for key in ("small", "middle", "large")]
        declare(client, "other", collection, ["category", "year", "name"])
        result = {"records": given.count, "build_s": seconds, "lookups": with_and_without(client, collection, given.rounds),
                  "building": p99_while_building(given.port, client, collection, given.seconds)}
        if given.peer:
            result["chroma_over_ochre"] = beside_peer(client, given.rounds // 3)
    finally:
        server.terminate()
        server.wait()
        folder.cleanup()
    print(json.dumps(result, indent=2))
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["lookups"]["get 0.01 %"]["filter_ratio"] >= 10 and result["building"]["p99_ratio"] <= 1.25 else 1


if __name__ == "__main__":
    sys.exit(main())
