"""Dissimilarity matrices (RDMs) in files, where nothing else of a system is published, compared with each other."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import distance

from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.measures.check import MIN_SAMPLES, Floats
from neuromas.measures.comparison import MeasureResult, draws_of
from neuromas.measures.condition_rdms import Conditions, conditions_of
from neuromas.measures.registry import get_measure
from neuromas.measures.rsa import compare_rdms, dissimilarities_of
from neuromas.measures.samples import Units, chosen_units
from neuromas.recordings.check import listing
from neuromas.recordings.convert.matlab import read_mat
from neuromas.recordings.convert.source import unreadable
from neuromas.recordings.encode import load_npz
from neuromas.recordings.isolation import isolates, read_recording
from neuromas.recordings.recording import Recording
from neuromas.unpacking import read_packed

ENDINGS = (".mat", ".npz", ".npy", ".csv", ".tsv")
"""Endings of files that may hold an RDM."""
_SHAPES = "(n, n), (n_pairs,), or several RDMs: (n_rdms, n, n), (n, n, n_rdms) or (n_rdms, n_pairs)"


@dataclass(frozen=True)
class Rdm:
    """A representational dissimilarity matrix.

    Attributes
    ----------
    name : str
    matrix : ndarray, shape (n_conditions, n_conditions)
        Symmetric. The mean, if the file holds several RDMs.
    n_rdms : int
        How many RDMs the file holds.
    labels : tuple of str or None
        Name of each condition, if the file has them.
    conditions : Conditions or None
        Of a recording: its conditions, which names of conditions meet by meaning.
    """

    name: str
    matrix: Floats = field(repr=False)
    n_rdms: int = 1
    labels: tuple[str, ...] | None = None
    conditions: Conditions | None = field(default=None, repr=False)


def names_rdm(text: str) -> bool:
    """Whether `text` names a file that may hold an RDM: ``FILE`` or ``FILE:ARRAY``.

    Examples
    --------
    >>> names_rdm("monkey.mat:RDM"), names_rdm("multi-object/gru-0")
    (True, False)
    """
    return _parts(text) is not None


def _parts(text: str) -> tuple[Path, str | None] | None:
    """File and array; None if `text` has another form."""
    for path, array in ((text, None), text.rpartition(":")[::2]):
        if path and Path(path).suffix.lower() in ENDINGS:
            return Path(path), array
    return None


def read_rdm(text: str) -> Rdm:
    """Read an RDM from a file.

    Parameters
    ----------
    text : str
        ``FILE`` or ``FILE:ARRAY``, where the file is ``.mat``, ``.npz``, ``.npy``, ``.csv`` or ``.tsv``. The array may be left
        out if only one in the file has the shape of an RDM. A table may name the conditions in its first row, its first column,
        or both. An array ``labels`` of an archive or a ``.mat`` file names the conditions.

    Returns
    -------
    Rdm
        Of several RDMs, such as those of single subjects, the mean.

    Raises
    ------
    NotFound
        The file or the array does not exist.
    InvalidInput
        The file cannot be read, or holds no RDM, or several arrays that could be one; the RDM is not symmetric or not finite.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/monkey.npz", rdm=[[0, 1, 2], [1, 0, 3], [2, 3, 0]], labels=["face", "body", "house"])
    ...     read_rdm(f"{folder}/monkey.npz")
    Rdm(name='monkey', n_rdms=1, labels=('face', 'body', 'house'))
    """
    parts = _parts(text)
    if parts is None:
        raise InvalidInput(f"{text}: expected a file of {', '.join(ENDINGS)}", kind="invalid_format")
    path, array = parts
    if not path.exists():
        raise NotFound(f"no such file: {path}", kind="unknown_file")
    where = str(path) if array is None else f"{path}: {array}"
    matrices, labels = _read(path, array, where)
    for matrix in matrices:
        dissimilarities_of(matrix, where)
    mean = matrices.mean(axis=0)
    if labels is not None and (len(labels) != len(mean) or len(set(labels)) < len(labels)):
        raise InvalidInput(
            f"{where}: {len(labels)} names of conditions, {len(set(labels))} of them different, for {len(mean)} conditions",
            kind="invalid_rdm",
        )
    return Rdm(path.stem, mean, len(matrices), labels)


def _read(path: Path, array: str | None, where: str) -> tuple[Floats, tuple[str, ...] | None]:
    """RDMs of shape (n_rdms, n, n), and names of the conditions; in a child process, unless files are read in this one."""
    if isolates(_as_recording):
        recording = Recording(*read_recording(path, _as_recording, path, array, where))
    else:
        recording = _as_recording(path, array, where)
    labels = json.loads(recording.manifest.description)
    n_conditions = recording.n_units
    return recording.activity.values.reshape(-1, n_conditions, n_conditions), None if labels is None else tuple(labels)


def _as_recording(path: Path, array: str | None, where: str) -> Recording:
    """RDMs in the form in which a child process hands data over: a row of an RDM is a sample."""
    if path.suffix.lower() in (".csv", ".tsv"):
        values, labels = _from_text(path)
    elif path.suffix.lower() == ".mat":
        values, labels = _from_mat(path, array)
    else:
        values, labels = _from_archive(path, array)
    matrices = _matrices(np.asarray(values, dtype=np.float64), where)
    n_rdms, n_conditions, _ = matrices.shape
    return Recording.from_arrays(
        matrices.reshape(-1, n_conditions),
        {"rdm": np.repeat(np.arange(n_rdms), n_conditions)},
        name="rdms",
        missing=True,
        description=json.dumps(labels),
    )


def _matrices(values: Floats, where: str) -> Floats:
    """Square RDMs, shape (n_rdms, n, n), with zeros on the diagonal."""
    if values.ndim == 3 and values.shape[0] == values.shape[1] != values.shape[2]:
        values = np.moveaxis(values, 2, 0)
    if values.ndim == 2 and values.shape[0] == values.shape[1]:
        values = values[None]
    if values.ndim <= 2 and values.size and _n_of_pairs(values.shape[-1]) is not None:
        values = np.stack([distance.squareform(pairs, checks=False) for pairs in np.atleast_2d(values)])
    if values.ndim != 3 or values.shape[1] != values.shape[2] or values.shape[1] < MIN_SAMPLES:
        raise InvalidInput(
            f"{where}: expected an RDM of at least {MIN_SAMPLES} conditions, of shape {_SHAPES}; got {values.shape}",
            kind="shape_mismatch",
        )
    values = values.copy()
    diagonal = np.arange(values.shape[1])
    # a diagonal of NaN is common: the dissimilarity of a condition with itself was not measured
    values[:, diagonal, diagonal] = 0
    return values


def _n_of_pairs(n_pairs: int) -> int | None:
    """The number of conditions that have so many pairs; None if no number has."""
    n = round((1 + np.sqrt(1 + 8 * n_pairs)) / 2)
    return n if n >= MIN_SAMPLES and n * (n - 1) // 2 == n_pairs else None


def _is_rdm(shape: Sequence[int]) -> bool:
    """Whether an array of this shape can be an RDM, or several."""
    square = len(shape) >= 2 and (shape[-1] == shape[-2] or shape[0] == shape[1]) and min(shape[:2]) >= MIN_SAMPLES
    return (square and len(shape) <= 3) or (len(shape) in (1, 2) and _n_of_pairs(shape[-1]) is not None)


def _from_archive(path: Path, array: str | None) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    if path.suffix.lower() == ".npy":
        try:
            return np.load(path, allow_pickle=False), None
        except (OSError, ValueError, EOFError) as error:
            raise unreadable(path, "a NumPy array", error) from error
    arrays = load_npz(path)
    labels = arrays.pop("labels", None)
    numeric = {name: values for name, values in arrays.items() if values.dtype.kind in "iuf"}
    chosen = _chosen({name: values.shape for name, values in numeric.items()}, array, path)
    return numeric[chosen], None if labels is None else tuple(map(str, np.ravel(labels)))


def _from_mat(path: Path, array: str | None) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    arrays = read_mat(path).arrays
    numeric = {name: values for name, values in arrays.items() if values.dtype.kind in "iuf"}
    chosen = _chosen({name: values.shape for name, values in numeric.items()}, array, path)
    # beside the RDM, in its struct or at the top
    labels = next((arrays[name] for name in (f"{chosen.rpartition('.')[0]}.labels", "labels") if name in arrays), None)
    return numeric[chosen], None if labels is None else tuple(map(str, np.ravel(labels).tolist()))


def _from_text(path: Path) -> tuple[Floats, tuple[str, ...] | None]:
    """A table of numbers; names of conditions in its first row, its first column, or both."""
    try:
        text = read_packed(path).decode("utf-8-sig")
        separator = max("\t,; ", key=text.partition("\n")[0].count)
        cells = pd.read_csv(io.StringIO(text), header=None, sep=separator, dtype=str, keep_default_na=False).to_numpy()
    except (OSError, ValueError) as error:
        raise unreadable(path, "a table of text", error) from error
    cells = np.char.strip(cells.astype(str))
    in_row, in_column = (any(not _is_number(cell) for cell in line[1:]) for line in (cells[0], cells[:, 0]))
    labels = cells[0, int(in_column) :] if in_row else cells[:, 0] if in_column else None
    numbers = cells[int(in_row) :, int(in_column) :]
    try:
        values = np.where(numbers == "", "nan", numbers).astype(np.float64)
    except ValueError as error:
        raise unreadable(path, "a table of numbers", error) from error
    return values, None if labels is None else tuple(map(str, labels))


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _chosen(shapes: Mapping[str, tuple[int, ...]], array: str | None, path: Path) -> str:
    """The array to read: the one that is named, or the only one that can be an RDM."""
    existing = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"
    if array is not None:
        if array not in shapes:
            raise NotFound(
                f"{path}: no array {array!r} of numbers; there are {existing}{suggestion(array, shapes)}",
                kind="unknown_array",
            )
        return array
    possible = [name for name, shape in shapes.items() if _is_rdm(shape)]
    if len(possible) != 1:
        raise InvalidInput(
            f"{path}: {len(possible)} arrays have the shape of an RDM, {_SHAPES}; there are {existing}. Name one: {path}:ARRAY",
            kind="invalid_rdm",
        )
    return possible[0]


def compare_rdm_files(
    x: str | Recording,
    y: str | Recording,
    measure: str = "rsa",
    *,
    by: str | None = None,
    conditions: Sequence[str] = (),
    units: Units | None = None,
    n_samples: int = 1000,
    n_resamples: int = 10,
    seed: int = 0,
    **options: Any,
) -> MeasureResult:
    """Correlate two RDMs of the same conditions. One of them, or both, may be those of a recording's conditions.

    Conditions are matched by name if both RDMs have names, else by their order. Names meet the values of a recording by meaning:
    a meaning of a categorical variable, or an equal number. They never meet codes, and never by order.

    Parameters
    ----------
    x, y : str or Recording
        A file, as `read_rdm` takes it, or a recording.
    measure : {"rsa"}
    by : str, optional
        The variable of recordings whose values are the conditions. Of each condition, the mean latent counts.
    conditions : sequence of str
        Names of the conditions in files that name none, in their order.
    units : mapping of str to sequence of str, optional
        Name of a recording → its units to take; all by default.
    n_samples, n_resamples, seed
        Conditions in each resample, number of resamples, and their seed, as in `neuromas.measures.comparison.compare`.
    **options
        ``comparison``: ``spearman`` or ``pearson``; with a recording ``dissimilarity``, by which its RDM is computed.

    Returns
    -------
    MeasureResult
        Its samples are conditions.

    Raises
    ------
    NotFound, InvalidInput
        As `read_rdm` and `conditions_of`; or the RDMs have different conditions, or fewer than 3 in common; or the measure needs
        activity.

    Examples
    --------
    >>> import tempfile
    >>> toy = Recording.from_arrays([[1.0, 0], [0, 1], [0, 3], [1, 1]], {"side": ["left", "right", "right", "up"]}, name="toy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/monkey.npz", rdm=[[0, 1, 2], [1, 0, 3], [2, 3, 0]], labels=["up", "left", "right"])
    ...     result = compare_rdm_files(f"{folder}/monkey.npz", toy, by="side", dissimilarity="euclidean")
    ...     result.n_usable, round(result.mean, 3)
    (3, 1.0)
    """
    settled = get_measure(measure).settled(options)
    recordings = [side for side in (x, y) if isinstance(side, Recording)]
    _check_asked(x, y, measure, by, options)
    dissimilarity = settled.pop("dissimilarity")
    sides = []
    for side in (x, y):
        if isinstance(side, Recording):
            sides.append(_rdm_of(side, str(by), dissimilarity, chosen_units(side, units, recordings)))
        else:
            sides.append(_with_names(read_rdm(side), conditions))
    if recordings:
        settled["dissimilarity"] = dissimilarity
    first, second = sides
    rows, columns, matched_by = _matched(first, second)
    draws = draws_of(len(rows), n_samples, n_resamples, seed)
    how = {"comparison": settled["comparison"]}
    values = [
        compare_rdms(
            first.matrix[np.ix_(rows[draw], rows[draw])], second.matrix[np.ix_(columns[draw], columns[draw])], **how
        )
        for draw in draws
    ]
    computed = [side.conditions for side in sides if side.conditions is not None]
    return MeasureResult(
        measure=measure,
        options=settled,
        recordings=(_named(first), _named(second)),
        values=tuple(values),
        n_samples=draws[0].size,
        n_usable=len(rows),
        n_shared=len(rows),
        n_ended=sum(each.n_ended for each in computed),
        n_incomplete=sum(each.n_incomplete for each in computed),
        n_constant_units=(0, 0),
        matched_by=(matched_by,),
        seed=seed,
    )


def _check_asked(
    x: str | Recording, y: str | Recording, measure: str, by: str | None, options: Mapping[str, Any]
) -> None:
    files = [side for side in (x, y) if not isinstance(side, Recording)]
    if measure != "rsa" or (len(files) == 2 and "dissimilarity" in options):
        raise InvalidInput(
            f"{' and '.join(files)} hold dissimilarities, no activity: expected measure 'rsa'"
            f"{' without the option dissimilarity' if len(files) == 2 else ''}, got {measure!r}",
            kind="invalid_option",
        )
    if len(files) == 2 and by is not None:
        raise InvalidInput(
            f"by={by!r} is for recordings; {files[0]} and {files[1]} are files with RDMs", kind="invalid_option"
        )
    if len(files) < 2 and by is None:
        (recording, *_) = [side for side in (x, y) if isinstance(side, Recording)]
        raise InvalidInput(
            f"recording {recording.name!r}: expected the variable whose values are the conditions of the RDM (by=); there are "
            f"{listing(recording.variable_names)}",
            kind="no_variables",
        )


def _rdm_of(recording: Recording, by: str, dissimilarity: str, units: Sequence[str] | None) -> Rdm:
    conditions = conditions_of(recording, by, dissimilarity, units=units)
    return Rdm(recording.name, conditions.matrix, 1, conditions.labels, conditions)


def _with_names(rdm: Rdm, names: Sequence[str]) -> Rdm:
    """`rdm` with names of its conditions, if the file has none."""
    if not names or rdm.labels is not None:
        return rdm
    if len(names) != len(rdm.matrix) or len(set(names)) < len(names):
        raise InvalidInput(
            f"{rdm.name}: conditions= names {len(names)} conditions, {len(set(names))} of them different; the RDM has "
            f"{len(rdm.matrix)}",
            kind="invalid_rdm",
        )
    return replace(rdm, labels=tuple(map(str, names)))


def _named(rdm: Rdm) -> str:
    return rdm.name if rdm.n_rdms == 1 else f"{rdm.name}, mean of {rdm.n_rdms} RDMs"


def _matched(first: Rdm, second: Rdm) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Places of the shared conditions in both RDMs, and what they are matched by."""
    if first.labels is None or second.labels is None:
        return _matched_by_order(first, second)
    shared = _pairs(first, second)
    if len(shared) < MIN_SAMPLES:
        raise InvalidInput(
            f"the RDMs of {first.name!r} and {second.name!r} share {len(shared)} conditions, expected at least {MIN_SAMPLES}:"
            f" {listing(first.labels, 5)}; {listing(second.labels, 5)}",
            kind="too_few_samples",
        )
    rows, columns = np.array(shared).T
    if len(np.unique(columns)) < len(columns) or len(np.unique(rows)) < len(rows):
        raise InvalidInput(
            f"the RDMs of {first.name!r} and {second.name!r}: two names mean one condition, among {listing(first.labels, 5)}; "
            f"{listing(second.labels, 5)}",
            kind="duplicate_name",
        )
    by_value = first.conditions is not None or second.conditions is not None
    return rows, columns, "value of the condition" if by_value else "name of the conditions"


def _pairs(first: Rdm, second: Rdm) -> list[tuple[int, int]]:
    """Places of shared conditions in `first` and in `second`."""
    assert first.labels is not None
    assert second.labels is not None
    if second.conditions is None and first.conditions is not None:
        return [(row, column) for column, row in _pairs(second, first)]
    if second.conditions is not None:
        places = [second.conditions.place(label) for label in first.labels]
    else:
        places = [second.labels.index(label) if label in second.labels else None for label in first.labels]
    return [(row, column) for row, column in enumerate(places) if column is not None]


def _matched_by_order(first: Rdm, second: Rdm) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    for rdm, other in ((first, second), (second, first)):
        if rdm.labels is None and other.conditions is not None:
            raise InvalidInput(
                f"{rdm.name}: the file does not name its {len(rdm.matrix)} conditions, and those of a recording meet by name; "
                f"name them in the file's order (conditions=), e.g. {','.join(other.conditions.labels)}",
                kind="invalid_rdm",
            )
    sizes = len(first.matrix), len(second.matrix)
    if sizes[0] != sizes[1]:
        raise InvalidInput(
            f"the RDMs of {first.name!r} and {second.name!r} have {sizes[0]} and {sizes[1]} conditions; expected equal"
            " numbers, or names of the conditions in both files",
            kind="sample_mismatch",
        )
    return np.arange(sizes[0]), np.arange(sizes[1]), "order of the conditions"
