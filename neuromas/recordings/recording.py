"""The labelled container: stored, labelled activity of one system in one task.

A `Recording` wraps an `xarray.Dataset` with dimensions sample × unit. Each sample is one (trial, step) row. Trial, step,
token and every causal variable are coordinates on sample. Inside, categorical variables are small integer codes with CF
``flag_values`` and ``flag_meanings``; the manifest holds the meanings as written. What a user gets (`Recording.to_dataset`,
`Recording.activity`, exported files, results of queries) holds the meanings.

Activity is read in blocks of samples, so a recording may be larger than memory.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromas import dims
from neuromas.errors import InvalidDocument, InvalidInput, NotFound, suggestion
from neuromas.recordings import content, looks
from neuromas.recordings.assemble import (
    Draft,
    draft_of_dataset,
    manifest_document,
    npz_arguments,
    read_dataset,
    sample_columns,
)
from neuromas.recordings.check import chosen_rows, coordinate_problems, problems_of
from neuromas.recordings.encode import ManifestSource, as_floats, flatten, unit_coordinates
from neuromas.recordings.incoming import TIME, labels_of
from neuromas.recordings.isolation import isolates, read_recording
from neuromas.recordings.meanings import with_meanings
from neuromas.recordings.reading import Reading
from neuromas.recordings.relabel import mapping_entry, relabel
from neuromas.recordings.trust import trust, trusting
from neuromas.schema.recording import GroupTable, RecordingManifest, VariableSpec


@dataclass(frozen=True, eq=False, repr=False)
class Recording(Reading):
    """Stored, labelled activity of one system in one task.

    Parameters
    ----------
    dataset : xarray.Dataset
        Dims sample × unit, data variable ``activity``. Coordinates on sample: the integers ``trial`` and ``step``, every
        variable of the manifest (categorical variables as codes) and, where the recording has them, ``token`` (codes into
        the manifest's vocabulary) and ``eligible`` (bool). Coordinates on unit: the names, and any metadata.
    manifest : RecordingManifest
        Everything about the recording that is not an array.

    Raises
    ------
    InvalidDocument
        Dataset and manifest disagree, or the data are unusable. The error lists every problem.

    Examples
    --------
    >>> recording = Recording.from_arrays(
    ...     np.arange(12.0).reshape(2, 3, 2),
    ...     {"side": ["left", "right"], "count": [[0, 1, 2], [0, 1, 2]]},
    ...     name="toy",
    ...     system="toy",
    ... )
    >>> recording
    <Recording 'toy' (sample: 6, unit: 2)> float64, 2 trials, access 'read'
    Variables:
        side     categorical: left, right
        count    integer: 0 to 2
    >>> recording.values(["side", "count"])[:2]
    array([[0., 0.],
           [0., 1.]])
    >>> recording.to_dataset()["side"].values.tolist()
    ['left', 'left', 'left', 'right', 'right', 'right']
    """

    dataset: xr.Dataset
    manifest: RecordingManifest
    groups: GroupTable | None = field(default=None, repr=False)
    """Where samples with equal values are, if the recording was stored grouped."""

    def __post_init__(self) -> None:
        problems = problems_of(self.dataset, self.manifest)
        if problems:
            raise InvalidDocument(f"recording {self.manifest.name!r}", problems)

    @classmethod
    def _trusted(
        cls,
        dataset: xr.Dataset,
        manifest: RecordingManifest,
        groups: GroupTable | None = None,
    ) -> Self:
        """A recording of dataset and manifest that are valid already: they are not checked again."""
        recording = object.__new__(cls)
        object.__setattr__(recording, "dataset", dataset)
        object.__setattr__(recording, "manifest", manifest)
        object.__setattr__(recording, "groups", groups)
        return recording

    # ------------------------------------------------------------------------------------------------- ways to make one

    @classmethod
    def from_arrays(
        cls,
        activity: ArrayLike,
        variables: Mapping[str, ArrayLike],
        *,
        name: str,
        system: str | None = None,
        trial: ArrayLike | None = None,
        step: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        present: ArrayLike | None = None,
        token: ArrayLike | None = None,
        vocabulary: Sequence[str] | None = None,
        eligible: ArrayLike | None = None,
        units: Sequence[str] | ArrayLike | None = None,
        unit_metadata: Mapping[str, ArrayLike | tuple[ArrayLike, Mapping[str, Any]]] | None = None,
        sample_metadata: Mapping[str, ArrayLike] | None = None,
        variable_specs: Mapping[str, VariableSpec | Mapping[str, Any]] | Sequence[VariableSpec] | None = None,
        activity_units: str | None = None,
        **fields: Any,
    ) -> Self:
        """A recording from plain arrays.

        Parameters
        ----------
        activity : array of shape (n_trials, n_steps, n_units) or (n_samples, n_units)
            Floats; whole numbers become float32. NaN, or masked, where a unit was not recorded, if ``missing=True``. Axes that
            xarray calls trial, step (or time), unit and sample may have any order. Columns of a table, and labels along xarray's
            axes, give the names of the units and the numbers of trials and steps, unless they are given here.
        variables : mapping of str to array
            Causal variables. With 3-D activity, each has shape (n_trials,) or (n_trials, n_steps); with 2-D activity,
            (n_samples,). None may be missing (masked, None). Without a spec, text and booleans become categorical, whole numbers
            integer, everything else real.
        name, system : str
            The recording's name, and the name of the recorded system (by default equal).
        trial : array of int, optional
            Shape (n_trials,) or (n_samples,): trial numbers. By default 0, 1, 2, …; with 2-D activity, every sample is
            then its own trial.
        step : array of int, optional
            Shape (n_steps,), (n_trials, n_steps) or (n_samples,): position in the trial, by default counted from 0.
        lengths : array of int of shape (n_trials,), optional
            Number of steps in each trial, if trials differ. Later steps are padding and are dropped.
        present : array of bool of shape (n_trials, n_steps), optional
            Which steps are real and not padding, as an alternative to `lengths`.
        token : array of int or str, optional
            Shape as for a variable: codes into `vocabulary`, or the tokens as text.
        vocabulary : sequence of str, optional
            What each token code means.
        eligible : array of bool, optional
            Shape as for a variable: whether indexes and pairs may use a sample. By default they may use all.
        units : sequence of str, optional
            Names of the units; ``u0``, ``u1``, … by default.
        unit_metadata, sample_metadata : mapping of str to array, optional
            More coordinates: arrays of shape (n_units,) or pairs (array, attributes); arrays of a shape as for a variable.
        variable_specs : mapping or sequence of VariableSpec, optional
            Declarations of variables. The others are inferred from their values.
        activity_units : str, optional
            Physical units of the activity, e.g. ``Hz``.
        **fields
            Any other field of `neuromas.schema.recording.RecordingManifest`: ``access``, ``task``, ``layer``, ``missing``,
            ``sampling``, ``licence``, ``citation``, ``description``, ``provenance``.

        Returns
        -------
        Recording
            Dims (sample, unit). Samples are ordered by trial, then by step.

        Raises
        ------
        InvalidDocument
            An array or a field does not fit. The error lists every problem, also those of the manifest.

        Examples
        --------
        >>> recording = Recording.from_arrays([[0.1, 0.2], [0.3, 0.4]], {"count": [1, 2]}, name="toy", access="read")
        >>> recording.n_samples, recording.n_units, recording.unit_names
        (2, 2, ['u0', 'u1'])
        """
        problems: list[str] = []
        own = labels_of(activity)
        units, trial, step = (
            own.get(label) if values is None else values
            for label, values in ((dims.UNIT, units), (dims.TRIAL, trial), (dims.STEP, step))
        )
        metadata = {name: own[name] for name in (TIME,) if name in own and name not in variables}
        metadata |= {} if sample_metadata is None else dict(sample_metadata)
        flat, layout = flatten(as_floats(activity, problems), lengths, present, problems)
        if layout is None:
            raise InvalidDocument(f"recording {name!r}", problems)
        samples = layout.trial_and_step(trial, step, problems)
        samples |= sample_columns(layout, variables, metadata, eligible, token, problems)
        draft = Draft(
            activity=xr.Variable((dims.SAMPLE, dims.UNIT), flat),
            samples=samples,
            units=unit_coordinates(units, {} if unit_metadata is None else unit_metadata, flat.shape[1], problems),
            document=manifest_document(
                fields,
                name=name,
                system=system,
                vocabulary=vocabulary,
                activity_units=activity_units,
                variable_specs=variable_specs,
            ),
            inferred=list(variables),
            problems=problems,
        )
        return cls._trusted(*draft.finish())

    @classmethod
    def from_npz(
        cls, path: str | Path, manifest: ManifestSource = None, *, in_process: bool = False, **fields: Any
    ) -> Self:
        """A recording from a NumPy archive, which a child process reads.

        The archive's keys are

        - ``activity`` (required): shape (n_trials, n_steps, n_units) or (n_samples, n_units)
        - ``trial``, ``step``, ``token``, ``vocabulary``, ``eligible``, ``lengths``, ``present``: as in `from_arrays`
        - ``unit``: names of the units
        - ``unit_NAME``: metadata NAME of the units; ``sample_NAME``: a coordinate of the samples that is not a variable
        - ``manifest``: fields of the manifest, as JSON text
        - every other key: a causal variable

        Parameters
        ----------
        path : str or Path
            The ``.npz`` file. Pickled objects are refused, because reading them would run code.
        manifest : mapping, RecordingManifest or path of a JSON file, optional
            Fields that override those in the archive. If it lists variables, the other arrays of the archive become plain
            coordinates.
        in_process : bool
            Whether to read the file in this process, which a damaged file may end.
        **fields
            Manifest fields that override both. The default name is the file's.

        Raises
        ------
        NotFound
            The file does not exist.
        InvalidInput
            The file is not a NumPy archive, holds pickled objects, unpacks to too much, or crashes or stops its reader.
        InvalidDocument
            The content is unusable. The error lists every problem.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/toy.npz", activity=np.zeros((3, 4)), count=[1, 2, 3])
        ...     Recording.from_npz(f"{folder}/toy.npz").values(["count"]).ravel()
        array([1., 2., 3.])
        """
        path = Path(path)
        with trusting(in_process=in_process or trust().in_process):
            if path.is_file() and isolates(cls._of_npz):
                return cls(*read_recording(path, cls._of_npz, path, manifest, fields))
            return cls._of_npz(path, manifest, fields)

    @classmethod
    def _of_npz(cls, path: Path, manifest: ManifestSource, fields: Mapping[str, Any]) -> Self:
        return cls.from_arrays(**npz_arguments(path, manifest, fields))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset, manifest: ManifestSource = None, **fields: Any) -> Self:
        """A recording from an `xarray.Dataset`, as read from NetCDF or zarr.

        Parameters
        ----------
        dataset : xarray.Dataset
            Data variable ``activity`` with dims sample and unit. One-dimensional coordinates and data variables on
            sample are causal variables, unless the manifest lists the variables. Text is categorical, and so are integers
            with CF ``flag_values`` and ``flag_meanings``. A manifest in the dataset's attributes is used.
        manifest : mapping, RecordingManifest or path of a JSON file, optional
            Fields that override those in the dataset.
        **fields
            Manifest fields that override both.

        Raises
        ------
        InvalidDocument
            The content is unusable. The error lists every problem.

        Examples
        --------
        >>> recording = Recording.from_arrays([[0.1], [0.2]], {"side": ["left", "right"]}, name="toy")
        >>> Recording.from_dataset(recording.to_dataset(), name="again").manifest.variable("side").meanings
        ('left', 'right')
        """
        return cls._trusted(*draft_of_dataset(dataset, manifest, fields).finish())

    @classmethod
    def from_file(
        cls, path: str | Path, manifest: ManifestSource = None, *, in_process: bool = False, **fields: Any
    ) -> Self:
        """A recording from a ``.npz`` or ``.nc`` file or a ``.zarr`` folder; the ending of the name decides which.

        A child process reads them, which a damaged file may end. If they refer to other files, they are refused;
        `neuromas.convert` can allow it. Parameters are those of `from_npz`. If a folder holds a ``manifest.json`` (a stored
        recording), that is used.

        Raises
        ------
        NotFound
            The file does not exist.
        InvalidInput
            The ending is unknown, or the file is not what the ending says.
        InvalidDocument
            The content is unusable. The error lists every problem.
        """
        path = Path(path)
        if not path.exists():
            raise NotFound(f"no such file: {path}", kind="unknown_file")
        if path.suffix == ".npz":
            return cls.from_npz(path, manifest, in_process=in_process, **fields)
        with trusting(in_process=in_process or trust().in_process):
            if isolates(cls._of_file):
                return cls(*read_recording(path, cls._of_file, path, manifest, fields))
            return cls._of_file(path, manifest, fields)

    @classmethod
    def _of_file(cls, path: Path, manifest: ManifestSource, fields: Mapping[str, Any]) -> Self:
        return cls.from_dataset(*read_dataset(path, manifest, fields))

    # ---------------------------------------------------------------------------------------------------- what it holds

    @property
    def activity(self) -> xr.DataArray:
        """The labelled activity, dims (sample, unit), in its stored precision; categorical coordinates as their meanings.

        Examples
        --------
        >>> recording = Recording.from_arrays([[1.0], [2.0], [4.0]], {"side": ["left", "right", "left"]}, name="toy")
        >>> recording.activity.groupby("side").mean().values.ravel().tolist()
        [2.5, 2.0]
        """
        return self.to_dataset()[dims.ACTIVITY]

    @functools.cached_property
    def content_sha256(self) -> str:
        """Hash of what the recording says, wherever it came from: equal for equal activity, coordinates and manifest.

        A stored recording has it in its manifest. Of any other, it is computed from all activity when it is first asked for.
        Provenance, and the set in which a recording is stored, do not count.

        Examples
        --------
        >>> recording = Recording.from_arrays([[0.1], [0.2]], {"n": [1, 2]}, name="toy")
        >>> recording.content_sha256 == Recording.from_dataset(recording.to_dataset()).content_sha256
        True
        >>> recording.content_sha256 == recording.select_samples([0]).content_sha256
        False
        """
        stored = self.manifest.content_sha256
        return content.content_sha256(self) if stored is None else stored

    @property
    def variable_names(self) -> list[str]:
        """Names of the causal variables, in the manifest's order."""
        return [variable.name for variable in self.manifest.variables]

    @property
    def trial(self) -> NDArray[np.int64]:
        """Trial number of each sample, shape (n_samples,)."""
        return np.asarray(self.dataset[dims.TRIAL].values, dtype=np.int64)

    @property
    def step(self) -> NDArray[np.int64]:
        """Position of each sample in its trial, shape (n_samples,)."""
        return np.asarray(self.dataset[dims.STEP].values, dtype=np.int64)

    @property
    def time_s(self) -> NDArray[np.float64] | None:
        """Centre of each sample's bin in seconds, shape (n_samples,), relative to the event that the manifest's ``sampling``
        names. None if steps are not bins of time.

        Examples
        --------
        >>> sampling = {"step": "time bin", "step_s": 0.1, "start_s": -0.2, "aligned_to": "cue"}
        >>> Recording.from_arrays(np.zeros((1, 3, 1)), {"n": [1]}, name="toy", sampling=sampling).time_s
        array([-0.15, -0.05,  0.05])
        """
        seconds = self.manifest.sampling.seconds(self.step)
        return None if seconds is None else np.asarray(seconds, dtype=np.float64)

    @property
    def eligible(self) -> NDArray[np.bool_]:
        """Whether indexes and pairs may use each sample, shape (n_samples,). By default they may use all."""
        if dims.ELIGIBLE not in self.dataset.coords:
            return np.ones(self.n_samples, dtype=bool)
        return np.asarray(self.dataset[dims.ELIGIBLE].values, dtype=bool)

    def spec(self, name: str) -> VariableSpec:
        """The declared variable called `name`.

        Raises
        ------
        NotFound
            It does not exist. The error lists those that do.
        """
        try:
            return self.manifest.variable(name)
        except KeyError:
            existing = ", ".join(self.variable_names)
            raise NotFound(
                f"recording {self.name!r} has no variable {name!r}; it has {existing}"
                + suggestion(name, self.variable_names),
                kind="unknown_variable",
            ) from None

    def values(self, names: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Values of variables as numbers; categorical variables as their codes.

        Parameters
        ----------
        names : sequence of str, optional
            Names of variables; by default all.

        Returns
        -------
        ndarray of float64, shape (n_samples, n_variables)

        Raises
        ------
        NotFound
            A variable does not exist.
        """
        names = self.variable_names if names is None else list(names)
        values = np.empty((self.n_samples, len(names)))
        for column, name in enumerate(names):
            self.spec(name)
            values[:, column] = self.dataset[name].values
        return values

    # ----------------------------------------------------------------------------------------------------------- views

    def to_dataset(self) -> xr.Dataset:
        """The recording as xarray has it: categorical variables and tokens as their meanings, not as codes.

        Returns
        -------
        xarray.Dataset
            Activity with dims (sample, unit) and every coordinate. The manifest is an attribute, so that `from_dataset`
            gives an equal recording. What lies on disk is read when it is used.

        Examples
        --------
        >>> recording = Recording.from_arrays([[1.0], [2.0]], {"side": ["left", "right"]}, name="toy")
        >>> dataset = recording.to_dataset()
        >>> dataset.activity[dataset.side == "right"].values.tolist()
        [[2.0]]
        >>> Recording.from_dataset(dataset).manifest == recording.manifest
        True
        """
        return with_meanings(self.dataset, self.manifest)

    def to_dataframe(self) -> pd.DataFrame:
        """A table with one row per sample.

        Returns
        -------
        pandas.DataFrame
            Coordinates on sample, categorical variables and tokens as their meanings; ``time_s`` where steps are bins of
            time; then one column per unit. Metadata of the units are not in it.

        Examples
        --------
        >>> Recording.from_arrays([[1.0], [2.0]], {"side": ["left", "right"]}, name="toy").to_dataframe()
           trial  step   side   u0
        0      0     0   left  1.0
        1      1     0  right  2.0
        """
        coordinates = self.to_dataset().coords
        # the number of each sample comes first, where there is one
        names = [dims.SAMPLE] if dims.SAMPLE in coordinates else []
        names += [str(name) for name in coordinates if name != dims.SAMPLE]
        columns = {name: coordinates[name].values for name in names if coordinates[name].dims == (dims.SAMPLE,)}
        if self.time_s is not None:
            columns.setdefault(dims.TIME_S, self.time_s)
        activity = self.dataset[dims.ACTIVITY].values
        columns |= {name: activity[:, column] for column, name in enumerate(self.unit_names)}
        return pd.DataFrame(columns)

    def select_units(self, units: Sequence[str | int]) -> Recording:
        """The recording of some units only, in the order of `units`.

        Raises
        ------
        NotFound
            A unit does not exist.
        InvalidInput
            No unit is selected, or one is selected twice.

        Examples
        --------
        >>> recording = Recording.from_arrays([[0.1, 0.2]], {"count": [1]}, name="toy")
        >>> recording.select_units(["u1"]).latents()
        array([[0.2]], dtype=float32)
        """
        return self._view(self.dataset.isel({dims.UNIT: self.unit_positions(units)}), self.manifest)

    def select_samples(self, samples: NDArray[Any]) -> Recording:
        """The recording of some samples only, in the order of `samples`: a mask of shape (n_samples,) or sample numbers.

        Raises
        ------
        InvalidInput
            `samples` does not fit this recording's samples, or it is empty.
        """
        rows = chosen_rows(np.asarray(samples), self.n_samples)
        if rows.size == 0:
            raise InvalidInput(f"recording {self.name!r}: no sample was selected", kind="no_samples")
        return self._view(self.dataset.isel({dims.SAMPLE: rows}), self.manifest)

    def relabel(
        self,
        mapping: Mapping[str, str | Mapping[str, Any]] | None = None,
        like: Recording | Sequence[VariableSpec] | None = None,
    ) -> Recording:
        """A view in which variables and values have the names that another system gives them.

        Parameters
        ----------
        mapping : mapping, optional
            Canonical variable → its name in this recording, or ``{"name": …, "values": {canonical: here, …}}``. A value
            is a meaning or a number; `here` may be a list of values that count as one. Variables and values that are not
            mentioned keep their names.
        like : Recording or sequence of VariableSpec, optional
            The recording whose codes to use for equal meanings of variables of the same name, so that values of both
            systems compare as numbers. Where it holds numbers, the mapping turns meanings into numbers.

        Returns
        -------
        Recording
            Shares the activity with this one.

        Raises
        ------
        NotFound
            A variable or value is not in this recording. The error lists those that are.
        InvalidInput
            Two variables or values would have the same name.

        Examples
        --------
        >>> mouse = Recording.from_arrays([[1.0], [2.0]], {"epoch": ["sample", "delay"], "n_licks": [3, 4]}, name="m")
        >>> same = mouse.relabel({"count": "n_licks", "phase": {"name": "epoch", "values": {"demo": "sample"}}})
        >>> same.variable_names, same.manifest.variable("phase").meanings
        (['phase', 'count'], ('delay', 'demo'))
        """
        entries = {canonical: mapping_entry(canonical, entry) for canonical, entry in (mapping or {}).items()}
        for here, _ in entries.values():
            self.spec(here)
        specs = like.manifest.variables if isinstance(like, Recording) else like or ()
        dataset, manifest = relabel(
            self.name, self.dataset, self.manifest, entries, {spec.name: spec for spec in specs}
        )
        return self._view(dataset, manifest)

    def replaced(self, dataset: xr.Dataset, manifest: RecordingManifest) -> Recording:
        """The recording of the same activity, or of a part of it, with other coordinates. Activity is not read.

        Raises
        ------
        InvalidDocument
            Coordinates and manifest disagree. The error lists every problem.
        """
        problems = coordinate_problems(dataset, manifest)
        if problems:
            raise InvalidDocument(f"recording {manifest.name!r}", problems)
        return self._view(dataset, manifest)

    def _view(self, dataset: xr.Dataset, manifest: RecordingManifest) -> Recording:
        # this is no longer what was stored, complete and in its order
        update: dict[str, Any] = {"grouped_by": (), "content_sha256": None, "files": {}}
        return Recording._trusted(dataset, manifest.model_copy(update=update))

    # ----------------------------------------------------------------------------------------------------- how it shows

    def describe(self) -> list[tuple[str, str]]:
        """(name, type and values) of each variable, for people to read."""
        return looks.describe(self.dataset, self.manifest)

    def __repr__(self) -> str:
        return looks.recording_text(self.name, self.dataset, self.manifest)

    def _repr_html_(self) -> str:
        return looks.recording_html(self.name, self.dataset, self.manifest)
