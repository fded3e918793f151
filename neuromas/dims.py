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
ELIGIBLE = "eligible"
"""Whether index and pairs may use a sample; absent means every sample may be used."""

RESERVED = (TRIAL, STEP, TOKEN, ELIGIBLE, SAMPLE, UNIT, COMPONENT, ACTIVITY)
"""Names that a causal variable cannot take."""
