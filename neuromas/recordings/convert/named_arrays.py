"""The arrays of a foreign file by name, whatever the format."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.convert.source import entry
from neuromas.recordings.expression import part_of
from neuromas.recordings.matrices import Matrix, checked, kept_axes

LARGEST_DENSE_BYTES = 8 * 2**30
"""Sparse activity is written out in full up to this size."""


@dataclass(frozen=True)
class Arrays:
    """What a file holds.

    Attributes
    ----------
    arrays : dict of str to ndarray
    where : str
        The file, for messages.
    dims : dict of str to tuple of str
        Names of the axes, for arrays whose file names them.
    unusable : dict of str to str
        Name and reason, for content that is no array of numbers or text.
    vectors : bool
        Whether a table of one row or one column is a vector, as in MATLAB. The activity may then miss a last axis of length 1.
    document : dict
        Fields of a manifest that the file holds.
    stacked : set of str
        Arrays made of the entries of a cell or struct array. What their axes are must be said.
    filled : dict of str to int
        The axis along which shorter entries of a stacked array were filled up with NaN, counted with those in `dropped`.
    dropped : dict of str to int
        Where a stacked array had an axis of length 1, because its entries are row vectors.
    units : dict of str to str
        Physical units, for arrays whose file names them.
    """

    arrays: dict[str, NDArray[Any]]
    where: str
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    vectors: bool = False
    document: dict[str, Any] = field(default_factory=dict)
    stacked: set[str] = field(default_factory=set)
    filled: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def contents(self) -> list[tuple[str, str]]:
        """Every array with shape, dtype and a few values; then what cannot be used, and why."""
        listed = [(name, entry(values)) for name, values in self.arrays.items()]
        return listed + [(name, f"not usable: {reason}") for name, reason in self.unusable.items()]

    def with_part(self, text: str | None) -> Arrays:
        """Itself, with the part of an array that `text` names, e.g. ``hidden[:, 3]``, as an array of this name."""
        named = None if text is None or text in self.arrays else part_of(text)
        if text is None or named is None or named[0] not in self.arrays:
            return self
        name, array = named[0], self.arrays[named[0]]
        index = checked(Matrix(array.shape, array.__getitem__), named[1], name, self.where)
        axes = [axis for axis, place in enumerate(index) if isinstance(place, slice)]
        filled = self.filled.get(name)
        return replace(
            self,
            arrays=self.arrays | {text: array[index]},
            dims=self.dims | ({text: tuple(kept_axes(self.dims[name], index))} if name in self.dims else {}),
            stacked=self.stacked | ({text} if name in self.stacked else set()),
            filled=self.filled | ({text: axes.index(filled)} if filled in axes and name not in self.dropped else {}),
        )

    def array(self, name: str, what: str) -> NDArray[Any]:
        """The array called `name`; `what` says what it is for. NotFound lists the existing arrays."""
        self.refuse_unusable(name)
        if name not in self.arrays:
            existing = [f"{key} {values.shape}" for key, values in self.arrays.items()]
            existing += [f"{key} ({reason})" for key, reason in self.unusable.items()]
            raise NotFound(
                f"{self.where}: no array {name!r} ({what}); there are {', '.join(existing) or 'none'}",
                kind="unknown_array",
            )
        return self.arrays[name]

    def refuse_unusable(self, name: object) -> None:
        """InvalidInput if `name` is in the file, but is no array of numbers or text."""
        if name in self.unusable:
            reason = self.unusable[str(name)]
            raise InvalidInput(f"{self.where}: {name!r} cannot be used: {reason}", kind="unreadable_source")
