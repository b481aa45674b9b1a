"""Starts a server and runs the JavaScript client's tests against it."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
from server import Server  # noqa: E402

kind = sys.argv[1] if len(sys.argv) > 1 else "ochre"
# Chroma has no schemas. One file after the other: each test begins with an empty server.
files = ["client.test.mjs", "schemas.test.mjs"] if kind == "ochre" else ["client.test.mjs"]
server = Server(kind).start()
try:
    environment = {**os.environ, "OCHRE_PORT": str(server.port)}
    sys.exit(subprocess.run(["node", "--test", "--test-concurrency=1", *files], cwd=HERE, env=environment).returncode)
finally:
    server.remove()
