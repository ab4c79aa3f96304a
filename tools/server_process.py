"""A `fastdeploy serve` of one's own for programs that must do with Python's standard library."""

import http.client
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = str(ROOT / "models" / "ernie-4.5-vl-tiny")


def find_binary():
    """FASTDEPLOY_BIN, or the first build with CUDA kernels, or None."""
    named = os.environ.get("FASTDEPLOY_BIN")
    candidates = [named] if named else ["build/cuda-portable/fastdeploy", "build/cuda/fastdeploy"]
    return next((str(ROOT / path) for path in candidates if os.access(ROOT / path, os.X_OK)), None)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class ServerError(Exception):
    """The server did not start, answered wrongly or did not end as it must."""


class ServerProcess:
    """Started in its own process group; use it in a `with`, which drains it by SIGTERM and raises unless it ends well."""

    def __init__(self, binary, *flags, model=MODEL, port=None, env=None, start_timeout_s=120):
        self.port = port or free_port()
        self.log = tempfile.TemporaryFile()
        begin = time.monotonic()
        self.process = subprocess.Popen([binary, "serve", "--model", str(model), "--port", str(self.port), *flags],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
                                        env={**os.environ, **(env or {})})
        try:
            while not self._is_healthy():
                if self.process.poll() is not None:
                    raise ServerError(f"the server ended with code {self.process.returncode} while starting:\n{self.log_tail()}")
                if time.monotonic() > begin + start_timeout_s:
                    raise ServerError(f"the server was not ready after {start_timeout_s} s:\n{self.log_tail()}")
                time.sleep(0.01)
        except BaseException:
            self.kill()
            raise
        self.start_seconds = time.monotonic() - begin

    def _is_healthy(self):
        try:
            return self.get("/health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path):
        """(status, body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def log_tail(self, lines=20):
        self.log.seek(0)
        return "\n".join(self.log.read().decode(errors="replace").splitlines()[-lines:])

    def processes(self):
        """Process ids of the server's session, zombies included; empty when it ended and left nothing."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                # pid (name) state ppid pgrp session ...; the name may hold anything.
                stat = pathlib.Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace") if entry.isdigit() else ""
            except OSError:  # it ended just now
                continue
            if stat and int(stat.rpartition(")")[2].split()[3]) == self.process.pid:
                found.append(int(entry))
        return found

    def kill(self):
        """Ends the process and all it started; harmless when they are gone."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def stop(self, timeout_s=60):
        """Drains; raises when the exit code is not 0 or a process is left."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"the server did not end {timeout_s} s after SIGTERM:\n{self.log_tail()}") from None
        if code != 0:
            self.kill()
            raise ServerError(f"the server ended with code {code} after SIGTERM:\n{self.log_tail()}")
        if left := self.processes():
            self.kill()
            raise ServerError(f"the server ended but left processes behind: {left}")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.stop()
        else:
            self.kill()
