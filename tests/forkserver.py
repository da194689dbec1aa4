"""Runs `python -m irtool` in processes forked from one that has imported torch and irtool: importing them, and taking
them down at the end, is most of what a short command costs. Every command still has a process of its own, with its own
environment, folder and streams.

    server = ForkServer(environment)
    server.run(["models"], env=..., cwd=..., stdin=fd, stdout=fd, stderr=fd, timeout=60)  # the exit code
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

AVAILABLE = hasattr(os, "fork") and hasattr(socket, "send_fds") and sys.platform == "linux"


class ForkServer:
    """The process that is forked; it ends with `close`, or when the process that began it has gone."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="irtool-fork-")
        self._path = str(Path(self._folder.name) / "socket")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self._path)
        listening.listen()
        fd = listening.fileno()
        command = [sys.executable, str(Path(__file__).resolve()), str(fd)]
        self._process = subprocess.Popen(command, env=dict(environment), pass_fds=[fd], stdin=subprocess.PIPE)
        listening.close()

    def run(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
        stdin: int,
        stdout: int,
        stderr: int,
        timeout: float,
    ) -> int:
        """Run ``python -m irtool`` with these arguments; the exit code, negative for a signal, as subprocess has it.

        Raises:
            subprocess.TimeoutExpired: it took longer; it was killed.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._path)
            connection.settimeout(timeout)
            request = {"arguments": list(arguments), "env": dict(env), "cwd": cwd or str(Path.cwd())}
            message = json.dumps(request).encode()
            socket.send_fds(connection, [len(message).to_bytes(4, "big")], [stdin, stdout, stderr])
            connection.sendall(message)
            answers = connection.makefile("r")
            pid = int(answers.readline())
            try:
                return int(answers.readline())
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), timeout) from None

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


def serve(listening: socket.socket) -> dict[str, object]:
    """Fork for every request. Returns in the forked process alone, its streams set, with the request to carry out."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listening.accept()
        if os.fork():
            connection.close()
            continue
        # Between the server and the command: waits for the command and tells how it ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listening.close()
        head, streams, _, _ = socket.recv_fds(connection, 4, 3)
        message = b""
        while len(message) < int.from_bytes(head, "big"):
            message += connection.recv(1 << 16)
        pid = os.fork()
        if pid:
            for fd in streams:
                os.close(fd)
            connection.sendall(f"{pid}\n".encode())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with contextlib.suppress(OSError):
                connection.sendall(f"{code}\n".encode())
            os._exit(0)
        connection.close()
        for target, fd in enumerate(streams):
            os.dup2(fd, target)
            os.close(fd)
        request: dict[str, object] = json.loads(message)
        return request


def load() -> None:
    """Import what commands need. Not huggingface_hub, which reads its environment when it is imported."""
    import irtool.cli

    for module in pkgutil.iter_modules(irtool.cli.__path__):
        import_module(f"irtool.cli.{module.name}")
    for name in (
        "irtool.api", "irtool.engine.pipeline", "irtool.language", "irtool.models.compact", "rich.progress",
        "skimage.measure", "skimage.metrics",
    ):  # fmt: skip
        import_module(name)
    assert "huggingface_hub" not in sys.modules
    gc.freeze()  # so that no collection touches, and so copies, the memory that all processes share


def main() -> None:
    load()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[call-overload]
    os.chdir(str(request["cwd"]))
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (a file descriptor)
    for name, fd, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        buffering = 1 if fd == 2 or os.isatty(fd) else -1
        setattr(sys, name, open(fd, "w", buffering, errors=errors, closefd=False))  # noqa: SIM115
        setattr(sys, f"__{name}__", getattr(sys, name))
    sys.__stdin__ = sys.stdin
    sys.argv = ["irtool", *request["arguments"]]  # type: ignore[misc]
    # As python -m has it: the folder of the caller, not that of this file, is the first place of modules.
    sys.path[0] = str(request["cwd"])
    code: object = None
    try:
        runpy.run_module("irtool", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    if code is None or isinstance(code, int):
        # As the interpreter ends, but for the freeing of every object.
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)
    sys.exit(code)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
