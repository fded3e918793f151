# ruff: isort: skip_file
# The public names, each once and in its group. Type checkers read them here; `neuromas` loads them when they are used.

# Recordings
from .recordings.annotate import annotate as annotate
from .recordings.annotate import select as select
from .recordings.annotate import standardised as standardised
from .recordings.convert.anndata import to_anndata as to_anndata
from .recordings.convert.arrays import to_xarray as to_xarray
from .recordings.convert.converter import convert as convert
from .recordings.convert.pynapple import to_pynapple as to_pynapple
from .recordings.convert.tables import to_tables as to_tables
from .recordings.pseudo import pool as pool
from .recordings.recording import Recording as Recording
from .recordings.shuffle import shuffled as shuffled
from .recordings.split import split_by_trial as split_by_trial
from .recordings.store.locate import shipped_store as shipped_store
from .recordings.store.store import RecordingStore as RecordingStore

# Counterfactual latents
from .index.index import CLIndex as CLIndex
from .index.query import ANY as ANY
from .index.query import between as between

# Causal models
from .causal.model import CausalModel as CausalModel
from .causal.model import get_task as get_task

# Systems
from .systems.capture import capture as capture
from .systems.pretrained import load_huggingface as load_huggingface
from .systems.system import System as System
from .systems.torch_module import TorchSystem as TorchSystem
from .systems.training import load_system as load_system
from .systems.training import train as train
from .twins.twin import Twin as Twin

# Alignment
from .evaluation.accuracy import evaluate as evaluate
from .evaluation.stimulation import stimulation_plan as stimulation_plan
from .fit.fitters import CLMAS as CLMAS
from .fit.fitters import DAS as DAS
from .fit.fitters import MAS as MAS
from .fit.fitters import LatentStitch as LatentStitch
from .fit.fitters import Stitch as Stitch
from .fit.fitters import fit_together as fit_together
from .fit.request import reopen as reopen

# Measures
from .measures.comparison import compare as compare

# Errors
from .errors import Conflict as Conflict
from .errors import Corrupt as Corrupt
from .errors import InvalidDocument as InvalidDocument
from .errors import InvalidInput as InvalidInput
from .errors import NeuromasError as NeuromasError
from .errors import NoMatch as NoMatch
from .errors import NotFound as NotFound
from .errors import ReadOnly as ReadOnly
from .errors import StorageFailed as StorageFailed

__version__: str
