"""neuromas: do two neural systems represent a thing the same way?

Causal alignment of systems that can be run and of systems that can only be read. The public names, by what they are for:

Recordings
    Recording, RecordingStore, shipped_store, convert, annotate, select, standardised, shuffled, pool, split_by_trial, to_anndata,
    to_pynapple, to_tables, to_xarray
Counterfactual latents
    CLIndex, ANY, between
Causal models
    CausalModel, get_task
Systems
    System, TorchSystem, load_system, load_huggingface, train, capture, Twin
Alignment
    DAS, MAS, CLMAS, Stitch, LatentStitch, fit_together, reopen, evaluate, stimulation_plan
Measures
    compare
Errors
    NeuromasError, InvalidInput, InvalidDocument, NotFound, NoMatch, Conflict, Corrupt, ReadOnly, StorageFailed

They are loaded when they are first used, so that ``import neuromas`` is quick.
"""

import lazy_loader as _lazy

_load, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("neuromas")
    if name in _ELSEWHERE:
        raise AttributeError(f"neuromas.{name} is in {_ELSEWHERE[name]} now: from {_ELSEWHERE[name]} import {name}")
    return _load(name)


_ELSEWHERE = {
    "Alignment": "neuromas.align.alignment",
    "Evaluation": "neuromas.schema.evaluation",
    "FitResult": "neuromas.fit.result",
    "HuggingFace": "neuromas.systems.huggingface",
    "MeasureResult": "neuromas.measures.comparison",
    "VariableSpec": "neuromas.schema.recording",
    "drop_variables": "neuromas.recordings.annotate",
    "rename_variables": "neuromas.recordings.annotate",
    "save_plan": "neuromas.evaluation.stimulation",
}
"""Names that earlier versions had here, and where they are."""
