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
    parts = {part: held["bytes"][part] for part in ("vectors", "quantized", "links", "columns", "text", "indexes", "locations")}
    assert held["bytes"]["total"] == sum(parts.values())
    # The names of before, for one version.
    assert (held["bytes"]["codes"], held["bytes"]["places"]) == (parts["quantized"], parts["locations"])
    assert parts["vectors"] >= 2000 * 3 * 4 and parts["columns"] >= 2000 * 8
    assert answer["process"]["resident"] > held["bytes"]["total"]

    ochre = [str(OCHRE), "memory", "--port", str(server.port)]
    shown = subprocess.run(ochre, capture_output=True, text=True, check=True)
    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["collection", "vectors", "quantized", "links", "columns", "text", "indexes", "locations", "total"]
    assert any(row.startswith("default_tenant/default_database/held ") for row in rows)
    assert "mapped files" in shown.stderr
    told = subprocess.run([*ochre, "--json"], capture_output=True, text=True, check=True)
    assert {row["name"] for row in json.loads(told.stdout)["collections"]} >= {"held"}


def test_small_collections_are_accounted_for_what_they_hold(client, raw):
    collection = client.create_collection("little", embedding_function=None)
    collection.add(ids=["a", "b"], embeddings=[[1.0, 2.0], [3.0, 4.0]])
    assert collection.count() == 2
    (held,) = [row for row in raw("GET", "/_admin/memory")[2]["collections"] if row["name"] == "little"]
    assert 0 < held["bytes"]["locations"] < 1024


def test_a_server_that_does_not_know_the_route_is_told_from_one_that_refuses():
    import http.server
    import threading

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        port = str(other.server_port)
        shown = subprocess.run([str(OCHRE), "jobs", "list", "--port", port], capture_output=True, text=True)
        other.shutdown()
    assert shown.returncode == 1
    assert f"127.0.0.1:{port} does not serve /_admin/jobs" in shown.stderr and "extensions.api" in shown.stderr


@pytest.mark.parametrize(
    "text, words",
    [
        ('[jobs.vacuum]\ninterval = "10x"\n', ["[jobs.vacuum]", "10x"]),
        ('[jobs.vacum]\ninterval = "10m"\n', ["[jobs]", "did you mean 'vacuum'"]),
        ('[scheduler]\nimplementation = "lokal"\n', ["[scheduler]", "lokal"]),
        ('[auth]\nenabled = true\nusers = ["ali"]\n', ["auth.users", "ali"]),
        ("[server]\nport = 70000\n", ["o.toml", "server.port", "from 0 to 65535"]),
    ],
)
def test_a_bad_configuration_is_bad_usage_and_names_its_place(tmp_path, text, words):
    (tmp_path / "o.toml").write_text(text)
    command = [str(OCHRE), "run", "--config", "o.toml", "--path", "data"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2, ran
    assert all(word in ran.stderr for word in words), ran.stderr


def test_asking_a_server_that_is_not_there_says_so():
    shown = subprocess.run([str(OCHRE), "memory", "--port", "9"], capture_output=True, text=True)
    assert shown.returncode == 1
    assert "could not ask the server at 127.0.0.1:9" in shown.stderr


def test_a_slash_at_the_end_of_an_administration_path_means_nothing(raw):
    for path in ["/_admin/jobs", "/_admin/jobs/vacuum", "/_admin/memory"]:
        assert raw("GET", path + "/")[0] == raw("GET", path)[0] == 200, path
    assert raw("GET", "/_admin/metadata_indexes/?status=valid")[0] == raw("GET", "/_admin/metadata_indexes?status=valid")[0]


def test_an_unknown_administration_path_is_told_the_nearest_and_others_answer_as_chroma(raw):
    for path, near in [("/_admin/jbos", "/_admin/jobs?"), ("/_admin/memroy", "/_admin/memory?")]:
        status, _, answer = raw("GET", path)
        assert status == 404 and near in answer["message"], answer
    status, _, answer = raw("GET", "/_admin/nothing/like/this/at/all")
    assert status == 404 and "/openapi.json" in answer["message"]
    assert raw("GET", "/api/v2/nothing")[0] == 404 and not raw("GET", "/api/v2/nothing")[2]


@pytest.mark.parametrize("method, path, near", [
    ("POST", "/_admin/metadata_indexes?dryrun=true", "'dry_run'"),
    ("DELETE", "/_admin/metadata_indexes?colection=nix&confirm=true", "'collection'"),
    ("GET", "/_admin/jobs/vacuum?histroy=1", "'history'"),
    ("GET", "/_admin/memory?verbose=1", "there are none"),
    ("GET", "/api/v2/tenants/default_tenant/databases/default_database/collections/held/schema?formt=json", "'format'"),
])
def test_query_parameters_that_do_not_exist_are_refused_with_the_nearest(raw, method, path, near):
    body = {"metadata_indexes": []} if method == "POST" else None
    status, _, answer = raw(method, path, body)
    assert status == 400 and near in answer["message"], answer
