"""Metadata indexes: declared, built, used, explained, changed and refused over HTTP."""

import json
import random
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import chromadb
import pytest
from server import OCHRE, Server

ADMIN = "/_admin/metadata_indexes"
ONE = "/_admin/metadata_index"
V2 = "/api/v2/tenants/default_tenant/databases/default_database/collections"
BY_GENRE = {"index_name": "by_genre", "collection": "films", "columns": ["genre", "year"]}
RARE = {"$and": [{"genre": "rare"}, {"year": {"$gte": 1990}}]}


@pytest.fixture
def films(client):
    collection = client.create_collection("films", embedding_function=None)
    numbers = range(12_000)
    for start in range(0, len(numbers), 4000):
        part = numbers[start:start + 4000]
        collection.add(
            ids=[f"f{n}" for n in part], embeddings=[[n, 1.0] for n in part],
            metadatas=[{"year": 1900 + n % 120, "genre": "rare" if n % 500 == 0 else ["drama", "comedy"][n % 2],
                        "tags": [f"t{n % 700}", "all"]} for n in part],
        )
    return collection


def wait_for(raw, name, wanted="ready"):
    for _ in range(2400):
        status, _, body = raw("GET", f"{ONE}/{name}")
        assert status == 200
        if body["status"] == wanted:
            return body
        time.sleep(0.05)
    raise AssertionError(body)


def explain(raw, collection, where, verb="get", **query):
    query = urllib.parse.urlencode({"explain": "true", **query})
    body = {"where": where, "include": []} | ({"query_embeddings": [[5.0, 1.0]], "n_results": 3} if verb == "query" else {})
    status, _, answer = raw("POST", f"{V2}/{collection.id}/{verb}?{query}", body)
    assert status == 200, answer
    return answer["ids"], answer["explain"]


def test_an_index_is_declared_built_used_and_deleted(raw, films):
    status, _, body = raw("POST", ADMIN, BY_GENRE)
    assert status in (200, 201, 202) and body["index_name"] == "by_genre" and body["columns"] == ["genre", "year"]
    assert (body["collection"], body["tenant"], body["database"]) == ("films", "default_tenant", "default_database")
    shown = wait_for(raw, "by_genre")
    assert shown["hidden"] is False and shown["statistics"]["bytes_on_disk"] > 0
    assert shown["statistics"]["records_indexed"] == 12_000
    before = films.get(where=RARE, include=[])["ids"]
    ids, found = explain(raw, films, RARE)
    assert ids == before
    assert found["index"] == "by_genre" and found["strategy"] == "index" and found["coverage"] == 1.0
    assert found["matches_actual"] == found["matches_estimated"] == found["rows_examined"] == len(before) > 0
    assert "by_genre" in found["text"]
    ids, found = explain(raw, films, RARE, "query")
    assert len(ids[0]) == 3 and found["index"] == "by_genre" and found["strategy"] == "exact"
    assert raw("GET", f"{ONE}/by_genre")[2]["usage"]["uses"] >= 3
    assert [index["index_name"] for index in raw("GET", f"{ADMIN}?collection=films&status=ready")[2]["indexes"]] == ["by_genre"]
    assert raw("GET", f"{ADMIN}?collection=other")[2]["indexes"] == []
    assert raw("GET", f"{ONE}/by_genre/verify")[2]["valid"] is True
    assert raw("DELETE", f"{ONE}/by_genre")[0] == 200
    assert raw("GET", f"{ONE}/by_genre")[0] == 404
    assert explain(raw, films, RARE)[1]["index"] is None


def test_searches_in_documents_are_explained(raw, client):
    notes = client.create_collection("notes", embedding_function=None)
    for start in range(0, 4000, 1000):
        numbers = range(start, start + 1000)
        notes.add(ids=[f"n{n}" for n in numbers], embeddings=[[n, 1.0] for n in numbers], documents=[f"note number {n}" for n in numbers])

    def look(needle):
        body = {"where_document": {"$contains": needle}, "include": []}
        status, _, answer = raw("POST", f"{V2}/{notes.id}/get?explain=true", body)
        assert status == 200, answer
        return answer["explain"]

    for _ in range(600):
        found = look("number 3999")
        if found["strategy"] == "trigrams":
            break
        assert found["strategy"] == "scan" and "read documents" in found["text"], found
        time.sleep(0.05)
    # One passes, and of the others nearly all are known not to.
    assert found["strategy"] == "trigrams" and "used the trigrams of documents" in found["text"], found
    assert found["matches_actual"] == 1 <= found["matches_estimated"] < 4000, found
    assert look("nowhere to be found")["matches_actual"] == 0


def test_column_order_matters_and_is_told(raw, films):
    for name, columns in [("genre_year", ["genre", "year"]), ("year_genre", ["year", "genre"]), ("tags", ["tags"])]:
        raw("POST", ADMIN, {"index_name": name, "collection": "films", "columns": columns})
        wait_for(raw, name)
    def considered(where, **query):
        found = explain(raw, films, where, **query)[1]
        return found["index"], {index["index"]: (index["columns_used"], index["reason"]) for index in found["indexes"]}
    index, reasons = considered(RARE)
    assert index == "genre_year" and reasons["genre_year"][0] == ["genre", "year (range)"]
    assert reasons["year_genre"][0] == ["year (range)"] and reasons["tags"][1] == "the filter names none of its columns"
    index, reasons = considered({"genre": "rare"})
    assert index == "genre_year" and "prefix missing" in reasons["year_genre"][1]
    assert considered({"genre": "drama"})[1]["genre_year"][1] == "scanning the columns is cheaper"
    assert considered({"genre": "drama"}, use_index="genre_year")[0] == "genre_year"
    assert considered(RARE, ignore_index="genre_year,year_genre")[0] is None
    assert considered({"tags": {"$contains": "t5"}})[0] == "tags"
    index, reasons = considered({"$and": [{"year": 1950}, {"genre": "rare"}]}, hypothetical_indexes=json.dumps([{"columns": ["year", "tags"]}]), ignore_index="*")
    assert index is None and reasons["hypothetical"][0] == ["year"]
    hidden = {"index_name": "genre_year", "columns": ["genre", "year"], "hidden": True}
    status, _, body = raw("PUT", f"{ONE}/genre_year", hidden)
    assert status == 200 and body["hidden"] is True and body["status"] == "ready" and body["collection"] == "films"
    assert considered({"genre": "rare"})[1]["genre_year"][1] == "it is hidden"


def test_answers_are_the_same_with_and_without_indexes(raw, films):
    rng = random.Random(5)
    for name, columns in [("a", ["genre", "year"]), ("b", ["year"]), ("c", [{"key": "tags", "type": "list"}, "year"]), ("d", ["int_value"])]:
        raw("POST", ADMIN, {"index_name": name, "collection": "films", "columns": columns})
        wait_for(raw, name)
    leaves = [{"genre": "rare"}, {"genre": {"$ne": "drama"}}, {"year": {"$lt": 1905}}, {"year": {"$in": [1950, 1951, 1952]}},
              {"tags": {"$contains": "t12"}}, {"tags": {"$not_contains": "all"}}, {"year": 1999.0}, {"genre": {"$nin": ["rare"]}},
              {"year": {"$gte": 2018.5}}]
    for round in range(40):
        where = {rng.choice(["$and", "$or"]): rng.sample(leaves, 2)}
        if rng.random() < 0.5:
            where = {rng.choice(["$and", "$or"]): [where, rng.choice(leaves)]}
        without, _ = explain(raw, films, where, ignore_index="*")
        for name in "abcd":
            assert explain(raw, films, where, use_index=name)[0] == without, where
        assert films.get(where=where, include=[])["ids"] == without
        if round % 10 == 9:
            films.update(ids=[f"f{n}" for n in rng.sample(range(12_000), 50)], metadatas=[{"genre": "rare", "year": 1950.0}] * 50)
            films.delete(ids=[f"f{n}" for n in rng.sample(range(12_000), 20)])


def test_several_at_once_and_a_list_that_becomes_the_whole_set(raw, films):
    other = {"index_name": "by_year", "collection": "films", "columns": ["year"]}
    status, _, body = raw("POST", f"{ADMIN}?dry_run=true", [BY_GENRE, other])
    assert status == 200 and [plan["dry_run"] for plan in body["indexes"]] == [True, True]
    assert raw("GET", ADMIN)[2]["indexes"] == []
    assert raw("POST", ADMIN, [BY_GENRE, {**other, "columns": ["yaer"]}])[0] == 400
    assert raw("GET", ADMIN)[2]["indexes"] == [], "all or none"
    assert raw("POST", ADMIN, [BY_GENRE, other])[0] == 202
    wait_for(raw, "by_genre"), wait_for(raw, "by_year")
    status, _, body = raw("POST", ADMIN, BY_GENRE)
    assert status == 200 and body["change"] == "none"
    status, _, body = raw("POST", ADMIN, {**BY_GENRE, "columns": ["year"]})
    assert status == 409 and "by_genre" in body["message"]
    third = {"index_name": "by_tag", "collection": "films", "columns": ["tags"]}
    status, _, body = raw("POST", f"{ADMIN}?replace=true&collection=films", [BY_GENRE, third])
    assert status == 202 and body["deleted"] == ["by_year"]
    assert {index["index_name"] for index in raw("GET", ADMIN)[2]["indexes"]} == {"by_genre", "by_tag"}
    status, _, body = raw("DELETE", ADMIN)
    assert status == 400 and "all 2 metadata indexes of database 'default_database'" in body["message"], body
    assert "confirm=true" in body["message"] and "those of single collections included" in body["message"]
    status, _, body = raw("DELETE", f"{ADMIN}?collection=films")
    assert status == 400 and "confirm=true" in body["message"]
    assert sorted(raw("DELETE", f"{ADMIN}?collection=films&dry_run=true")[2]["would_delete"]) == ["by_genre", "by_tag"]
    assert sorted(raw("DELETE", f"{ADMIN}?collection=films&confirm=true")[2]["deleted"]) == ["by_genre", "by_tag"]


def test_changes_during_a_build_take_its_place(raw, films):
    raw("POST", ADMIN, BY_GENRE)
    status, _, body = raw("PUT", f"{ONE}/by_genre", {"columns": ["year"]})
    assert status == 202 and body["columns"] == ["year"] and body["collection"] == "films"
    assert raw("POST", f"{ONE}/by_genre/rebuild")[0] == 202
    assert wait_for(raw, "by_genre")["columns"] == ["year"]
    assert raw("POST", f"{ONE}/by_genre/cancel")[2]["change"] == "none"
    status, _, body = raw("PUT", f"{ONE}/by_genre", {"index_name": "other", "columns": ["year"]})
    assert status == 200 and body["index_name"] == "other", "renamed in place"
    assert raw("GET", f"{ONE}/by_genre")[0] == 404 and explain(raw, films, {"year": 1950})[1]["index"] == "other"
    status, _, body = raw("PUT", f"{ONE}/made", {"collection": "films", "columns": ["tags"]})
    assert status == 202 and body["index_name"] == "made"


def test_the_proposal_s_own_payloads_make_an_index_of_the_whole_database(raw, client, films):
    status, _, body = raw("POST", ADMIN, {"index_name": "my_index", "columns": ["string_value"]})
    assert status == 202 and body["collection"] is None
    assert [one["collection"] for one in wait_for(raw, "my_index")["collections"]] == ["films"]
    assert explain(raw, films, {"genre": "rare"})[1]["index"] == "my_index"
    later = client.create_collection("later", embedding_function=None)
    later.add(ids=[f"l{n}" for n in range(3000)], embeddings=[[n, 1.0] for n in range(3000)],
              metadatas=[{"genre": f"g{n}"} for n in range(3000)])
    for _ in range(600):
        # Ready while the collection was empty, it covers the records a little later.
        if explain(raw, later, {"genre": "g77"})[1]["index"]:
            break
        time.sleep(0.05)
    assert explain(raw, later, {"genre": "g77"})[1]["index"] == "my_index"
    assert len(raw("GET", f"{ONE}/my_index/")[2]["collections"]) == 2
    status, _, body = raw("PUT", f"{ONE}/my_index/", {"index_name": "my_index", "columns": ["genre"]})
    assert status == 202 and body["collection"] is None
    assert wait_for(raw, "my_index")["columns"] == ["genre"]
    assert raw("POST", ADMIN, BY_GENRE)[0] == 202
    # What a collection's own indexes are replaced by leaves the database's alone, and the other way round.
    by_year = {"index_name": "by_year", "collection": "films", "columns": ["year"]}
    status, _, body = raw("POST", f"{ADMIN}?replace=true", by_year)
    assert status == 202 and body["deleted"] == ["by_genre"], body
    other = {"index_name": "other", "columns": ["genre"]}
    assert raw("POST", f"{ADMIN}?replace=true&dry_run=true", other)[2]["deletes"] == ["my_index"]
    assert raw("POST", f"{ADMIN}?replace=true", [other])[2]["deleted"] == ["my_index"]
    assert [index["index_name"] for index in raw("GET", ADMIN)[2]["indexes"]] == ["by_year", "other"]
    # Nor does a list take the name of another collection's index.
    status, _, body = raw("POST", f"{ADMIN}?replace=true", {"index_name": "by_year", "collection": "later", "columns": ["genre"]})
    assert status == 409 and "by_year" in body["message"]
    status, _, body = raw("POST", f"{ADMIN}?replace=true", [])
    assert status == 400 and "collection=NAME" in body["message"]
    assert raw("POST", f"{ADMIN}?replace=true&collection=films", [])[2]["deleted"] == ["by_year"]
    assert raw("DELETE", f"{ADMIN}?collection=films&confirm=true")[2]["deleted"] == []
    assert raw("DELETE", f"{ADMIN}?confirm=true")[2]["deleted"] == ["other"]


@pytest.mark.parametrize(("change", "status", "words"), [
    ({"collection": "flims"}, 404, "flims"), ({"columns": ["yaer"]}, 400, "did you mean \"year\"?"),
    ({"columns": []}, 400, "at least one"), ({"columns": ["year"] * 9}, 400, "limit of 8"),
    ({"columns": ["string_value", "int_value"]}, 400, "at most one such column"), ({"index_name": "../x"}, 400, "index_name"),
    ({"wher": {}}, 400, "wher"), ({"where": {"$or": []}}, 400, "$or"), ({"tenant": "nobody"}, 404, "nobody"),
])
def test_bad_definitions_are_refused(raw, films, change, status, words):
    found, _, body = raw("POST", ADMIN, {**BY_GENRE, **change})
    assert found == status and words in body["message"], body
    assert raw("GET", ADMIN)[2]["indexes"] == []


def test_bad_hints_are_refused(raw, films):
    for query, words in [("strategy=fast", "exact, scan and graph"), ("hypothetical_indexes=[1]", "an index is an object"),
                         ("hypothetical_indexes=x", "as JSON"), ("explain=maybe", "explain"),
                         ("use_index=by_gener", "no metadata index 'by_gener'"), ("ignore_index=by_gener", "it has none")]:
        body = {"query_embeddings": [[5.0, 1.0]]}
        status, _, answer = raw("POST", f"{V2}/{films.id}/query?{query}", body)
        assert status == 400 and words in answer["message"], answer


def test_filters_suggest_indexes(raw, films):
    for _ in range(12):
        films.get(where=RARE, include=[])
    suggestions = raw("GET", f"{ADMIN}/suggestions?collection=films")[2]["suggestions"]
    assert [suggestion["columns"] for suggestion in suggestions] == [["genre", "year"]]
    request = suggestions[0]["request"]
    status, _, body = raw(request["method"], request["path"], request["body"])
    assert status == 202
    wait_for(raw, body["index_name"])
    assert raw("GET", f"{ADMIN}/suggestions?collection=films")[2]["suggestions"] == []


def test_the_command_line_administers_indexes(server, raw, films):
    def run(*words):
        return subprocess.run([OCHRE, "indexes", *words, "--port", str(server.port)], capture_output=True, text=True, timeout=60)
    made = run("create", "by_genre", "films", "genre", "year")
    assert made.returncode == 0 and "by_genre is" in made.stderr
    wait_for(raw, "by_genre")
    listed = run("list")
    assert listed.returncode == 0 and "by_genre" in listed.stdout and "genre, year" in listed.stdout
    assert json.loads(run("show", "by_genre").stdout)["status"] == "ready"
    assert run("verify", "by_genre").returncode == 0
    assert run("rebuild", "by_genre").returncode == 0
    assert json.loads(run("create", "x", "films", "tags:list", "--dry-run").stdout)["estimated_entries"] == 12_000
    assert run("suggest").returncode == 0
    bad = run("create", "x", "films", "yaer")
    assert bad.returncode == 1 and "did you mean" in bad.stderr
    assert run("rename", "by_genre", "genres").returncode == 0 and run("show", "by_genre").returncode == 1
    assert run("create", "years", "*", "year").returncode == 0
    assert "* (1)" in run("list").stdout
    assert run("delete", "genres").returncode == 0 and run("show", "genres").returncode == 1


@pytest.mark.parametrize("policy", ["warn", "deny"])
def test_filters_without_an_index_are_told_or_refused(tmp_path, policy):
    (tmp_path / "ochre.toml").write_text(f'[database]\nunindexed_filters = "{policy}"\nunindexed_records_max = 100\n')
    server = Server(extra=("--config", str(tmp_path / "ochre.toml"))).start()
    try:
        client = chromadb.HttpClient("127.0.0.1", server.port)
        films = client.create_collection("films", embedding_function=None)
        films.add(ids=[f"f{n}" for n in range(200)], embeddings=[[n, 1.0] for n in range(200)], metadatas=[{"year": n} for n in range(200)])

        def ask(verb):
            body = {"where": {"year": 7}, "include": []} | ({"query_embeddings": [[5.0, 1.0]]} if verb == "query" else {})
            request = urllib.request.Request(
                f"http://127.0.0.1:{server.port}{V2}/{films.id}/{verb}", json.dumps(body).encode(), {"content-type": "application/json"})
            try:
                answer = urllib.request.urlopen(request)
            except urllib.error.HTTPError as error:
                answer = error
            return answer.status, answer.headers.get("x-index-warnings"), json.loads(answer.read())

        for verb in ["get", "query"]:
            status, warning, body = ask(verb)
            told = warning if policy == "warn" else body["message"]
            assert (status, "no metadata index answers this filter" in told) == ((200, True) if policy == "warn" else (400, True)), told
        # The remedy it names is one.
        declared = json.loads(told.split("POST /_admin/metadata_indexes ")[1])
        assert declared["index_name"] == "films_by_year"
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}{ADMIN}", json.dumps(declared).encode(), {"content-type": "application/json"})
        assert urllib.request.urlopen(request).status == 202
        for _ in range(2400):
            if ask("get")[:2] == (200, None):
                break
            time.sleep(0.05)
        for verb in ["get", "query"]:
            status, warning, body = ask(verb)
            assert (status, warning, body["ids"] in (["f7"], [["f7"]])) == (200, None, True), body
    finally:
        server.remove()


def test_indexes_are_created_by_themselves_if_that_is_wanted(raw, films):
    for _ in range(12):
        explain(raw, films, {"genre": "rare"})
    assert raw("GET", ADMIN)[2]["indexes"] == []
    assert raw("PATCH", "/_admin/jobs/metadata-indexes", {"settings": {"create": True}})[0] == 200
    try:
        assert raw("POST", "/_admin/jobs/metadata-indexes/run")[0] == 202
        made = wait_for_first(raw)
        assert made["comment"].startswith("created automatically") and made["columns"] == ["genre"]
        assert explain(raw, films, {"genre": "rare"})[1]["index"] == made["index_name"]
    finally:
        assert raw("PATCH", "/_admin/jobs/metadata-indexes", {"settings": {"create": None}})[0] == 200


def wait_for_first(raw):
    for _ in range(2400):
        indexes = raw("GET", ADMIN)[2]["indexes"]
        if indexes and indexes[0]["status"] == "ready":
            return indexes[0]
        time.sleep(0.05)
    raise AssertionError(indexes)
