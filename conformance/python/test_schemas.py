"""Schemas and introspection through the official client: declared, enforced in each mode, found in data."""

import json
import urllib.error
import urllib.parse
import urllib.request

import chromadb
import pytest

pytestmark = pytest.mark.ochre_only("Chroma neither validates metadata nor looks into it")

SCHEMA = {
    "year": {"type": "int", "min": 1900, "required": True},
    "score": "float",
    "genre": {"type": "string", "enum": ["drama", "comedy"]},
    "tags": "list[string]",
}
GOOD = {"year": 1999, "score": 7, "genre": "drama", "tags": ["a"]}
# What breaks which rule: a change to a good record (None removes the key).
BREAKS = {
    "type": {"year": "1999"},
    "whole-float": {"year": 1999.0},
    "additional": {"color": "red"},
    "required": {"year": None},
    "min": {"year": 1800},
    "enum": {"genre": "noise"},
}
V2 = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture
def films(client):
    def make(mode=None, schema=SCHEMA, **metadata):
        declared = {"chroma:schema": schema, **metadata}
        if mode:
            declared["chroma:schema_validation_type"] = mode
        return client.create_collection("films", metadata=declared, embedding_function=None)

    return make


def changed(change):
    return {key: value for key, value in {**GOOD, **change}.items() if value is not None}


def add(collection, id, metadata):
    collection.add(ids=[id], embeddings=[[1, 0]], metadatas=[metadata])


def raw_add(raw, collection, id, metadata):
    body = {"ids": [id], "embeddings": [[1, 0]], "metadatas": [metadata]}
    return raw("POST", f"{V2}/{collection.id}/add", body)


# The mode table: what happens to a new record.
NEW = {
    "strict": dict.fromkeys(BREAKS, "refused"),
    "lax": {**dict.fromkeys(BREAKS, "refused"), "whole-float": "accepted", "additional": "accepted"},
    "warn": dict.fromkeys(BREAKS, "reported"),
    "none": dict.fromkeys(BREAKS, "accepted"),
}


@pytest.mark.parametrize("mode", NEW)
@pytest.mark.parametrize("fault", BREAKS)
def test_a_new_record_is_validated_by_the_mode(raw, films, mode, fault):
    collection = films(mode)
    add(collection, "good", GOOD)
    key = next(iter(BREAKS[fault]))
    status, headers, body = raw_add(raw, collection, "bad", changed(BREAKS[fault]))
    expected = NEW[mode][fault]
    if expected == "refused":
        assert status == 400 and body["error"] == "InvalidArgumentError", body
        assert key in body["message"] and body["violations"][0]["key"] == key
        assert (body["violations"][0]["index"], body["violations"][0]["id"]) == (0, "bad")
        with pytest.raises(chromadb.errors.InvalidArgumentError, match=key):
            add(collection, "bad", changed(BREAKS[fault]))
        assert collection.count() == 1
    else:
        assert status == 201, body
        told = headers.get("x-schema-violations")
        assert (told == "1" and body["warnings"][0]["key"] == key) if expected == "reported" else told is None
        assert collection.count() == 2
    if mode == "lax" and fault == "whole-float":
        assert isinstance(collection.get("bad")["metadatas"][0]["year"], int)


# What happens to an update of a record that broke a rule before the schema was declared.
@pytest.mark.parametrize(
    ("mode", "unrelated", "worse"),
    [("strict", "refused", "refused"), ("lax", "reported", "refused"), ("warn", "reported", "reported"), ("none", "accepted", "accepted")],
)
@pytest.mark.parametrize("fault", ["type", "required", "min", "enum"])
def test_a_record_that_was_bad_before_is_validated_by_what_the_update_does(raw, client, mode, unrelated, worse, fault):
    collection = client.create_collection("films", embedding_function=None)
    add(collection, "bad", changed(BREAKS[fault]))
    collection.modify(metadata={"chroma:schema": json.dumps(SCHEMA), "chroma:schema_validation_type": mode})

    def update(metadata):
        status, headers, body = raw("POST", f"{V2}/{collection.id}/update", {"ids": ["bad"], "metadatas": [metadata]})
        return "refused" if status == 400 else "reported" if "x-schema-violations" in headers else "accepted"

    assert update({"score": 1.5}) == unrelated
    assert update({"genre": 5, "score": 1.0}) == worse
    # Repairing is always welcome, and then the record is good.
    assert update({"year": 2000, "genre": "comedy"}) in ("accepted", "reported")
    assert update({"score": 3.5}) == "accepted"


def test_an_update_that_repairs_some_of_the_faults_is_accepted_in_strict_mode(client):
    collection = client.create_collection("films", embedding_function=None)
    add(collection, "bad", {"year": 1800, "genre": "noise"})
    collection.modify(metadata={"chroma:schema": json.dumps(SCHEMA)})
    collection.update(ids=["bad"], metadatas=[{"year": 1999}])
    with pytest.raises(chromadb.errors.InvalidArgumentError, match="genre"):
        collection.update(ids=["bad"], metadatas=[{"score": 1.0}])


@pytest.mark.parametrize(("mode", "told"), [("strict", 400), ("lax", 201), ("warn", 201), ("none", 201)])
def test_a_rule_whose_severity_is_a_warning_refuses_in_strict_mode_only(raw, films, mode, told):
    collection = films(mode, schema={"year": {"type": "int", "max": 2100, "severity": "warning"}})
    status, headers, _ = raw_add(raw, collection, "a", {"year": 3000})
    assert status == told and ("x-schema-violations" in headers) == (mode in ("lax", "warn"))


def test_a_batch_is_refused_as_a_whole_with_all_that_is_wrong_with_it(raw, films):
    collection = films()
    body = {
        "ids": ["a", "b", "c"], "embeddings": [[1, 0]] * 3,
        "metadatas": [GOOD, {"year": "x", "color": "red"}, {"genre": "noise"}],
    }
    status, _, answer = raw("POST", f"{V2}/{collection.id}/upsert", body)
    found = {(violation["index"], violation["id"], violation["key"], violation["rule"]) for violation in answer["violations"]}
    assert status == 400 and collection.count() == 0
    assert found == {
        (1, "b", "year", "type"), (1, "b", "color", "additional"), (2, "c", "year", "required"), (2, "c", "genre", "enum"),
    }
    assert all(name in answer["message"] for name in ("year", "color", "genre"))
    assert {"key": "genre", "rule": "enum", "count": 1} in answer["counts"]


def test_an_upsert_is_validated_as_the_record_will_be(films):
    collection = films()
    add(collection, "a", GOOD)
    collection.upsert(ids=["a"], embeddings=[[0, 1]], metadatas=[{"genre": "comedy"}])
    assert collection.get("a")["metadatas"][0] == {**GOOD, "genre": "comedy"}
    with pytest.raises(chromadb.errors.InvalidArgumentError, match="year"):
        collection.update(ids=["a"], metadatas=[{"year": None}])


def test_a_schema_outlives_modifications_that_do_not_name_it(client, films):
    collection = films("lax")
    collection.modify(metadata={"owner": "me"})
    again = client.get_collection("films", embedding_function=None)
    assert again.metadata["owner"] == "me" and json.loads(again.metadata["chroma:schema"]) == SCHEMA
    with pytest.raises(chromadb.errors.InvalidArgumentError):
        add(again, "bad", {"year": "x"})
    again.modify(metadata={"chroma:schema": ""})
    assert "chroma:schema" not in client.get_collection("films", embedding_function=None).metadata
    add(again, "bad", {"year": "x"})


def test_a_schema_is_shown_as_a_string_so_that_metadata_can_be_sent_back(client, films):
    collection = films()
    assert json.loads(collection.metadata["chroma:schema"]) == SCHEMA
    collection.modify(metadata={**collection.metadata, "owner": "me"})
    again = client.get_collection("films", embedding_function=None)
    assert again.metadata["owner"] == "me" and json.loads(again.metadata["chroma:schema"]) == SCHEMA
    with pytest.raises(chromadb.errors.InvalidArgumentError):
        add(again, "bad", {"year": "x"})
    client.create_collection("text", metadata={"chroma:schema": '{"a": "int"}'}, embedding_function=None)
    assert client.get_collection("text", embedding_function=None).metadata["chroma:schema"] == '{"a": "int"}'


def test_a_malformed_schema_is_refused_and_the_old_one_stays(client, raw, films):
    collection = films()
    with pytest.raises(chromadb.errors.InvalidArgumentError, match="/year/typ"):
        collection.modify(metadata={"chroma:schema": '{"year": {"typ": "int"}}'})
    with pytest.raises(chromadb.errors.InvalidArgumentError, match="strict, lax, warn or none"):
        collection.modify(metadata={"chroma:schema_validation_type": "loose"})
    with pytest.raises(chromadb.errors.InvalidArgumentError, match="must not begin like"):
        client.create_collection("other", metadata={"chroma:schema_validation": "lax"})
    for schema, pointer, words in [
        ({"year": "integr"}, "/year", "int"), ([], "", "expected an object"), (5, "", "expected an object"), ({"schema": []}, "", "expected an object"),
        ({"year": {"type": "int", "examples": [1999, "x"]}}, "/year/examples/1", "the example is string"),
        ({"year": {"type": "int", "max": 1e30}}, "/year/max", "64 bits"), ({"year": {"type": "int", "min": -(10 ** 19)}}, "/year/min", "64 bits"),
        ({"year": {"type": "int", "validators": [{"cel": "value + 1"}]}}, "/year/validators/0/cel", "never true or false"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"a": {"type": "string"}}}, "/$schema", "2020-12"),
    ]:
        status, _, body = raw("PUT", f"{V2}/films/schema", schema)
        assert (status, body.get("pointer")) == (400, pointer) and words in body["message"], (schema, body)
    status, _, body = raw("PUT", f"{V2}/films/schema", {"schema": {"a": "int"}, "validation_typ": "lax"})
    assert status == 400 and "did you mean 'validation_type'?" in body["message"]
    doubled = b'{"year": {"type": "int"}, "year": {"type": "string"}}'
    for method, path, data in [
        ("PUT", f"{V2}/films/schema", doubled), ("PUT", f"{V2}/films/schema", b'{"schema": ' + doubled + b"}"),
        ("POST", V2, b'{"name": "twice", "metadata": {"chroma:schema": ' + doubled + b"}}"),
        ("POST", V2, json.dumps({"name": "twice", "metadata": {"chroma:schema": doubled.decode()}}).encode()),
    ]:
        status, _, body = raw(method, path, data)
        assert status == 400 and "stands twice" in body["message"] and body["pointer"].endswith("/year"), body
    assert raw("GET", f"{V2}/films/schema")[2]["schema"] == SCHEMA


@pytest.mark.parametrize(("mode", "status"), [("strict", 400), ("lax", 200), ("warn", 200), ("none", 200)])
@pytest.mark.parametrize(
    ("where", "words"),
    [({"year": "1999"}, "declared as int"), ({"yaer": 1999}, "did you mean"), ({"tags": "a"}, "list[string]"),
     ({"genre": {"$in": ["drama", "x"]}}, None), ({"genre": "dramma"}, "one of"), ({"year": {"$lt": 5}}, "no value is in"), ({"score": {"$gt": 5}}, None)],
)
def test_a_filter_that_can_never_match_is_refused_or_told(raw, films, mode, status, where, words):
    collection = films(mode)
    add(collection, "a", GOOD)
    found, headers, body = raw("POST", f"{V2}/{collection.id}/get", {"where": where})
    if words is None or mode == "none":
        assert found == 200 and "x-schema-warnings" not in headers
    elif status == 400:
        assert found == 400 and words in body["message"]
    else:
        assert found == 200 and words in headers["x-schema-warnings"]


def test_the_schema_has_routes_of_its_own(raw, client):
    collection = client.create_collection("films", embedding_function=None)
    add(collection, "a", {"year": "x"})
    assert raw("GET", f"{V2}/films/schema")[2]["schema"] is None
    status, _, body = raw("PUT", f"{V2}/films/schema?require_clean=true", {"schema": SCHEMA, "validation_type": "lax"})
    assert status == 400 and "1 of 1" in body["message"] and "year" in body["message"]
    status, _, body = raw("PUT", f"{V2}/{collection.id}/schema", {"schema": SCHEMA, "validation_type": "lax"})
    assert status == 200 and body["validation_type"] == "lax" and body["stored_records"]["compliant"] == 0
    status, _, body = raw("POST", f"{V2}/films/schema/validate", {"metadatas": [GOOD, {"year": 5}]})
    assert (body["validated"], body["judged"], body["compliant"], body["valid"]) == (2, 2, 1, False)
    assert [(rule["key"], rule["rule"]) for rule in body["rules"]] == [("year", "min")]
    status, _, body = raw("POST", f"{V2}/films/schema/validate", {"schema": {"year": "string"}})
    assert status == 200 and body["valid"] is True
    assert raw("DELETE", f"{V2}/films/schema")[0] == 200
    assert raw("GET", "/api/v1/collections/films/schema")[2]["schema"] is None
    assert raw("GET", f"{V2}/nothing/schema")[0] == 404


def test_a_misspelt_parameter_is_refused_and_a_mode_can_be_changed_alone(raw, films):
    films("lax")
    assert raw("PUT", f"{V2}/films/schema?requireclean=true", SCHEMA)[0] == 400
    assert raw("PUT", f"{V2}/films/schema", {"validation_type": "warn"})[2]["validation_type"] == "warn"
    assert raw("GET", f"{V2}/films/schema")[2]["schema"] == SCHEMA


def test_a_batch_is_validated_in_a_dry_run_as_it_would_be_written(raw, client):
    schema = {"year": {"type": "int", "required": True}, "d": {"type": "int", "default": 4, "required": True}}
    client.create_collection("films", metadata={"chroma:schema": schema, "chroma:schema_validation_type": "lax"})
    body = raw("POST", f"{V2}/films/schema/validate", {"metadatas": [{"year": 7.0}, {"year": 7}, {}]})[2]
    assert (body["validated"], body["compliant"]) == (3, 2)
    assert body["rules"][0]["ids"] == ["2"] and "year" in body["rules"][0]["message"]


def test_many_kinds_of_violations_make_neither_the_answer_nor_the_metrics_long(raw, films):
    collection = films("strict")
    many = {f"key{n}": n for n in range(5000)}
    status, _, body = raw_add(raw, collection, "a", {**GOOD, **many})
    assert status == 400 and len(json.dumps(body)) < 1_000_000
    assert all(f"key{n}" in body["message"] for n in range(5000)) and len(body["violations"]) == 100
    assert raw("GET", "/metrics")[2].count("ochre_schema_violations_total{") <= 101


def test_declared_keys_are_in_the_index_schema_of_the_official_client(films):
    assert "year" in films().schema.keys


def test_violations_that_were_accepted_can_be_read_and_are_counted(raw, films):
    add(films("warn"), "bad", {"year": "x"})
    report = raw("GET", f"{V2}/films/introspect")[2]
    assert report["recent_violations"][0]["id"] == "bad" and report["recent_violations"][0]["key"] == "year"
    assert report["compliance"]["compliant"] == 0 and report["validation_type"] == "warn"
    hidden = raw("GET", f"{V2}/films/introspect?values=false")[2]
    assert "'x'" not in str(hidden["recent_violations"]) and "value" not in hidden["recent_violations"][0]
    metrics = raw("GET", "/metrics")[2]
    assert 'ochre_schema_violations_total{collection="default_tenant/default_database/films",key="year",rule="type",outcome="accepted"} 1' in metrics


def test_sensitive_values_stand_nowhere(raw, films):
    collection = films("warn", schema={"name": {"type": "int", "sensitive": True}, "year": "int"})
    status, headers, body = raw_add(raw, collection, "a", {"name": "Jane Doe", "year": 1999})
    assert status == 201 and "Jane" not in json.dumps(body)
    for query in ("", "?mode=full", "?format=markdown"):
        status, _, report = raw("GET", f"{V2}/films/introspect{query}")
        assert status == 200 and "Jane" not in str(report)
    add(collection, "b", {"name": 123456, "year": 2000})
    report = raw("GET", f"{V2}/films/introspect")[2]
    assert "123456" not in json.dumps(report) and report["suggested_schema"]["properties"]["name"]["sensitive"] is True
    # Of few records, statistics are values.
    where = urllib.parse.quote(json.dumps({"year": 2000}))
    assert "2000" not in json.dumps(raw("GET", f"{V2}/films/introspect?values=false&where={where}")[2]["keys"])


@pytest.fixture
def dirty(client):
    """A thousand records with faults planted in known places."""
    collection = client.create_collection("dirty", embedding_function=None)
    dates = ["2024-03-01", "01/03/2024", "01.03.2024", "Mar 1, 2024", "20240301"]
    metadatas = []
    for n in range(1000):
        metadata = {"year": 1900 + n % 100, "name": f"film {n}", "price": n / 4, "flag": n % 2 == 0, "tags": ["x", f"t{n % 5}"],
                    "lat": n / 20, "lon": -n / 10}
        metadata["released"] = dates[n % 5] if n < 50 else f"2024-03-{n % 28 + 1:02}"
        if n % 20 == 0:
            metadata["year"] = str(1900 + n % 100)
        if n == 7:
            metadata["secret"] = "found"
        metadata["createdAt" if n % 10 else "created_at"] = n
        metadatas.append(metadata)
    collection.add(ids=[f"r{n}" for n in range(1000)], embeddings=[[n, 1] for n in range(1000)], metadatas=metadatas)
    return collection


def introspect(raw, name, **parameters):
    return raw("GET", f"/api/v1/collections/{name}/introspect?{urllib.parse.urlencode(parameters)}")


def test_introspection_finds_every_planted_fault(raw, dirty):
    status, _, report = introspect(raw, "dirty")
    keys = {key["name"]: key for key in report["keys"]}
    assert status == 200 and report["records"] == 1000 and report["sample"] is None
    assert {"collection", "records", "keys", "warnings", "suggested_schema"} <= set(report)
    year = keys["year"]
    assert year["types"] == {"int": 950, "string": 50} and year["type"] == "int" and year["count"] == 1000
    assert len(year["offenders"]) == 20 and year["offender_count"] == 50
    assert year["offenders"][0] == {"id": "r0", "type": "string", "value": "1900"}
    assert keys["secret"]["count"] == 1
    assert next(w for w in report["warnings"] if w["code"] == "rare-key" and w["key"] == "secret")["ids"] == ["r7"]
    assert keys["tags"]["lists"]["lengths"] == {"2": 1000}
    assert any(w["code"] == "coordinates" for w in report["warnings"])
    assert any("createdAt" in str(w) and "created_at" in str(w) for w in report["warnings"])
    dates = next(w for w in report["warnings"] if w["code"] == "mixed-date-formats")
    assert dates["key"] == "released" and "r1" in dates["ids"]
    assert len(keys["released"]["strings"]["formats"]) == 5 and keys["released"]["offender_count"] == 40
    assert keys["price"]["numbers"]["max"] == 249.75 and keys["flag"]["booleans"]["true"] == 500
    assert keys["tags"]["types"] == {"list[string]": 1000} and keys["tags"]["lists"]["distinct_elements"] == 6


def test_the_suggested_schema_accepts_the_data_it_came_from(raw, dirty):
    assert introspect(raw, "dirty")[2]["suggested_schema"]["properties"]["year"]["type"] == "int", "the majority's"
    report = introspect(raw, "dirty", types="union")[2]
    assert report["suggested_schema"]["properties"]["year"]["type"] == ["int", "string"]
    status, _, body = raw("PUT", f"{V2}/dirty/schema?require_clean=true", report["suggested_schema"])
    assert status == 200 and body["stored_records"]["compliant"] == 1000, body


def test_reports_are_restricted_shortened_and_redacted(raw, dirty):
    fast = introspect(raw, "dirty", mode="fast")[2]
    assert fast["mode"] == "fast" and next(k for k in fast["keys"] if k["name"] == "year")["types"] == {"int": 950, "string": 50}
    some = introspect(raw, "dirty", keys="year,flag", where=json.dumps({"flag": True}))[2]
    assert some["records"] == 500 and [key["name"] for key in some["keys"]] == ["flag", "year"]
    sample = introspect(raw, "dirty", mode="sample", sample=100, seed=1)[2]
    assert sample["sample"]["records"] == 100 and next(k for k in sample["keys"] if k["name"] == "year")["count"] == 1000
    asked = introspect(raw, "dirty", keys="yaer, flag")[2]
    assert [key["name"] for key in asked["keys"]] == ["flag"]
    assert any("yaer" in w["message"] and "year" in w["message"] for w in asked["warnings"])
    hidden = introspect(raw, "dirty", values="false")[2]
    assert "film 1" not in json.dumps(hidden) and "value" not in hidden["keys"][-1]["offenders"][0]
    late = introspect(raw, "dirty", max_ms=0)[2]
    assert late["truncated"] is True and late["keys"][0]["count"] > 0
    markdown = introspect(raw, "dirty", format="markdown")[2]
    assert markdown.startswith("# dirty")
    assert introspect(raw, "dirty", mode="deep")[0] == 400
    assert introspect(raw, "dirty", where="{")[0] == 400
    assert introspect(raw, "dirty", colour="red")[0] == 400
    assert introspect(raw, "nothing")[0] == 404


def test_what_takes_long_is_bounded(raw, client):
    import time

    long = client.create_collection("long", metadata={"chroma:schema": {"k" * 150_000: "int"}}, embedding_function=None)
    began = time.monotonic()
    assert raw("POST", f"{V2}/{long.id}/get", {"where": {"q" * 150_000: 1}})[0] == 400
    many = {f"a key of some length, number {n}": "int" for n in range(2000)}
    client.create_collection("many", metadata={"chroma:schema": many}, embedding_function=None)
    metadata = {f"a key of sone length, numbed {n}": 1 for n in range(500)}
    body = {"ids": ["a"], "embeddings": [[1]], "metadatas": [metadata]}
    status, _, answer = raw("POST", f"{V2}/{client.get_collection('many', embedding_function=None).id}/add", body)
    assert status == 400 and "did you mean" in answer["message"]
    assert time.monotonic() - began < 5
    big = {f"k{n}": {"type": "string", "pattern": f"a{{{n % 9 + 1}}}"} for n in range(201)}
    status, _, answer = raw("POST", f"{V2}/long/schema/validate", {"schema": big})
    assert status == 400 and "201 regular expressions" in answer["message"]


def test_a_validator_that_fails_tells_no_sensitive_value(raw, client):
    schema = {"ssn": {"sensitive": True, "validators": [{"cel": "value + 1 > 0"}]}}
    client.create_collection("people", metadata={"chroma:schema": schema}, embedding_function=None)
    people = client.get_collection("people", embedding_function=None)
    status, _, body = raw_add(raw, people, "a", {"ssn": "SECRET-123"})
    assert status == 400 and "ssn" in body["message"] and "SECRET" not in json.dumps(body)


def test_a_validator_that_reads_the_document_validates_stored_records_alike(raw, client):
    schema = {"length": {"type": "int", "validators": [{"cel": "value == size(document)"}]}}
    notes = client.create_collection("notes", metadata={"chroma:schema": schema}, embedding_function=None)
    notes.add(ids=["a"], embeddings=[[1]], documents=["four"], metadatas=[{"length": 4}])
    assert raw("POST", f"{V2}/notes/schema/validate", {})[2]["compliant"] == 1


def test_lists_of_integers_are_found_where_floats_are_declared(raw, client):
    notes = client.create_collection("notes", metadata={"chroma:schema": {"xs": "list[float]"}}, embedding_function=None)
    notes.add(ids=["a", "b"], embeddings=[[1], [2]], metadatas=[{"xs": [1, 2]}, {"xs": [1.5]}])
    assert notes.get(where={"xs": {"$contains": 1}})["ids"] == ["a"]
    assert raw("GET", f"{V2}/notes/find?xs_contains=1")[2]["records"][0]["id"] == "a"


def test_additional_keys_that_are_warned_of_are_told_in_strict_mode(raw, client):
    schema = {"properties": {"n": "int"}, "additional": "warn"}
    notes = client.create_collection("notes", metadata={"chroma:schema": schema}, embedding_function=None)
    status, headers, _ = raw_add(raw, notes, "a", {"n": 1, "more": 2})
    assert status == 201 and headers["x-schema-violations"] == "1"


def test_requiring_clean_records_holds_against_writes_in_between(raw, client):
    import threading

    notes = client.create_collection("notes", embedding_function=None)
    notes.add(ids=[str(n) for n in range(2000)], embeddings=[[n] for n in range(2000)], metadatas=[{"n": n} for n in range(2000)])
    for attempt in range(5):
        writer = threading.Thread(target=raw_add, args=(raw, notes, f"bad{attempt}", {"n": "x"}))
        writer.start()
        status = raw("PUT", f"{V2}/notes/schema?require_clean=true", {"n": "int"})[0]
        writer.join()
        if status == 200:
            # Whatever came after was validated; what came before would have refused the schema.
            assert raw("POST", f"{V2}/notes/schema/validate", {})[2]["valid"] is True
            raw("DELETE", f"{V2}/notes/schema")
        notes.delete(ids=[f"bad{attempt}"])


def test_counts_follow_every_write(raw, dirty):
    dirty.update(ids=["r0", "r20"], metadatas=[{"year": 1}, {"year": None}])
    dirty.delete(ids=["r40"])
    year = next(key for key in introspect(raw, "dirty", mode="fast")[2]["keys"] if key["name"] == "year")
    assert year["types"] == {"int": 951, "string": 47}


def test_the_audit_counts_compliance_by_itself(raw, films):
    import time

    add(films("warn"), "bad", {"year": "x"})
    assert raw("PATCH", "/_admin/jobs/schema-audit", {"interval": "1s"})[0] == 200
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        report = introspect(raw, "films", mode="fast")[2]
        if report["compliance"]:
            break
        time.sleep(0.1)
    assert report["compliance"]["compliant"] == 0 and report["compliance"]["audited_at"].endswith("Z")
