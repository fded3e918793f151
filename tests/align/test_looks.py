"""What alignments and maps show of themselves."""

from __future__ import annotations

import pytest
import torch

from neuromas.align.alignment import Alignment, lay_out, random_maps
from neuromas.errors import NotFound


@pytest.fixture
def alignment() -> Alignment:
    subspaces = lay_out({"phase": 2, "count": 3})
    maps = random_maps([6, 1200], subspaces, "orthogonal", "gram-schmidt", 0)
    with torch.no_grad():
        return Alignment(dict(zip(("net", "<b>rain"), (each().detach() for each in maps), strict=True)), subspaces)


def test_repr(alignment):
    assert repr(alignment).splitlines() == [
        "<Alignment of 2 systems: orthogonal maps, subspaces phase (rank 2), count (rank 3)>",
        "  net      6 units",
        "  <b>rain  1,200 units",
    ]
    assert repr(alignment.maps["net"]) == "<LinearMap: 6 units, 5 components>"


def test_html(alignment):
    html = alignment._repr_html_()
    assert "&lt;b&gt;rain" in html
    assert "<b>rain" not in html
    assert "1,200" in html
    assert "phase (rank 2)" in html


def test_a_misspelt_name_gets_the_nearest(alignment):
    with pytest.raises(NotFound, match="did you mean 'phase'"):
        alignment.subspace("phasee")
    with pytest.raises(NotFound, match="did you mean 'net'"):
        alignment.map_of("nett")
