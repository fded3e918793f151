"""Make the shipped recordings: two GRUs from their weights, mouse thalamus from its NWB file.

Run from a checkout, with neuromas's ``nwb`` extra installed::

    python recordings/build.py --nwb sub-anm00239123_ses-20170627T093549_ecephys+ogen.nwb --out recordings

Without ``--nwb`` the GRUs alone are recorded.

Running it again on the same file changes nothing, since equal content is not registered twice.
"""

from __future__ import annotations

import argparse
import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.recordings.recording import Recording
from neuromas.recordings.store import RecordingStore
from neuromas.schema import Provenance, Sampling, VariableSpec
from neuromas.systems.capture import capture
from neuromas.systems.training import load_system

NETWORK_SET = "multi-object"
N_TRIALS = 800

SET = "guo2017"
NAME = "mouse-thalamus"
BIN_S = 0.1
START_S, STOP_S = -2.6, 1.3  # about the go cue: sample 1.3 s, delay 1.3 s, response 1.3 s
SAMPLE_S, DELAY_S = -2.6, -1.3  # when the pole nominally moves in, and out
TOLERANCE_S = 0.1  # by how much a trial's pole may be off and the trial still count as nominal

TYPES = ("lick left", "lick right")
RESPONSES = ("correct", "incorrect", "early lick")
EPOCHS = ("sample", "delay", "response")

CITATION = (
    "Guo ZV, Inagaki HK, Daie K, Druckmann S, Gerfen CR, Svoboda K (2017). Maintenance of persistent activity in a frontal "
    "thalamocortical loop. Nature 545, 181-186. https://doi.org/10.1038/nature22324. Data: DANDI:000009, "
    "subject anm00239123, session 2017-06-27."
)
DESCRIPTION = (
    "Four thalamic units of a mouse that says by licking left or right where a pole was, after a delay; in some trials "
    "left ALM is silenced by light during the delay. Firing rates in bins of 0.1 s about the go cue, of the 342 trials that "
    "have one (the 70 non-performing trials have none). A trial that does not lie between a unit's first and last spike is "
    "missing (NaN) for that unit. Not eligible: trials in which the pole moved more than 0.1 s off its nominal time, so "
    "that bins do not fall into the epochs they are labelled with. Derived from data by Guo et al. (2017), CC-BY-4.0; "
    "changes: spikes counted in bins, trials and units labelled."
)


def build(path: Path) -> Recording:
    """The recording derived from the NWB file at `path`."""
    from pynwb import NWBHDF5IO  # an extra: nothing else here needs it

    with NWBHDF5IO(str(path), "r", load_namespaces=True) as file:
        session = file.read()
        trials = session.trials.to_dataframe()
        units = session.units.to_dataframe()
    trials = trials[np.isfinite(trials["cue_start_time"])]
    cue = trials["cue_start_time"].to_numpy()
    n_bins = round((STOP_S - START_S) / BIN_S)
    edges = cue[:, None] + START_S + BIN_S * np.arange(n_bins + 1)  # (n_trials, n_bins + 1), seconds in the session
    spikes = [np.sort(times) for times in units["spike_times"]]
    activity = np.stack([_rates(times, edges) for times in spikes], axis=-1)  # (n_trials, n_bins, n_units)
    centres = START_S + BIN_S * (np.arange(n_bins) + 0.5)
    epoch = np.array(EPOCHS)[np.searchsorted([DELAY_S, 0.0], centres)]
    nominal = (np.abs(trials["pole_in_time"] - cue - SAMPLE_S) <= TOLERANCE_S) & (
        np.abs(trials["pole_out_time"] - cue - DELAY_S) <= TOLERANCE_S
    )
    return Recording.from_arrays(
        activity.astype(np.float16),
        {
            "type": trials["type"].to_numpy(dtype=str),
            "response": trials["response"].to_numpy(dtype=str),
            "photostim": np.where(trials["stim_present"] == 1, "on", "off"),
            "epoch": np.broadcast_to(epoch, activity.shape[:2]),
        },
        name=NAME,
        system="mouse thalamus",
        layer="thalamus, left hemisphere",
        task="delayed discrimination (lick left or right)",
        access="read",
        trial=trials.index.to_numpy(),
        eligible=nominal.to_numpy(),
        units=[f"unit-{number}" for number in units.index],
        unit_metadata={
            "cell_type": units["cell_type"].to_numpy(dtype=str),
            **{axis: (units[axis].to_numpy(), {"units": "mm"}) for axis in ("unit_x", "unit_y", "unit_z")},
            "first_spike": (np.array([times[0] for times in spikes]), {"units": "s"}),
            "last_spike": (np.array([times[-1] for times in spikes]), {"units": "s"}),
        },
        variable_specs=[
            _categorical("type", TYPES, "the side the pole's position instructs"),
            _categorical("response", RESPONSES, "what the mouse did, a property of the whole trial"),
            _categorical("photostim", ("off", "on"), "whether left ALM is silenced by light during the delay"),
            _categorical("epoch", EPOCHS, "pole present, then gone until the go cue, then the go cue and after"),
        ],
        activity_units="Hz",
        missing=True,
        sampling=Sampling(step="time bin", step_s=BIN_S, start_s=START_S, aligned_to="onset of the auditory go cue"),
        licence="CC-BY-4.0",
        citation=CITATION,
        description=DESCRIPTION,
        provenance=Provenance(
            source=path.name,
            source_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            versions={name: version(name) for name in ("pynwb", "numpy")},
            notes="made by recordings/build.py; trial numbers are the NWB file's trial ids",
        ),
    )


def _rates(times: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Firing rate in each bin, shape (n_trials, n_bins), Hz; NaN in trials that the unit's spikes do not span."""
    counts = np.diff(np.searchsorted(times, edges), axis=1)
    rates = counts / BIN_S
    rates[(edges[:, 0] < times[0]) | (edges[:, -1] > times[-1])] = np.nan
    return rates


def _categorical(name: str, meanings: tuple[str, ...], description: str) -> VariableSpec:
    codes: tuple[Any, ...] = tuple(range(len(meanings)))
    return VariableSpec(name=name, type="categorical", values=codes, meanings=meanings, description=description)


def record_networks() -> list[Recording]:
    """The two shipped GRUs on 800 trials each, `gru-1` marked as one that can only be read."""
    recordings = []
    for number, access in enumerate(("intervene", "read")):
        recording = capture(
            load_system(f"{NETWORK_SET}/gru-{number}"), N_TRIALS, seed=100 + number, access=access, dtype="float16"
        )
        manifest = recording.manifest.model_copy(
            update={
                "licence": "MIT",
                "citation": "neuromas",
                "description": "Hidden states of a GRU that was trained on the multi-object task until it solved every"
                f" held-out trial, on {N_TRIALS} fresh trials; float16.",
            }
        )
        recordings.append(Recording(recording.dataset, manifest))
    return recordings


def main() -> None:
    """Build the recordings and register them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nwb", type=Path, help="the NWB file; without it the mouse is left out")
    parser.add_argument("--out", type=Path, required=True, help="the store to register it in")
    arguments = parser.parse_args()
    store = RecordingStore(arguments.out)
    print("registered", *store.register(record_networks(), set=NETWORK_SET))
    if arguments.nwb is not None:
        print("registered", *store.register(build(arguments.nwb), set=SET))


if __name__ == "__main__":
    main()
