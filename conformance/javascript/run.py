"""Starts a server and runs the JavaScript client's tests against it."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
from server import Server  # noqa: E402

server = Server(sys.argv[1] if len(sys.argv) > 1 else "ochre").start()
try:
    environment = {**os.environ, "OCHRE_PORT": str(server.port)}
    sys.exit(subprocess.run(["node", "--test", "client.test.mjs"], cwd=HERE, env=environment).returncode)
finally:
    server.remove()
