"""A freshly started server for the whole run, reset before each test."""

import json
import urllib.error
import urllib.request
import uuid

import chromadb
import pytest
from server import Server


def pytest_addoption(parser):
    parser.addoption("--server", choices=["ochre", "chroma"], default="ochre", help="which server to test")


def pytest_configure(config):
    config.addinivalue_line("markers", "ochre_only(reason): Chroma answers differently, for this reason")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--server") == "ochre":
        return
    # Against the other server a difference is deselected, and counted as such.
    different = [item for item in items if item.get_closest_marker("ochre_only")]
    config.hook.pytest_deselected(items=different)
    items[:] = [item for item in items if item not in different]


@pytest.fixture(scope="session")
def server(request):
    server = Server(request.config.getoption("--server")).start()
    yield server
    server.remove()


@pytest.fixture
def client(server):
    client = chromadb.HttpClient(host="127.0.0.1", port=server.port)
    client.reset()
    return client


@pytest.fixture
def admin(server, client):
    from chromadb.config import Settings

    return chromadb.AdminClient(
        Settings(
            chroma_api_impl="chromadb.api.fastapi.FastAPI",
            chroma_server_host="127.0.0.1",
            chroma_server_http_port=server.port,
        )
    )


@pytest.fixture
def notes(client):
    """Six records with every type of metadata, in three dimensions."""
    notes = client.create_collection(f"notes-{uuid.uuid4().hex[:8]}", embedding_function=None)
    notes.add(
        ids=["a", "b", "c", "d", "e", "f"],
        embeddings=[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 0]],
        documents=["the red apple", "a green pear", None, "Äpfel und Birnen", "", "red red wine"],
        metadatas=[
            {"n": 1, "s": "x", "b": True},
            {"n": 2, "s": "y"},
            {"n": 2.5, "tags": ["p", "q"]},
            None,
            {"n": 4, "b": False, "tags": ["q"]},
            {"n": -1, "s": "x"},
        ],
        uris=["u:a", None, None, None, None, None],
    )
    return notes


@pytest.fixture
def raw(server):
    """`raw(method, path, body=None, headers=…)` gives status, headers and body, without a client's help."""

    def call(method, path, body=None, headers=None):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if headers is None else headers
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data, headers, method=method)
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        text = answer.read().decode()
        try:
            text = json.loads(text)
        except ValueError:
            pass
        return answer.status, dict(answer.headers), text

    return call
