"""When, and with which versions, a result was made."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata

_COMPUTING = ("torch", "numpy", "xarray", "zarr")


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions(libraries: tuple[str, ...] = _COMPUTING) -> dict[str, str]:
    """Versions of neuromas and of `libraries`, by default those that results depend on; absent ones are left out.

    Examples
    --------
    >>> list(versions(("numpy", "not-installed")))
    ['neuromas', 'numpy']
    """
    installed = {}
    for library in ("neuromas", *libraries):
        try:
            installed[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return installed
