"""neuromas: do two neural systems represent a thing the same way?

Causal alignment of systems that can be run and of systems that can only be read. The names below are loaded when they are
first used, so that ``import neuromas`` is quick.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuromas.align.alignment import Alignment as Alignment
    from neuromas.causal.arithmetic import Arithmetic as Arithmetic
    from neuromas.causal.counting import Modulo as Modulo
    from neuromas.causal.counting import MultiObject as MultiObject
    from neuromas.causal.counting import Rounding as Rounding
    from neuromas.causal.counting import SameObject as SameObject
    from neuromas.causal.in_context import InContext as InContext
    from neuromas.causal.model import CausalModel as CausalModel
    from neuromas.causal.model import get_task as get_task
    from neuromas.evaluate.stimulation import save_plan as save_plan
    from neuromas.evaluate.stimulation import stimulation_plan as stimulation_plan
    from neuromas.experiments.reproduce import reproduce as reproduce
    from neuromas.fit.fitters import CLMAS as CLMAS
    from neuromas.fit.fitters import DAS as DAS
    from neuromas.fit.fitters import MAS as MAS
    from neuromas.fit.fitters import LatentStitch as LatentStitch
    from neuromas.fit.fitters import Stitch as Stitch
    from neuromas.fit.fitters import fit_together as fit_together
    from neuromas.fit.request import reopen as reopen
    from neuromas.fit.result import FitResult as FitResult
    from neuromas.index.index import CLIndex as CLIndex
    from neuromas.index.query import ANY as ANY
    from neuromas.index.query import between as between
    from neuromas.measures.comparison import MeasureResult as MeasureResult
    from neuromas.measures.comparison import compare as compare
    from neuromas.recordings.annotate import annotate as annotate
    from neuromas.recordings.annotate import drop_variables as drop_variables
    from neuromas.recordings.annotate import rename_variables as rename_variables
    from neuromas.recordings.annotate import select as select
    from neuromas.recordings.annotate import standardised as standardised
    from neuromas.recordings.convert.converter import convert as convert
    from neuromas.recordings.pseudo import parts_of as parts_of
    from neuromas.recordings.pseudo import pool as pool
    from neuromas.recordings.recording import Recording as Recording
    from neuromas.recordings.shuffle import shuffled as shuffled
    from neuromas.recordings.split import split_by_trial as split_by_trial
    from neuromas.recordings.store.locate import resolve_store as resolve_store
    from neuromas.recordings.store.locate import shipped_store as shipped_store
    from neuromas.recordings.store.store import RecordingStore as RecordingStore
    from neuromas.systems.capture import capture as capture
    from neuromas.systems.huggingface import HuggingFace as HuggingFace
    from neuromas.systems.inputs import hash_inputs as hash_inputs
    from neuromas.systems.pretrained import load_huggingface as load_huggingface
    from neuromas.systems.system import System as System
    from neuromas.systems.torch_module import TorchSystem as TorchSystem
    from neuromas.systems.training import load_system as load_system
    from neuromas.systems.training import train as train

_PUBLIC = {
    "align.alignment": ("Alignment",),
    "causal.arithmetic": ("Arithmetic",),
    "causal.counting": ("Modulo", "MultiObject", "Rounding", "SameObject"),
    "causal.in_context": ("InContext",),
    "causal.model": ("CausalModel", "get_task"),
    "evaluate.stimulation": ("save_plan", "stimulation_plan"),
    "experiments.reproduce": ("reproduce",),
    "fit.fitters": ("CLMAS", "DAS", "MAS", "LatentStitch", "Stitch", "fit_together"),
    "fit.request": ("reopen",),
    "fit.result": ("FitResult",),
    "index.index": ("CLIndex",),
    "index.query": ("ANY", "between"),
    "measures.comparison": ("MeasureResult", "compare"),
    "recordings.annotate": ("annotate", "drop_variables", "rename_variables", "select", "standardised"),
    "recordings.convert.converter": ("convert",),
    "recordings.pseudo": ("parts_of", "pool"),
    "recordings.recording": ("Recording",),
    "recordings.shuffle": ("shuffled",),
    "recordings.split": ("split_by_trial",),
    "recordings.store.locate": ("resolve_store", "shipped_store"),
    "recordings.store.store": ("RecordingStore",),
    "systems.capture": ("capture",),
    "systems.huggingface": ("HuggingFace", "load_huggingface"),
    "systems.inputs": ("hash_inputs",),
    "systems.system": ("System",),
    "systems.torch_module": ("TorchSystem",),
    "systems.training": ("load_system", "train"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [*sorted(_MODULE_OF), "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("neuromas")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'neuromas' has no attribute {name!r}")
    return getattr(import_module(f"neuromas.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
