"""Drives an MCP server with the official client and prints what it saw, as JSON.

    mcp_client.py http URL [--watch]
    mcp_client.py stdio COMMAND…
"""

import asyncio
import json
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

CALLS = [
    ("find_films", {"q": "space", "n": 2}),
    ("find_films", {"year_gte": 1990, "genre": "drama"}),
    ("find_films", {"year_gte": "long ago"}),
    ("find_films", {"yaer": 1990}),
    ("describe_films", {}),
    ("find_nothing", {}),
]


async def drive(session, watch):
    await session.initialize()
    tools = (await session.list_tools()).tools
    seen = {"tools": [tool.model_dump(mode="json") for tool in tools], "calls": []}
    for name, arguments in CALLS:
        answer = (await session.call_tool(name, arguments)).model_dump(mode="json")
        text = answer["content"][0]["text"] if answer["content"] else None
        seen["calls"].append({"is_error": bool(answer.get("is_error") or answer.get("isError")), "text": text,
                              "structured": answer.get("structured_content") or answer.get("structuredContent")})
    if watch:
        # The test changes a schema once it has read this line.
        print("watching", flush=True)
        seen["told"] = await asyncio.wait_for(watch.get(), 30)
        seen["tools_after"] = [tool.model_dump(mode="json") for tool in (await session.list_tools()).tools]
    return seen


async def main():
    kind, *rest = sys.argv[1:]
    told = asyncio.Queue()

    async def on_message(message):
        await told.put(type(getattr(message, "root", message)).__name__)

    if kind == "stdio":
        async with stdio_client(StdioServerParameters(command=rest[0], args=rest[1:])) as (read, write):
            async with ClientSession(read, write, message_handler=on_message) as session:
                return await drive(session, None)
    from mcp.client.streamable_http import streamable_http_client

    async with streamable_http_client(rest[0]) as streams:
        async with ClientSession(streams[0], streams[1], message_handler=on_message) as session:
            return await drive(session, told if "--watch" in rest else None)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main())))
