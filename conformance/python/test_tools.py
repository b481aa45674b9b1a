"""What other tools read of a collection: OpenAPI for GPT actions, MCP, LangChain, LlamaIndex. Each is read by the official
client or validator, in an environment of its own."""

import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import threading
import urllib.parse
import urllib.request

import pytest
from server import OCHRE, ROOT, Server

pytestmark = pytest.mark.ochre_only("Chroma has none of this")

TOOLS = pathlib.Path(os.environ.get("TOOLS_PYTHON", ROOT / ".cache/tools/bin/python"))
CLIENT = ROOT / "conformance/tools/mcp_client.py"
V2 = "/api/v2/tenants/default_tenant/databases/default_database/collections"
SCHEMA = {
    "description": "Films",
    "properties": {
        "year": {"type": "int", "description": "When it came out"},
        "genre": {"type": "string", "enum": ["drama", "comedy"]},
        "tags": "list[string]",
        "released": "date",
        "secret": {"type": "string", "sensitive": True},
    },
}


def fill(client):
    films = client.create_collection("films", metadata={"chroma:schema": SCHEMA}, embedding_function=None)
    films.add(
        ids=["a", "b", "c"],
        embeddings=[[1, 0], [0, 1], [1, 1]],
        documents=["a space opera", "a quiet village", "space and time"],
        metadatas=[
            {"year": 1977, "genre": "comedy", "tags": ["x"], "secret": "s3cret", "released": "1977-05-25"},
            {"year": 1995, "genre": "drama", "tags": ["x", "y"]},
            {"year": 2001, "genre": "drama"},
        ],
    )
    return films


@pytest.fixture
def films(client):
    return fill(client)


def found(raw, **parameters):
    status, _, body = raw("GET", f"{V2}/films/find?{urllib.parse.urlencode(parameters)}")
    return [record["id"] for record in body["records"]] if status == 200 else (status, body["message"])


def test_records_are_found_by_words_and_by_typed_parameters(raw, films):
    assert found(raw, q="SPACE") == ["a", "c"]
    assert found(raw, q="space village", genre="drama") == ["b", "c"]
    assert found(raw, year_gte=1990, year_lte=2000) == ["b"]
    assert found(raw, tags_contains="y") == ["b"]
    assert found(raw) == ["a", "b", "c"] and found(raw, n=1, offset=1) == ["b"]
    assert "did you mean \"year\"" in found(raw, yaer=1990)[1]
    assert "integer" in found(raw, year="old")[1] and "one of" in found(raw, genre="noise")[1]
    assert found(raw, n=0)[0] == 400 and found(raw, n=1000)[0] == 400
    films.modify(metadata={"chroma:schema": ""})
    films.add(ids=["d"], embeddings=[[0, 0]], metadatas=[{"year": "1995", "a b": 1, "a_b": 2}])
    # What can be read as a number and as a string is read as both; a key that can be a name is found by it.
    assert found(raw, year=1995) == ["b", "d"] and found(raw, a_b=2) == ["d"] and found(raw, a_b_2=1) == ["d"]


def test_what_is_sensitive_is_not_shown(raw, films):
    body = raw("GET", f"{V2}/films/find?q=opera")[2]
    assert body["ranking"] == "words" and "secret" not in body["records"][0]["metadata"]


def test_a_long_answer_is_cut(raw, client):
    long = client.create_collection("films", embedding_function=None)
    long.add(ids=[str(n) for n in range(50)], embeddings=[[n, 1] for n in range(50)], documents=["word " * 2000] * 50)
    status, _, body = raw("GET", f"{V2}/films/find?n=50")
    assert status == 200 and body["truncated"] is True and len(json.dumps(body)) < 100_000


def test_the_forms_for_other_tools_say_the_same(raw, films):
    def form(name):
        status, _, body = raw("GET", f"{V2}/films/schema?format={name}")
        assert status == 200 and "secret" not in json.dumps(body)
        return body

    standard = form("json-schema")
    assert standard["properties"]["genre"] == {"type": "string", "enum": ["drama", "comedy"]}
    assert standard["properties"]["tags"] == {"type": "array", "items": {"type": "string"}}
    langchain = form("attribute-info")
    assert langchain["document_contents"] == "Films"
    year = next(info for info in langchain["metadata_field_info"] if info["name"] == "year")
    assert year["type"] == "integer" and "from 1977 to 2001" in year["description"]
    assert next(i for i in langchain["metadata_field_info"] if i["name"] == "released")["type"] == "date"
    llama = form("metadata-info")
    assert {"name", "type", "description"} == set(llama["metadata_info"][0]) and llama["content_info"] == "Films"
    assert {tool["name"] for tool in form("mcp")["tools"]} == {"find_films", "describe_films"}
    assert raw("GET", f"{V2}/films/schema?format=xml")[0] == 400


def test_dates_are_bounded_by_parameters_and_documents_name_the_public_address(films, tmp_path):
    import chromadb

    server = Server(extra=("--config", str(tmp_path / "ochre.toml")))
    (tmp_path / "ochre.toml").write_text('[server]\npublic_url = "https://db.example.com/"\n')
    server.start()
    try:
        films = fill(chromadb.HttpClient(port=server.port))
        films.update(ids=["b", "c"], metadatas=[{"released": "1995-03-01"}, {"released": "2001-12-31"}])

        def ask(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{V2}/films/{path}", timeout=60) as answer:
                return json.loads(answer.read())

        document = ask("schema?format=openapi")
        assert document["servers"] == [{"url": "https://db.example.com"}]
        parameters = {p["name"]: p["schema"] for p in next(iter(document["paths"].values()))["get"]["parameters"]}
        assert parameters["released_gte"]["format"] == "date" and parameters["released_lte"]["type"] == "string"
        assert "genre_gte" not in parameters
        ids = lambda query: [record["id"] for record in ask(f"find?{query}")["records"]]
        assert ids("released_gte=1990-01-01") == ["b", "c"] and ids("released_gte=1977-05-25&released_lte=1995-03-01") == ["a", "b"]
        assert ids("released_lte=1977-05-24") == []
    finally:
        server.remove()


def tools(*arguments, **options):
    assert TOOLS.exists(), "`cargo xtask test` makes this environment; or name one in TOOLS_PYTHON"
    return subprocess.run([str(TOOLS), *map(str, arguments)], capture_output=True, text=True, timeout=240, **options)


def test_the_openapi_document_is_valid_within_the_limits_and_true(raw, films, server, tmp_path):
    document = raw("GET", f"{V2}/films/schema?format=openapi")[2]
    operation = next(iter(document["paths"].values()))["get"]
    assert document["openapi"].startswith("3.1") and operation["x-openai-isConsequential"] is False
    assert len(operation["summary"]) <= 300 and all(len(p["description"]) <= 700 for p in operation["parameters"])
    assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    file = tmp_path / "films.json"
    file.write_text(json.dumps(document))
    valid = tools("-m", "openapi_spec_validator", file)
    assert valid.returncode == 0, valid.stdout + valid.stderr
    driven = tools(
        "-m", "schemathesis.cli", "run", file, "--url", f"http://127.0.0.1:{server.port}", "--max-examples", "40", "--seed", "1",
        "--exclude-checks", "ignored_auth",  # There is no authentication yet.
        cwd=tmp_path,
    )
    assert driven.returncode == 0, driven.stdout[-4000:] + driven.stderr[-2000:]


def test_the_official_mcp_client_lists_and_calls_the_tools_and_is_told_of_changes(raw, films, server):
    command = [str(TOOLS), str(CLIENT), "http", f"http://127.0.0.1:{server.port}/mcp", "--watch"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert driver.stdout.readline().strip() == "watching", driver.stderr.read()
    films.modify(metadata={"chroma:schema": json.dumps({"properties": {"year": "int", "rating": "float"}, "additional": "allow"})})
    out, err = driver.communicate(timeout=60)
    seen = json.loads(out.strip().splitlines()[-1])
    check_mcp(seen)
    assert "ToolListChanged" in seen["told"], err
    after = next(tool for tool in seen["tools_after"] if tool["name"] == "find_films")
    assert "rating_gte" in after["input_schema"]["properties"]


def check_mcp(seen):
    find = next(tool for tool in seen["tools"] if tool["name"] == "find_films")
    properties = find["input_schema"]["properties"]
    assert properties["year_gte"]["type"] == "integer" and properties["genre"]["enum"] == ["drama", "comedy"]
    words, typed, wrong, misspelt, described, unknown = seen["calls"]
    assert [record["id"] for record in words["structured"]["records"]] == ["a", "c"]
    assert [record["id"] for record in typed["structured"]["records"]] == ["b", "c"]
    assert wrong["is_error"] and "integer" in wrong["text"]
    assert misspelt["is_error"] and "did you mean" in misspelt["text"]
    assert described["text"].startswith("# films") and "s3cret" not in described["text"]
    assert unknown["is_error"] and "list the tools again" in unknown["text"]


def test_the_same_tools_are_there_on_standard_input_and_output(tmp_path):
    import chromadb

    server = Server().start()
    try:
        fill(chromadb.HttpClient(host="127.0.0.1", port=server.port))
        # The database is in use: the error says where the tools are instead.
        busy = subprocess.run([str(OCHRE), "mcp", "--path", server.data], capture_output=True, text=True, timeout=30)
        assert busy.returncode == 4 and "/mcp" in busy.stderr
        server.stop()
        answer = tools(CLIENT, "stdio", OCHRE, "mcp", "--path", server.data, cwd=tmp_path)
        check_mcp(json.loads(answer.stdout.strip().splitlines()[-1]))
    finally:
        server.remove()


def test_tools_are_refused_to_pages_of_other_origins_and_to_other_hosts(raw):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    assert raw("POST", "/mcp", body, {**headers, "origin": "https://evil.example"})[0] == 403
    assert raw("POST", "/mcp", body, {**headers, "host": "evil.example"})[0] in (400, 403)


class Stub(http.server.BaseHTTPRequestHandler):
    """An endpoint that speaks OpenAI's API: texts with `space` in them are near [1, 0]."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, self.headers.get("authorization"), body["model"]))
        vector = [1.0, 0.05] if "space" in body["input"][0] else [0.0, 1.0]
        status, answer = (200, {"data": [{"embedding": vector}]}) if body["model"] == "stub" else (404, {"error": "no such model"})
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def test_a_text_is_embedded_by_the_configured_endpoint(tmp_path, monkeypatch):
    import chromadb

    stub = http.server.HTTPServer(("127.0.0.1", 0), Stub)
    stub.seen = []
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    monkeypatch.setenv("OCHRE_EMBEDDING_URL", f"http://127.0.0.1:{stub.server_port}/v1")
    monkeypatch.setenv("OCHRE_EMBEDDING_MODEL", "stub")
    monkeypatch.setenv("OCHRE_EMBEDDING_KEY", "k3y")
    server = Server().start()
    try:
        films = fill(chromadb.HttpClient(host="127.0.0.1", port=server.port))
        import urllib.request

        def ask():
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{V2}/films/find?q=space&n=1") as answer:
                return json.loads(answer.read())

        answer = ask()
        assert answer["ranking"] == "distance" and answer["records"][0]["id"] == "a" and "distance" in answer["records"][0]
        assert stub.seen == [("/v1/embeddings", "Bearer k3y", "stub")] and films.count() == 3
        server.stop()
        monkeypatch.setenv("OCHRE_EMBEDDING_MODEL", "other")
        server.start()
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask()
        message = json.loads(refused.value.read())["message"]
        assert refused.value.code == 502 and "no such model" in message and "[embedding]" in message
    finally:
        server.remove()
        stub.shutdown()


def test_the_command_prints_a_readable_table(client, films, server):
    def run(*arguments):
        command = [str(OCHRE), "introspect", *arguments, "--port", str(server.port)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    shown = run("films")
    assert shown.returncode == 0 and "3 records" in shown.stderr
    assert re.search(r"^year +int +100.0 % +int 3 +3 +1977 to 2001$", shown.stdout, re.M), shown.stdout
    assert json.loads(run("films", "--json").stdout)["records"] == 3
    assert run("films", "--markdown", "--keys", "year").stdout.startswith("# films")
    assert "Collection [nothing] does not exist" in run("nothing").stderr and run("nothing").returncode == 1


def test_a_message_to_mcp_has_to_arrive_in_time_and_within_its_size(monkeypatch):
    monkeypatch.setenv("OCHRE_SERVER_REQUEST_TIMEOUT_MS", "500")
    server = Server().start()
    try:
        for length, expected in [(1000, b" 408 "), (1 << 40, b" 413 ")]:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as caller:
                caller.sendall(
                    f"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                    f"accept: application/json, text/event-stream\r\ncontent-length: {length}\r\n\r\n{{".encode())
                assert expected in caller.recv(100)
    finally:
        server.remove()


def test_sessions_of_mcp_are_capped(raw):
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    answers = [raw("POST", "/mcp", hello, headers) for _ in range(257)]
    assert {status for status, _, _ in answers[:256]} == {200}
    assert answers[256][0] == 429 and "256 sessions" in answers[256][2]["message"]
    session = answers[0][1]["mcp-session-id"]
    assert raw("DELETE", "/mcp", None, {**headers, "mcp-session-id": session})[0] in (200, 202, 204)
    assert raw("POST", "/mcp", hello, headers)[0] == 200
