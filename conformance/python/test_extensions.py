"""Extensions: what the configuration names is there and what it does not name is not; and the example of one, as a user would run it."""

import pathlib
import signal
import subprocess

import chromadb
import pytest
from server import OCHRE, Server
from server import ROOT as CHECKOUT
from test_security import ROOT, Guarded

NOTES = OCHRE.with_name("ochre-notes")
EXAMPLE = CHECKOUT / "examples/notes"
NAMED = """
[extensions]
api = ["introspection", "jobs", "metadata-indexes", "mcp", "notes"]
store = ["metadata-indexes", "notes"]
[extensions.notes]
length_max = 20
"""


def ask(server, method, path, body=None, key=ROOT):
    status, _, answer = Guarded.ask(server, method, path, body, key)
    return status, answer


@pytest.fixture(scope="module")
def noted():
    server = Guarded(NAMED)
    server.binary = NOTES
    server.start()
    client = chromadb.HttpClient("127.0.0.1", server.port, headers={"Authorization": f"Bearer {ROOT}"})
    client.create_collection("films").add(ids=["alien", "brazil"], embeddings=[[1, 0], [0, 1]])
    yield server
    server.remove()


def test_the_example_is_whole_and_small():
    lines = (EXAMPLE / "src/main.rs").read_text().splitlines()
    assert len(lines) < 150
    assert {path.name for path in (EXAMPLE / "src").iterdir()} == {"main.rs"}


def test_the_example_has_a_route_and_a_table_that_last(noted):
    assert ask(noted, "POST", "/notes/films", {"id": "alien", "text": "a classic"}) == (201, {"id": "alien"})
    assert ask(noted, "POST", "/notes/films", {"id": "brazil", "text": "odd"})[0] == 201
    expected = {"notes": [{"id": "alien", "text": "a classic"}, {"id": "brazil", "text": "odd"}]}
    assert ask(noted, "GET", "/notes/films") == (200, expected)
    noted.stop(signal.SIGKILL)
    noted.start()
    assert ask(noted, "GET", "/notes/films?tenant=default_tenant&database=default_database") == (200, expected)
    for body, path, status, words in [
        ({"id": "nosferatu", "text": "?"}, "/notes/films", 404, "nosferatu"),
        ({"id": "alien", "text": "?"}, "/notes/books", 404, "Collection [books] does not exist"),
        ({"id": "alien", "text": "x" * 21}, "/notes/films", 400, "1 to 20 characters"),
        ({"id": "alien", "text": ""}, "/notes/films", 400, "1 to 20 characters"),
        ({"id": "alien"}, "/notes/films", 422, "missing field `text`"),
        ({"id": "alien", "text": "x", "at": 1}, "/notes/films", 400, "there is no member 'at'"),
        ([], "/notes/films", 422, "invalid length"),
    ]:
        answered, answer = ask(noted, "POST", path, body)
        assert (answered, words in answer["message"]) == (status, True), (body, answer)
    assert ask(noted, "PUT", "/notes/films", {})[0] == 405
    assert ask(noted, "GET", "/notes/films") == (200, expected)


def test_the_example_is_described_with_everything_else(noted):
    status, document = ask(noted, "GET", "/openapi.json")
    described = document["paths"]["/notes/{collection}"]
    assert described["post"]["x-permission"] == "notes:write" and described["get"]["x-permission"] == "record:read"
    assert described["post"]["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Note"}
    assert document["components"]["schemas"]["Note"]["properties"]["text"]["maxLength"] == 20
    assert "/_admin/jobs" in document["paths"]


def test_the_example_has_a_permission_of_its_own(noted):
    note = {"id": "alien", "text": "by a key"}
    for grant, read, write in [
        ("reader", 200, 403), ("writer", 200, 201), ("admin", 200, 201), ("operator", 403, 403),
        ("writer:default_tenant/default_database/books", 404, 404), ("reader:other", 404, 404),
    ]:
        key = noted.key(grant)
        assert ask(noted, "GET", "/notes/films", key=key)[0] == read, grant
        status, answer = ask(noted, "POST", "/notes/films", note, key=key)
        assert status == write, (grant, answer)
        if write == 403:
            assert "notes:write" in answer["message"]
    assert ask(noted, "GET", "/notes/films", key=None)[0] == 401
    audit = (pathlib.Path(noted.data) / "audit.jsonl").read_text()
    assert '"notes:write"' in audit and "/notes/films" in audit


def test_the_example_has_a_job_of_its_own(noted):
    status, job = ask(noted, "GET", "/_admin/jobs/notes-prune")
    assert (status, job["settings"]["keep"]["description"]) == (200, "how long notes are kept")
    assert ask(noted, "GET", "/notes/films")[1]["notes"] != []
    assert ask(noted, "PATCH", "/_admin/jobs/notes-prune", {"knobs": {"keep": "0s"}})[0] == 200
    ran = subprocess.run(
        [NOTES, "jobs", "run", "notes-prune", "--port", str(noted.port)], capture_output=True, text=True,
        env={"OCHRE_TOKEN": ROOT},
    )
    assert ran.returncode == 0 and "forgot" in ran.stdout + ran.stderr, ran
    assert ask(noted, "GET", "/notes/films") == (200, {"notes": []})


def test_the_example_starts_as_its_own_configuration_says():
    server = Server(extra=("--config", str(EXAMPLE / "ochre.toml")), binary=NOTES).start()
    try:
        client = chromadb.HttpClient("127.0.0.1", server.port)
        client.create_collection("films").add(ids=["alien"], embeddings=[[1, 0]])
        assert client.get_collection("films").count() == 1
        shown = subprocess.run([NOTES, "jobs", "show", "notes-prune", "--port", str(server.port)], capture_output=True, text=True)
        assert shown.returncode == 0 and "1h" in shown.stdout, shown
    finally:
        server.remove()


@pytest.mark.parametrize(("settings", "words"), [
    ('[extensions]\napi = ["jobz"]', "did you mean 'jobs'"),
    ('[extensions]\napi = ["telemetry"]', "no such extension; there are introspection, jobs,"),
    ('[extensions]\nstore = ["metadata-index"]', "did you mean 'metadata-indexes'"),
    ('[extensions]\napi = ["jobs", "jobs"]', "names 'jobs' twice"),
    ('[extensions]\napi = ["jobs"]\n[extensions.job]\nx = 1', "did you mean `jobs`"),
    ('[extensions.jobs]\nx = 1', "there is no option `x`"),
    ('[extensions]\nstore = []', "needs 'metadata-indexes' in extensions.store"),
    ('[extensions]\napi = "jobs"', "must be of type array"),
    (NAMED.replace("20", '"many"'), "extensions.notes"),
    (NAMED.replace("length_max", "length"), "unknown field `length`"),
    (NAMED.replace("[extensions.notes]\nlength_max = 20\n", ""), "missing field `length_max`"),
    (NAMED.replace('store = ["metadata-indexes", "notes"]', ""), "needs 'notes' in extensions.store"),
    ("[jobs.notes-prune]\ninterval = '1h'", "notes-prune"),
])
def test_what_cannot_be_used_is_refused_at_the_start_and_told_why(tmp_path, settings, words):
    (tmp_path / "ochre.toml").write_text(settings)
    ran = subprocess.run([NOTES, "run", "--port", "0", "--path", tmp_path / "data"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode in (1, 2) and words in ran.stderr, ran.stderr
    assert "listening" not in ran.stderr


def test_what_is_not_named_is_not_there(tmp_path):
    (tmp_path / "ochre.toml").write_text('[extensions]\napi = ["introspection"]\nstore = []\n')
    server = Server(extra=("--config", str(tmp_path / "ochre.toml"))).start()
    try:
        client = chromadb.HttpClient("127.0.0.1", server.port)
        films = client.create_collection("films")
        films.add(ids=["alien"], embeddings=[[1, 0]], metadatas=[{"year": 1979}])
        assert films.get(where={"year": 1979})["ids"] == ["alien"]
        for path in ["/_admin/jobs", "/_admin/metadata_indexes", "/mcp"]:
            assert ask(server, "GET", path, key=None)[0] == 404, path
        assert ask(server, "GET", "/api/v1/collections/films/introspect", key=None)[0] == 200
        paths = ask(server, "GET", "/openapi.json", key=None)[1]["paths"]
        assert "/_admin/memory" in paths and "/_admin/jobs" not in paths
    finally:
        server.remove()
