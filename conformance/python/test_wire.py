"""What only raw requests show: statuses, error bodies, limits, headers."""

import pytest
from differences import differs

BASE = "/api/v2/tenants/default_tenant/databases/default_database"


def everything(collection):
    """All that a collection holds, in a form that compares."""
    got = collection.get(include=["metadatas", "documents", "embeddings", "uris"])
    return {**got, "embeddings": got["embeddings"].tolist()}


def data(collection, verb):
    return f"{BASE}/collections/{collection.id}/{verb}"


def test_add_alone_answers_201(notes, raw):
    body = {"ids": ["x"], "embeddings": [[1, 2, 3]]}
    assert raw("POST", data(notes, "add"), body)[0] == 201
    assert raw("POST", data(notes, "upsert"), body)[0] == 200


@pytest.mark.parametrize("verb, body, status, error", [
    ("add", b"", 400, "InvalidArgumentError"),
    ("add", b'{"ids": ["x"', 400, "InvalidArgumentError"),
    ("add", b'{"ids": ["\xff"], "embeddings": [[1,2,3]]}', 400, "InvalidArgumentError"),
    ("add", {"ids": ["x"]}, 422, "ChromaError"),
    ("add", {"ids": [5], "embeddings": [[1, 2, 3]]}, 422, "ChromaError"),
    ("add", {"ids": [""], "embeddings": [[1, 2, 3]]}, 400, "InvalidArgumentError"),
    ("add", {"ids": ["x"], "embeddings": [[1, 2]]}, 400, "InvalidArgumentError"),
    ("add", {"ids": ["x", "y"], "embeddings": [[1, 2, 3], [1]]}, 400, "InvalidArgumentError"),
    ("add", {"ids": ["x"], "embeddings": [[]]}, 400, "InvalidArgumentError"),
    ("add", {"ids": ["x"], "embeddings": [[1e39, 0, 0]]}, 400, "InvalidArgumentError"),
    ("add", b'{"ids": ["x"], "embeddings": [[NaN, 0, 0]]}', 400, "InvalidArgumentError"),
    ("add", {"ids": ["x"], "embeddings": ["!!"]}, 400, "InvalidArgumentError"),
    ("add", {"ids": ["x"], "embeddings": [[1, 2, 3]], "metadatas": [{"a": {"b": 1}}]}, 422, "ChromaError"),
    ("add", {"ids": ["x"], "embeddings": [[1, 2, 3]], "metadatas": [{"#a": 1}]}, 400, "InvalidArgumentError"),
    ("add", {"ids": ["x"], "embeddings": [[1, 2, 3]], "documents": ["a", "b"]}, 400, "InvalidArgumentError"),
    ("delete", {"ids": []}, 400, "InvalidArgumentError"),
    ("delete", {"limit": 1}, 400, "InvalidArgumentError"),
    ("delete", [["apple"], None, None, None], 422, "ChromaError"),
    ("get", [["apple"]], 422, "ChromaError"),
    ("get", b'[["apple"', 400, "InvalidArgumentError"),
    ("get", {"where": {"n": {"$near": 1}}}, 400, "InvalidArgumentError"),
    ("get", {"where": {"n": {"$gt": True}}}, 400, "InvalidArgumentError"),
    ("get", {"where_document": {"$regex": "("}}, 400, "InvalidArgumentError"),
    ("get", {"include": ["everything"]}, 422, "ChromaError"),
    ("query", {"query_embeddings": [[1, 2]]}, 400, "InvalidArgumentError"),
    ("query", {"query_embeddings": [[1, 2, 3]], "n_results": -1}, 422, "ChromaError"),
])
def test_what_is_refused_has_its_status_and_name_and_changes_nothing(notes, raw, verb, body, status, error):
    before = everything(notes)
    got, headers, answer = raw("POST", data(notes, verb), body)
    assert (got, answer["error"]) == (status, error)
    assert answer["message"]
    assert len(headers["chroma-trace-id"]) == 32
    assert everything(notes) == before


def test_names_outside_the_rules_are_refused(client, raw):
    for name in ("ab", "a..b", "1.2.3.4", "-abc", "x" * 513, "ünïcode"):
        status, _, answer = raw("POST", f"{BASE}/collections", {"name": name})
        assert (status, answer["error"]) == (400, "InvalidArgumentError"), name


def test_a_body_over_the_limit_is_refused_and_the_server_goes_on(notes, raw):
    big = b'{"ids": ["' + b"x" * (41 << 20) + b'"]}'
    assert raw("POST", data(notes, "add"), big)[0] == 413
    assert notes.count() == 6


def test_chroma_takes_long_ids_duplicates_and_big_batches(notes, raw):
    ids = ["long " + "i" * 10_000, "dup", "dup"]
    raw("POST", data(notes, "add"), {"ids": ids, "embeddings": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]})
    assert notes.get(ids=["dup"], include=["embeddings"])["embeddings"].tolist() == [[4, 5, 6]]
    many = [f"m{i}" for i in range(20_000)]
    assert raw("POST", data(notes, "add"), {"ids": many, "embeddings": [[0, 0, 1]] * 20_000})[0] == 201
    assert notes.count() == 20_008


@differs("many-ids")
def test_forty_thousand_ids_can_be_asked_for(notes, raw):
    ids = [f"m{i}" for i in range(40_000)]
    assert raw("POST", data(notes, "get"), {"ids": ids, "include": []})[2]["ids"] == []


@differs("list-metadata")
def test_list_valued_collection_metadata_is_answered(client, raw):
    status, _, answer = raw("POST", f"{BASE}/collections", {"name": "lists", "metadata": {"l": [1, 2]}})
    assert (status, answer["metadata"]) == (200, {"l": [1, 2]})


@differs("no-conditions")
@pytest.mark.parametrize("body", [
    {"where": {"$and": []}},
    {"where": {"$and": [{"$and": []}]}},
    {"where": {"$or": [{"s": "x"}, {"$and": []}]}},
    {"where_document": {"$and": []}, "limit": 1},
])
def test_a_filter_without_conditions_deletes_nothing(notes, raw, body):
    before = everything(notes)
    status, _, answer = raw("POST", data(notes, "delete"), body)
    assert status == 400 and "nothing was deleted" in answer["message"]
    assert everything(notes) == before


def test_a_filter_that_never_holds_deletes_nothing_and_is_fine(notes, raw):
    before = everything(notes)
    status, _, answer = raw("POST", data(notes, "delete"), {"where": {"$or": []}})
    assert (status, answer["deleted"]) == (200, 0)
    assert everything(notes) == before


@differs("reserved-keys")
@pytest.mark.parametrize("verb", ["add", "upsert", "update"])
def test_metadata_does_not_replace_the_document_beside_it(notes, raw, verb):
    if verb == "update":
        assert raw("POST", data(notes, "add"), {"ids": ["own", "none"], "embeddings": [[1, 2, 3]] * 2})[0] == 201
    body = {
        "ids": ["own", "none"], "embeddings": [[1, 2, 3]] * 2, "documents": ["mine", None], "uris": ["file:mine", None],
        "metadatas": [{"chroma:document": "other", "chroma:uri": "file:other"}] * 2,
    }
    assert raw("POST", data(notes, verb), body)[0] in (200, 201)
    found = notes.get(ids=["own", "none"], include=["documents", "uris"])
    assert (found["documents"], found["uris"]) == (["mine", "other"], ["file:mine", "file:other"])


@differs("crn")
def test_the_resource_name_route_is_answered(client, raw):
    raw("PATCH", "/api/v2/tenants/default_tenant", {"resource_name": "acme"})
    client.create_collection("named", embedding_function=None)
    assert raw("GET", "/api/v2/collections/acme:default_database:named")[2]["name"] == "named"
    assert raw("GET", "/api/v2/collections/a:b:c")[0] == 404


@differs("scope")
def test_a_data_route_keeps_to_its_tenant_and_database(notes, raw):
    path = f"/api/v2/tenants/nope/databases/default_database/collections/{notes.id}/count"
    assert raw("GET", path)[0] == 404


@differs("idempotency")
def test_an_idempotency_key_makes_a_repeated_write_harmless(notes, raw):
    headers = {"content-type": "application/json", "idempotency-key": "once"}
    body = {"where": {"s": "x"}, "limit": 1}
    assert raw("POST", data(notes, "delete"), body, headers)[2] == {"deleted": 1}
    assert raw("POST", data(notes, "delete"), body, headers)[2] == {"deleted": 1}
    assert notes.count() == 5
    assert raw("POST", data(notes, "delete"), {"ids": ["b"]}, headers)[0] == 422


@differs("transactions")
def test_a_conditional_commit_is_kept_only_if_what_was_read_is_as_it_was(notes, raw):
    before = everything(notes)
    first = before["ids"][0]
    read = raw("POST", data(notes, "conditional/get"), {"ids": [first, "missing"]})[2]
    assert read["ids"] == [first]
    operations = [
        {"operation": "update", "payload": {"ids": [first], "documents": ["by the transaction"]}},
        {"operation": "add", "payload": {"ids": ["missing"], "embeddings": [[1, 2, 3]]}},
    ]
    commit = {"read_token": read["read_token"], "read_ids": [first, "missing"], "operations": operations}
    notes.update(ids=[first], embeddings=[[9, 9, 9]], documents=["by somebody else"])
    status, _, body = raw("POST", data(notes, "conditional/commit"), commit)
    assert (status, body) == (409, {"error": "ChromaError", "message": "conditional write conflict"})
    assert notes.get(ids=[first, "missing"])["documents"] == ["by somebody else"]
    commit["read_token"] = raw("POST", data(notes, "conditional/get"), {"ids": [first]})[2]["read_token"]
    status, _, body = raw("POST", data(notes, "conditional/commit"), commit)
    assert (status, body["record_count"]) == (200, 2)
    assert notes.get(ids=[first, "missing"])["documents"] == ["by the transaction", None]


def test_unknown_routes_and_methods_have_empty_bodies(client, raw):
    assert raw("GET", "/api/v2/nope")[0::2] == (404, "")
    assert raw("PUT", "/api/v2/heartbeat")[0::2] == (405, "")
    assert raw("GET", "/api/v1/heartbeat")[0] == 410


@differs("restart-order")
def test_a_restart_keeps_everything_and_a_second_server_is_refused(server, notes):
    import subprocess

    before = everything(notes)
    second = subprocess.run(server.command(), capture_output=True, text=True, timeout=30)
    assert second.returncode == 4 and "in use by another process" in second.stderr
    assert server.stop() == 0
    server.start()
    assert everything(notes) == before


@differs("restart-order")
def test_the_api_describes_itself(client, raw):
    assert raw("GET", "/openapi.json")[2]["openapi"].startswith("3.")
    assert "Ochre API" in raw("GET", "/docs")[2]
