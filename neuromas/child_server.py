"""The server of `neuromas.child`: forks a child for each job, and ends when nobody needs it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import select
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from neuromas.child import WARNINGS, Job
from neuromas.errors import InvalidInput, NeuromasError
from neuromas.unpacking import in_words

_IDLE_S = 60.0
_PR_SET_PDEATHSIG = 1
_MOST_WARNINGS = 100


def serve(descriptor: int, preload: Sequence[str] = ()) -> None:
    """Answer jobs until the connection is closed, or until there was no job for a minute."""
    _import(preload)
    # a crash is expected here and needs no dump
    _limit("RLIMIT_CORE", 0)
    with socket.socket(fileno=descriptor) as connection:
        while select.select([connection], [], [], _IDLE_S)[0]:
            header, files, _, _ = socket.recv_fds(connection, 8, 2)
            if len(header) < 8 or len(files) < 2:
                return
            job = _received(connection, struct.unpack("!Q", header)[0])
            if job is None:
                return
            status = _work(connection, pickle.loads(job), files)
            for file in files:
                os.close(file)
            connection.sendall(struct.pack("!i", status))


def _limit(name: str, most: int) -> None:
    """Set a limit of this process, where the system has such limits."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        resource = import_module("resource")
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        resource.setrlimit(number, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _memory_now() -> int:
    """Bytes of private memory that this process has; 0 if the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmData:")))
    return 0


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        # a child that needs it says what is wrong with it
        with contextlib.suppress(Exception):
            import_module(module)


def _received(connection: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        part = connection.recv(min(size, 2**20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _work(connection: socket.socket, job: Job, files: list[int]) -> int:
    """The status of a child that did `job`; the child ends early if the connection is closed."""
    _import(job.preload)
    server = os.getpid()
    # the child's end closes when the child is gone
    alive, held = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            connection.close()
            os.close(alive)
            _end_with(server)
            _answer(job, *files)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(held)
    if connection.fileno() in select.select([alive, connection.fileno()], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(alive)
    return os.waitstatus_to_exitcode(status)


def _end_with(parent: int) -> None:
    """Let the system kill this process when `parent` is gone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _answer(job: Job, answer: int, data: int) -> None:
    """Do the job and write what came of it."""
    document: dict[str, Any] = {"value": None, "error": None}
    with warnings.catch_warnings(record=True) as caught, os.fdopen(data, "wb", buffering=0, closefd=False) as file:
        try:
            if job.memory is not None:
                _limit("RLIMIT_DATA", _memory_now() + job.memory)
            os.chdir(job.folder)
            sys.path[:] = job.path
            function, arguments = pickle.loads(job.function)
            document["value"] = function(file, *arguments)
        except BaseException as error:  # whatever a foreign file makes libraries raise
            document["error"] = _described(_of_memory(job) if _lacks_memory(error) else error)
    said = dict.fromkeys((_known(entry.category), str(entry.message)) for entry in caught)
    document["warnings"] = list(said)[:_MOST_WARNINGS]
    with os.fdopen(answer, "wb", closefd=False) as out:
        out.write(json.dumps(document).encode())


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, one of memory; libraries wrap them."""
    while error is not None:
        if isinstance(error, MemoryError) or "cannot allocate memory" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _of_memory(job: Job) -> InvalidInput:
    if job.memory is None:
        return InvalidInput(f"{job.what}: needs more memory than there is", kind="too_large")
    return InvalidInput(
        f"{job.what}: reading takes more memory than the {in_words(job.memory)} that are allowed{job.advice}",
        kind="too_large",
    )


def _known(category: type[Warning]) -> str:
    return next((base.__name__ for base in category.__mro__ if base.__name__ in WARNINGS), "")


def _described(error: BaseException) -> dict[str, Any]:
    own = [base.__name__ for base in type(error).__mro__ if base.__module__ == NeuromasError.__module__]
    return {
        "class": own[0] if own else None,
        "kind": getattr(error, "kind", None),
        "message": str(error) if own else traceback.format_exception_only(error)[-1].strip(),
        "problems": getattr(error, "problems", None),
    }


def echo(file: Any, text: str) -> str:
    """Write `text` and return it; for checks of the way there and back."""
    file.write(text.encode())
    return text
