"""kill -9 in a loop: the server dies at random moments while clients write, and nothing acknowledged is lost.
With `--signal TERM` it is asked to stop instead, and must do so with exit code 0.

Three threads write, each to ids of its own: a batch carries one number in every record, so that a batch
kept in part would show. After each kill `ochre check` must be clean, and after a restart every id must hold
what was last acknowledged for it, or what was in flight, whole.
"""

import argparse
import http.client
import json
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
from server import OCHRE, Server  # noqa: E402

BASE = "/api/v2/tenants/default_tenant/databases/default_database"
BATCH = 20


class Writer(threading.Thread):
    """Writes batches until the server is gone. `acknowledged` is the last state it was told of, `in_flight`
    the one it was waiting for."""

    def __init__(self, port, collection, number, acknowledged, counter):
        super().__init__(daemon=True)
        self.port, self.path, self.number = port, f"{BASE}/collections/{collection}", number
        self.acknowledged, self.in_flight, self.counter = acknowledged, None, counter
        self.ids = [f"{number}-{index}" for index in range(BATCH)]
        self.random = random.Random(number * 1_000_003 + counter)

    def run(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            while True:
                self.counter += 1
                kind = self.random.choice(["upsert", "upsert", "update", "delete"])
                if self.acknowledged is None:
                    kind = "add"
                if kind == "delete":
                    body, after = {"ids": self.ids}, None
                else:
                    after = self.counter
                    body = {
                        "ids": self.ids,
                        "embeddings": [[float(after), 1.0, 2.0, float(self.number)]] * BATCH,
                        "metadatas": [{"n": after}] * BATCH,
                        "documents": [f"state {after}"] * BATCH,
                    }
                self.in_flight = (after,)
                connection.request("POST", f"{self.path}/{kind}", json.dumps(body), {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status not in (200, 201):
                    raise RuntimeError(f"{kind} was answered {answer.status}")
                self.acknowledged, self.in_flight = after, None
        except (OSError, http.client.HTTPException):
            pass


def call(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    method = "POST" if body is not None else "GET"
    connection.request(method, path, json.dumps(body) if body is not None else None, {"content-type": "application/json"})
    answer = connection.getresponse()
    return json.loads(answer.read())


def found(port, collection, number):
    """The state all records of a writer are in; an error if they are not in one."""
    body = {"ids": [f"{number}-{index}" for index in range(BATCH)], "include": ["metadatas", "documents", "embeddings"]}
    got = call(port, f"{BASE}/collections/{collection}/get", body)
    states = {
        (metadata["n"], document, embedding[0])
        for metadata, document, embedding in zip(got["metadatas"], got["documents"], got["embeddings"])
    }
    assert len(got["ids"]) in (0, BATCH), f"a batch is there in part: {len(got['ids'])} of {BATCH}"
    assert len(states) <= 1, f"records of one batch in different states: {states}"
    if not states:
        return None
    state, document, first = states.pop()
    assert document == f"state {state}" and first == float(state), "parts of one record in different states"
    return state


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    # Small thresholds: graph, seals and compaction are in the way of the kills too.
    server = Server(extra=("--config", "ochre.toml"))
    with open(f"{server.directory}/ochre.toml", "w") as file:
        file.write("[database]\nsegment_bytes = 65536\ngraph_records_min = 40\n")
    in_flight = 0
    try:
        server.start()
        collection = call(server.port, f"{BASE}/collections", {"name": "crash"})["id"]
        states = {number: (None, 0) for number in range(3)}
        for kill in range(arguments.kills):
            writers = [Writer(server.port, collection, n, state, counter) for n, (state, counter) in states.items()]
            for writer in writers:
                writer.start()
            time.sleep(chance.uniform(0.02, 0.35))
            server.process.send_signal(signal.Signals[f"SIG{arguments.signal}"])
            waiting = [writer.in_flight for writer in writers]
            code = server.process.wait(timeout=60)
            assert arguments.signal == "KILL" or code == 0, f"kill {kill}: asked to stop it exits with {code}"
            for writer in writers:
                writer.join(timeout=60)
            in_flight += any(waiting)
            checked = subprocess.run([OCHRE, "check", "--path", server.data], capture_output=True, text=True)
            assert checked.returncode == 0, f"kill {kill}: check says\n{checked.stdout}{checked.stderr}"
            server.start()
            for writer in writers:
                state = found(server.port, collection, writer.number)
                allowed = [writer.acknowledged] + ([writer.in_flight[0]] if writer.in_flight else [])
                assert state in allowed, f"kill {kill}: writer {writer.number} finds {state}, not one of {allowed}"
                states[writer.number] = (state, writer.counter)
        share = in_flight / arguments.kills
        writes = sum(counter for _, counter in states.values())
        print(f"{arguments.kills} kills, {writes} batches of {BATCH}, a request in flight at {share:.0%} of the kills (seed {arguments.seed})")
        assert share >= 0.5, "fewer than half of the kills met a request in flight"
        assert server.stop() == 0
        assert subprocess.run([OCHRE, "check", "--path", server.data], capture_output=True).returncode == 0
        print("1 passed, 0 failed")
        return 0
    except AssertionError as error:
        print(f"seed {arguments.seed}: {error}\n{server.log()[-2000:]}", file=sys.stderr)
        return 1
    finally:
        server.remove()


if __name__ == "__main__":
    sys.exit(main())
