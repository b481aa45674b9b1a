"""What Ochre tells of itself beyond Chroma's API, over HTTP and on the command line."""

import json
import subprocess

import pytest
from server import OCHRE

pytestmark = pytest.mark.ochre_only("Chroma has no administration API")


def test_memory_is_accounted_by_collection_and_part(server, client, raw):
    collection = client.create_collection("held", embedding_function=None)
    vectors = [[float(i % 7), float(i), 1.0] for i in range(2000)]
    collection.add(ids=[str(i) for i in range(2000)], embeddings=vectors, metadatas=[{"n": i} for i in range(2000)])
    status, _, answer = raw("GET", "/_admin/memory")
    assert status == 200
    (held,) = [row for row in answer["collections"] if row["name"] == "held"]
    assert held["id"] == str(collection.id)
    parts = {part: held["bytes"][part] for part in ("vectors", "codes", "links", "columns", "text", "indexes", "places")}
    assert held["bytes"]["total"] == sum(parts.values())
    assert parts["vectors"] >= 2000 * 3 * 4 and parts["columns"] >= 2000 * 8
    assert answer["process"]["resident"] > held["bytes"]["total"]

    ochre = [str(OCHRE), "memory", "--port", str(server.port)]
    shown = subprocess.run(ochre, capture_output=True, text=True, check=True)
    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["collection", "vectors", "codes", "links", "columns", "text", "indexes", "places", "total"]
    assert any(row.startswith("default_tenant/default_database/held ") for row in rows)
    assert "mapped files" in shown.stderr
    told = subprocess.run([*ochre, "--json"], capture_output=True, text=True, check=True)
    assert {row["name"] for row in json.loads(told.stdout)["collections"]} >= {"held"}


def test_asking_a_server_that_is_not_there_says_so():
    shown = subprocess.run([str(OCHRE), "memory", "--port", "9"], capture_output=True, text=True)
    assert shown.returncode == 1
    assert "could not ask the server at 127.0.0.1:9" in shown.stderr
