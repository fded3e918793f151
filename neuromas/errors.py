"""One tree of errors, each with a stable ``kind`` that programs can match on.

An error says what it got, what it expected, and where. ``kind`` is a short code that does not change when the wording does.
`KINDS` lists every kind with its class and its meaning. The command line prints the message and exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class NeuromasError(Exception):
    """Root of every error that neuromas raises on purpose.

    Parameters
    ----------
    message : str
        One sentence: what was got, what was expected, and where.
    kind : str, optional
        Stable code for this very fault; the class's own kind if not given.
    """

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if kind is not None:
            self.kind = kind


class InvalidInput(NeuromasError, ValueError):
    """The caller handed in something that cannot be used."""

    kind = "invalid_input"
    exit_code = 2


class InvalidDocument(InvalidInput):
    """A document (manifest, configuration, result) breaks its schema; ``problems`` lists every place where."""

    kind = "invalid_document"

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__(f"{where}: {len(problems)} {noun}\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = list(problems)


class NotFound(NeuromasError, LookupError):
    """A name that does not exist: a store, set, recording, variable, unit or system."""

    kind = "not_found"
    exit_code = 3


class NoMatch(NeuromasError, LookupError):
    """No recorded latent holds the values asked for (a miss of the counterfactual-latent index)."""

    kind = "no_match"
    exit_code = 4


class Conflict(NeuromasError):
    """The store already holds something else under this name, or another process is writing it."""

    kind = "conflict"
    exit_code = 5


class Corrupt(NeuromasError):
    """Stored bytes are missing or are not those that were written."""

    kind = "corrupt"
    exit_code = 6


class ReadOnly(NeuromasError):
    """A system that can only be read was asked to run, or a read-only store was asked to change."""

    kind = "read_only"
    exit_code = 7


class StorageFailed(NeuromasError, OSError):
    """The disk refused: no space, no permission. Nothing was published."""

    kind = "storage_failed"
    exit_code = 8


@dataclass(frozen=True)
class Kind:
    """A kind of error.

    Attributes
    ----------
    error : type
        Class of the errors of this kind.
    meaning : str
        What happened, in a sentence.
    """

    error: type[NeuromasError]
    meaning: str


_MEANINGS: dict[type[NeuromasError], dict[str, str]] = {
    InvalidInput: {
        "invalid_input": "A value cannot be used; the message says why.",
        "beyond_longest": "A twin was asked to run further than the longest trial that it learnt from.",
        "constant_unit": "A unit's activity never changes, so it has no scale; leave the unit out.",
        "different_pairs": "Two evaluations scored different pairs, so their methods cannot be compared pair by pair.",
        "different_trials": "Two recordings use the same trial numbers for different trials, so their samples cannot be matched.",
        "diverged": "The loss of a fit or of a training is no longer finite; a smaller learning rate may help.",
        "duplicate_column": "A column of a table is also a coordinate of the recording; rename one of them.",
        "duplicate_event": "One event would be used for more than one trial.",
        "duplicate_name": "Two things that need different names have the same name.",
        "duplicate_row": "A table has two rows for the same trial or sample; it may have one.",
        "duplicate_unit": "A unit occurs twice, by its name or through two versions of one recording.",
        "endless": "Sequences of a causal model do not end; its rules or its `max_steps` are wrong.",
        "external_files": "A file refers to other files, which are read only if that is allowed.",
        "given_twice": "The same setting or the same fit was given twice.",
        "impossible_pairs": "Pairs ask for values that cannot occur, also after redraws; names or codes may differ (mapping).",
        "inputs_mismatch": "Inputs, or the weights that ran on them, are not those that were expected.",
        "invalid_array": "An array holds dates, text that is not Unicode, missing entries or anything else that cannot be used.",
        "invalid_axes": "The axes of an array are unclear or do not fit its shape; a recipe can say what each axis is.",
        "invalid_device": "A device is not on this machine, or a system cannot be moved to it.",
        "invalid_expression": "An expression over columns cannot be read or does not give what is needed.",
        "invalid_format": "A file's ending stands for no format that can be used here.",
        "invalid_inputs": "Inputs of a network or of trials are not of a kind that can be used.",
        "invalid_mapping": "A mapping of names or values does not fit the recording.",
        "invalid_module": "An object is not a PyTorch module, or is compiled, or has no weights yet.",
        "invalid_name": "A name has characters that names cannot have, or it is reserved.",
        "invalid_option": "An option has a value that it cannot have, or does not go with the others.",
        "invalid_plugin": "A converter of another package does not do what converters must do.",
        "invalid_query": "A query asks for something that its variable cannot hold, or is not written as a query.",
        "invalid_rank": "A rank is below 1, or larger than the width of a system.",
        "invalid_rdm": "A dissimilarity matrix is not symmetric.",
        "invalid_recipe": "A recipe does not fit the file: a field is for other files or contradicts what the file holds.",
        "invalid_split": "A split would put samples of one trial into two parts.",
        "invalid_subspaces": "A variable belongs to two subspaces; subspaces are disjoint.",
        "invalid_times": "Times contradict each other or do not rise.",
        "invalid_trials": "Trials overlap, come back after others, or are not numbered once each.",
        "invalid_value": "A variable cannot hold this value; the message lists its values.",
        "invalid_variables": "Variables are missing or named twice.",
        "invalid_width": "A width does not suit the kind of network, or is not known yet.",
        "missing_activity": "A file has no array of activity.",
        "missing_inputs": "A recording does not say which inputs its trials had.",
        "missing_output": "A layer or a module does not give the latents or logits that are needed.",
        "missing_package": "An optional package is not installed; the message says what to install.",
        "missing_rows": "A table has no row for some samples, or its rows cannot be matched to samples.",
        "missing_subspace": "An alignment has several subspaces; name one.",
        "missing_systems": "A result was loaded without its systems; reopen it.",
        "missing_vocabulary": "A system needs a vocabulary of at least 2 tokens.",
        "mixed_requests": "Requests that are to run together differ in more than their configuration.",
        "module_failed": "A module raised an error on these inputs; the message holds it.",
        "needless_oracle": "An oracle was given for a system that can be run.",
        "needless_twin": "A twin was asked for where every system can be run.",
        "newer_format": "A file was written by a newer neuromas; update neuromas.",
        "no_behaviour": "A recording does not say what the system itself did, or not as one of several answers.",
        "no_context": "A system needs the earlier tokens of a trial to go on; resume it with its context, if it can keep one.",
        "no_counterfactual_latents": "No expected value was ever recorded in the target; names or values may differ (mapping).",
        "no_destination": "A command does not say where to put its result, or says it twice.",
        "no_effect": "The change would change nothing.",
        "no_model": "There is no causal model, so there is no expected behaviour to compare with.",
        "no_recordings": "There is no recording to work on.",
        "no_samples": "No sample is left that is eligible, complete and holds the values.",
        "no_scheduler": "No Dask scheduler answers at this address.",
        "no_shared_samples": "Two recordings have no trial and step in common.",
        "no_shared_value": "Two systems have no value of a variable in common; names or codes may differ (mapping).",
        "no_steps": "A recording has no steps that follow one another.",
        "no_task": "A system or recording names no task, so it cannot be run here.",
        "no_tokens": "A recording has no tokens, which the system needs to go on.",
        "no_trials": "No trial is left.",
        "no_units": "No unit is left.",
        "no_variables": "No variable is left.",
        "not_a_file": "A file was expected, and there is a folder.",
        "not_a_folder": "A folder was expected, and there is a file.",
        "not_a_language_model": "A folder holds no causal language model that transformers can load.",
        "not_a_store": "A folder holds other files and no recording sets.",
        "not_finite": "Numbers are NaN or infinite where they must be finite.",
        "not_held": "The latents of an index are on disk; make the index with ``hold=True``.",
        "not_local": "A URL was named where a folder or file of this machine is needed.",
        "not_nested": "The components of a fit are in no order of importance; fit with nested=True.",
        "not_orthonormal": "Columns that must be orthonormal are not.",
        "not_recordable": "A twin was to be recorded; it goes on from latents of its system and makes none of its own.",
        "not_resumable": "A module cannot be resumed at this layer: later steps do not follow from it alone.",
        "not_stepwise": "Stepwise interchanges need systems that run, at a layer whose steps are independent.",
        "occupied": "A folder holds another fit or system; choose another folder.",
        "old_form": "An option has another form now; the message shows it.",
        "outside_subspace": "A variable is not in the subspace.",
        "pickle_refused": "A file holds pickled objects, which could run code when they are read.",
        "pooled": "This needs trials that were recorded, and a pseudo-population has joined ones.",
        "rank_mismatch": "Two maps have different ranks.",
        "reader_stopped": "The process that read a file crashed or took too long; the file is probably damaged.",
        "recordings_differ": "Recordings or blocks that are to be joined differ in what must be equal.",
        "sample_mismatch": "Two things that need the same samples, trials or steps have different ones.",
        "shape_mismatch": "An array has another shape than expected.",
        "too_few_samples": "There are fewer samples than the measure needs.",
        "too_few_shared_values": "Systems share fewer than 2 combinations of values.",
        "too_few_trials": "There are fewer trials than parts or combinations of values need.",
        "too_few_values": "There are fewer values than an interval needs.",
        "too_large": "Something would take more memory, tokens or groups than are allowed.",
        "undefined_measure": "A measure is not defined for these samples, e.g. because all are equal.",
        "unit_mismatch": "Two things that need the same units have different ones.",
        "unknown_option": "There is no such option, or no such choice of it.",
        "unreadable_source": "A file cannot be read in this format, or is damaged.",
        "unsolved": "A system solves its task no better than guesses would; its tokens or weights may be others.",
        "variables_mismatch": "Two things that need the same variables have different ones.",
        "variables_of_task": "A system that runs needs all variables of its task.",
        "vocabulary_mismatch": "A task and a system have different tokens.",
        "wrong_oracle": "An oracle is not the system that was recorded: it gives other latents on the recording's own inputs.",
        "wrong_systems": "The method needs another number or kind of systems.",
        "wrong_twin": "A twin was learnt from another recording or other units.",
    },
    InvalidDocument: {
        "invalid_document": "A document breaks its schema; the message lists every problem with its place.",
    },
    NotFound: {
        "not_found": "A name does not exist.",
        "no_shared_variable": "The recordings have no variable in common; map names.",
        "unknown_array": "There is no such array in the file.",
        "unknown_column": "There is no such column.",
        "unknown_control": "There is no such control.",
        "unknown_coordinate": "There is no such coordinate.",
        "unknown_figure": "There is no such figure.",
        "unknown_file": "There is no such file.",
        "unknown_format": "There is no such format.",
        "unknown_function": "There is no such function in expressions.",
        "unknown_layer": "There is no such layer.",
        "unknown_measure": "There is no such measure.",
        "unknown_recording": "There is no such recording.",
        "unknown_request": "There is no such request beside a result, so its systems cannot be found again.",
        "unknown_result": "There is no such result in the folder.",
        "unknown_rotation": "There is no such parametrisation of a rotation.",
        "unknown_set": "There is no such recording set.",
        "unknown_source": "There is no such source of activity in the file.",
        "unknown_store": "There is no such recording store.",
        "unknown_subspace": "There is no such subspace.",
        "unknown_system": "There is no such system.",
        "unknown_table": "There is no such table in the file.",
        "unknown_task": "There is no such task.",
        "unknown_twin": "There is no such twin in the folder.",
        "unknown_unit": "There is no such unit.",
        "unknown_value": "There is no such value.",
        "unknown_variable": "There is no such variable.",
    },
    NoMatch: {
        "no_match": "No recorded latent holds the values.",
    },
    Conflict: {
        "conflict": "Something else is in the way.",
        "being_registered": "Another process is changing this recording now.",
        "other_content": "The set holds other content under this name; a published recording does not change.",
    },
    Corrupt: {
        "corrupt": "Stored bytes are not those that were written.",
        "changed": "Systems or recordings are not those that were fitted.",
        "hash_mismatch": "A file's hash is not the one that was stored.",
        "missing_weights": "A system's folder has no weights.",
        "not_an_alignment": "A file holds no alignment.",
        "not_safetensors": "A file is not in the safetensors format, or is damaged.",
        "replaced": "A recording was removed or replaced by another process after it was opened; open it again.",
        "verify_failed": "Some stored files are not as they were written.",
        "weights_mismatch": "Weights do not fit the network's configuration.",
    },
    ReadOnly: {
        "read_only": "A system that can only be read would have to run.",
        "read_only_store": "The store cannot be written.",
    },
    StorageFailed: {
        "storage_failed": "The disk refused to read or write.",
        "in_the_way": "Something that is no recording lies where one must be written.",
        "not_durable": "The disk did not confirm that a write will last.",
    },
    NeuromasError: {
        "error": "Any error of neuromas.",
        "no_workers": "The worker processes of a sweep did not start.",
        "jobs_failed": "Some jobs of a sweep failed; all others are done.",
    },
}
KINDS = {kind: Kind(error, meaning) for error, kinds in _MEANINGS.items() for kind, meaning in kinds.items()}
"""Every kind of error. `docs/errors.md` is made from it."""


def suggestion(name: object, known: Iterable[str]) -> str:
    """The nearest known name, as a question to end an error message with; empty if none is near.

    Examples
    --------
    >>> suggestion("learning_rat", ["learning_rate", "seed"])
    "; did you mean 'learning_rate'?"
    >>> suggestion("colour", ["learning_rate", "seed"])
    ''
    """
    nearest = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
