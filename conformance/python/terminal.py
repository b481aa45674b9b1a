"""A program in a terminal of its own: keys are sent to it, and its screen is read."""

import fcntl
import os
import pty
import select
import struct
import termios
import time

import pyte

DOWN, ENTER, ESCAPE = "\x1b[B", "\r", "\x1b"


class Terminal:
    def __init__(self, command: list[str], environment: dict[str, str], rows: int = 40, columns: int = 140):
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._process, self._file = pty.fork()
        if self._process == 0:
            try:
                # The parent sets the size once it has the terminal.
                time.sleep(0.2)
                os.execvpe(command[0], command, {**os.environ, "TERM": "xterm-256color", **environment})
            finally:
                os._exit(127)
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def press(self, *keys: str) -> None:
        """A program that reads a key at a time takes several at once for pasted text."""
        for key in keys:
            os.write(self._file, key.encode())
            self._read(0.02)

    def wait(self, *wanted: str, unwanted: str | None = None, seconds: float = 20) -> None:
        """Until the screen shows each of the texts, and not the unwanted one."""
        deadline = time.monotonic() + seconds
        while not all(text in self.text() for text in wanted) or unwanted is not None and unwanted in self.text():
            assert time.monotonic() < deadline, f"the screen does not show {wanted}, but\n{self.text()}"
            self._read(0.05)

    def _read(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._file], [], [], left)[0]:
                try:
                    self._stream.feed(os.read(self._file, 65536))
                except OSError:
                    return

    def end(self, seconds: float = 10) -> int:
        """Waits for the program; its exit code."""
        deadline = time.monotonic() + seconds
        while True:
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended:
                os.close(self._file)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(self._process, 9)
            self._read(0.05)
