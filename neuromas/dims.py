"""Names of dimensions and coordinates, each written once."""

SAMPLE = "sample"
"""One (trial, step) row of a recording."""

UNIT = "unit"
"""One recorded channel, neuron or hidden dimension."""

COMPONENT = "component"
"""One coordinate after rotation."""

ACTIVITY = "activity"
"""The data variable of a recording, dims (sample, unit)."""

TRIAL = "trial"
STEP = "step"
TOKEN = "token"
OUTPUT = "output"
"""What the recorded network answered at a sample: its most probable next token, as a code into the manifest's vocabulary. It is a
coordinate of recordings whose manifest names it as their `behaviour`."""

ELIGIBLE = "eligible"
"""Whether index and pairs may use a sample; absent means every sample may be used."""

PART = "part"
"""Which of train, validation and test a trial belongs to, where that was settled when the recording was made."""

INPUT_HASH = "input_hash"
"""What a module was fed in the sample's trial: the first 64 bits of a SHA-256."""

EVENT_S = "event_s"
"""Time zero of a sample's trial, in seconds of the session."""

TIME_S = "time_s"
"""Centre of a sample's bin in seconds, as it is shown beside the step; worked out, not stored."""

N_SAMPLES = "n_samples"
"""Column of tables that says how many samples a row stands for."""

RESERVED = (TRIAL, STEP, TOKEN, ELIGIBLE, INPUT_HASH, SAMPLE, UNIT, COMPONENT, ACTIVITY, N_SAMPLES)
"""Names that a causal variable cannot take."""
