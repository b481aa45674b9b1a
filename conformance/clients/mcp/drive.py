"""Calls every tool of chroma-mcp over stdio, with the official client of the protocol, against a server at CLIENTS_PORT.

The model that it would download to embed texts is replaced by the plugin `offline_embedding`."""

import asyncio
import json
import os
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

START = "import offline_embedding; offline_embedding.pytest_configure(None); from chroma_mcp.server import main; main()"
DOCUMENTS = {"a": "foxes jump over dogs", "b": "owls hunt at night", "c": "cats sleep at night"}
NAME = {"collection_name": "notes"}
NIGHT = {"where_document": {"$contains": "night"}}

# What is called, with what, and a text of the answer.
CALLS = [
    ("list_collections", {}, "__NO_COLLECTIONS_FOUND__"),
    ("create_collection", {**NAME, "metadata": {"owner": "ops"}}, "Successfully created"),
    ("add_documents", {**NAME, "ids": list(DOCUMENTS), "documents": list(DOCUMENTS.values()),
                       "metadatas": [{"n": n} for n in range(3)]}, "Successfully added 3"),
    ("add_documents", {**NAME, "ids": ["a"], "documents": ["again"]}, "already exist"),
    ("list_collections", {"limit": 5, "offset": 0}, "notes"),
    ("list_collections", {"limit": 5, "offset": 1}, "__NO_COLLECTIONS_FOUND__"),
    ("get_collection_count", NAME, "3"),
    ("get_collection_info", NAME, "'count': 3"),
    ("peek_collection", {**NAME, "limit": 2}, "owls hunt"),
    ("query_documents", {**NAME, "query_texts": ["owls at night"], "n_results": 1}, "owls hunt"),
    ("query_documents", {**NAME, "query_texts": ["night"], "where": {"n": {"$gte": 2}}}, "cats sleep"),
    ("query_documents", {**NAME, "query_texts": ["foxes"], **NIGHT}, "cats sleep"),
    ("get_documents", {**NAME, "ids": ["b"]}, "owls hunt"),
    ("get_documents", {**NAME, "where": {"n": 0}, "include": ["documents"]}, "foxes jump"),
    ("get_documents", {**NAME, **NIGHT, "limit": 1, "offset": 1}, "cats sleep"),
    ("update_documents", {**NAME, "ids": ["a"], "documents": ["foxes rest"], "metadatas": [{"n": 9}]}, "Successfully"),
    ("get_documents", {**NAME, "where": {"n": 9}}, "foxes rest"),
    ("modify_collection", {**NAME, "new_metadata": {"owner": "us"}}, "Successfully modified"),
    ("fork_collection", {**NAME, "new_collection_name": "notes-2"}, "Successfully forked"),
    ("delete_documents", {"collection_name": "notes-2", "ids": ["a", "b"]}, "Successfully deleted"),
    ("get_collection_count", {"collection_name": "notes-2"}, "1"),
    ("get_collection_count", NAME, "3"),
    ("modify_collection", {**NAME, "new_name": "papers"}, "Successfully modified"),
    ("get_collection_info", {"collection_name": "papers"}, "papers"),
    ("delete_collection", {"collection_name": "papers"}, "Successfully deleted"),
    ("get_collection_count", {"collection_name": "papers"}, "Failed to get collection count"),
]


async def drive() -> int:
    arguments = ["-c", START, "--client-type", "http", "--host", "127.0.0.1", "--port", os.environ["CLIENTS_PORT"], "--ssl", "false"]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    failed = 0
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        tools = {tool.name for tool in (await session.list_tools()).tools}
        uncalled = tools - {f"chroma_{tool}" for tool, _, _ in CALLS}
        assert not uncalled, f"never called: {uncalled}"
        for tool, arguments, expected in CALLS:
            answer = await session.call_tool(f"chroma_{tool}", arguments)
            text = "\n".join(part.text for part in answer.content)
            if expected not in text:
                failed += 1
                print(f"FAILED {tool} {json.dumps(arguments)}\n  expected: {expected}\n  answered: {text}")
    print(f"{len(CALLS) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(drive()) else 0)
