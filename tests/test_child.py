"""Work in a child process: its end, its errors and its lies do no harm here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from neuromas.child import can_run, run_in_child
from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError, NotFound

# children find what they are to do by its name
sys.path.append(str(Path(__file__).parent))
import child_jobs


def gone(pid: int, within_s: float = 20.0) -> bool:
    """Whether a process ends in time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_numbers_come_back_and_are_the_callers_own():
    value, data = run_in_child("numbers", child_jobs.write, 1000)
    numbers = np.frombuffer(data, "<i8")
    assert value == 1000
    assert np.array_equal(numbers, np.arange(1000))
    numbers[0] = 7
    assert np.frombuffer(data, "<i8")[0] == 7


def test_each_job_has_a_child_of_its_own_that_imports_little(tmp_path, monkeypatch):
    first, _ = run_in_child("one", child_jobs.say_who)
    monkeypatch.chdir(tmp_path)
    second, _ = run_in_child("two", child_jobs.say_who)
    assert len({first["pid"], second["pid"], os.getpid()}) == 3
    assert not second["torch"]
    assert second["folder"] == str(tmp_path)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (child_jobs.crash, r"^a\.mat: the process that read it crashed \(SIGSEGV\)"),
        (child_jobs.leave, r"^a\.mat: the process that read it ended with status 3"),
    ],
)
def test_the_death_of_a_child_is_one_error(job, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        run_in_child("a.mat", job)
    assert caught.value.kind == "reader_stopped"
    assert run_in_child("a.mat", child_jobs.write, 1)[0] == 1


def test_a_child_that_takes_too_long_is_ended(tmp_path):
    run_in_child("ready", child_jobs.write, 1)
    note = tmp_path / "pid"
    with pytest.raises(InvalidInput, match=r"^a\.nc: reading took longer than 2 s and was ended") as caught:
        run_in_child("a.nc", child_jobs.loop, str(note), timeout_s=2)
    assert caught.value.kind == "reader_stopped"
    assert gone(int(note.read_text()))


def test_errors_come_back_as_they_were_raised():
    with pytest.raises(
        InvalidDocument, match=r"^a manifest: of a file: 2 problems\n  - first\n  - second: more$"
    ) as caught:
        run_in_child("a", child_jobs.fail, "document")
    assert caught.value.problems == ["first", "second: more"]
    with pytest.raises(NotFound, match=r"^no such array$") as caught:
        run_in_child("a", child_jobs.fail, "missing")
    assert caught.value.kind == "unknown_array"
    with pytest.raises(InvalidInput, match=r"^a: needs more memory than there is$") as caught:
        run_in_child("a", child_jobs.fail, "memory")
    assert caught.value.kind == "too_large"
    with pytest.raises(InvalidInput, match=r"^a: cannot be read: KeyError: ") as caught:
        run_in_child("a", child_jobs.fail, "library")
    assert caught.value.kind == "unreadable_source"


def test_warnings_are_given_again():
    with pytest.warns(RuntimeWarning, match=r"^of this file$"):
        run_in_child("a", child_jobs.warn)


@pytest.mark.parametrize("what", ["pickle", "nothing", "text", "deep", "list", "class", "error"])
def test_an_answer_of_a_hostile_child_is_refused_and_never_unpickled(tmp_path, what):
    with pytest.raises(NeuromasError) as caught:
        run_in_child("a", child_jobs.answer, what, str(tmp_path / "harm"))
    assert caught.value.kind in ("reader_stopped", "unreadable_source")
    assert not (tmp_path / "harm").exists()


def test_threads_and_forked_processes_get_their_own_answers():
    sizes = list(range(1, 9))
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda size: run_in_child("a", child_jobs.write, size)[1].nbytes, sizes)
        assert list(answers) == [8 * size for size in sizes]
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(run_in_child("a", child_jobs.write, 5)[0])
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert run_in_child("a", child_jobs.write, 6)[0] == 6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["killed", "ended", "Ctrl-C"])
def test_no_child_outlives_the_process_that_asked(tmp_path, number):
    note = tmp_path / "pid"
    script = (
        # a shell starts what runs in the background without Ctrl-C
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"import child_jobs; from neuromas.child import run_in_child; run_in_child('a', child_jobs.loop, {str(note)!r})"
    )
    paths = [str(Path(child_jobs.__file__).parent), *sys.path]
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not (note.exists() and note.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    child = int(note.read_text())
    server = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    assert not gone(child, 0.1)
    parent.send_signal(number)
    stderr = parent.communicate(timeout=30)[1]
    assert gone(child)
    assert gone(server)
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in stderr


def test_only_functions_with_a_name_can_run_in_a_child():
    assert can_run(child_jobs.write)
    assert not can_run(lambda file: None)


def test_arguments_that_cannot_be_sent_are_refused():
    with pytest.raises(InvalidInput, match=r"^a: cannot be handed to a child process: "):
        run_in_child("a", child_jobs.write, lambda: 1)
