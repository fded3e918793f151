"""Make the shipped recordings: two GRUs from their weights, mouse thalamus from its NWB file.

Run from a checkout, with neuromas's ``nwb`` extra installed::

    python recordings/build.py --nwb sub-anm00239123_ses-20170627T093549_ecephys+ogen.nwb --out recordings

Without ``--nwb`` the GRUs alone are recorded.

Running it again on the same file changes nothing, since equal content is not registered twice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from neuromas.recordings.convert.converter import convert
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.recipe import NwbRecipe
from neuromas.systems.capture import capture
from neuromas.systems.training import load_system

NETWORK_SET = "multi-object"
N_TRIALS = 800

SET = "guo2017"
NAME = "mouse-thalamus"
RECIPE = NwbRecipe.model_validate(
    {
        "align": "cue_start_time",
        # about the go cue: sample 1.3 s, delay 1.3 s, response 1.3 s
        "start_s": -2.6,
        "stop_s": 1.3,
        "bin_s": 0.1,
        "variables": {
            "type": {
                "expression": "type",
                "meanings": {one: one for one in ("lick left", "lick right")},
                "description": "the side the pole's position instructs",
            },
            "response": {
                "expression": "response",
                "meanings": {one: one for one in ("correct", "incorrect", "early lick")},
                "description": "what the mouse did, a property of the whole trial",
            },
            "photostim": {
                "expression": "stim_present",
                "meanings": {"0": "off", "1": "on"},
                "description": "whether left ALM is silenced by light during the delay",
            },
            "epoch": {
                "expression": "where(time < -1.3, 'sample', where(time < 0, 'delay', 'response'))",
                "meanings": {one: one for one in ("sample", "delay", "response")},
                "description": "pole present, then gone until the go cue, then the go cue and after",
            },
            # whether the pole moved in and out within 0.1 s of its nominal times
            "nominal": "abs(pole_in_time - cue_start_time + 2.6) <= 0.1"
            " and abs(pole_out_time - cue_start_time + 1.3) <= 0.1",
        },
    }
)

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
    taken = convert(path, RECIPE)
    names = [name for name in taken.variable_names if name != "nominal"]
    units = {name: (taken.dataset[name].values, {"units": "mm"}) for name in ("unit_x", "unit_y", "unit_z")}
    spikes = {name: (taken.dataset[name].values, {"units": "s"}) for name in ("first_spike", "last_spike")}
    return Recording.from_arrays(
        taken.activity.values.astype(
            np.float16
        ),  # rates in bins of 0.1 s are multiples of 10 Hz, which it holds exactly
        {name: taken.dataset[name].values for name in names},
        name=NAME,
        system="mouse thalamus",
        layer="thalamus, left hemisphere",
        task="delayed discrimination (lick left or right)",
        access="read",
        trial=taken.dataset["trial"].values,
        step=taken.dataset["step"].values,
        eligible=taken.dataset["nominal"].values == 1,
        units=taken.unit_names,
        unit_metadata={"cell_type": taken.dataset["cell_type"].values, **units, **spikes},
        variable_specs=[taken.spec(name) for name in names],
        activity_units=taken.manifest.units,
        missing=True,
        sampling=taken.manifest.sampling.model_copy(update={"aligned_to": "onset of the auditory go cue"}),
        licence="CC-BY-4.0",
        citation=CITATION,
        description=DESCRIPTION,
        provenance=taken.manifest.provenance.model_copy(
            update={
                "notes": "made by recordings/build.py; trial numbers are the NWB file's trial ids; "
                + taken.manifest.provenance.notes
            }
        ),
    )


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
