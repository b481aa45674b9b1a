"""Every public method of Client, AdminClient and Collection, through the unmodified package."""

import time

import chromadb
import numpy as np
import pytest
from chromadb.errors import ChromaError, InvalidArgumentError, NotFoundError
from coverage_of_methods import covers
from differences import differs


@covers("Client.heartbeat", "Client.get_version", "Client.get_max_batch_size", "Client.get_settings", "Client.get_user_identity")
def test_a_client_learns_what_it_talks_to(client):
    assert client.heartbeat() > 1_600_000_000_000_000_000
    assert client.get_version().count(".") == 2
    assert client.get_max_batch_size() >= 5461
    assert client.get_settings().chroma_server_host == "127.0.0.1"
    assert client.get_user_identity().tenant == "default_tenant"


@covers("Client.create_collection", "Client.list_collections", "Client.count_collections", "Client.get_collection",
        "Client.get_collection_by_id", "Client.get_or_create_collection", "Client.delete_collection")
def test_collections_are_made_listed_found_and_deleted(client):
    made = client.create_collection("first", metadata={"a": 1, "f": 1.5, "s": "x", "b": True}, embedding_function=None)
    again = client.get_or_create_collection("first", metadata={"a": 2}, embedding_function=None)
    assert again.id == made.id and again.metadata == {"a": 1, "f": 1.5, "s": "x", "b": True}
    client.create_collection("second", embedding_function=None)
    assert {c.name for c in client.list_collections()} == {"first", "second"}
    assert len(client.list_collections(limit=1, offset=1)) == 1
    assert client.count_collections() == 2
    assert client.get_collection("first", embedding_function=None).id == made.id
    assert client.get_collection_by_id(made.id, embedding_function=None).name == "first"
    with pytest.raises(ChromaError):
        client.create_collection("first", embedding_function=None)
    client.delete_collection("first")
    with pytest.raises(NotFoundError):
        client.get_collection("first")
    with pytest.raises(NotFoundError):
        client.delete_collection("first")
    assert client.count_collections() == 1


@covers("Client.reset", "Client.clear_system_cache", "Client.close", "Client.from_system",
        "Client.get_chroma_cloud_api_key_from_clients", "AdminClient.clear_system_cache", "AdminClient.from_system",
        "AdminClient.get_chroma_cloud_api_key_from_clients")
def test_reset_empties_the_server_and_clients_come_and_go(server, client):
    client.create_collection("gone", embedding_function=None)
    assert client.reset() is True
    assert client.count_collections() == 0
    system = client._system
    assert type(client).from_system(system).count_collections() == 0
    assert chromadb.api.client.AdminClient.from_system(system).get_tenant("default_tenant")["name"] == "default_tenant"
    assert type(client).get_chroma_cloud_api_key_from_clients() is None
    assert chromadb.api.client.AdminClient.get_chroma_cloud_api_key_from_clients() is None
    chromadb.api.client.AdminClient.clear_system_cache()
    type(client).clear_system_cache()
    other = chromadb.HttpClient(host="127.0.0.1", port=server.port)
    assert other.count_collections() == 0
    other.close()


@covers("AdminClient.create_tenant", "AdminClient.get_tenant", "AdminClient.create_database", "AdminClient.get_database",
        "AdminClient.list_databases", "AdminClient.delete_database", "Client.set_tenant", "Client.set_database")
def test_tenants_and_databases_keep_collections_apart(server, client, admin):
    admin.create_tenant("acme")
    admin.create_database("books", tenant="acme")
    admin.create_database("films", tenant="acme")
    assert admin.get_tenant("acme")["name"] == "acme"
    assert admin.get_database("books", tenant="acme")["tenant"] == "acme"
    assert [d["name"] for d in admin.list_databases(tenant="acme")] == ["books", "films"]
    client.create_collection("same", embedding_function=None)
    client.set_tenant("acme", "books")
    assert client.list_collections() == []
    client.create_collection("same", embedding_function=None)
    client.set_database("films")
    assert client.count_collections() == 0
    with pytest.raises(ChromaError):
        admin.create_tenant("acme")
    with pytest.raises(ChromaError):
        admin.create_database("books", tenant="acme")
    admin.delete_database("books", tenant="acme")
    with pytest.raises(NotFoundError):
        admin.get_database("books", tenant="acme")
    with pytest.raises(NotFoundError):
        admin.get_tenant("nobody")


@covers("Collection.add", "Collection.count", "Collection.get", "Collection.peek")
def test_records_come_back_as_they_were_given(notes):
    assert notes.count() == 6
    everything = notes.get(include=["documents", "metadatas", "embeddings", "uris"])
    assert everything["ids"] == ["a", "b", "c", "d", "e", "f"]
    assert everything["documents"] == ["the red apple", "a green pear", None, "Äpfel und Birnen", "", "red red wine"]
    assert everything["metadatas"][2] == {"n": 2.5, "tags": ["p", "q"]}
    assert everything["metadatas"][3] is None
    assert everything["uris"] == ["u:a", None, None, None, None, None]
    assert np.array_equal(everything["embeddings"][3], np.array([1, 1, 0], dtype=np.float32))
    assert notes.get(ids=["f", "a", "nobody"])["ids"] == ["a", "f"]
    assert notes.get(limit=2, offset=1)["ids"] == ["b", "c"]
    assert notes.peek(limit=2)["ids"] == ["a", "b"]


def test_adding_an_id_that_exists_changes_nothing(notes):
    notes.add(ids=["a", "new"], embeddings=[[9, 9, 9], [8, 8, 8]], documents=["other", "new"])
    assert notes.count() == 7
    assert notes.get(ids=["a"])["documents"] == ["the red apple"]


@covers("Collection.update", "Collection.upsert")
def test_update_merges_and_skips_and_upsert_inserts_too(notes):
    # With documents the client would embed them anew, so it is given embeddings too.
    rows = [[1, 0, 0], [1, 0, 0]]
    notes.update(ids=["a", "nobody"], embeddings=rows, metadatas=[{"n": None, "new": 1}, {"x": 1}], documents=["changed", "never"])
    assert notes.count() == 6
    changed = notes.get(ids=["a"], include=["metadatas", "documents", "embeddings"])
    assert changed["metadatas"] == [{"s": "x", "b": True, "new": 1}]
    assert changed["documents"] == ["changed"]
    assert changed["embeddings"][0].tolist() == [1, 0, 0]
    notes.upsert(ids=["a", "g"], embeddings=[[5, 5, 5], [6, 6, 6]], metadatas=[{"n": 9}, {"n": 10}])
    assert notes.get(ids=["a", "g"])["metadatas"] == [{"s": "x", "b": True, "new": 1, "n": 9}, {"n": 10}]
    assert notes.get(ids=["a"])["documents"] == ["changed"]


@covers("Collection.delete")
def test_records_are_deleted_by_id_by_filter_and_by_both(notes):
    notes.delete(ids=["a", "nobody"])
    assert notes.count() == 5
    notes.delete(where={"n": {"$gt": 2}}, where_document={"$not_contains": "nothing"})
    assert notes.get()["ids"] == ["b", "d", "f"]
    notes.delete(ids=["b", "d"], where={"s": "y"})
    assert notes.get()["ids"] == ["d", "f"]


@covers("Collection.query")
def test_the_nearest_come_first_whatever_restricts_them(notes):
    found = notes.query(query_embeddings=[[1, 0.1, 0], [0, 0, 1]], n_results=2, include=["distances", "documents", "embeddings"])
    assert found["ids"][0][0] == "a" and found["ids"][1][0] == "c"
    assert found["distances"][0] == pytest.approx([0.01, 0.81])
    assert found["documents"][0][0] == "the red apple"
    assert notes.query(query_embeddings=[[1, 0, 0]], n_results=100)["ids"][0].__len__() == 6
    assert notes.query(query_embeddings=[[1, 0, 0]], n_results=1, where={"s": "y"})["ids"] == [["b"]]
    assert notes.query(query_embeddings=[[1, 0, 0]], n_results=5, where_document={"$contains": "red"})["ids"] == [["a", "f"]]
    assert notes.query(query_embeddings=[[1, 0, 0]], n_results=5, ids=["c", "e"])["ids"] == [["c", "e"]]
    assert notes.query(query_embeddings=[[1, 0, 0]], where={"s": "nobody"})["ids"] == [[]]


@differs("unknown-ids")
def test_a_query_ignores_ids_that_do_not_exist(notes):
    assert notes.query(query_embeddings=[[1, 0, 0]], ids=["a", "nobody"])["ids"] == [["a"]]


@pytest.mark.parametrize("where, expected", [
    ({"n": 2}, ["b"]),
    ({"n": {"$ne": 2}}, ["a", "c", "d", "e", "f"]),
    ({"n": {"$gte": 2}}, ["b", "c", "e"]),
    ({"n": {"$lt": 2}}, ["a", "f"]),
    ({"n": {"$in": [1, 4]}}, ["a", "e"]),
    ({"n": {"$nin": [1, 4]}}, ["b", "c", "d", "f"]),
    ({"b": True}, ["a"]),
    ({"$and": [{"s": "x"}, {"n": {"$gt": 0}}]}, ["a"]),
    ({"$or": [{"s": "y"}, {"b": False}]}, ["b", "e"]),
    ({"tags": {"$contains": "q"}}, ["c", "e"]),
    ({"tags": {"$not_contains": "p"}}, ["a", "b", "d", "e", "f"]),
])
def test_filters_on_metadata(notes, where, expected):
    assert notes.get(where=where)["ids"] == expected
    assert sorted(notes.query(query_embeddings=[[1, 0, 0]], n_results=10, where=where)["ids"][0]) == expected


@differs("int-float")
def test_integers_and_fractions_compare_as_numbers(notes):
    assert notes.get(where={"n": 1.5})["ids"] == []
    assert notes.get(where={"n": {"$lt": 1.5}})["ids"] == ["a", "f"]


@pytest.mark.parametrize("where, expected", [
    ({"$contains": "red"}, ["a", "f"]),
    ({"$contains": "Ä"}, ["d"]),
    ({"$not_contains": "red"}, ["b", "c", "d", "e"]),
    ({"$regex": "^(a|the) "}, ["a", "b"]),
    ({"$not_regex": "e"}, ["c", "e"]),
    ({"$or": [{"$contains": "pear"}, {"$contains": "wine"}]}, ["b", "f"]),
    ({"$and": [{"$contains": "red"}, {"$not_contains": "wine"}]}, ["a"]),
])
def test_filters_on_documents(notes, where, expected):
    assert notes.get(where_document=where)["ids"] == expected


@pytest.mark.parametrize("space, expected", [
    ("l2", {"a": 1, "b": 2, "z": 2, "c": 13}),
    ("cosine", {"c": 0.010050476, "a": 0.29289323, "b": 0.29289323, "z": 1}),
    ("ip", {"c": -6, "b": -1, "a": 0, "z": 1}),
])
def test_distances_are_chromas(client, space, expected):
    collection = client.create_collection("spaces", configuration={"hnsw": {"space": space}}, embedding_function=None)
    collection.add(ids=["a", "b", "c", "z"], embeddings=[[1, 0], [0, 2], [3, 4], [0, 0]])
    found = collection.query(query_embeddings=[[1, 1]], n_results=4)
    assert dict(zip(found["ids"][0], found["distances"][0])) == pytest.approx(expected, abs=1e-6)


@covers("Collection.modify", "Collection.configuration", "Collection.configuration_json", "Collection.database",
        "Collection.id", "Collection.metadata", "Collection.name", "Collection.schema", "Collection.tenant",
        "Collection.get_model")
def test_a_collection_is_renamed_and_reconfigured(client):
    made = client.create_collection(
        "before", metadata={"a": 1}, configuration={"hnsw": {"space": "cosine", "ef_search": 50}}, embedding_function=None
    )
    made.modify(name="after", metadata={"b": 2}, configuration={"hnsw": {"ef_search": 77}})
    found = client.get_collection("after", embedding_function=None)
    assert (found.id, found.name, found.metadata) == (made.id, "after", {"b": 2})
    assert (found.tenant, found.database) == ("default_tenant", "default_database")
    assert found.configuration_json["hnsw"]["ef_search"] == 77
    assert found.configuration["hnsw"]["space"] == "cosine"
    assert found.schema is not None
    assert found.get_model()["name"] == "after"
    with pytest.raises(NotFoundError):
        client.get_collection("before")


@differs("rename-taken")
def test_renaming_to_a_taken_name_is_a_conflict(client):
    client.create_collection("one", embedding_function=None)
    two = client.create_collection("two", embedding_function=None)
    with pytest.raises(ChromaError, match="already exists"):
        two.modify(name="one")


@covers("Collection.search")
@differs("search")
def test_searches_score_filter_group_and_select(notes):
    from chromadb import K, Knn, Rrf, Search

    near = Knn(query=[1.0, 0.0, 0.0], limit=3)
    found = notes.search([
        Search().rank(near).limit(2).select(K.SCORE, K.DOCUMENT),
        Search().where(K.ID.is_in(["a", "b"])).select_all(),
        Search().rank(Rrf([Knn(query=[1.0, 0.0, 0.0], return_rank=True)])).limit(1).select(K.SCORE),
        Search().rank((near * 2 + 1).max(0.5)).limit(1).select(K.SCORE),
    ])
    best = notes.query(query_embeddings=[[1.0, 0.0, 0.0]], n_results=2)
    assert found["ids"][0] == best["ids"][0] and found["scores"][0] == best["distances"][0]
    assert found["documents"][0] == best["documents"][0]
    assert found["ids"][1] == ["a", "b"] and found["embeddings"][1] is not None
    assert found["scores"][2] == [pytest.approx(-1 / 60)]
    assert found["scores"][3] == [pytest.approx(best["distances"][0][0] * 2 + 1)]
    assert [row["id"] for row in found.rows()[0]] == found["ids"][0]


@differs("search")
def test_sparse_vectors_are_stored_returned_and_searched(client):
    from chromadb import K, Knn, Rrf, Schema, Search, SparseVector, SparseVectorIndexConfig

    schema = Schema().create_index(key="words", config=SparseVectorIndexConfig())
    notes = client.create_collection("sparse", schema=schema, embedding_function=None)
    vectors = [SparseVector(indices=[1, 5], values=[1.0, 2.0]), SparseVector(indices=[5], values=[0.5]),
               SparseVector(indices=[9], values=[1.0], labels=["nine"])]
    notes.add(ids=["a", "b", "c"], embeddings=[[1, 0], [0, 1], [1, 1]], metadatas=[{"words": v} for v in vectors])
    assert [m["words"] for m in notes.get()["metadatas"]] == vectors
    by_words = Knn(query=SparseVector(indices=[5], values=[2.0]), key="words")
    found = notes.search(Search().rank(by_words).select(K.SCORE))
    assert (found["ids"][0], found["scores"][0]) == (["a", "b"], [-3.0, 0.0])
    ranks = [Knn(query=[0.0, 1.0], return_rank=True, limit=2), by_words.__class__(**{**vars(by_words), "return_rank": True, "default": 9.0})]
    assert notes.search(Search().rank(Rrf(ranks)).limit(1))["ids"][0] == ["b"]
    with pytest.raises(InvalidArgumentError, match="other"):
        notes.search(Search().rank(Knn(query=SparseVector(indices=[5], values=[2.0]), key="other")))
    notes.update(ids=["a"], metadatas=[{"words": None}])
    notes.delete(ids=["b"])
    assert notes.search(Search().rank(by_words))["ids"] == [[]]


@differs("fork")
@covers("Collection.fork", "Collection.fork_count")
def test_a_fork_goes_its_own_way(client, notes):
    before = notes.get(include=["embeddings", "documents", "metadatas"])
    copy = notes.fork("copy")
    again = copy.get(include=["embeddings", "documents", "metadatas"])
    assert (again["ids"], again["documents"], again["metadatas"]) == (before["ids"], before["documents"], before["metadatas"])
    assert (again["embeddings"] == before["embeddings"]).all()
    assert (notes.fork_count(), copy.fork_count()) == (1, 1)
    copy.delete(ids=before["ids"][:2])
    notes.upsert(ids=["new"], embeddings=[[9, 9, 9]])
    assert (copy.get()["ids"], notes.count()) == (before["ids"][2:], len(before["ids"]) + 1)
    with pytest.raises(ChromaError, match="already exists"):
        notes.fork("copy")
    client.delete_collection(notes.name)
    assert (copy.fork_count(), copy.get()["ids"]) == (0, before["ids"][2:])


@differs("functions")
@covers("Collection.attach_function", "Collection.detach_function", "Collection.get_attached_function")
def test_statistics_are_computed_by_an_attached_function(client, notes):
    from chromadb.utils.statistics import attach_statistics_function, detach_statistics_function, get_statistics

    attached, is_new = attach_statistics_function(notes, "counted")
    assert is_new and notes.get_attached_function(attached.name).id == attached.id
    deadline = time.time() + 60
    while "summary" not in (found := get_statistics(notes, "counted")):
        assert time.time() < deadline
        time.sleep(0.05)
    assert found["summary"] == {"total_count": 6}
    for key, counts in found["statistics"].items():
        for value, count in counts.items():
            having = [m for m in notes.get()["metadatas"] if m and str(m.get(key)) == value]
            assert count["count"] == len(having) or not having, (key, value)
    with pytest.raises(ChromaError, match="function not found"):
        notes.attach_function(name="f", function=_function("_nonexistent"), output_collection="out")
    assert detach_statistics_function(notes, delete_stats_collection=True)
    with pytest.raises(NotFoundError):
        client.get_collection("counted")


def _function(name):
    from chromadb.api.functions import Function

    return next(function for function in Function if function.name.lower().startswith(name))


@differs("indexing-status")
@covers("Collection.get_indexing_status")
def test_the_index_says_how_far_it_is(notes):
    status = notes.get_indexing_status()
    assert status.total_ops == 6
    # So few records need no graph: nothing waits.
    assert (status.num_unindexed_ops, status.op_indexing_progress) == (0, 1.0)


def test_bad_requests_are_refused_by_name_and_change_nothing(notes):
    for bad in (
        lambda: notes.add(ids=["x"], embeddings=[[1, 2]]),
        lambda: notes.upsert(ids=["x"], embeddings=[[1, 2, 3, 4]]),
        lambda: notes.query(query_embeddings=[[1, 2]]),
    ):
        with pytest.raises(InvalidArgumentError, match="dimension"):
            bad()
    assert notes.count() == 6
    notes.delete(ids=["a", "b", "c", "d", "e", "f"])
    with pytest.raises(InvalidArgumentError, match="dimension"):
        notes.add(ids=["x"], embeddings=[[1, 2]])


def test_a_deleted_collection_is_not_found_by_its_handle(client, notes):
    client.delete_collection(notes.name)
    with pytest.raises(NotFoundError):
        notes.count()
    with pytest.raises(NotFoundError):
        notes.add(ids=["a"], embeddings=[[1, 2, 3]])


@pytest.mark.ochre_only("Chroma says nothing of it")
def test_integers_beyond_64_bits_are_told_and_refused_where_integers_are_declared(raw, client):
    numbers = client.create_collection("numbers", embedding_function=None)
    base = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{numbers.id}"
    record = {"ids": ["a"], "embeddings": [[1.0, 1.0]]}
    for kind in ("add", "upsert", "update"):
        for metadata, told in [({"n": 10 ** 19}, str(10 ** 19)), ({"n": -(10 ** 30)}, str(-(10 ** 30))), ({"n": [1, 10 ** 20]}, str(10 ** 20)),
                               ({"n": 2 ** 63 - 1}, None), ({"n": -(2 ** 63)}, None), ({"n": 1e30}, None), ({"n": str(10 ** 30)}, None)]:
            status, headers, body = raw("POST", f"{base}/{kind}", {**record, "metadatas": [metadata]})
            assert status in (200, 201), body
            warning = {name.lower(): value for name, value in headers.items()}.get("x-metadata-warnings")
            assert (told is None) == (warning is None) and (told is None or told in warning), (metadata, warning)
    assert numbers.get("a")["metadatas"][0]["n"] == str(10 ** 30)
    for mode in ("strict", "lax"):
        assert raw("PUT", f"{base.rsplit('/', 1)[0]}/numbers/schema", {"schema": {"n": "int"}, "validation_type": mode})[0] == 200
        status, _, body = raw("POST", f"{base}/upsert", {**record, "metadatas": [{"n": 10 ** 19}]})
        assert status == 400 and "n" in body["message"]
    # NaN is no JSON: the client sends null, which removes the key.
    raw("DELETE", f"{base.rsplit('/', 1)[0]}/numbers/schema")
    numbers.upsert(ids=["a"], embeddings=[[1.0, 1.0]], metadatas=[{"n": 1, "m": 2}])
    assert raw("POST", f"{base}/update", {"ids": ["a"], "metadatas": [{"n": None}]})[0] == 200
    assert numbers.get("a")["metadatas"][0] == {"m": 2}
