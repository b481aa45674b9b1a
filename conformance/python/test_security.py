"""Authentication and authorisation: every route with every role, the official client over TLS, and attacks."""

import base64
import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import bcrypt
import chromadb
import pytest
from chromadb.config import Settings
from server import OCHRE, Server

TLS = pathlib.Path(__file__).resolve().parent / "tls"
ROOT = "root-key-of-the-tests-0123456789"
V2 = "/api/v2/tenants/default_tenant/databases/default_database/collections"
READER = {"tenant:read", "database:read", "collection:read", "record:read", "schema:read", "introspect:read", "introspect:values", "tool:use"}
WRITER = READER | {"record:write"}
ROLES = {
    "reader": READER,
    "writer": WRITER,
    "schema-manager": WRITER | {"collection:write", "schema:write", "index:read", "index:write"},
    "operator": {"tenant:read", "database:read", "collection:read", "schema:read", "introspect:read", "index:read", "index:write",
                 "job:read", "job:write", "system:read"},
    "auditor": {"schema:read", "job:read"},
    "admin": None,
}
AUTHZ = """
roles_mapping:
  editor: {actions: [tenant:get_tenant, db:get_database, db:list_collections, collection:get_collection, collection:add, collection:get, collection:count]}
users:
- {id: old, role: editor, tokens: [{token: old-style-token-1}]}
- {id: outsider, tokens: [token-without-a-role]}
"""


class Guarded(Server):
    """A server that asks who it is."""

    def __init__(self, settings=""):
        super().__init__()
        htpasswd = pathlib.Path(self.directory) / "htpasswd"
        hashed = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
        htpasswd.write_text(f"ali:{hashed}\nnobody:{hashed}\n")
        (pathlib.Path(self.directory) / "authz.yaml").write_text(AUTHZ)
        (pathlib.Path(self.directory) / "ochre.toml").write_text(f"""
[auth]
enabled = true
htpasswd = "{htpasswd}"
users = ["ali=reader:default_tenant/default_database/films-*,writer:acme"]
roles = ["auditor=schema:read, job:read", "keeper=key:*,tool:use", "designer=schema:*,collection:read", "scribe=record:write,collection:read"]
authz_file = "{self.directory}/authz.yaml"
failures_per_minute = 0
{settings}
""")
        os.environ["OCHRE_ROOT_KEY"] = ROOT

    def ask(self, method, path, body=None, key=ROOT, headers=None):
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream", **(headers or {})}
        if key:
            headers["authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
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

    def key(self, *grants, **limits):
        status, _, made = self.ask("POST", "/_admin/keys", {"name": "test", "grants": list(grants), **limits})
        assert status == 201, made
        return made["key"]


@pytest.fixture(scope="module")
def guarded():
    server = Guarded().start()
    yield server
    server.remove()


@pytest.fixture
def films(guarded):
    guarded.ask("POST", "/api/v2/reset")
    made = {}
    for name in ["films-1", "films-2", "books"]:
        status, _, body = guarded.ask("POST", V2, {"name": name, "metadata": {"of": name}})
        assert status == 200, body
        made[name] = body["id"]
        status, _, body = guarded.ask("POST", f"{V2}/{body['id']}/add", {
            "ids": ["a", "b"], "embeddings": [[1, 0], [0, 1]], "metadatas": [{"year": 1990}, {"year": 2000}]})
        assert status == 201, body
    return made


def client_of(server, key, header="Authorization", **settings):
    return chromadb.HttpClient(port=server.port, settings=Settings(
        chroma_client_auth_provider="chromadb.auth.token_authn.TokenAuthClientProvider",
        chroma_client_auth_credentials=key, chroma_auth_token_transport_header=header, **settings))


def operations(guarded):
    paths = guarded.ask("GET", "/openapi.json", key=None)[2]["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            # Nothing that exists is named, so that nothing is harmed.
            for part, name in [("{tenant}", "no_tenant"), ("{database}", "no_database"), ("{collection}", "8a5d1c1e-0000-4000-8000-00000000000f"),
                               ("{crn}", "a:b:c"), ("{name}", "nothing"), ("{index_name}", "nothing"), ("{id}", "nothing"), ("{function}", "nothing")]:
                path = path.replace(part, name)
            yield method.upper(), path, operation


def test_every_route_with_every_role(guarded):
    walked = 0
    keys = {role: guarded.key(role) for role in ROLES}
    for method, path, operation in operations(guarded):
        body = {} if method in ("POST", "PUT", "PATCH") else None
        permission = operation.get("x-permission")
        anonymous, headers, answer = guarded.ask(method, path, body, key=None)
        if "security" not in operation:
            assert anonymous == 200, (method, path)
            continue
        assert anonymous == 401 and "Bearer" in headers["www-authenticate"] and answer["error"] == "AuthError", (method, path, answer)
        for role, key in keys.items():
            status, _, answer = guarded.ask(method, path, body, key)
            enough = {permission, operation.get("x-permission-to-change-nothing")}
            allowed = permission is None or ROLES[role] is None or bool(enough & ROLES[role])
            assert (status not in (401, 403)) == allowed, (role, method, path, permission, status, answer)
            walked += 1
    assert walked > 350
    assert guarded.ask("GET", "/no/such/route", key=None)[0] == 401
    assert guarded.ask("GET", "/no/such/route", key=keys["reader"])[0] == 403
    hello = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert guarded.ask("POST", "/mcp", hello, None)[0] == 401
    assert guarded.ask("POST", "/mcp", hello, keys["auditor"])[0] == 403
    assert guarded.ask("POST", "/mcp", hello, keys["reader"])[0] not in (401, 403)


def test_routes_of_v1_need_what_those_of_v2_do(guarded, films):
    reader, manager, other = guarded.key("reader"), guarded.key("schema-manager"), guarded.key("reader:other")
    schema = {"schema": {"type": "object", "properties": {"year": {"type": "integer"}}}}
    for method, path, body, reads in [
        ("GET", "schema", None, 200), ("PUT", "schema", schema, 403), ("POST", "schema/validate", schema, 200), ("DELETE", "schema", None, 403),
        ("GET", "introspect", None, 200),
    ]:
        asked = [guarded.ask(method, f"/api/v1/collections/films-1/{path}", body, key)[0] for key in (None, other, reader, manager)]
        assert asked == [401, 404, reads, 200], (method, path)
    audited = [json.loads(line) for line in (pathlib.Path(guarded.data) / "audit.jsonl").read_text().splitlines()]
    assert {"PUT", "DELETE"} <= {entry["method"] for entry in audited if entry["path"] == "/api/v1/collections/films-1/schema"}


def test_grants_hold_where_they_are_given_and_hide_everything_else(guarded, films):
    key = guarded.key("reader:default_tenant/default_database/films-*")
    ask = lambda method, path, body=None: guarded.ask(method, path, body, key)
    assert {row["name"] for row in ask("GET", V2)[2]} == {"films-1", "films-2"}
    assert ask("GET", f"{V2}?limit=1&offset=1")[2] == ask("GET", V2)[2][1:]
    assert ask("GET", f"{V2}_count")[2] == 2
    assert ask("POST", f"{V2}/{films['films-1']}/get", {})[2]["ids"] == ["a", "b"]
    # What is not granted is not there, by name, by id and by every other way.
    unknown = ask("GET", f"{V2}/nothing")
    for method, path, body in [("GET", f"{V2}/books", None), ("POST", f"{V2}/{films['books']}/get", {}), ("GET", f"{V2}/by-id/{films['books']}", None),
                               ("GET", f"{V2}/{films['books']}/count", None), ("GET", f"{V2}/books/introspect", None),
                               ("GET", "/api/v1/collections/books/introspect", None), ("DELETE", f"{V2}/books", None)]:
        status, _, answer = ask(method, path, body)
        assert status == 404 and answer["error"] == unknown[2]["error"] and "year" not in json.dumps(answer), (method, path, answer)
    assert ask("POST", f"{V2}/{films['films-1']}/add", {"ids": ["x"], "embeddings": [[1, 1]]})[0] == 403
    assert ask("POST", V2, {"name": "films-3"})[0] == 403
    assert ask("GET", "/api/v2/tenants/other")[0] == 404
    assert ask("GET", "/api/v2/tenants/default_tenant/databases/other")[0] == 404
    assert [row["name"] for row in ask("GET", "/api/v2/tenants/default_tenant/databases")[2]] == ["default_database"]
    # Path tricks name the same places.
    for path in [f"{V2}/%62ooks", f"{V2}/../collections/books", f"{V2}//books", f"{V2}/books/", f"{V2}/books%2Fget", "/api/v2/../../_admin/keys"]:
        assert ask("GET", path)[0] in (400, 401, 403, 404), path
    assert guarded.ask("GET", f"{V2}/books")[0] == 200, "nothing was lost"


def test_nobody_takes_a_collection_out_of_their_grant(guarded, films):
    key = guarded.key("schema-manager:default_tenant/default_database/films-*")
    assert guarded.ask("POST", V2, {"name": "books-2"}, key)[0] == 404
    assert guarded.ask("POST", V2, {"name": "films-9"}, key)[0] == 200
    assert guarded.ask("PUT", f"{V2}/{films['films-1']}", {"new_name": "books-9"}, key)[0] == 404
    assert guarded.ask("PUT", f"{V2}/{films['films-1']}", {"new_name": "films-7"}, key)[0] == 200
    index = {"index_name": "by_year", "columns": ["year"]}
    assert guarded.ask("POST", "/_admin/metadata_indexes", {**index, "collection": "books"}, key)[0] == 404
    assert guarded.ask("POST", "/_admin/metadata_indexes", {**index, "collection": films["books"]}, key)[0] == 404
    assert guarded.ask("POST", "/_admin/metadata_indexes", {**index, "collection": "films-2"}, key)[0] == 202
    assert guarded.ask("POST", "/_admin/metadata_indexes", {**index, "index_name": "other", "collection": "books"})[0] == 202
    shown = guarded.ask("GET", "/_admin/metadata_indexes", key=key)[2]["indexes"]
    assert [row["index_name"] for row in shown] == ["by_year"]
    assert guarded.ask("GET", "/_admin/metadata_index/other", key=key)[0] == 404
    assert guarded.ask("DELETE", "/_admin/metadata_index/other", key=key)[0] == 404
    assert guarded.ask("PUT", "/_admin/metadata_index/by_year", {**index, "collection": "books"}, key)[0] == 404
    # Declaring a schema is a right of its own.
    guarded.ask("POST", "/_admin/keys", {"name": "x", "grants": ["reader"]})
    assert guarded.ask("PUT", f"{V2}/films-2/schema", {"year": "int"}, guarded.key("writer"))[0] == 403
    assert guarded.ask("PUT", f"{V2}/films-2/schema", {"year": "int"}, key)[0] == 200


def test_names_that_look_like_others_name_only_themselves(guarded, films):
    for tenant in ["acme", "acme&sons", "acme=b"]:
        guarded.ask("POST", "/api/v2/tenants", {"name": tenant})
        guarded.ask("POST", f"/api/v2/tenants/{tenant}/databases", {"name": "main"})
    key = guarded.key("admin:acme")
    for path in ["acme&sons", "acme%26sons", "acme=b", "acme%FF", "acme%00", "acme+"]:
        assert guarded.ask("DELETE", f"/api/v2/tenants/{path}/databases/main", key=key)[0] in (400, 403, 404), path
    assert guarded.ask("GET", "/api/v2/tenants/acme&sons/databases/main")[0] == 200
    assert guarded.ask("GET", "/api/v2/tenants/acme&sons/databases/main", key=guarded.key("admin:acme&sons"))[0] == 200
    # A collection may be named like the id of another: it lends nobody the other's records.
    victim = films["books"]
    key = guarded.key(f"schema-manager:default_tenant/default_database/{victim[:4]}*")
    assert guarded.ask("POST", V2, {"name": victim}, key)[0] == 200
    assert guarded.ask("POST", f"{V2}/{victim}/get", {}, key)[0] == 404
    assert guarded.ask("PUT", f"{V2}/{victim}", {"metadata": {"a": 1}}, key)[0] == 404
    assert guarded.ask("GET", f"{V2}/by-id/{victim}", key=key)[0] == 404
    text = json.dumps(guarded.ask("GET", f"{V2}/by-id/{victim}", key=guarded.key("reader:default_tenant/default_database/films-*"))[2])
    assert "books" not in text


def test_nobody_grants_or_takes_over_more_than_they_have(guarded, films):
    index = {"index_name": "other", "columns": ["year"]}
    assert guarded.ask("POST", "/_admin/metadata_indexes", {**index, "collection": "books"})[0] == 202
    key = guarded.key("schema-manager:default_tenant/default_database/films-*")
    for path in ["/_admin/metadata_indexes?replace=true", "/_admin/metadata_indexes"]:
        assert guarded.ask("POST", path, [{**index, "collection": "films-2"}], key)[0] == 409
    assert guarded.ask("PUT", "/_admin/metadata_index/other", {**index, "collection": "films-2"}, key)[0] == 409
    assert guarded.ask("GET", "/_admin/metadata_index/other")[2]["collection"] == "books"
    for status, _, body in [guarded.ask("GET", "/_admin/metadata_index/other", key=key), guarded.ask("GET", "/_admin/metadata_index/othr", key=key)]:
        assert status == 404 and "books" not in body["message"] and "did you mean" not in body["message"]
    assert "books" not in json.dumps(guarded.ask("POST", "/_admin/metadata_indexes?replace=true&dry_run=true", [], key)[2])
    status, _, body = guarded.ask("POST", "/_admin/keys", {"name": "x", "grants": ["admin"]}, guarded.key("keeper"))
    assert status == 403 and "do not have" in body["message"]
    assert guarded.ask("POST", "/_admin/keys", {"name": "x", "grants": ["keeper"]}, guarded.key("keeper"))[0] == 201


def test_pages_of_other_sites_are_refused(guarded, films, server):
    for target in [guarded, server]:
        def ask(**headers):
            connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", "/api/v2/version", headers={"authorization": f"Bearer {ROOT}", **given})
            return connection.getresponse().status
        here = f"127.0.0.1:{target.port}"
        assert ask() == ask(origin=f"http://{here}", sec_fetch_site="same-origin") == ask(host=f"localhost:{target.port}", sec_fetch_site="none") == 200
        assert ask(origin="https://evil.example") == ask(origin="null") == 403
    # A name that its owner lets point here.
    assert ask(host="evil.example", sec_fetch_site="same-origin") == ask(host="evil.example", origin="http://evil.example") == 403


def test_names_that_any_site_can_have_are_refused_without_authentication(guarded, films, server):
    def ask(target, path="/api/v2/version", method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={"authorization": f"Bearer {ROOT}", **given})
        return connection.getresponse().status
    # A page whose owner lets its name point here can read every GET without an Origin: the name tells it apart.
    for host in ["evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example", "localhost.", "a b"]:
        for path in ["/api/v2/version", "/api/v2/heartbeat", "/docs", "/openapi.json", "/metrics", "/_admin/jobs", "/mcp", V2]:
            assert ask(server, path, host=host) == 403, (host, path)
    for host in ["localhost", f"LOCALHOST:{server.port}", "127.0.0.1", "[::1]:8000", "10.0.0.7", "ochre", "ochre:8000"]:
        assert ask(server, host=host) == 200, host
    # Whoever asks who it is need not care under which name.
    assert ask(guarded, host="db.example.com") == 200
    for target in [guarded, server]:
        assert ask(target, sec_fetch_site="cross-site") == ask(target, sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 403
        assert ask(target, "/docs", sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
        assert ask(target, "/docs", sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 200
        assert ask(target, sec_fetch_site="none") == ask(target, sec_fetch_site="same-origin") == 200


def test_refusals_show_who_only_writes_nothing_of_what_is_stored(guarded, films):
    schema = {"schema": {"secret": {"type": "string"}, "year": "int"}, "validation_type": "lax"}
    made = guarded.ask("POST", V2, {"name": "films-9"})[2]["id"]
    assert guarded.ask("POST", f"{V2}/{made}/add", {"ids": ["a"], "embeddings": [[1]], "metadatas": [{"secret": "hidden-word", "year": 1}]})[0] == 201
    assert guarded.ask("PUT", f"{V2}/films-9/schema", {"schema": {"secret": {"type": "string", "max_length": 3}, "year": {"type": "int", "max": 5}}, "validation_type": "strict"})[0] == 200
    auditor = guarded.key("scribe")
    answer = guarded.ask("POST", f"{V2}/{made}/update", {"ids": ["a"], "metadatas": [{"year": 9}]}, auditor)
    assert answer[0] == 400 and "hidden-word" not in json.dumps(answer[2]), answer
    assert "hidden-word" in json.dumps(guarded.ask("POST", f"{V2}/{made}/update", {"ids": ["a"], "metadatas": [{"year": 9}]})[2])
    # Counting what breaks a rule of one's own choice would tell values letter by letter.
    designer = guarded.key("designer")
    for pattern in ["^h", "^x"]:
        status, _, told = guarded.ask("PUT", f"{V2}/films-9/schema", {"schema": {"secret": {"type": "string", "pattern": pattern}}, "validation_type": "lax"}, designer)
        assert status == 200 and "stored_records" not in told, told
        path = f"{V2}/films-9/schema?require_clean=true"
        assert guarded.ask("PUT", path, {"schema": {"secret": {"type": "string", "pattern": pattern}}, "validation_type": "lax"}, designer)[0] == 403
    # Ids are the records' own, too.
    assert guarded.ask("PUT", f"{V2}/films-9/schema", {"schema": {"secret": "string"}, "validation_type": "warn"})[0] == 200
    assert guarded.ask("POST", f"{V2}/{made}/add", {"ids": ["telling-id"], "embeddings": [[2]], "metadatas": [{"secret": 5}]})[0] == 201
    report = guarded.ask("GET", f"{V2}/films-9/introspect", key=guarded.key("operator"))[2]
    assert "telling-id" not in json.dumps(report), report
    assert "telling-id" in json.dumps(guarded.ask("GET", f"{V2}/films-9/introspect")[2])
    assert guarded.ask("DELETE", f"{V2}/films-9")[0] == 200


def test_idempotency_keys_of_others_are_none_of_ones_own(guarded, films):
    headers = {"idempotency-key": "the-same"}
    made = [guarded.ask("POST", V2, {"name": name})[2]["id"] for name in ["films-7", "films-8"]]
    for collection, ids in zip(made, [["a"], ["b"]]):
        status, _, told = guarded.ask("POST", f"{V2}/{collection}/add", {"ids": ids, "embeddings": [[1]]}, headers=headers)
        assert status == 201, told
    again = guarded.ask("POST", f"{V2}/{made[0]}/add", {"ids": ["other"], "embeddings": [[1]]}, headers=headers)
    assert again[0] == 422
    for name in ["films-7", "films-8"]:
        assert guarded.ask("DELETE", f"{V2}/{name}")[0] == 200


def test_who_keeps_the_server_running_sees_no_values(guarded, films):
    key = guarded.key("operator")
    report = guarded.ask("GET", f"{V2}/films-1/introspect", key=key)[2]
    assert report["records"] == 2 and "1990" not in json.dumps(report["keys"])
    assert "1990" in json.dumps(guarded.ask("GET", f"{V2}/films-1/introspect")[2]["keys"])
    assert guarded.ask("GET", f"{V2}/films-1/introspect?where=%7B%22year%22%3A1990%7D", key=key)[0] == 403
    assert guarded.ask("POST", f"{V2}/{films['films-1']}/get", {}, key)[0] == 403
    assert guarded.ask("GET", "/_admin/jobs", key=key)[0] == 200
    for form in ["json-schema", "attribute-info", "metadata-info", "openapi", "mcp"]:
        assert "1990" not in json.dumps(guarded.ask("GET", f"{V2}/films-1/schema?format={form}", key=key)[2]), form
    index = {"index_name": "counts", "collection": "films-1", "columns": ["year"], "where": {"year": {"$gt": 1995}}}
    assert guarded.ask("POST", "/_admin/metadata_indexes", index, key)[0] == 403
    assert guarded.ask("PUT", f"{V2}/films-1/schema", {"schema": {"year": "string"}, "validation_type": "lax"})[0] == 200
    assert "1990" not in json.dumps(guarded.ask("GET", f"{V2}/films-1/introspect", key=key)[2])
    designer = guarded.key("designer")
    assert "1990" not in json.dumps(guarded.ask("PUT", f"{V2}/films-1/schema", {"schema": {"year": "bool"}, "validation_type": "lax"}, designer)[2])


def test_the_official_client_with_keys_tokens_and_passwords(guarded, films):
    for header in ["Authorization", "X-Chroma-Token"]:
        reader = client_of(guarded, guarded.key("reader"), header)
        assert reader.get_collection("films-1", embedding_function=None).count() == 2
        with pytest.raises(Exception, match="record:write"):
            reader.get_collection("films-1", embedding_function=None).add(ids=["x"], embeddings=[[1, 1]])
        with pytest.raises(Exception, match="collection:write"):
            reader.create_collection("new", embedding_function=None)
        writer = client_of(guarded, guarded.key("writer:default_tenant/default_database/films-2"), header)
        writer.get_collection("films-2", embedding_function=None).upsert(ids=["x"], embeddings=[[1, 1]])
        with pytest.raises(chromadb.errors.NotFoundError):
            writer.get_collection("books")
    old = client_of(guarded, "old-style-token-1")
    old.get_collection("films-1", embedding_function=None).add(ids=["y"], embeddings=[[1, 1]])
    with pytest.raises(Exception, match="record|collection"):
        old.delete_collection("films-1")
    basic = chromadb.HttpClient(port=guarded.port, settings=Settings(
        chroma_client_auth_provider="chromadb.auth.basic_authn.BasicAuthClientProvider", chroma_client_auth_credentials="ali:open sesame"))
    assert sorted(c.name for c in basic.list_collections()) == ["films-1", "films-2"]
    assert basic.get_collection("films-1", embedding_function=None).count() == 3
    with pytest.raises(Exception):
        chromadb.HttpClient(port=guarded.port)
    for user in ["nobody:open sesame", "ali:wrong", "eve:open sesame"]:
        headers = {"authorization": "Basic " + base64.b64encode(user.encode()).decode()}
        status = guarded.ask("GET", V2, key=None, headers=headers)[0]
        assert status == (404 if user.startswith("nobody") else 401), user
    assert guarded.ask("GET", V2, key="token-without-a-role")[0] == 404
    who = guarded.ask("GET", "/api/v2/auth/identity", key=guarded.key("reader:acme/main"))[2]
    assert (who["tenant"], who["databases"]) == ("acme", ["main"])


def test_keys_are_made_listed_limited_revoked_and_expire(guarded, films):
    status, _, made = guarded.ask("POST", "/_admin/keys", {"name": "app", "grants": ["reader"], "expires_at": int(time.time()) + 2})
    assert status == 201 and made["key"].startswith(f"ochre_{made['id']}_")
    listed = guarded.ask("GET", "/_admin/keys")[2]
    assert made["key"] not in json.dumps(listed) and made["id"] in json.dumps(listed)
    assert guarded.ask("GET", V2, key=made["key"])[0] == 200
    time.sleep(2.1)
    assert guarded.ask("GET", V2, key=made["key"])[0] == 401
    status, _, made = guarded.ask("POST", "/_admin/keys", {"name": "app", "grants": ["reader"]})
    assert guarded.ask("GET", V2, key=made["key"])[0] == 200
    assert guarded.ask("DELETE", f"/_admin/keys/{made['id']}")[0] == 200
    assert guarded.ask("GET", V2, key=made["key"])[0] == 401
    assert guarded.ask("GET", f"/_admin/keys/{made['id']}")[2]["revoked_at"].endswith("Z")
    assert guarded.ask("DELETE", "/_admin/keys/nothing")[0] == 404
    limited = guarded.key("writer", requests_per_second=5, batch_records=1)
    found = [guarded.ask("GET", V2, key=limited)[:2] for _ in range(20)]
    assert {status for status, _ in found} == {200, 429}
    assert next(headers for status, headers in found if status == 429)["retry-after"]
    time.sleep(1.1)
    status, _, body = guarded.ask("POST", f"{V2}/{films['films-1']}/add", {"ids": ["x", "y"], "embeddings": [[1, 0], [0, 1]]}, limited)
    assert status == 400 and "limit of 1" in body["message"]
    for body, words in [({}, "name"), ({"name": "x", "grants": []}, "without a grant"), ({"name": "x", "grants": ["king"]}, "no role 'king'"),
                        ({"name": "", "grants": ["reader"]}, "1 to 128"), ({"name": "x", "grants": ["reader:a/b/c/d"]}, "expected role"),
                        ({"name": "x", "grants": ["reader"], "expires_at": 5}, "in the past"), ({"name": "x", "grants": ["reader"], "batch_records": 0}, "at least 1")]:
        status, _, answer = guarded.ask("POST", "/_admin/keys", body)
        assert status in (400, 422) and words in answer["message"], answer


class McpSession:
    """A session of the Model Context Protocol over HTTP, under a name that the server is reached by from elsewhere."""

    def __init__(self, server, key):
        self.server, self.key, self.session = server, key, {}
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        self.ask("initialize", about)
        self.ask("notifications/initialized", None)

    def ask(self, method, params):
        body = {"jsonrpc": "2.0", "method": method} | ({} if method.startswith("notifications/") else {"id": 1, "params": params or {}})
        headers = {"host": "db.example.com", **self.session}
        status, headers, answer = self.server.ask("POST", "/mcp", body, self.key, headers)
        assert status in (200, 202), answer
        if "mcp-session-id" in headers:
            self.session = {"mcp-session-id": headers["mcp-session-id"]}
        if isinstance(answer, str) and "data: {" in answer:
            answer = json.loads(answer[answer.index("data: {") + 6:].splitlines()[0])
        return answer

    def tools(self):
        return {tool["name"] for tool in self.ask("tools/list", None)["result"]["tools"]}

    def call(self, name):
        result = self.ask("tools/call", {"name": name, "arguments": {}})["result"]
        return result.get("isError", False), result["content"][0]["text"]


def test_a_key_of_one_collection_has_its_tools_and_no_others(guarded, films):
    everything = McpSession(guarded, guarded.key("reader"))
    assert everything.tools() >= {"find_films-1", "describe_films-1", "find_books"}
    one = McpSession(guarded, guarded.key("reader:default_tenant/default_database/films-1"))
    assert one.tools() == {"find_films-1", "describe_films-1"}
    assert one.call("describe_films-1")[0] is False
    refused, text = one.call("find_books")
    assert refused and "there is no tool" in text
    # Nobody goes on with another's session, nor ends it.
    other = guarded.key("reader:default_tenant/default_database/films-2")
    for method in ("POST", "GET", "DELETE"):
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}} if method == "POST" else None
        assert guarded.ask(method, "/mcp", body, other, everything.session)[0] == 404, method
    assert McpSession(guarded, other).tools() == {"find_films-2", "describe_films-2"} and everything.tools()
    # Finding and describing records needs what reading them needs.
    assert McpSession(guarded, guarded.key("keeper")).tools() == set()


def test_a_key_s_end_is_given_and_shown_in_rfc_3339(guarded):
    for given in ("2040-01-31T00:00:00Z", "2040-01-31T01:00:00+01:00", 2211580800):
        status, _, made = guarded.ask("POST", "/_admin/keys", {"name": "app", "grants": ["reader"], "expires_at": given})
        assert (status, made["expires_at"]) == (201, "2040-01-31T00:00:00Z"), made
    status, _, answer = guarded.ask("POST", "/_admin/keys", {"name": "app", "grants": ["reader"], "expires_at": "tomorrow"})
    assert status == 422 and "expires_at" in answer["message"]
    status, _, answer = guarded.ask("POST", "/_admin/keys", {"name": "app", "grants": ["reader"], "expire_at": 1})
    assert status == 400 and "did you mean 'expires_at'?" in answer["message"]
    listed = run("keys", "list", "--port", guarded.port, OCHRE_TOKEN=ROOT).stdout
    assert "2040-01-31T00:00:00Z" in listed and "last used" in listed


def test_what_exists_is_got_with_what_allows_reading(guarded, films):
    def got(key, name="films-1", **body):
        return guarded.ask("POST", V2, {"name": name, "get_or_create": True, **body}, key=key)[0]
    writer, reader = guarded.key("writer"), guarded.key("reader")
    assert (got(writer), got(reader)) == (200, 200)
    assert (got(writer, "other"), got(reader, "other")) == (403, 403)
    assert guarded.ask("POST", V2, {"name": "films-1"}, key=writer)[0] == 403
    elsewhere = guarded.key("reader:default_tenant/default_database/books")
    assert got(elsewhere) == 404 and got(elsewhere, "books") == 200


def test_the_audit_log_says_which_key_index_and_schema(guarded, films):
    made = guarded.ask("POST", "/_admin/keys", {"name": "app", "grants": ["reader"]})[2]
    guarded.ask("DELETE", f"/_admin/keys/{made['id']}")
    guarded.ask("POST", "/_admin/metadata_indexes", [{"index_name": "all", "columns": ["string_value"]}])
    schema = {"type": "object", "properties": {"year": {"type": "integer"}}}
    guarded.ask("PUT", "/api/v1/collections/films-1/schema", schema)
    lines = [json.loads(line) for line in (pathlib.Path(guarded.data) / "audit.jsonl").read_text().splitlines()]
    details = [line["detail"] for line in lines[-4:]]
    assert details[0] == details[1] == {"key": made["id"], "name": "app", "grants": ["reader"]}
    assert details[2]["indexes"][0]["index_name"] == "all"
    assert (details[3]["collection"], details[3]["schema"]) == ("films-1", schema)


def test_keys_can_be_made_before_anybody_is_asked_for_them():
    server = Server().start()
    try:
        made = run("keys", "create", "me", "--grant", "admin", "--port", server.port)
        assert made.returncode == 0 and "authentication is off" in made.stderr, made.stderr
        key = made.stdout.strip()
        assert key.startswith("ochre_")
        assert "valid, made without authentication" in run("keys", "list", "--port", server.port).stdout
        busy = run("keys", "create", "me", "--grant", "admin", "--offline", "--path", server.data)
        assert busy.returncode == 4 and "OCHRE_TOKEN" in busy.stderr
        # Once everybody is asked, whoever runs the server is told of keys that anybody may have made.
        server.stop()
        (pathlib.Path(server.directory) / "ochre.toml").write_text("[auth]\nenabled = true\n")
        server.start()
        assert "anybody may have made" in server.log()
        assert run("keys", "create", "mine", "--grant", "reader", "--port", server.port, "--token", key).returncode == 0
        listed = json.loads(run("keys", "list", "--json", "--port", server.port, "--token", key).stdout)["keys"]
        assert {row["name"]: row["made_without_authentication"] for row in listed} == {"me": True, "mine": False}
    finally:
        server.remove()


def test_a_server_without_any_key_says_how_the_first_is_made(monkeypatch):
    monkeypatch.delenv("OCHRE_ROOT_KEY", raising=False)
    server = Server()
    (pathlib.Path(server.directory) / "ochre.toml").write_text("[auth]\nenabled = true\n")
    server.start()
    try:
        said = run("jobs", "list", "--port", server.port)
        assert said.returncode == 1 and "there is no key yet" in said.stderr and "--offline" in said.stderr
    finally:
        server.remove()


def test_the_commands_speak_tls(tmp_path):
    server = Guarded(f'[server]\ntls_certificate = "{TLS / "first.pem"}"\ntls_key = "{TLS / "first.key"}"\n')
    config = ["--config", pathlib.Path(server.directory) / "ochre.toml", "--port", server.port]
    log = open(pathlib.Path(server.directory) / "log", "ab")
    server.process = subprocess.Popen(server.command(), stdout=log, stderr=log, cwd=server.directory)
    try:
        deadline = time.monotonic() + 60
        while (healthy := run("health", *config)).returncode != 0:
            assert time.monotonic() < deadline, healthy.stderr
            time.sleep(0.1)
        assert run("jobs", "list", *config, OCHRE_TOKEN=ROOT).returncode == 0
        assert run("jobs", "list", *config, "--token", ROOT).returncode == 0
        # By its address, it is believed only by who knows whoever signed for it.
        url = ["--url", f"https://localhost:{server.port}"]
        unknown = run("health", *url)
        assert unknown.returncode == 5 and "--ca" in unknown.stderr, unknown.stderr
        assert run("health", *url, "--ca", TLS / "first.pem").returncode == 0
        other = run("health", *url, "--ca", TLS / "second.pem")
        assert other.returncode == 5, other.stdout
        assert run("health", "--url", f"http://localhost:{server.port}").returncode == 5
    finally:
        server.remove()


def test_a_key_makes_and_fills_only_as_much_as_it_may(guarded, films):
    key = guarded.key("schema-manager:default_tenant/default_database/mine-*", collections=2, collection_records=3)
    ids = {}
    for name in ["mine-1", "mine-2"]:
        status, _, body = guarded.ask("POST", V2, {"name": name}, key)
        assert status == 200, body
        ids[name] = body["id"]
    status, _, body = guarded.ask("POST", V2, {"name": "mine-3"}, key)
    assert (status, "limit of 2" in body["message"]) == (400, True), body
    # What is there already is no more.
    assert guarded.ask("POST", V2, {"name": "mine-1", "get_or_create": True}, key)[0] == 200
    assert guarded.ask("DELETE", f"{V2}/mine-2", key=key)[0] == 200
    assert guarded.ask("POST", V2, {"name": "mine-3"}, key)[0] == 200

    def write(verb, *names, who=key):
        body = {"ids": list(names), "embeddings": [[1, 0]] * len(names)}
        status, _, answer = guarded.ask("POST", f"{V2}/{ids['mine-1']}/{verb}", body, who)
        return status, answer.get("message", "")

    assert write("add", "a", "b")[0] == 201
    status, message = write("add", "c", "d")
    assert (status, "limit of 3" in message) == (400, True), message
    assert write("upsert", "a", "b", "c", "c")[0] == 200
    assert write("upsert", "a", "b", "c")[0] == 200
    assert write("upsert", "d")[0] == 400 and write("add", "a", "d")[0] == 400
    assert write("update", "a", "d")[0] == 200
    assert guarded.ask("GET", f"{V2}/{ids['mine-1']}/count", key=key)[2] == 3
    # The limit is the key's.
    assert write("add", "d", who=ROOT)[0] == 201
    assert write("upsert", "a", "d")[0] == 200 and write("add", "e")[0] == 400
    # Many at once make no more than one by one.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        guarded.ask("DELETE", f"{V2}/mine-3", key=key)
        made = list(pool.map(lambda n: guarded.ask("POST", V2, {"name": f"mine-{n}"}, key)[0], range(10, 18)))
    assert sorted(made) == [200] + [400] * 7


def test_keys_outlive_a_restart_and_are_nowhere_on_disk(films, guarded):
    key = guarded.key("reader")
    guarded.stop()
    for file in pathlib.Path(guarded.data).rglob("*"):
        if file.is_file():
            assert key.encode() not in file.read_bytes() and key.split("_")[2].encode() not in file.read_bytes(), file
    guarded.start()
    assert guarded.ask("GET", V2, key=key)[0] == 200
    assert ROOT not in guarded.log() and key not in guarded.log()


def test_forged_and_malformed_credentials_are_refused(guarded, films):
    key = guarded.key("reader")
    forged = [key[:-1] + ("0" if key[-1] != "0" else "1"), key.upper(), key + "0", key[:-1], "ochre_" + "0" * 12 + "_" + "0" * 64, "x" * 10_000, "'; DROP TABLE auth_keys; --", "null", ROOT[:-1], ROOT + "x"]
    for text in forged:
        assert guarded.ask("GET", V2, key=text)[0] == 401, text[:50]
    for headers in [{"authorization": "Bearer"}, {"authorization": ""}, {"authorization": f"Digest {key}"}, {"authorization": f"bearer{key}"},
                    {"authorization": "Basic !!!"}, {"authorization": "Basic " + base64.b64encode(b"no colon").decode()}, {"x-chroma-token": ""},
                    {"cookie": f"token={key}"}, {"x-forwarded-user": "root"}]:
        assert guarded.ask("GET", V2, key=None, headers=headers)[0] == 401, headers
    assert guarded.ask("GET", f"{V2}?token={key}", key=None)[0] == 401
    # A second header does not lend a key's grants to what the first one says.
    assert guarded.ask("GET", V2, key="wrong", headers={"x-chroma-token": key})[0] == 401
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=10)
    with pytest.raises((http.client.HTTPException, OSError, AssertionError)):
        connection.request("GET", V2, headers={"x-chroma-token": "x" * 400_000})
        assert connection.getresponse().status == 200
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as raw:
        raw.sendall(b"GET " + V2.encode() + b" HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \xff\xfe\r\nconnection: close\r\n\r\n")
        assert b" 401 " in raw.recv(200)
    assert guarded.ask("GET", V2, key=key)[0] == 200


def test_ten_thousand_wrong_tokens_end_in_waiting(films):
    server = Guarded("").start()
    try:
        server.stop()
        config = pathlib.Path(server.directory) / "ochre.toml"
        config.write_text(config.read_text().replace("failures_per_minute = 0", "failures_per_minute = 50"))
        server.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        seen = {}
        for number in range(10_000):
            connection.request("GET", V2, headers={"x-chroma-token": f"guess-{number}"})
            answer = connection.getresponse()
            answer.read()
            seen[answer.status] = seen.get(answer.status, 0) + 1
        assert seen == {401: 50, 429: 9950}
        status, headers, body = server.ask("GET", V2)
        assert status == 429 and int(headers["retry-after"]) > 0 and "failed attempts" in body["message"]
        assert server.ask("GET", "/api/v2/heartbeat", key=None)[0] == 200
    finally:
        server.remove()


def test_what_is_administered_is_noted(guarded, films):
    key = guarded.key("reader")
    guarded.ask("DELETE", f"{V2}/films-1", key=key)
    guarded.ask("DELETE", f"{V2}/films-1")
    file = pathlib.Path(guarded.data) / "audit.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    refused, done = lines[-2], lines[-1]
    assert refused["who"].startswith("key test (") and refused["status"] == 403 and refused["permission"] == "collection:write"
    assert (done["who"], done["status"], done["method"], done["path"]) == ("root", 200, "DELETE", f"{V2}/films-1")
    assert done["address"] == "127.0.0.1" and done["time"].startswith("20")
    assert file.stat().st_mode & 0o077 == 0
    text = file.read_text()
    assert key not in text and ROOT not in text and '"method":"GET"' not in text


def test_the_official_client_over_tls_and_a_certificate_that_changes(tmp_path):
    server = Guarded()
    for name in ["pem", "key"]:
        shutil.copy(TLS / f"first.{name}", tmp_path / f"server.{name}")
    config = pathlib.Path(server.directory) / "ochre.toml"
    config.write_text(config.read_text() + f'[server]\ntls_certificate = "{tmp_path}/server.pem"\ntls_key = "{tmp_path}/server.key"\n')
    log = open(os.path.join(server.directory, "log"), "ab")
    server.process = subprocess.Popen(server.command(), stdout=log, stderr=log, cwd=server.directory)
    def heartbeat(certificate):
        context = ssl.create_default_context(cafile=str(TLS / certificate))
        return urllib.request.urlopen(f"https://localhost:{server.port}/api/v2/heartbeat", timeout=5, context=context).status
    try:
        for _ in range(200):
            try:
                assert heartbeat("first.pem") == 200
                break
            except OSError:
                time.sleep(0.05)
        client = chromadb.HttpClient(host="localhost", port=server.port, ssl=True, settings=Settings(
            chroma_client_auth_provider="chromadb.auth.token_authn.TokenAuthClientProvider", chroma_client_auth_credentials=ROOT,
            chroma_server_ssl_verify=str(TLS / "first.pem")))
        collection = client.create_collection("secret", embedding_function=None)
        collection.add(ids=["a"], embeddings=[[1, 0]])
        assert collection.query(query_embeddings=[[1, 0]], n_results=1)["ids"] == [["a"]]
        with pytest.raises(OSError):
            heartbeat("second.pem")
        with pytest.raises((OSError, http.client.HTTPException)):
            urllib.request.urlopen(f"http://localhost:{server.port}/api/v2/heartbeat", timeout=5)
        for name in ["pem", "key"]:
            shutil.copy(TLS / f"second.{name}", tmp_path / f"server.{name}")
        deadline = time.monotonic() + 30
        while True:
            try:
                assert heartbeat("second.pem") == 200
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.5)
    finally:
        server.remove()


def run(*words, **environment):
    return subprocess.run([OCHRE, *map(str, words)], capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def test_the_first_key_is_made_while_the_server_is_stopped(tmp_path):
    data = tmp_path / "data"
    made = run("keys", "create", "me", "--grant", "admin", "--expires-in", "1d", "--offline", "--path", data)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    server = Guarded()
    server.data = str(data)
    server.start()
    try:
        busy = run("keys", "list", "--offline", "--path", data)
        assert busy.returncode == 4 and "--offline" in busy.stderr
        port = ["--port", server.port]
        assert run("jobs", "list", *port).returncode == 1
        assert run("jobs", "list", *port, OCHRE_TOKEN=key).returncode == 0
        listed = run("keys", "list", *port, OCHRE_TOKEN=key)
        assert listed.returncode == 0 and "admin" in listed.stdout and key not in listed.stdout
        other = run("keys", "create", "app", "--grant", "reader:default_tenant", *port, OCHRE_TOKEN=key).stdout.strip()
        assert server.ask("GET", V2, key=other)[0] == 200
        assert run("keys", "revoke", other.split("_")[1], *port, OCHRE_TOKEN=key).returncode == 0
        assert server.ask("GET", V2, key=other)[0] == 401
    finally:
        server.remove()


def test_a_server_does_not_open_itself_to_others_by_accident(tmp_path):
    refused = run("run", "--path", tmp_path / "data", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 1 and "--allow-no-auth" in refused.stderr and not (tmp_path / "data").exists()
    for text, words in [("[auth]\nhtpasswd = 'x'", "auth.enabled is false"), ("[auth]\nenabled = true\nhtpasswd = '/nothing'", "/nothing"),
                        ("[auth]\nenabled = true\nusers = ['ali']", "name=grant"), ("[auth]\nenabled = true\nusers = ['ali=king']", "no role 'king'"),
                        ("[auth]\nenabled = true\nroles = ['x=fly']", "no permission 'fly'"), ("[auth]\nenabled = true\nauthz_file = '/nothing'", "/nothing"),
                        ("[server]\ntls_certificate = 'x'", "together"), ("[server]\ntls_certificate = '/x'\ntls_key = '/y'", "/x")]:
        config = tmp_path / "c.toml"
        config.write_text(text)
        bad = run("run", "--config", config, "--path", tmp_path / "data", "--port", "0")
        assert bad.returncode in (1, 2) and words in bad.stderr, (text, bad.stderr)
