"""To come."""

from __future__ import annotations

from neuromas.recordings.convert.converter import Converter

CONVERTERS: tuple[Converter, ...] = ()
