"""The labelled container: stored, labelled activity of one system in one task.

A `Recording` wraps an `xarray.Dataset` with dimensions sample × unit. Each sample is one (trial, step) row; trial,
step, token and every causal variable are flat coordinates on it. Categorical variables are small integer codes that
carry CF ``flag_values`` and ``flag_meanings``; the manifest holds the meanings as written, spaces and all.

Everything here works in blocks of samples, so a recording may be larger than memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, DTypeLike, NDArray

from neuromas import dims
from neuromas.errors import Corrupt, InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.check import block_bounds, chosen_rows, coordinate_problems, listing, place, problems_of
from neuromas.recordings.encode import (
    MANIFEST_ATTRIBUTE,
    NPZ_KEYS,
    SAMPLE_PREFIX,
    UNIT_PREFIX,
    ManifestSource,
    as_floats,
    attributes_of,
    declared_names,
    default_trial_and_step,
    encode,
    encode_tokens,
    flag_spec,
    flatten,
    infer_spec,
    labelled,
    load_npz,
    manifest_fields,
    manifest_text,
    plain,
    small_integers,
    unit_coordinates,
)
from neuromas.recordings.relabel import mapping_entry, relabelled
from neuromas.schema.recording import GroupTable, RecordingManifest, VariableSpec


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """Stored, labelled activity of one system in one task.

    Parameters
    ----------
    dataset : xarray.Dataset
        Dims sample × unit, data variable ``activity``; on sample the integer coordinates ``trial`` and ``step``, every
        variable of the manifest (categorical ones as codes), and where there are any ``token`` (codes into the
        manifest's vocabulary) and ``eligible`` (bool); on unit the names, and any metadata.
    manifest : RecordingManifest
        Everything that is not a number in it.

    Raises
    ------
    InvalidDocument
        Dataset and manifest disagree, or the data are unusable; lists every problem.

    Examples
    --------
    >>> recording = Recording.from_arrays(
    ...     np.arange(12.0).reshape(2, 3, 2),
    ...     {"side": ["left", "right"], "count": [[0, 1, 2], [0, 1, 2]]},
    ...     name="toy",
    ...     system="toy",
    ... )
    >>> recording
    <Recording 'toy': 6 samples × 2 units (float64), 2 trials, access 'read'>
      side     categorical: left, right
      count    integer: 0 to 2
    >>> recording.values(["side", "count"])[:2]
    array([[0., 0.],
           [0., 1.]])
    """

    dataset: xr.Dataset
    manifest: RecordingManifest
    _guard: Callable[[], None] | None = field(default=None, repr=False)
    """Called before stored activity is read lazily; raises `Corrupt` if a file has gone."""
    groups: GroupTable | None = field(default=None, repr=False)
    """Where samples with equal values lie, if the recording was stored grouped."""

    def __post_init__(self) -> None:
        problems = problems_of(self.dataset, self.manifest)
        if problems:
            raise InvalidDocument(f"recording {self.manifest.name!r}", problems)

    @classmethod
    def _trusted(
        cls,
        dataset: xr.Dataset,
        manifest: RecordingManifest,
        guard: Callable[[], None] | None = None,
        groups: GroupTable | None = None,
    ) -> Self:
        """A recording whose parts are known to be valid: no second look at the data."""
        recording = object.__new__(cls)
        object.__setattr__(recording, "dataset", dataset)
        object.__setattr__(recording, "manifest", manifest)
        object.__setattr__(recording, "_guard", guard)
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
            Floats; whole numbers become float32. NaN where a unit was not recorded, if ``missing=True``.
        variables : mapping of str to array
            Causal variables. Beside 3-D activity each is of shape (n_trials,) or (n_trials, n_steps), beside 2-D
            activity (n_samples,). Without a spec, text and booleans become categorical, whole numbers integer, the rest
            real.
        name, system : str
            The recording's name, and what was recorded (the name again, if not given).
        trial : array of int, optional
            Shape (n_trials,) or (n_samples,): trial numbers. By default 0, 1, 2, …; beside 2-D activity every sample is
            then a trial of its own.
        step : array of int, optional
            Shape (n_steps,), (n_trials, n_steps) or (n_samples,): position in the trial; by default counted from 0.
        lengths : array of int of shape (n_trials,), optional
            Steps in each trial, where trials differ; what lies beyond is padding and is dropped.
        present : array of bool of shape (n_trials, n_steps), optional
            Which steps are real, as an alternative to `lengths`.
        token : array of int or str, optional
            Shape as a variable: codes into `vocabulary`, or the tokens themselves.
        vocabulary : sequence of str, optional
            What each token code stands for.
        eligible : array of bool, optional
            Shape as a variable: whether the index and pairs may use a sample; absent, they may use all.
        units : sequence of str, optional
            Names of the units; ``u0``, ``u1``, … by default.
        unit_metadata, sample_metadata : mapping of str to array, optional
            More coordinates, of shape (n_units,) — or (array, attributes) — and shape as a variable.
        variable_specs : mapping or sequence of VariableSpec, optional
            Declared variables; those not declared are inferred.
        activity_units : str, optional
            Physical units of the activity, e.g. ``Hz``.
        **fields
            Any other field of `neuromas.schema.recording.RecordingManifest`: ``access``, ``task``, ``layer``, ``missing``,
            ``sampling``, ``licence``, ``citation``, ``description``, ``provenance``.

        Returns
        -------
        Recording
            Dims (sample, unit); samples in order of trials, then steps.

        Raises
        ------
        InvalidDocument
            Anything that does not fit; lists every problem, those of the manifest included.

        Examples
        --------
        >>> recording = Recording.from_arrays([[0.1, 0.2], [0.3, 0.4]], {"count": [1, 2]}, name="toy", access="read")
        >>> recording.n_samples, recording.n_units, recording.unit_names
        (2, 2, ['u0', 'u1'])
        """
        problems: list[str] = []
        array = as_floats(activity, problems)
        flat, layout = flatten(array, lengths, present, problems)
        if layout is None:
            raise InvalidDocument(f"recording {name!r}", problems)
        sample_coords = layout.trial_and_step(trial, step, problems)
        for label, values in variables.items():
            sample_coords[label] = layout.column(f"variable {label!r}", values, problems)
        for label, values in (sample_metadata or {}).items():
            sample_coords[label] = layout.column(f"sample metadata {label!r}", values, problems)
        if eligible is not None:
            sample_coords[dims.ELIGIBLE] = layout.column("eligible", eligible, problems)
        if token is not None:
            sample_coords[dims.TOKEN] = layout.column("token", token, problems)
        document: dict[str, Any] = {"name": name} | fields
        document |= {} if system is None else {"system": system}
        document |= {} if vocabulary is None else {"vocabulary": [str(entry) for entry in vocabulary]}
        document |= {} if activity_units is None else {"units": activity_units}
        specs = variable_specs.values() if isinstance(variable_specs, Mapping) else (variable_specs or ())
        document["variables"] = list(specs)
        return cls._assemble(
            xr.Variable((dims.SAMPLE, dims.UNIT), flat),
            sample_coords,
            unit_coordinates(units, unit_metadata or {}, flat.shape[1], problems),
            document,
            inferred=list(variables),
            problems=problems,
        )

    @classmethod
    def from_npz(cls, path: str | Path, manifest: ManifestSource = None, **fields: Any) -> Self:
        """A recording from a NumPy archive.

        The archive's keys are

        - ``activity`` (required): shape (n_trials, n_steps, n_units) or (n_samples, n_units)
        - ``trial``, ``step``, ``token``, ``vocabulary``, ``eligible``, ``lengths``, ``present``: as in `from_arrays`
        - ``unit``: names of the units
        - ``unit_NAME``: metadata NAME of the units; ``sample_NAME``: a coordinate of the samples that is no variable
        - ``manifest``: fields of the manifest, as JSON text
        - every other key: a causal variable

        Parameters
        ----------
        path : str or Path
            The ``.npz`` file. Pickled objects are refused, since reading them would run code.
        manifest : mapping, RecordingManifest or path of a JSON file, optional
            Fields that take precedence over those in the archive. If it lists variables, other arrays of the archive
            become plain coordinates.
        **fields
            Manifest fields that take precedence over both. The name is the file's if none is given.

        Raises
        ------
        NotFound
            There is no such file.
        InvalidInput
            The file is no NumPy archive, or holds pickled objects.
        InvalidDocument
            Its content is unusable; lists every problem.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/toy.npz", activity=np.zeros((3, 4)), count=[1, 2, 3])
        ...     Recording.from_npz(f"{folder}/toy.npz").values(["count"]).ravel()
        array([1., 2., 3.])
        """
        path = Path(path)
        arrays = load_npz(path)
        document: dict[str, Any] = {"name": path.stem}
        if "manifest" in arrays:
            document |= manifest_text(arrays.pop("manifest"), f"{path}: manifest")
        document |= manifest_fields(manifest, "manifest") | fields
        if "activity" not in arrays:
            found = ", ".join(sorted(arrays)) or "none"
            raise InvalidInput(f"{path}: no array called 'activity'; arrays are: {found}", kind="missing_activity")
        known = {key: arrays.pop(key) for key in NPZ_KEYS if key in arrays}
        unit_metadata = {key: arrays.pop(key) for key in list(arrays) if key.startswith(UNIT_PREFIX)}
        sample_metadata = {key: arrays.pop(key) for key in list(arrays) if key.startswith(SAMPLE_PREFIX)}
        declared = document.pop("variables", None)
        names = declared_names(declared)
        extra = {} if names is None else {key: arrays.pop(key) for key in list(arrays) if key not in names}
        if "vocabulary" in known and "vocabulary" not in document:
            document["vocabulary"] = [str(entry) for entry in np.atleast_1d(known["vocabulary"])]
        return cls.from_arrays(
            known["activity"],
            arrays,
            trial=known.get("trial"),
            step=known.get("step"),
            token=known.get("token"),
            eligible=known.get("eligible"),
            lengths=known.get("lengths"),
            present=known.get("present"),
            units=known.get("unit"),
            unit_metadata={key.removeprefix(UNIT_PREFIX): value for key, value in unit_metadata.items()},
            sample_metadata={key.removeprefix(SAMPLE_PREFIX): value for key, value in sample_metadata.items()} | extra,
            variable_specs=declared,
            activity_units=document.pop("units", None),
            **document,
        )

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset, manifest: ManifestSource = None, **fields: Any) -> Self:
        """A recording from an `xarray.Dataset`, as read from NetCDF or zarr.

        Parameters
        ----------
        dataset : xarray.Dataset
            Data variable ``activity`` with dims sample and unit. One-dimensional coordinates and data variables on
            sample are causal variables unless the manifest lists those; integers with CF ``flag_values`` and
            ``flag_meanings`` are categorical. A manifest saved in the dataset's attributes is used.
        manifest : mapping, RecordingManifest or path of a JSON file, optional
            Fields that take precedence over those found in the dataset.
        **fields
            Manifest fields that take precedence over both.

        Raises
        ------
        InvalidDocument
            Its content is unusable; lists every problem.

        Examples
        --------
        >>> made = Recording.from_arrays([[0.1], [0.2]], {"side": ["left", "right"]}, name="toy")
        >>> Recording.from_dataset(made.dataset, name="again").manifest.variable("side").meanings
        ('left', 'right')
        """
        document: dict[str, Any] = {}
        if MANIFEST_ATTRIBUTE in dataset.attrs:
            document |= manifest_text(dataset.attrs[MANIFEST_ATTRIBUTE], f"attribute {MANIFEST_ATTRIBUTE}")
        document |= manifest_fields(manifest, "manifest") | fields
        where = f"recording {document.get('name', '?')!r}"
        if dims.ACTIVITY not in dataset.variables or set(dataset[dims.ACTIVITY].dims) != {dims.SAMPLE, dims.UNIT}:
            found = ", ".join(f"{name} {variable.dims}" for name, variable in dataset.variables.items())
            raise InvalidDocument(where, [f"expected a variable 'activity' with dims (sample, unit); found {found}"])
        problems: list[str] = []
        activity = dataset[dims.ACTIVITY].variable
        if activity.dims != (dims.SAMPLE, dims.UNIT):
            activity = activity.transpose(dims.SAMPLE, dims.UNIT)
        if activity.dtype.kind in "iub":
            activity = activity.astype(np.float32)
        sample_coords: dict[str, NDArray[Any]] = {}
        unit_coords: dict[str, xr.Variable] = {}
        for key, variable in dataset.variables.items():
            label = str(key)
            if label in (dims.ACTIVITY, dims.SAMPLE):
                continue
            if variable.dims == (dims.SAMPLE,):
                sample_coords[label] = variable.values
            elif variable.dims == (dims.UNIT,):
                unit_coords[label] = xr.Variable((dims.UNIT,), plain(variable.values), attributes_of(variable))
            else:
                problems.append(f"variable {label!r}: expected one dimension, sample or unit, got {variable.dims}")
        if dims.UNIT not in unit_coords:
            unit_coords |= unit_coordinates(None, {}, activity.sizes[dims.UNIT], problems)
        sample_coords |= default_trial_and_step(sample_coords, activity.sizes[dims.SAMPLE])
        declared = document.get("variables") or ()
        names = declared_names(declared) or set()
        inferred = [label for label in sample_coords if label not in dims.RESERVED and label not in names]
        document["variables"] = list(declared)
        if names:
            inferred = []
        for label in inferred:
            spec = flag_spec(label, dataset[label])
            if spec is not None:
                document["variables"].append(spec)
        return cls._assemble(activity, sample_coords, unit_coords, document, inferred=inferred, problems=problems)

    @classmethod
    def from_file(cls, path: str | Path, manifest: ManifestSource = None, **fields: Any) -> Self:
        """A recording from a ``.npz`` or ``.nc`` file or a ``.zarr`` folder, told apart by the suffix.

        Parameters are those of `from_npz`. A folder that holds a ``manifest.json`` (a stored recording) brings that
        along.

        Raises
        ------
        NotFound
            There is no such file.
        InvalidInput
            The suffix is unknown, or the file is not what the suffix says.
        InvalidDocument
            Its content is unusable; lists every problem.
        """
        path = Path(path)
        if not path.exists():
            raise NotFound(f"no such file: {path}", kind="no_such_file")
        if path.suffix == ".npz":
            return cls.from_npz(path, manifest, **fields)
        beside = path / "manifest.json"
        if path.suffix not in (".nc", ".zarr") and not beside.is_file():
            raise InvalidInput(f"{path}: expected a .npz or .nc file or a .zarr folder", kind="unknown_format")
        document: dict[str, Any] = {} if path.suffix not in (".nc", ".zarr") else {"name": path.stem}
        try:
            netcdf = path.suffix == ".nc"
            dataset = xr.load_dataset(path, engine="h5netcdf") if netcdf else xr.open_zarr(path, chunks=None).load()
        except Exception as error:  # whatever a foreign file makes these libraries raise
            kind = "NetCDF file" if path.suffix == ".nc" else "zarr folder"
            raise InvalidInput(f"{path}: cannot be read as a {kind}: {error}", kind="unreadable_source") from error
        if MANIFEST_ATTRIBUTE in dataset.attrs:
            document |= manifest_text(dataset.attrs.pop(MANIFEST_ATTRIBUTE), f"{path}: {MANIFEST_ATTRIBUTE}")
        if beside.is_file():
            document |= manifest_fields(beside, str(beside))
        document |= manifest_fields(manifest, "manifest") | fields
        return cls.from_dataset(dataset, document)

    @classmethod
    def _assemble(
        cls,
        activity: xr.Variable,
        sample_coords: dict[str, NDArray[Any]],
        unit_coords: dict[str, xr.Variable],
        document: dict[str, Any],
        inferred: Sequence[str],
        problems: list[str],
    ) -> Self:
        """Encode, complete the manifest, check everything, and report all that is wrong at once."""
        document = {key: value for key, value in document.items() if key not in ("set", "content_sha256", "files")}
        document.setdefault("system", document.get("name"))
        specs = {}
        for spec in document["variables"]:
            spec_document = spec.model_dump() if isinstance(spec, VariableSpec) else dict(spec)
            specs[str(spec_document.get("name"))] = spec_document
        coordinates: dict[str, xr.Variable] = dict(unit_coords)
        for label, raw in sample_coords.items():
            values = plain(raw)
            if label in inferred and label not in specs:
                specs[label] = infer_spec(label, values)
            if label in specs:
                values = encode(specs[label], values, problems)
            elif label == dims.TOKEN and values.dtype.kind == "U":
                values = encode_tokens(values, document, problems)
            elif label in (dims.TRIAL, dims.STEP, dims.TOKEN):
                values = small_integers(values)
            elif label == dims.ELIGIBLE and values.dtype.kind in "iu" and np.isin(values, (0, 1)).all():
                values = values.astype(bool)
            coordinates[label] = xr.Variable((dims.SAMPLE,), values)
        document["variables"] = list(specs.values())
        listed = RecordingManifest.problems(document)
        if listed:
            name = document.get("name")
            raise InvalidDocument(f"recording {name!r}", [f"manifest: {problem}" for problem in listed] + problems)
        manifest = RecordingManifest.model_validate(document)
        dataset = labelled(xr.Dataset({dims.ACTIVITY: activity}, coords=coordinates), manifest)
        problems += problems_of(dataset, manifest)
        if problems:
            raise InvalidDocument(f"recording {manifest.name!r}", problems)
        return cls._trusted(dataset, manifest)

    # ---------------------------------------------------------------------------------------------------- what it holds

    @property
    def name(self) -> str:
        """``SET/RECORDING`` if it comes from a set, else its own name."""
        return self.manifest.name if self.manifest.set is None else f"{self.manifest.set}/{self.manifest.name}"

    @property
    def activity(self) -> xr.DataArray:
        """The labelled activity, dims (sample, unit), in its stored precision."""
        return self.dataset[dims.ACTIVITY]

    @property
    def n_samples(self) -> int:
        """How many (trial, step) rows there are."""
        return int(self.dataset.sizes[dims.SAMPLE])

    @property
    def n_units(self) -> int:
        """How many units were recorded."""
        return int(self.dataset.sizes[dims.UNIT])

    @property
    def in_memory(self) -> bool:
        """Whether activity is held in memory, and not read when it is asked for."""
        return bool(self.dataset[dims.ACTIVITY].variable._in_memory)

    @property
    def unit_names(self) -> list[str]:
        """Names of the units, in order."""
        return [str(name) for name in self.dataset[dims.UNIT].values]

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
        """Centre of each sample's bin in seconds, relative to the event that the manifest's ``sampling`` names; None where steps
        are not bins of time. Shape (n_samples,).

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
        """Whether the index and pairs may use each sample, shape (n_samples,); all of them if nothing was declared."""
        if dims.ELIGIBLE not in self.dataset.coords:
            return np.ones(self.n_samples, dtype=bool)
        return np.asarray(self.dataset[dims.ELIGIBLE].values, dtype=bool)

    def spec(self, name: str) -> VariableSpec:
        """The declared variable called `name`.

        Raises
        ------
        NotFound
            There is none; lists those that exist.
        """
        try:
            return self.manifest.variable(name)
        except KeyError:
            existing = ", ".join(self.variable_names)
            raise NotFound(
                f"recording {self.name!r} has no variable {name!r}; it has {existing}", kind="unknown_variable"
            ) from None

    def values(self, names: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Values of variables as numbers; categorical ones as their codes.

        Parameters
        ----------
        names : sequence of str, optional
            Variables; all of them by default.

        Returns
        -------
        ndarray of shape (n_samples, n_variables)

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

    def unit_positions(self, units: Sequence[str | int] | None = None) -> NDArray[np.int64]:
        """Columns of the units named, shape (n_selected,); all of them by default. Numbers are taken as columns.

        Raises
        ------
        NotFound
            A unit does not exist; lists those that do.
        InvalidInput
            No unit is selected, or one is named twice.
        """
        if units is None:
            return np.arange(self.n_units)
        if isinstance(units, str):
            units = [units]
        by_name = {name: column for column, name in enumerate(self.unit_names)}
        columns: list[int] = []
        unknown: list[str] = []
        for unit in units:
            if isinstance(unit, str) and unit in by_name:
                columns.append(by_name[unit])
            elif not isinstance(unit, str) and -self.n_units <= int(unit) < self.n_units:
                columns.append(int(unit) % self.n_units)
            else:
                unknown.append(str(unit))
        if unknown:
            raise NotFound(
                f"recording {self.name!r} has no unit {listing(unknown)}; its {self.n_units} units are "
                f"{listing(self.unit_names)}",
                kind="unknown_unit",
            )
        if not columns:
            raise InvalidInput(f"recording {self.name!r}: no unit was selected", kind="no_units")
        if len(set(columns)) != len(columns):
            twice = [self.unit_names[column] for column in sorted(set(columns)) if columns.count(column) > 1]
            raise InvalidInput(
                f"recording {self.name!r}: units selected twice: {listing(twice)}", kind="duplicate_unit"
            )
        return np.asarray(columns, dtype=np.int64)

    def latents(
        self,
        units: Sequence[str | int] | None = None,
        samples: NDArray[Any] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Activity as a plain array, read in blocks.

        Parameters
        ----------
        units : sequence of str, optional
            Units by name (or column); all of them by default.
        samples : array of bool of shape (n_samples,) or of int of shape (n_selected,), optional
            Which samples; all of them by default.
        dtype : dtype
            Of the result.

        Returns
        -------
        ndarray of shape (n_selected, n_units)
            Always a copy. NaN where a unit was not recorded.

        Raises
        ------
        NotFound
            A unit does not exist.
        InvalidInput
            `samples` is no selection of this recording's samples, or activity is too large for `dtype`.
        Corrupt
            Stored bytes are missing or damaged (a lazily opened recording only).
        """
        columns = self.unit_positions(units)
        rows = None if samples is None else chosen_rows(np.asarray(samples), self.n_samples)
        if rows is not None and not np.all(rows[1:] >= rows[:-1]):  # read in order, answer in the order asked
            order = np.argsort(rows, kind="stable")
            result = np.empty((rows.size, columns.size), dtype=dtype)
            result[order] = self.latents(units, rows[order], dtype)
            return result
        count = self.n_samples if rows is None else rows.size
        result = np.empty((count, columns.size), dtype=dtype)
        every_unit = columns.size == self.n_units and bool(np.all(columns == np.arange(self.n_units)))
        for into, chosen in self._pieces(rows):
            with np.errstate(over="ignore"):
                result[into] = chosen if every_unit else chosen[:, columns]
            if result.dtype.kind == "f" and result.dtype.itemsize < chosen.dtype.itemsize:
                self._refuse_overflow(result[into], into.start, rows, columns)
        return result

    def _refuse_overflow(
        self, latents: NDArray[Any], start: int, rows: NDArray[np.int64] | None, columns: NDArray[np.int64]
    ) -> None:
        """Activity is finite, so that what is infinite in `latents` became so by rounding."""
        infinite = np.argwhere(np.isinf(latents))
        if infinite.size:
            row, column = infinite[0]
            sample = int(start + row if rows is None else rows[start + row])
            raise InvalidInput(
                f"recording {self.name!r}: activity of unit {self.unit_names[columns[column]]!r} at "
                f"{place(self.dataset, sample)} is too large for {latents.dtype}, whose largest number is "
                f"{np.finfo(latents.dtype).max:.3g}; scale the activity before it is registered",
                kind="activity_too_large",
            )

    def _pieces(self, rows: NDArray[np.int64] | None) -> Iterator[tuple[slice, NDArray[Any]]]:
        """(place in the result, activity of all units) for the samples `rows`, ascending; all of them by default."""
        if rows is None:
            for start, block in self.blocks():
                yield slice(start, start + len(block)), block
            return
        variable = self.dataset[dims.ACTIVITY].variable
        if variable._in_memory:
            for first, last in block_bounds(len(rows), self.n_units * variable.dtype.itemsize):
                yield slice(first, last), variable.values[rows[first:last]]
            return
        self._check_files()
        for first, last in _runs(rows, self.n_units * variable.dtype.itemsize):
            start = int(rows[first])
            block = self._read(dims.ACTIVITY, start, int(rows[last - 1]) + 1)
            yield slice(first, last), block[rows[first:last] - start]

    def _check_files(self) -> None:
        if self._guard is not None and not self.in_memory:
            self._guard()

    def _read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Samples `start` to `stop` of activity or a coordinate."""
        try:
            return self.dataset[name].variable[start:stop].values
        except (ValueError, RuntimeError, OSError) as error:  # zarr's checksum error is a plain ValueError
            raise Corrupt(
                f"recording {self.name!r}: samples {start} to {stop - 1} of {name} cannot be read: {error}"
            ) from error

    def coordinates_at(self, samples: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Every coordinate on sample, of some samples, shape (n_selected,) each, without reading those of all the others.

        Raises
        ------
        Corrupt
            Stored bytes are missing or damaged (a lazily opened recording only).
        """
        self._check_files()
        names = [str(name) for name, one in self.dataset.coords.items() if one.dims == (dims.SAMPLE,)]
        return {name: self._coordinate_at(name, samples) for name in names if name != dims.SAMPLE}

    def _coordinate_at(self, name: str, samples: NDArray[np.int64]) -> NDArray[Any]:
        variable = self.dataset[name].variable
        if variable._in_memory:
            return variable.values[samples]
        order = np.argsort(samples, kind="stable")
        rows = samples[order]
        values = np.empty(len(rows), dtype=variable.dtype)
        for first, last in _runs(rows, variable.dtype.itemsize):
            start = int(rows[first])
            block = self._read(name, start, int(rows[last - 1]) + 1)
            values[order[first:last]] = block[rows[first:last] - start]
        return values

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """(first sample, activity of shape (n_block, n_units)) for each block of samples, in stored precision.

        Raises
        ------
        Corrupt
            Stored bytes are missing or damaged (a lazily opened recording only).
        """
        variable = self.dataset[dims.ACTIVITY].variable
        if variable._in_memory:
            values = variable.values
            for start, stop in block_bounds(self.n_samples, self.n_units * values.dtype.itemsize):
                yield start, values[start:stop]
            return
        self._check_files()
        for start, stop in block_bounds(self.n_samples, self.n_units * variable.dtype.itemsize):
            block = self._read(dims.ACTIVITY, start, stop)
            yield start, block

    def complete(self, units: Sequence[str | int] | None = None) -> NDArray[np.bool_]:
        """Whether every one of `units` (all by default) was recorded in each sample, shape (n_samples,).

        Raises
        ------
        NotFound
            A unit does not exist.
        """
        columns = self.unit_positions(units)
        complete = np.ones(self.n_samples, dtype=bool)
        if self.manifest.missing:
            for start, block in self.blocks():
                complete[start : start + len(block)] = ~np.isnan(block[:, columns]).any(axis=1)
        return complete

    # ----------------------------------------------------------------------------------------------------------- views

    def select_units(self, units: Sequence[str | int]) -> Recording:
        """The recording of `units` alone, in the order given.

        Raises
        ------
        NotFound
            A unit does not exist.
        InvalidInput
            No unit is selected, or one is named twice.

        Examples
        --------
        >>> recording = Recording.from_arrays([[0.1, 0.2]], {"count": [1]}, name="toy")
        >>> recording.select_units(["u1"]).latents()
        array([[0.2]], dtype=float32)
        """
        return self._view(self.dataset.isel({dims.UNIT: self.unit_positions(units)}), self.manifest)

    def select_samples(self, samples: NDArray[Any]) -> Recording:
        """The recording of some samples alone: a mask of shape (n_samples,) or sample numbers, in the order given.

        Raises
        ------
        InvalidInput
            `samples` is no selection of this recording's samples, or an empty one.
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
        """A view in which variables and values go by the names another system gives them.

        Parameters
        ----------
        mapping : mapping, optional
            Canonical variable → what it is called here: a name, or ``{"name": …, "values": {canonical: here, …}}``
            where each value is a meaning or a number, and `here` may be a list of values that count as one. Variables
            and values not mentioned keep their names.
        like : Recording or sequence of VariableSpec, optional
            Whose codes to use: categorical variables of the same name take the codes that the same meanings have there,
            so that values of both systems compare as numbers.

        Returns
        -------
        Recording
            Shares the activity with this one.

        Raises
        ------
        NotFound
            A variable or value is not in this recording; lists those that are.
        InvalidInput
            Two variables or values would go by the same name.

        Examples
        --------
        >>> mouse = Recording.from_arrays([[1.0], [2.0]], {"epoch": ["sample", "delay"], "n_licks": [3, 4]}, name="m")
        >>> same = mouse.relabel({"count": "n_licks", "phase": {"name": "epoch", "values": {"demo": "sample"}}})
        >>> same.variable_names, same.manifest.variable("phase").meanings
        (['phase', 'count'], ('delay', 'demo'))
        """
        mapping = dict(mapping or {})
        targets: dict[str, tuple[str, Mapping[Any, Any]]] = {}  # name here → canonical name, canonical value → here
        for canonical, entry in mapping.items():
            here, values = mapping_entry(canonical, entry)
            self.spec(here)
            if here in targets:
                raise InvalidInput(
                    f"mapping: both {targets[here][0]!r} and {canonical!r} are mapped to variable {here!r}",
                    kind="mapping",
                )
            targets[here] = (canonical, values)
        new_names = [targets[name][0] if name in targets else name for name in self.variable_names]
        taken = [*new_names, *(str(name) for name in self.dataset.coords if name not in self.variable_names)]
        twice = sorted({name for name in new_names if taken.count(name) > 1})
        if twice:
            raise InvalidInput(
                f"mapping: recording {self.name!r} would have two coordinates called {listing(twice)}", kind="mapping"
            )
        references = {
            spec.name: spec for spec in (like.manifest.variables if isinstance(like, Recording) else like or ())
        }
        dataset = self.dataset.drop_vars(self.variable_names)
        specs: list[VariableSpec] = []
        for old, new in zip(self.variable_names, new_names, strict=True):
            stored = np.asarray(self.dataset[old].values)
            spec, recoded = relabelled(self.spec(old), new, targets.get(old, (new, {}))[1], references.get(new), stored)
            specs.append(spec)
            dataset = dataset.assign_coords({new: (dims.SAMPLE, recoded)})
        manifest = self.manifest.model_copy(update={"variables": tuple(specs), "content_sha256": None, "files": {}})
        return self._view(labelled(dataset, manifest), manifest)

    def replaced(self, dataset: xr.Dataset, manifest: RecordingManifest) -> Recording:
        """The recording of the same activity, whole or in part, with other coordinates; activity is not read.

        Raises
        ------
        InvalidDocument
            Coordinates and manifest disagree; lists every problem.
        """
        problems = coordinate_problems(dataset, manifest)
        if problems:
            raise InvalidDocument(f"recording {manifest.name!r}", problems)
        return self._view(dataset, manifest)

    def _view(self, dataset: xr.Dataset, manifest: RecordingManifest) -> Recording:
        # what was stored, whole and in its order, is this no longer
        update: dict[str, Any] = {"grouped_by": (), "content_sha256": None, "files": {}}
        return Recording._trusted(dataset, manifest.model_copy(update=update), self._guard)

    # ----------------------------------------------------------------------------------------------------- how it shows

    def _headline(self) -> str:
        units = "" if self.manifest.units == "1" else f", {self.manifest.units}"
        n_trials = np.unique(self.dataset[dims.TRIAL].values).size
        return (
            f"Recording {self.name!r}: {self.n_samples:,} samples × {self.n_units:,} units "
            f"({self.activity.dtype}{units}), {n_trials:,} trials, access {self.manifest.access!r}"
        )

    def describe(self) -> list[tuple[str, str]]:
        """(name, type and values) of each variable, for people to read."""
        rows = []
        for spec in self.manifest.variables:
            if spec.meanings is not None:
                told = ", ".join(spec.meanings)
            else:
                values = self.dataset[spec.name].values
                told = f"{values.min():g} to {values.max():g}" + ("" if spec.units == "1" else f" {spec.units}")
            rows.append((spec.name, f"{spec.type}: {told}"))
        return rows

    def __repr__(self) -> str:
        rows = self.describe()
        width = max(8, *(len(name) for name, _ in rows))
        return "\n".join([f"<{self._headline()}>", *(f"  {name:<{width}} {told}" for name, told in rows)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><b>{escape(name)}</b></td><td>{escape(told)}</td></tr>" for name, told in self.describe()
        )
        return f"<p>{escape(self._headline())}</p><table>{rows}</table>{self.dataset._repr_html_()}"


_GAP = 1024
"""Samples that are read along rather than left out: about a chunk."""


def _runs(rows: NDArray[np.int64], sample_bytes: int) -> Iterator[tuple[int, int]]:
    """(first, last) of runs of `rows`, ascending, that are read in one go: near to each other, and no more than a block."""
    longest = next(iter(block_bounds(2**62, sample_bytes)))[1]
    breaks = np.flatnonzero((np.diff(rows) > _GAP) | (np.diff(rows // longest) > 0)) + 1
    for first, last in itertools.pairwise([0, *breaks.tolist(), len(rows)]):
        if last > first:
            yield first, last
