"""neuromas: do two neural systems represent a thing the same way?

Causal alignment of systems that can be run and of systems that can only be read. The public names, by what they are for:

Recordings
    Recording, RecordingStore, shipped_store, convert, annotate, select, rename_variables, drop_variables, standardised, shuffled,
    pool, split_by_trial, to_anndata, to_pynapple, to_tables, to_xarray
Counterfactual latents
    CLIndex, ANY, between
Causal models
    CausalModel, VariableSpec, get_task
Systems
    System, TorchSystem, HuggingFace, load_system, load_huggingface, train, capture
Alignment
    DAS, MAS, CLMAS, Stitch, LatentStitch, fit_together, reopen, FitResult, Alignment, evaluate, Evaluation, stimulation_plan,
    save_plan
Measures
    compare, MeasureResult
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
    return _load(name)
