"""Whether a system does its task: its trial accuracy on some hundred trials, measured before it is recorded or fitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuromas.causal.model import CausalModel, Sequences
from neuromas.errors import InvalidInput, ReadOnly
from neuromas.systems.system import System

ENOUGH = 0.999
"""Trial accuracy below which a system is warned of."""
N_CHECKED = 300
"""Trials that are run, if there are as many."""
_FEWEST = 60
"""Trials from which chance can be told."""
_CHANCE = 0.01
"""Trial accuracy that still counts as chance where guessing is right more rarely than this."""
_CONFIDENCE = 0.95


def trial_accuracy(system: System, trials: Sequences) -> float | None:
    """Share of some of `trials`, evenly spaced, that `system` solves; None if it can only be recorded."""
    rows = np.linspace(0, len(trials) - 1, min(len(trials), N_CHECKED)).astype(np.int64)
    try:
        return system.trial_accuracy(trials.take(rows))
    # a module without `resume`, such as a vision network, can only be recorded
    except (NotImplementedError, ReadOnly):
        return None


def measured_accuracy(
    system: System, model: CausalModel, trials: Sequences, *, drawn: bool = True, allow_unsolved: bool = False
) -> float | None:
    """The trial accuracy of `system`, for the recording of `trials`.

    Parameters
    ----------
    system : System
    model : CausalModel
        Causal model of the task, in the system's tokens.
    trials : Sequences
        Trials that are to be recorded.
    drawn : bool
        Whether the trials are any trials of the task. Then more are drawn if they are few.
    allow_unsolved : bool
        Return also if the accuracy is at the level of chance.

    Returns
    -------
    float or None
        None if the system can only be recorded.

    Raises
    ------
    InvalidInput
        The system solves no more trials than guesses would.
    """
    if drawn and len(trials) < _FEWEST:
        trials = model.sample(_FEWEST, 0)
    accuracy = trial_accuracy(system, trials)
    if accuracy is None or accuracy >= ENOUGH or allow_unsolved or len(trials) < _FEWEST:
        return accuracy
    n_trials = min(len(trials), N_CHECKED)
    if accuracy <= _highest_by_chance(trials, n_trials):
        raise InvalidInput(
            f"system {system.name!r} solves {round(accuracy * n_trials)} of {n_trials} trials of task {model.name!r}, no more"
            " than guesses would. Its tokens may have other numbers than the task's, its weights may be another network's, or"
            " its training may have failed. allow_unsolved=True (--allow-unsolved) uses it nevertheless",
            kind="unsolved",
        )
    return accuracy


def remark(name: str, accuracy: float | None) -> str | None:
    """A sentence about a system that fails trials of its task; None if it solves at least `ENOUGH` of them.

    Examples
    --------
    >>> remark("gru-0", 0.9)
    'gru-0 solves only 90.0 % of the trials of its task, so a low IIA may be its own fault'
    >>> remark("gru-0", 1.0) is None
    True
    """
    if accuracy is None or accuracy >= ENOUGH:
        return None
    return f"{name} solves only {accuracy:.1%} of the trials of its task, so a low IIA may be its own fault".replace(
        "%", " %"
    )


def chance(trials: Sequences) -> float:
    """Trial accuracy of guesses: always the commonest deterministic token, or each as often as it occurs.

    Examples
    --------
    >>> from neuromas.causal.model import get_task
    >>> chance(get_task("multi-object").sample(200, seed=0)) < 0.05
    True
    """
    scored: NDArray[np.bool_] = trials.deterministic
    tokens = trials.tokens[scored]
    if not len(tokens):
        return 1.0
    shares = np.bincount(tokens) / len(tokens)
    by_frequency = np.where(scored, shares[np.where(scored, trials.tokens, 0)], 1.0).prod(axis=1)
    always_the_same = (~scored | (trials.tokens == shares.argmax())).all(axis=1)
    return float(max(by_frequency.mean(), always_the_same.mean()))


def _highest_by_chance(trials: Sequences, n_trials: int) -> float:
    """Largest share of `n_trials` that guesses solve in 95 % of all draws."""
    # importing scipy.stats takes as long as the check
    from scipy.stats import binom

    return float(binom.ppf(_CONFIDENCE, n_trials, max(chance(trials), _CHANCE))) / n_trials


__all__ = ["ENOUGH", "N_CHECKED", "chance", "measured_accuracy", "remark", "trial_accuracy"]
