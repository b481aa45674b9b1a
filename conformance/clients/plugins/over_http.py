"""pytest plugin: tests that run Chroma in process, or at its usual port, reach the server at `CLIENTS_PORT` instead.

Each test begins with an empty server. A directory is a database of the server, so that clients of one directory see the
same collections and those of two do not."""

import hashlib
import os

import chromadb
import pytest
from chromadb.api.fastapi import FastAPI
from chromadb.config import Settings

PORT = int(os.environ["CLIENTS_PORT"])
http_client, async_http_client = chromadb.HttpClient, chromadb.AsyncHttpClient


def over_http(settings=None, tenant="default_tenant", database="default_database", path=None):
    settings = settings or Settings()
    path = path or (settings.persist_directory if settings.is_persistent else None)
    if path is not None:
        database = f"of-{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:16]}"
        admin = chromadb.AdminClient(Settings(chroma_api_impl="chromadb.api.fastapi.FastAPI", chroma_server_host="127.0.0.1",
                                              chroma_server_http_port=PORT))
        if database not in [found["name"] for found in admin.list_databases()]:
            admin.create_database(database)
    return http_client(host="127.0.0.1", port=PORT, settings=settings, tenant=tenant, database=database)


def at_the_port(make):
    def client(host="localhost", port=8000, **others):
        assert (host, int(port)) == ("localhost", 8000), f"{host}:{port} is no server of these tests"
        return make(host="127.0.0.1", port=PORT, **others)

    return client


chromadb.Client = chromadb.EphemeralClient = over_http
chromadb.PersistentClient = lambda path="./chroma", *arguments, **named: over_http(*arguments, path=str(path), **named)
chromadb.HttpClient = at_the_port(http_client)
chromadb.AsyncHttpClient = at_the_port(async_http_client)
# Tests ask whether the client is one in process, to stop it.
import chromadb.api.rust  # noqa: E402

chromadb.api.rust.RustBindingsAPI = FastAPI


@pytest.fixture(autouse=True)
def _empty_server():
    http_client(host="127.0.0.1", port=PORT).reset()
