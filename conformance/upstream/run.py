"""Runs the tests that the chromadb package ships against a freshly started server.

    python run.py [--server ochre|chroma] [--full] [pytest arguments …]
"""

import argparse
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
from server import Server  # noqa: E402

# Need a cluster, a downloaded model, an embedded server, or hours.
LEFT_OUT = [
    "distributed", "ef", "segment", "test_cli.py", "property/test_cross_version_persist.py", "property/test_add_mcmr.py",
    "property/test_restart_persist.py", "property/test_persist.py",
]

# Tests that Chroma runs against its cluster only: they need what its own single node does not serve.
CLUSTER = [f"chromadb/test/api/test_{name}.py" for name in ("search_api", "count_api", "fork_count_api", "indexing_status", "schema_e2e")]
CLUSTER += [f"chromadb/test/property/test_{name}.py" for name in ("fork", "filtering", "add")]
CLUSTER += [f"chromadb/test/distributed/test_{name}.py" for name in ("task_api", "statistics_wrapper")]


def deselected(name: str) -> list[str]:
    """The options that leave out the tests that a file lists."""
    lines = (HERE / name).read_text().splitlines()
    tests = [line.split("#")[0].strip() for line in lines if not line.startswith("#")]
    return [f"--deselect={test}" for test in tests if test]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=["ochre", "chroma"], default="ochre")
    parser.add_argument("--full", action="store_true", help="no bound on hypothesis' examples")
    parser.add_argument("--examples", type=int, default=10)
    arguments, rest = parser.parse_known_args()
    import chromadb

    packages = pathlib.Path(chromadb.__file__).resolve().parents[1]
    server = Server(arguments.server).start()
    environment = {
        **os.environ,
        "CHROMA_INTEGRATION_TEST_ONLY": "1",
        "CHROMA_SERVER_HOST": "localhost",
        "CHROMA_SERVER_HTTP_PORT": str(server.port),
        "PROPERTY_TESTING_PRESET": "fast",
        "BOUND_EXAMPLES": "0" if arguments.full else str(arguments.examples),
        "BOUND_STEPS": "0" if arguments.full else "20",
        "PYTHONPATH": str(HERE / "plugins"),
    }
    pytest = [
        sys.executable, "-m", "pytest", "--import-mode=importlib", "-o", "pythonpath=.", "-o", "asyncio_mode=auto",
        "-p", "offline_embedding", "-p", "bounded", "-p", "no:cacheprovider", "--timeout", "300", "-q", "-W", "ignore",
    ]
    command = [*pytest, "-k", "integration", "chromadb/test", *(f"--ignore=chromadb/test/{name}" for name in LEFT_OUT), *rest]
    if arguments.server != "ochre":
        try:
            return subprocess.run(command, cwd=packages, env=environment).returncode
        finally:
            server.remove()
    command += deselected("exceptions.txt")
    in_cluster = {**environment, "CHROMA_CLUSTER_TEST_ONLY": "1", "CHROMA_SERVER_HOST": f"localhost:{server.port}"}
    del in_cluster["CHROMA_INTEGRATION_TEST_ONLY"]
    cluster = [*pytest, "-p", "compaction", *CLUSTER, *deselected("exceptions_cluster.txt")]
    try:
        status = subprocess.run(command, cwd=packages, env=environment).returncode
        return status or (0 if rest else subprocess.run(cluster, cwd=packages, env=in_cluster).returncode)
    finally:
        server.remove()


if __name__ == "__main__":
    sys.exit(main())
