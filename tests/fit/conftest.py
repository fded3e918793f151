"""Planted sides for fits: one system that runs, one that is a recording."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from neuromas.fit.fitters import FITTERS
from neuromas.recordings.recording import Recording
from neuromas.systems.capture import capture

SMALL = {"n_trials": 60, "batch_size": 32, "n_train_pairs": 160, "n_validation_pairs": 60}


def rewritten(recording: Recording, *, keep=None, noise: float = 0.0, activity=None, **options) -> Recording:
    """The recording again, fewer samples, noisier, or with other activity."""
    keep = np.ones(recording.n_samples, bool) if keep is None else keep
    latents = recording.latents() if activity is None else activity
    latents = latents + noise * np.random.default_rng(0).normal(size=latents.shape).astype(np.float32)
    return Recording.from_arrays(
        latents[keep],
        {name: recording.dataset[name].values[keep] for name in recording.variable_names},
        name=recording.name,
        trial=recording.trial[keep],
        step=recording.step[keep],
        eligible=recording.eligible[keep],
        token=recording.dataset["token"].values[keep],
        vocabulary=recording.manifest.vocabulary,
        variable_specs=recording.manifest.variables,
        **options,
    )


@pytest.fixture(scope="session")
def cast(toys):
    """`net` and `other` run, `brain` is read (`live` is the network behind it), `noisy` is `brain` with noise."""
    live = toys.make("brain", 14, seed=2, scale=1.5)
    brain = capture(live, 60, model=toys.model, seed=5)
    made = SimpleNamespace(
        net=toys.make("net"),
        other=toys.make("other", 13, seed=4, scale=0.8),
        live=live,
        brain=brain,
        noisy=rewritten(brain, noise=0.05),
        model=toys.model,
        small=SMALL,
        rewritten=rewritten,
    )

    def fit(method, systems=None, rank=4, **options):
        """A small fit; keywords of `Fitter.fit` are told from those of the configuration."""
        told = {key: options.pop(key) for key in ("out", "progress", "mapping", "units", "device") if key in options}
        usual = {"das": [made.net], "mas": [made.net, made.other]}.get(method, [made.net, made.noisy])
        settings = {"preset": "paper", **SMALL, "max_iterations": 12, "validate_every": 5, **options}
        return FITTERS[method](rank, **settings).fit(systems or usual, model=toys.model, **told)

    made.fit = fit
    return made
