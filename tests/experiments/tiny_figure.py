"""``python tiny_figure.py reproduce tiny …``: the command line with a figure of two tiny fits beside those of the paper."""

from __future__ import annotations

import signal

from neuromas.cli import main
from neuromas.experiments.figure import Claim, PaperFigure
from neuromas.experiments.figures import FIGURES
from neuromas.experiments.table import headline
from neuromas.report.figures import new_figure
from neuromas.schema.sweep import Sweep

SMALL = {"n_trials": 100, "n_train_pairs": 200, "n_validation_pairs": 40, "batch_size": 32, "validate_every": 5}


def sweep(quick: bool = False) -> Sweep:
    config = {**SMALL, "max_iterations": 20 if quick else 120, "patience": 10_000}
    fit = {"method": "das", "systems": [["multi-object/gru-0"]], "evaluation": {"n_pairs": 40}}
    groups = [{**fit, "label": label, "config": {**config, "seed": seed}} for seed, label in enumerate(("one", "two"))]
    document = {"figure": "tiny", "title": "Tiny", "quick": quick, "note": "20 iterations", "groups": groups}
    return Sweep.parse(document, "tiny")


def draw(table):
    figure, axes = new_figure(4, 3)
    axes[0, 0].plot(headline(table)["iia"], "o")
    return figure


def claims(table):
    worst = float(table["iia"].min())
    return [Claim("IIA is a share", 0 <= worst <= 1, f"lowest {worst:.3f}"), Claim("1 is 2", False, "1 is 1")]


FIGURE = PaperFigure("tiny", "Tiny", sweep, draw, claims)

if __name__ == "__main__":
    FIGURES[FIGURE.name] = FIGURE
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores Ctrl-C
    main()
