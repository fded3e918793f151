"""What the figures share: the systems that they name, pairs of them, settings, and the reading of a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from pydantic import JsonValue

from neuromas.evaluation.networks import OverNetworks, over_networks
from neuromas.experiments.table import best_of, headline, mean_and_error
from neuromas.schema.sweep import Sweep
from neuromas.schema.system import TrainSpec
from neuromas.systems.system import HIDDEN

RANKS = (16, 32)
"""The better one is kept (paper 2.4)."""
SEEDS = (0, 1)
MORE_SEEDS = (0, 1, 2, 3)
"""Within one kind of network and task (paper 2.4)."""
HIGH, NEAR_ONE = 0.9, 0.95
COLOURS = {"MAS": "#2f6fb0", "DAS": "#7a5aa8", "RSA": "#c9a227", "CKA": "#8c564b"}


def made(name: str) -> TrainSpec:
    """How the system TASK/KIND-SEED is made.

    Examples
    --------
    >>> made("arithmetic/gru-1").memory
    60
    """
    task, _, rest = name.partition("/")
    kind, _, seed = rest.rpartition("-")
    # voids keep transformers from reading the position off (paper 2.1); a GRU does not learn arithmetic without a long memory
    options: dict[str, JsonValue] = {"void": 0.2} if kind == "transformer" else {}
    return TrainSpec(task=task, kind=kind, seed=int(seed), options=options, memory=60 if task == "arithmetic" else 0)


def declare(
    figure: str, title: str, quick: bool, groups: Sequence[dict[str, Any]], note: str = "200 iterations on 2,000 pairs"
) -> Sweep:
    """The sweep of these groups, with every system that they name."""
    names = dict.fromkeys(name.partition("@")[0] for group in groups for chosen in group["systems"] for name in chosen)
    document = {
        "figure": figure,
        "title": title,
        "quick": quick,
        "note": note if quick else "",
        "systems": {name: made(name) for name in names},
        "groups": list(groups),
    }
    return Sweep.parse(document, f"figure {figure}")


def settings(quick: bool, **others: Any) -> dict[str, Any]:
    """Fields of a fit's configuration: 600 iterations, or 200 for a quick figure; `others` replace what is too little for them.

    The loss, the pairs (10,000 and 1,000) and the validation are the paper's. Batches are of 64 instead of 512 per direction, and
    the learning rate falls from 0.015 to 0 along a cosine instead of staying at 0.001 for 20,000 iterations. On a pair of GRUs
    (`count`, rank 16) 600 such iterations came to the lowest validation loss that a constant 0.003 saw in 1,050, and ended flat.
    There is no patience: in the first half the loss is noisy, and would look flat.
    """
    common = {"batch_size": 64, "learning_rate": 0.015, "schedule": "cosine", "patience": 1000, "max_iterations": 600}
    if others.get("stepwise"):
        common |= {"max_iterations": 300}  # embeddings have few distinct latents
    if quick:
        common |= {"max_iterations": 200, "n_train_pairs": 2000, "n_validation_pairs": 300, "n_trials": 800}
    return common | others


def ranks(quick: bool, subspace: str = "full") -> dict[str, list[int]]:
    """The axis along which ranks are tried."""
    return {f"subspaces.{subspace}": [RANKS[0]] if quick else list(RANKS)}


def within(task: str, kind: str, seeds: Sequence[int], layer: str = "") -> list[list[str]]:
    """Every pair of networks of one kind that differ in their seed.

    Examples
    --------
    >>> within("modulo", "gru", (0, 1))
    [['modulo/gru-0', 'modulo/gru-1']]
    """
    names = [f"{task}/{kind}-{seed}{_behind(layer)}" for seed in seeds]
    return [list(pair) for pair in itertools.combinations(names, 2)]


def between(first: str, second: str, seeds: Sequence[int] = SEEDS, layer: str = "") -> list[list[str]]:
    """Every pair of a ``TASK/KIND`` and another, over seeds.

    Examples
    --------
    >>> between("modulo/gru", "rounding/gru", (0,))
    [['modulo/gru-0', 'rounding/gru-0']]
    """
    end = _behind(layer)
    return [[f"{first}-{seed}{end}", f"{second}-{other}{end}"] for seed in seeds for other in seeds]


def _behind(layer: str) -> str:
    return "" if layer in ("", HIDDEN) else f"@{layer}"  # one name for one thing: equal fits are done once


def best(table: pd.DataFrame) -> pd.DataFrame:
    """Every fit's worst direction, of the rank that validation found best; one row per label and choice of systems."""
    fits = table[table["iia"].notna()]
    return best_of(headline(fits), by=["label", "systems"])


def without(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """What `rows` would score without any interchange: the control ``none`` of the same fits, in the same directions.

    Parameters
    ----------
    table : DataFrame
        With controls.
    rows : DataFrame
        Some of its rows, one per fit and direction.

    Examples
    --------
    >>> rows = [{"label": "a", "fit": "f", "source": "x", "target": "y", "method": "mas", "iia": 0.9}]
    >>> rows.append(rows[0] | {"method": "none", "iia": 0.4})
    >>> table = pd.DataFrame(rows)
    >>> without(table, table[table["method"] == "mas"])["iia"].tolist()
    [0.4]
    """
    keys = ["label", "fit", "source", "target"]
    # of all pairs, which come before those of one subspace
    controls = table[table["method"].eq("none")].drop_duplicates(keys)
    return rows[keys].merge(controls, on=keys)


def by_label(table: pd.DataFrame, value: str = "iia") -> dict[str, OverNetworks]:
    """Mean over choices of systems with its error and interval over systems, by label."""
    summary = mean_and_error(table, by=["label"], value=value)
    return {row.label: OverNetworks(*row[1:]) for row in summary.itertuples(index=False)}


def difference(table: pd.DataFrame, first: str, second: str) -> OverNetworks:
    """Mean of the IIA of `first` less that of `second`, two labels, over the choices of systems that both have.

    Examples
    --------
    >>> pairs = {"a + b": 0.9, "a + c": 0.8, "b + c": 1.0}
    >>> rows = [{"label": "x", "systems": name, "iia": iia} for name, iia in pairs.items()]
    >>> rows += [{**row, "label": "y", "iia": 0.5} for row in rows]
    >>> round(difference(pd.DataFrame(rows), "x", "y").mean, 3)
    0.4
    """
    iia = table.pivot_table(index="systems", columns="label", values="iia")
    gaps = (iia[first] - iia[second]).dropna()
    return over_networks(gaps.to_numpy(), [systems.split(" + ") for systems in gaps.index])


def means(by_label: dict[str, OverNetworks], labels: Iterable[str]) -> list[float]:
    """Means of these labels; not a number where there is none."""
    return [at(by_label, label)[0] for label in labels]


def measured(table: pd.DataFrame) -> dict[str, OverNetworks]:
    """The same for measures."""
    return by_label(table[table["value"].notna()], "value")


def at(by_label: dict[str, OverNetworks], label: str) -> OverNetworks:
    """Mean, error and interval of a label; not a number where there is none."""
    return by_label.get(label, OverNetworks(math.nan, math.nan, math.nan, math.nan, 0, 0))


def listed(by_label: dict[str, OverNetworks], labels: Iterable[str]) -> str:
    """Means with their errors and intervals over networks, for a claim."""
    return "; ".join(f"{label} {spread(at(by_label, label))}" for label in labels)


def spread(summary: OverNetworks, sign: str = "") -> str:
    """A mean with its error and 95 % interval over networks, where there are several.

    Examples
    --------
    >>> spread(OverNetworks(0.957, 0.0196, 0.8947, 1.0, 6, 4))
    '0.957 ± 0.020 (0.895 to 1.000)'
    """
    mean = f"{summary.mean:{sign}.3f}"
    if math.isnan(summary.error):
        return mean
    return f"{mean} ± {summary.error:.3f} ({summary.low:{sign}.3f} to {summary.high:{sign}.3f})"
