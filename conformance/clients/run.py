"""Runs other people's libraries that are built on Chroma's clients, unmodified, against a freshly started server.

    python run.py [--server ochre|chroma] [--full] [NAME …]

NAME is a suite: langchain, haystack, llama_index, and with --full also mcp, npm, rust. Their own tests come with their
source archives, which are downloaded once; what a suite needs beyond `requirements.txt` it installs below `.cache`.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache"
sys.path.insert(0, str(HERE.parent / "python"))
from server import Server  # noqa: E402

PLUGINS = os.pathsep.join([str(HERE / "plugins"), str(HERE.parent / "upstream/plugins"), str(HERE)])
PYTEST = [sys.executable, "-m", "pytest", "-p", "offline_embedding", "-p", "over_http", "-p", "no:cacheprovider", "-q",
          "-W", "ignore", "-o", "asyncio_mode=auto", "-o", "addopts="]
RUST = "chroma-0.15.0"



def run(command: list, folder: pathlib.Path = HERE, port: int | None = None, **environment: str) -> int:
    named = {"CLIENTS_PORT": str(port), "PYTHONPATH": PLUGINS} if port else {}
    return subprocess.run(command, cwd=folder, env={**os.environ, **named, **environment}).returncode


def source(requirement: str) -> pathlib.Path:
    """The unpacked source archive of a package."""
    name, version = requirement.split("==")
    folder = CACHE / "sources"
    unpacked = folder / f"{name.replace('-', '_')}-{version}"
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary",
               ":all:", "--dest", str(folder), requirement]
        subprocess.run(pip, check=True)
        with tarfile.open(f"{unpacked}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return unpacked


def required(name: str) -> pathlib.Path:
    """The source archive of a package in the version of `requirements.txt`."""
    lines = (HERE / "requirements.txt").read_text().splitlines()
    return source(next(line for line in lines if line.startswith(f"{name}==")))


def made_once(mark: pathlib.Path, wanted: pathlib.Path, make) -> None:
    """Runs `make` unless it was run for this content of `wanted` before."""
    if not mark.exists() or mark.read_bytes() != wanted.read_bytes():
        make()
        mark.write_bytes(wanted.read_bytes())


def langchain(port: int) -> int:
    # The test of its own that is left out times the construction of clients.
    own = [*PYTEST, "tests", "--deselect=tests/unit_tests/test_standard.py::test_chroma_init_time"]
    return run(own, required("langchain-chroma"), port) or run([*PYTEST, "test_langchain.py"], port=port)


def haystack(port: int) -> int:
    return run([*PYTEST, "tests"], required("chroma-haystack"), port)


def llama_index(port: int) -> int:
    return run([*PYTEST, "test_llama_index.py"], port=port)


def mcp(port: int) -> int:
    environment = CACHE / "clients-mcp"
    python, wanted = environment / "bin/python", HERE / "mcp/requirements.txt"

    def make() -> None:
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", wanted], check=True)
        # Its protocol client reaches into a version of pydantic that its other dependencies no longer ask for.
        subprocess.run([*pip, "pydantic<2.12"], check=True)

    made_once(CACHE / "clients-mcp.made", wanted, make)
    return run([python, HERE / "mcp/drive.py"], port=port)


def npm(port: int) -> int:
    folder = HERE / "npm"
    # One of its packages names optional peers that contradict each other.
    install = ["npm", "ci", "--legacy-peer-deps", "--no-audit", "--no-fund", "--silent"]
    made_once(CACHE / "clients-npm.made", folder / "package-lock.json",
              lambda: subprocess.run(install, cwd=folder, check=True))
    return run(["node", "--test", "--test-concurrency=1", "clients.test.mjs"], folder, port)


def rust(port: int) -> int:
    """The unit tests of Chroma's own crate, in a copy whose tests ask another port."""
    if shutil.which("protoc") is None and "PROTOC" not in os.environ:
        print("the crate's build needs the compiler of Protocol Buffers: install protobuf-compiler")
        return 1
    folder = CACHE / "sources" / RUST
    if not folder.exists():
        # Outside of this workspace, which would take the package for a member.
        with tempfile.TemporaryDirectory() as fetch:
            subprocess.run(["cargo", "init", "--quiet", "--name", "fetch", "--vcs", "none", fetch], check=True)
            subprocess.run(["cargo", "add", "--quiet", RUST.replace("-", "@=", 1)], cwd=fetch, check=True)
            subprocess.run(["cargo", "fetch", "--quiet"], cwd=fetch, check=True)
        registry = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")) / "registry/src"
        shutil.copytree(next(registry.glob(f"*/{RUST}")), folder)
        with open(folder / "Cargo.toml", "a") as manifest:
            manifest.write("\n[workspace]\n")
    library = folder / "src/lib.rs"
    library.write_text(re.sub(r"http://localhost:\d+", f"http://localhost:{port}", library.read_text()))
    command = ["cargo", "test", "--locked", "--quiet", "--lib", "--target-dir", CACHE / "clients-rust"]
    return run(command, folder)


SMALL = {"langchain": langchain, "haystack": haystack, "llama_index": llama_index}
FULL = {**SMALL, "mcp": mcp, "npm": npm, "rust": rust}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=["ochre", "chroma"], default="ochre")
    parser.add_argument("--full", action="store_true", help="also the suites that take long to install")
    parser.add_argument("suites", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    chosen = arguments.suites or list(FULL if arguments.full else SMALL)
    if unknown := set(chosen) - set(FULL):
        parser.error(f"no suite is named {', '.join(sorted(unknown))}; there are {', '.join(FULL)}")
    failed = []
    for name in chosen:
        server = Server(arguments.server).start()
        try:
            print(f"== {name}", flush=True)
            if FULL[name](server.port):
                failed.append(name)
        finally:
            server.remove()
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
