"""Requests that are nearly right, to every operation of /openapi.json: none is answered with a failure of the server.

OCHRE_FUZZ_SECONDS and OCHRE_FUZZ_SEED set how long, and from which seed; what failed is printed with both.
"""

import http.client
import json
import os
import random
import re
import time
import urllib.parse

import pytest
from server import Server

SECONDS = float(os.environ.get("OCHRE_FUZZ_SECONDS", "15"))
SEED = int(os.environ.get("OCHRE_FUZZ_SEED", "18"))
# Not served; too much at once, nothing to embed with; a proxy's failure: each said in a message.
EXPECTED = {501, 502, 503, 504, 507}
WORDS = ["", "a", "fuzz", "*", "..", "%2e%2e", "default_tenant", "default_database", "chroma:schema", "$and", "\x00", "é", "💥", "x" * 300, "null", "-1", "1e400"]


def any_value(rng, depth=3):
    kind = rng.randrange(6 if depth == 0 else 9)
    if kind == 0:
        return None
    if kind == 1:
        return rng.random() < 0.5
    if kind == 2:
        return rng.choice([0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**30, 0.5, 1e308])
    if kind < 6:
        return rng.choice(WORDS)
    if kind < 8:
        return [any_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(WORDS + ["id", "name", "type"]): any_value(rng, depth - 1) for _ in range(rng.randrange(4))}


def of_schema(rng, schema, schemas, depth=6):
    """A value that fits a schema of the document, most of the time."""
    if depth == 0 or not schema or rng.random() < 0.08:
        return any_value(rng, 2)
    if "$ref" in schema:
        return of_schema(rng, schemas.get(schema["$ref"].rsplit("/", 1)[1], {}), schemas, depth)
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return of_schema(rng, rng.choice(schema[several]), schemas, depth - 1)
    if "allOf" in schema:
        merged = {}
        for part in schema["allOf"]:
            value = of_schema(rng, part, schemas, depth - 1)
            merged.update(value if isinstance(value, dict) else {})
        return merged
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    kind = rng.choice(kind) if isinstance(kind, list) else kind
    if kind == "object":
        required = schema.get("required", [])
        value = {
            name: of_schema(rng, part, schemas, depth - 1)
            for name, part in schema.get("properties", {}).items()
            if name in required or rng.random() < 0.5
        }
        if rng.random() < 0.1:
            value[rng.choice(WORDS)] = any_value(rng, 2)
        return value
    if kind == "array":
        return [of_schema(rng, schema.get("items", {}), schemas, depth - 1) for _ in range(rng.randrange(4))]
    if kind == "integer":
        return rng.choice([0, 1, 2, 3, 10, 1000, -1, 2**31, 2**40])
    if kind == "number":
        return rng.choice([0, 0.5, -1.5, 1e30, 3])
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "string":
        return rng.choice(WORDS + ["fuzz", "a", "b"])
    return any_value(rng, 2)


@pytest.fixture
def fresh():
    server = Server().start()
    yield server
    server.remove()


def test_no_request_to_any_operation_is_a_failure_of_the_server(fresh):
    print(f"OCHRE_FUZZ_SEED={SEED} OCHRE_FUZZ_SECONDS={SECONDS}")
    rng = random.Random(SEED)
    connection = http.client.HTTPConnection("127.0.0.1", fresh.port, timeout=60)

    def ask(method, path, body=None):
        nonlocal connection
        try:
            connection.request(method, path, body, {"content-type": "application/json"} if body is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (http.client.HTTPException, OSError):
            connection.close()
            connection = http.client.HTTPConnection("127.0.0.1", fresh.port, timeout=60)
            assert fresh.process.poll() is None, f"the process ended at {method} {path} {body!r}"
            return 0, b""

    document = json.loads(ask("GET", "/openapi.json")[1])
    schemas = document["components"]["schemas"]
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if isinstance(operation, dict) and "responses" in operation and path not in ("/mcp",)
    ]
    assert len(operations) > 60
    base = "/api/v2/tenants/default_tenant/databases/default_database/collections"

    def collection():
        made = json.loads(ask("POST", base, json.dumps({"name": "fuzz", "get_or_create": True}))[1] or b"{}").get("id", "")
        ask("POST", f"{base}/{made}/upsert", json.dumps({"ids": ["a", "b"], "embeddings": [[1, 2], [3, 4]], "metadatas": [{"a": 1}, {"b": "x"}], "documents": ["one", "two"]}))
        return made

    made, counts, failures, asked = collection(), {}, [], set()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        method, path, operation = rng.choice(operations)
        if path.endswith("/reset") and rng.random() < 0.9:
            continue
        known = {"tenant": "default_tenant", "database": "default_database", "collection": made, "collection_id": made, "name": "fuzz", "index_name": "fuzz"}

        def part(match):
            right = known.get(match.group(1).strip("{}"), "fuzz")
            return urllib.parse.quote(right if rng.random() < 0.85 else rng.choice(WORDS), safe="")

        target = re.sub(r"\{([^}]*)\}", part, path)
        parameters = [p for p in operation.get("parameters", []) if p.get("in") == "query" and rng.random() < 0.4]
        query = {p["name"]: of_schema(rng, p.get("schema", {}), schemas, 2) for p in parameters}
        if query:
            target += "?" + urllib.parse.urlencode({name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in query.items()})
        body = None
        if "requestBody" in operation:
            content = operation["requestBody"].get("content", {}).get("application/json", {})
            body = json.dumps(of_schema(rng, content.get("schema", {}), schemas)).encode()
            if rng.random() < 0.05:
                body = body[: rng.randrange(len(body) + 1)]
        status, answer = ask(method, target, body)
        asked.add((method, path))
        counts[status] = counts.get(status, 0) + 1
        if status >= 500 and status not in EXPECTED:
            failures.append((method, target, body, status, answer[:300]))
        if rng.random() < 0.02:
            made = collection()
    print(f"{sum(counts.values())} requests to {len(asked)} of {len(operations)} operations: {dict(sorted(counts.items()))}")
    assert not failures, failures[:3]
    assert "panicked" not in fresh.log()
    assert len(asked) > 0.9 * len(operations) and counts.get(200, 0) > 50
    assert ask("GET", "/api/v2/heartbeat")[0] == 200
