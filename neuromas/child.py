"""Work in a child process, where a crash or an endless loop does no harm.

A server is started once and imports what the work needs. For each job it forks a child, which works and ends. What a child sends
may come from a hostile file: an answer is JSON and raw bytes, never a pickle, and both are checked. The server ends with the
process that started it, or after a minute without a job, and takes the child with it.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import mmap
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuromas import errors
from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from neuromas.child_server import serve
serve(int(sys.argv[2]), sys.argv[3:])
"""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A process that forks should have no other threads."""
_LONGEST_ANSWER = 2**28
_LONGEST_TEXT = 20_000
WARNINGS = {kind.__name__: kind for kind in (UserWarning, RuntimeWarning, FutureWarning, DeprecationWarning)}
_ENDS_S = 5.0
"""How long a server may take to end."""


@dataclass(frozen=True)
class Job:
    """What a child is to do: `function(file, *arguments)`, from where."""

    what: str
    function: bytes
    """The function and its arguments, pickled: they come from the process that trusts the child with the work."""
    folder: str
    path: tuple[str, ...]
    preload: tuple[str, ...]
    memory: int | None = None
    """Bytes that the child may take beside what the server has."""
    advice: str = ""
    """What the message says of more memory."""


def can_run(function: Callable[..., Any]) -> bool:
    """Whether a child process can find `function` by its name."""
    try:
        return bool(pickle.dumps(function)) and getattr(function, "__module__", "__main__") != "__main__"
    except Exception:  # whatever objects raise that cannot be pickled
        return False


def run_in_child(
    what: str,
    function: Callable[..., Any],
    *arguments: Any,
    preload: Sequence[str] = (),
    timeout_s: float | None = None,
    memory: int | None = None,
    advice: str = "",
) -> tuple[Any, memoryview]:
    """`function(file, *arguments)` in a child process.

    Parameters
    ----------
    what : str
        What is worked on, for messages.
    function : callable
        Found by its name. It writes arrays into the binary file and returns what JSON can hold.
    *arguments
    preload : sequence of str
        Modules that are imported once, before children are made.
    timeout_s : float, optional
        Seconds after which the child is ended; never by default.
    memory : int, optional
        Bytes that the child may take, where the system can hold it to that; by default as many as there are.
    advice : str
        What the message says when that is not enough.

    Returns
    -------
    value : object
        What `function` returned.
    data : memoryview
        What `function` wrote. It can be changed; nobody else sees it.

    Raises
    ------
    NeuromasError
        As `function` raised it.
    InvalidInput
        The child crashed, took too long or too much memory, or `function` raised another error.

    Examples
    --------
    >>> from neuromas.child_server import echo
    >>> value, data = run_in_child("example", echo, "hello")
    >>> value, bytes(data)
    ('hello', b'hello')
    """
    work = _pickled(what, function, arguments)
    job = Job(what, work, str(Path.cwd()), tuple(_absolute(sys.path)), tuple(preload), memory, advice)
    with _lock, _anonymous_file("answer") as answer, _anonymous_file("data") as data:
        status = _ask(what, pickle.dumps(job), (answer.fileno(), data.fileno()), timeout_s)
        if status is None:
            raise InvalidInput(
                f"{what}: reading took longer than {timeout_s:g} s and was ended; the file is probably damaged. timeout_s "
                "(--timeout-s) allows more time",
                kind="reader_stopped",
            )
        if status:
            raise InvalidInput(f"{what}: {_death(status)}", kind="reader_stopped")
        _seal(answer)
        _seal(data)
        return _value(what, answer), _mapped(data)


def _pickled(what: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps((function, arguments))
    except Exception as error:  # whatever objects raise that cannot be pickled
        raise InvalidInput(f"{what}: cannot be handed to a child process: {error}", kind="invalid_input") from error


# ------------------------------------------------------------------------------------------------------------ the server


@dataclass
class _Server:
    process: subprocess.Popen[bytes]
    connection: socket.socket

    def stop(self) -> None:
        """End the server and its child; the closed connection is what tells it to."""
        self.connection.close()
        try:
            self.process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_lock = threading.Lock()
_server: _Server | None = None


def start(*preload: str) -> None:
    """Start the server now, so that it imports modules while this process does other work."""
    with _lock:
        _running_server(preload)


def _running_server(preload: Sequence[str] = ()) -> _Server:
    global _server
    if _server is not None and _server.process.poll() is not None:
        _server.stop()
        _server = None
    if _server is None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(_absolute(sys.path)), str(theirs.fileno()), *preload],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for this process, which then ends the server
                start_new_session=True,
                env={**os.environ, **_ONE_THREAD},
            )
        _server = _Server(process, ours)
    return _server


def _stop() -> None:
    global _server
    if _server is not None:
        _server.stop()
        _server = None


def _forget() -> None:
    """In a process that was forked from this one: the server is not its own."""
    global _server, _lock
    if _server is not None:
        _server.connection.close()
        # or Popen would warn that its process still runs
        _server.process.returncode = 0
        _server = None
    _lock = threading.Lock()


atexit.register(_stop)
os.register_at_fork(after_in_child=_forget)


def _ask(what: str, job: bytes, files: tuple[int, int], timeout_s: float | None) -> int | None:
    """How a child ended: 0, an exit status, or minus a signal; None if it took longer than `timeout_s`."""
    for again in (True, False):
        server = _running_server()
        try:
            server.connection.settimeout(timeout_s)
            socket.send_fds(server.connection, [struct.pack("!Q", len(job))], list(files))
            server.connection.sendall(job)
            reply = server.connection.recv(4, socket.MSG_WAITALL)
        except TimeoutError:
            _stop()
            return None
        except OSError:
            reply = b""
        except BaseException:
            _stop()
            raise
        if len(reply) == 4:
            return int(struct.unpack("!i", reply)[0])
        # an idle server may end just when it is asked
        _stop()
        if not again:
            break
    raise InvalidInput(
        f"{what}: the process that reads files cannot be started; in_process=True (--in-process) reads them without it",
        kind="reader_stopped",
    )


def _death(status: int) -> str:
    if status == -signal.SIGKILL:
        return "the process that read it was killed, perhaps because the machine has too little memory"
    if status < 0:
        return f"the process that read it crashed ({signal.Signals(-status).name}); the file is damaged, or is made to do harm"
    return f"the process that read it ended with status {status}; the file is probably damaged"


# -------------------------------------------------------------------------------------------------------------- the answer


def _absolute(path: Sequence[str]) -> list[str]:
    return [str(Path(entry).absolute()) for entry in path]


@contextlib.contextmanager
def _anonymous_file(name: str) -> Any:
    """A file in memory that nothing names, so that nothing is left of it."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b", buffering=0) as file:
            yield file
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            yield file


def _seal(file: Any) -> None:
    """Nothing that still holds the file can change it from here on."""
    if hasattr(os, "memfd_create"):
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)


def _mapped(file: Any) -> memoryview:
    size = os.fstat(file.fileno()).st_size
    return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) if size else b"")


def _value(what: str, answer: Any) -> Any:
    """The child's value; warnings are given again, errors raised again."""
    size = os.fstat(answer.fileno()).st_size
    try:
        if size > _LONGEST_ANSWER:
            raise ValueError(f"it has {size} bytes")
        document = json.loads(os.pread(answer.fileno(), size, 0))
        for category, text in document["warnings"]:
            warnings.warn(str(text)[:_LONGEST_TEXT], WARNINGS.get(category, UserWarning), stacklevel=5)
        if document["error"] is None:
            return document["value"]
        error = _error(what, document["error"])
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise unusable(what, problem) from problem
    raise error


def unusable(what: str, problem: object) -> InvalidInput:
    """The error for an answer that is not what was agreed on."""
    return InvalidInput(
        f"{what}: the process that read it gave an answer that cannot be used ({problem}); the file is probably damaged",
        kind="reader_stopped",
    )


def _error(what: str, document: Mapping[str, Any]) -> NeuromasError:
    message = str(document["message"])[:_LONGEST_TEXT]
    kind = getattr(errors, str(document["class"] or ""), None)
    if not (isinstance(kind, type) and issubclass(kind, NeuromasError)):
        return InvalidInput(f"{what}: cannot be read: {message}", kind="unreadable_source")
    if kind is InvalidDocument:
        where = message.split("\n", 1)[0].rpartition(": ")[0]
        return InvalidDocument(where, [str(problem)[:_LONGEST_TEXT] for problem in document["problems"]])
    return kind(message, kind=document["kind"] if document["kind"] in errors.KINDS else None)
