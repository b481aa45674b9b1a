"""Starts a server on a free port over an empty directory, and ends it."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
OCHRE = pathlib.Path(os.environ.get("OCHRE_BIN", ROOT / "target/release/ochre"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`kind` is "ochre" or "chroma". The directory is kept over restarts and removed at the end."""

    def __init__(self, kind: str = "ochre", extra: tuple[str, ...] = (), binary: pathlib.Path = OCHRE):
        self.kind, self.extra, self.binary = kind, extra, binary
        self.directory = tempfile.mkdtemp(prefix=f"{kind}-conformance-")
        self.data = os.path.join(self.directory, "data")
        self.port = free_port()
        self.process = None

    def command(self) -> list[str]:
        if self.kind == "ochre":
            return [str(self.binary), "run", "--path", self.data, "--port", str(self.port), "--allow-reset", *self.extra]
        config = os.path.join(self.directory, "chroma.yaml")
        with open(config, "w") as file:
            file.write(f'port: {self.port}\nlisten_address: "127.0.0.1"\npersist_path: "{self.data}"\nallow_reset: true\n')
        return [os.path.join(os.path.dirname(sys.executable), "chroma"), "run", config]

    def start(self) -> "Server":
        log = open(os.path.join(self.directory, "log"), "ab")
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.directory)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v2/heartbeat", timeout=1).read()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start:\n{self.log()}")
                time.sleep(0.02)

    def log(self) -> str:
        with open(os.path.join(self.directory, "log"), errors="replace") as file:
            return file.read()

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=60)

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)
