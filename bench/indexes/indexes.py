"""What declared metadata indexes bring, on one server; with `--peer` beside Chroma's server.

    python bench/indexes/indexes.py [--count 1000000] [--peer] [--json FILE]

Records of ten keys and 16 dimensions. Filters of equality and a range that let 0.01 %, 0.1 % and 1 % of the records pass, as a get
with a limit and as a query with k = 10, with the composite index and without it in turn (`ignore_index=*`): medians of what the
server takes for the filter (`explain`) and of whole requests. Then reads go on while the index is rebuilt again and again, against
the same reads without: their p99. `--peer` does the same requests on 100,000 records here and on Chroma's server. Fails if the index
does not make the filter of 0.01 % 10 times faster, if building raises the p99 of reads beyond 1.25x, or if Chroma is not 200 times
slower where 0.01 % pass.
"""

import argparse
import base64
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

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


class Lean:
    """A connection on which a request costs little more than the server takes: Python's own client takes 150 us a request."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def timed(self, path, body):
        """Microseconds, and the answer."""
        body = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        request = head.encode() + body
        began = time.perf_counter()
        self.socket.sendall(request)
        answer = self.socket.recv(1 << 20)
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1 << 20)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self.socket.recv(1 << 20)
        took = (time.perf_counter() - began) * 1e6
        assert head.startswith(b"HTTP/1.1 200"), answer
        return took, json.loads(body)


def with_and_without(lean, collection, rounds):
    found = {}
    for share, (key, values) in FILTERS.items():
        for kind in ("get", "query"):
            taken = {"index": [], "scan": [], "index_filter": [], "scan_filter": []}
            for number in range(rounds):
                body = request(kind, key, number % values)
                sides = [("index", ""), ("scan", "ignore_index=*")]
                for side, hint in sides if number % 2 else reversed(sides):
                    whole, _ = lean.timed(f"{BASE}/{collection}/{kind}?{hint}", body)
                    _, answer = lean.timed(f"{BASE}/{collection}/{kind}?explain=true&{hint}", body)
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


def reads(port, collection, seconds):
    """Microseconds of reads for so long, in a process of its own: threads of one would wait for each other."""
    lean, taken, until = Lean(port), [], time.monotonic() + seconds
    while time.monotonic() < until:
        number = len(taken)
        taken.append(lean.timed(f"{BASE}/{collection}/get?ignore_index=*", request("get", "middle", number % 500))[0])
        time.sleep(0.002)
    return taken


def p99_while_building(port, client, collection, seconds):
    """The p99 of reads with builds against that without, in turn."""
    def phase(with_builds):
        taken = [readers.submit(reads, port, collection, seconds) for _ in range(2)]
        builds = 0
        while not all(future.done() for future in taken):
            if status(client, "other") == "ready" and with_builds:
                client.post("/_admin/metadata_index/other/rebuild", None)
                builds += 1
            time.sleep(0.05)
        return float(np.percentile(sum((future.result() for future in taken), []), 99)), builds

    ratios, builds = [], 0
    with ProcessPoolExecutor(2) as readers:
        for _ in range(7):
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


def beside_peer(port, client, rounds, count=100_000):
    ours = fill(client.post, BASE, count)
    for key in ("small", "middle", "large"):
        declare(client, f"{key}_100k", ours, [key, "price"])
    server = Server("chroma").start()
    try:
        theirs = fill(Client(server.port).post, BASE, count, batch=1000, encoded=False)
        mine_at, their_at, found = Lean(port), Lean(server.port), {}
        for share, (key, values) in FILTERS.items():
            for kind in ("get", "query"):
                ratios = []
                for block in range(3):
                    # One after the other, as a server in use is asked: by turns each would find its caches cold.
                    bodies = [request(kind, key, (block * rounds + number) % values) for number in range(rounds)]
                    mine = [mine_at.timed(f"{BASE}/{ours}/{kind}", body)[0] for body in bodies]
                    other = [their_at.timed(f"{BASE}/{theirs}/{kind}", body)[0] for body in bodies]
                    ratios.append(statistics.median(other) / statistics.median(mine))
                found[f"{kind} {share}"] = round(statistics.median(ratios), 1)
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
        result = {"records": given.count, "build_s": seconds, "lookups": with_and_without(Lean(given.port), collection, given.rounds),
                  "building": p99_while_building(given.port, client, collection, given.seconds)}
        if given.peer:
            result["chroma_over_ochre"] = beside_peer(given.port, client, given.rounds // 3)
    finally:
        server.terminate()
        server.wait()
        folder.cleanup()
    print(json.dumps(result, indent=2))
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(result, indent=2) + "\n")
    peer = result.get("chroma_over_ochre", {})
    shown = [
        result["lookups"]["get 0.01 %"]["filter_ratio"] >= 10, result["building"]["p99_ratio"] <= 1.25,
        all(ratio >= 200 for name, ratio in peer.items() if "0.01 %" in name),
    ]
    return 0 if all(shown) else 1


if __name__ == "__main__":
    sys.exit(main())
