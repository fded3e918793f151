"""The bar of a fit, and the expected end that it shows."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from neuromas import progress
from neuromas.fit.progress import FitBar, Progress, expected_end
from neuromas.progress import Bar
from neuromas.schema.fit import FitConfig, Validation


def course(config: FitConfig, loss) -> tuple[list[int], int]:
    """Expected ends at each validation of a fit with this loss, and where its patience ends it."""
    history, ends, reference, stale, iteration = [], [], float("inf"), 0, 0
    while stale < config.patience and iteration < config.max_iterations:
        value = loss(iteration)
        history.append(Validation(iteration=iteration, train_loss=None, loss=value))
        if reference == float("inf") or value < reference * (1 - config.tolerance):
            reference, stale = value, 0
        else:
            stale += 1
        ends.append(expected_end(config, history, stale))
        iteration += config.validate_every
    return ends, iteration - config.validate_every


@pytest.mark.parametrize("scale", [300, 1000])
def test_the_end_of_a_loss_that_falls_to_a_floor(scale):
    config = FitConfig(method="das", max_iterations=20_000)
    ends, end = course(config, lambda iteration: 0.2 + 2.0 ** (-iteration / scale))
    assert end < 16_000
    assert ends[0] == 20_000  # nothing is known yet
    middle = ends[len(ends) // 2 :]
    assert all(0.7 * end < expected < 1.3 * end for expected in middle)
    assert ends[-1] == end


def test_a_flat_loss_ends_when_patience_does():
    config = FitConfig(method="das", max_iterations=20_000, patience=4, validate_every=10)
    ends, end = course(config, lambda _: 1.0)
    assert end == 40
    assert ends[-1] == 40


def test_a_cosine_ends_at_its_end_and_nothing_ends_later_than_the_limit():
    config = FitConfig(method="das", max_iterations=300, schedule="cosine")
    assert set(course(config, lambda _: 1.0)[0]) == {300}
    config = FitConfig(method="das", max_iterations=120, patience=99)
    assert set(course(config, lambda iteration: 2.0 - iteration / 1000)[0]) == {120}


def test_time_left_is_that_of_the_expected_end():
    now = Progress(100, 20_000, 0.5, None, seconds=10.0, expected_end=700)
    assert now.seconds_left == pytest.approx(60)
    assert str(now) == "loss 0.5000, about 1:00 left"


def test_true_shows_a_bar(cast, monkeypatch, capsys):
    shown = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=shown, force_terminal=True, width=120))
    cast.fit("das", max_iterations=6, progress=True)
    assert "das" in shown.getvalue()
    assert "6/6" in shown.getvalue()
    quiet = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=quiet, force_terminal=True))
    cast.fit("das", max_iterations=6, progress=False)
    assert quiet.getvalue() == ""


def test_a_bar_of_several_fits_counts_all():
    shown = io.StringIO()
    configs = [FitConfig(method="mas", max_iterations=10), FitConfig(method="mas", max_iterations=30)]
    with FitBar(configs, names=["a", "b"], console=Console(file=shown, force_terminal=True, width=120)) as bar:
        bar(0, Progress(10, 10, 0.5, None, 1.0, 10))
        bar(1, Progress(5, 30, 0.25, None, 1.0, 20))
    text = shown.getvalue()
    assert "2 × mas" in text
    assert "15/30 b: loss 0.2500" in text


def test_a_bar_in_a_notebook_needs_no_widgets(monkeypatch):
    cells: list[str] = []

    def display(html, display_id):
        cells.append(html)
        return SimpleNamespace(update=cells.append)

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    monkeypatch.setattr(progress, "_DRAW_EVERY_S", 0.0)
    console = Console(file=io.StringIO(), force_jupyter=True)
    assert progress.can_draw(console)
    with Bar("a <b>", 10, console) as bar:
        bar.update(3, "loss 1", total=12)
        bar.finish(7, "done")
    assert cells[1] == '<div>a &lt;b&gt; <progress value="3" max="12"></progress> 3/12 loss 1</div>'
    assert cells[-1] == '<div>a &lt;b&gt; <progress value="7" max="7"></progress> 7/7 done</div>'


def test_elsewhere_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    shown = io.StringIO()
    with Bar("work", 10, Console(file=shown, width=80)) as bar:
        bar.update(3, "loss 1", total=12)
        bar.finish(7, "done")
    assert shown.getvalue() == "work 3/12 loss 1\nwork 7 done\n"
