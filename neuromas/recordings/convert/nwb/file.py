"""An open NWB file, and its tables, units and time series by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from neuromas.errors import NeuromasError
from neuromas.recordings.convert.source import unreadable
from neuromas.recordings.outside import refuse_outside
from neuromas.recordings.unpacked import check_hdf5


@dataclass
class NwbFile:
    """An open NWB file.

    Attributes
    ----------
    path : Path
    content : pynwb.NWBFile
    manager : hdmf.build.BuildManager
        Knows where in the file each container lies.
    hollow : mapping of int to Hollow
        Large arrays of a zarr folder, by the identity of the empty dataset that stands for each.
    """

    path: Path
    content: Any
    manager: Any
    hollow: Mapping[int, Any] = field(default_factory=dict)

    def place(self, container: Any) -> str:
        """Path of `container` in the file, e.g. ``processing/ophys/DfOverF/RoiResponseSeries``."""
        return str(self.manager.get_builder(container).path).removeprefix("root").strip("/")

    def _containers(self, *kinds: type) -> dict[str, Any]:
        by_place: dict[str, Any] = {}
        # pynwb's own list of everything fails if two parts of a file have the same object_id
        waiting = [self.content]
        while waiting:
            container = waiting.pop()
            waiting += container.children
            if isinstance(container, kinds):
                by_place[self.place(container)] = container
        return dict(sorted(by_place.items()))

    @cached_property
    def tables(self) -> dict[str, Any]:
        """Tables of intervals or events; those below ``intervals`` by name, others by path."""
        import pynwb

        # not every version of pynwb has tables of events
        events = getattr(getattr(pynwb, "event", None), "EventsTable", None)
        kinds = (pynwb.epoch.TimeIntervals, *([] if events is None else [events]))
        return {place.removeprefix("intervals/"): table for place, table in self._containers(*kinds).items()}

    @cached_property
    def units(self) -> dict[str, Any]:
        """Tables of units that have spike times."""
        from pynwb import misc

        return {
            place: table for place, table in self._containers(misc.Units).items() if "spike_times" in table.colnames
        }

    @cached_property
    def series(self) -> dict[str, Any]:
        """Time series, readable or not."""
        from pynwb import base

        return self._containers(base.TimeSeries)

    def array(self, data: Any) -> Any:
        """The array to read slices of `data` from."""
        if not self.hollow or not hasattr(data, "id"):
            return data
        from neuromas.recordings.convert.zarr_as_hdf5 import identity

        return self.hollow.get(identity(data), data)


@contextmanager
def open_nwb(path: Path) -> Iterator[NwbFile]:
    """The NWB file at `path`; InvalidInput if it is damaged, whether this shows on opening or on reading."""
    refuse_outside(path)
    with ExitStack() as stack:
        # pynwb warns of cached namespaces and of flaws in unused parts; the parts in use are checked when they are read
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            file = _open(path, stack)
        except NeuromasError:
            raise
        except Exception as error:  # h5py, hdmf and pynwb have many ways to say so
            raise unreadable(path, "an NWB file", error) from error
        try:
            yield file
        except NeuromasError:
            raise
        except Exception as error:  # of a part of the file that is read only now, and is of an unexpected kind
            raise unreadable(path, "an NWB file", error) from error


def _open(path: Path, stack: ExitStack) -> NwbFile:
    from pynwb import NWBHDF5IO

    if path.is_dir():
        from neuromas.recordings.convert.zarr_as_hdf5 import zarr_as_hdf5

        stored, hollow = zarr_as_hdf5(path)
        stack.callback(stored.close)
        io = NWBHDF5IO(file=stored, mode="r", load_namespaces=True)
        return NwbFile(path, io.read(), io.manager, hollow)
    check_hdf5(path, sliced="data")
    io = NWBHDF5IO(str(path), "r", load_namespaces=True)
    stack.callback(io.close)
    return NwbFile(path, io.read(), io.manager)


def find_place(places: Mapping[str, Any], name: str) -> str | None:
    """The key of `places` that `name` means: the key itself, its full path, or the end of exactly one key.

    Examples
    --------
    >>> find_place({"processing/ecephys/lfp": 0, "trials": 1}, "lfp"), find_place({"trials": 1}, "intervals/trials")
    ('processing/ecephys/lfp', 'trials')
    """
    name = name.strip("/")
    for key in (name, name.removeprefix("intervals/")):
        if key in places:
            return key
    ends = [key for key in places if key.endswith(f"/{name}")]
    return ends[0] if len(ends) == 1 else None
