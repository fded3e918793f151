"""Killed at any moment, a store holds the whole set or none of it, and harms no other."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

KILLS = 50


def test_killed_at_any_moment(tmp_path):
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, str(script), str(tmp_path / "store"), str(KILLS), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == KILLS
    for report in reports:
        assert report["status"] == -signal.SIGKILL, report
        assert report["old"], report
        assert report["added"] in ([], [f"{report['set']}/first", f"{report['set']}/second"]), report
        assert report["problems"] == [], report
        assert report["other"] == 0, report
        assert report["again"] == 0, report
        assert report["complete"], report
        assert report["leftover"] == [], report
        assert report["unnamed"] == [], report
        assert report["problems_after"] == [], report
    assert {bool(report["added"]) for report in reports} == {False, True}, "the kills hit one side of the commit only"
