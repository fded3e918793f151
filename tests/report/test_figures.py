"""Figures show the numbers they are given."""

from __future__ import annotations

import numpy as np
import pytest

from neuromas.report.figures import (
    Cloud,
    divergence_bars,
    iia_bars,
    overlaid_components,
    png,
    source_target_map,
    value_histogram,
)
from neuromas.schema.evaluation import DirectionScore, SourceTargetScore, ValueScore


def score(method, iia, *, low=None, high=None, ran=False, values=(), **fields):
    return DirectionScore(
        method=method,
        source="a",
        target="b",
        ran=ran,
        oracle=not ran,
        iia=iia,
        low=low,
        high=high,
        token_accuracy=None,
        n_pairs=100,
        n_missed=0,
        coverage=1.0,
        cl_loss=None,
        cl_spread=None,
        retrieval=None,
        retrieval_ceiling=None,
        by_value=values,
        **fields,
    )


def test_bars_are_as_high_as_the_iia_and_whiskers_as_long_as_the_interval():
    scores = [
        score("none", 0.05, low=0.0, high=0.1),
        score("clmas", 0.9, low=0.85, high=0.95),
        score("stitch", 0.4),
        score("mas", 1.0, ran=True),
    ]
    (panel,) = iia_bars(scores, [("a to b", "a", "b")]).axes
    assert [bar.get_height() for bar in panel.patches] == [0.05, 0.9, 0.4, 1.0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["none", "clmas", "stitch", "mas"]
    whiskers = [line.get_segments()[0][:, 1].tolist() for line in panel.collections]
    np.testing.assert_allclose(whiskers, [[0.0, 0.1], [0.85, 0.95], [0.4, 0.4], [1.0, 1.0]], atol=1e-12)
    assert [bool(bar.get_hatch()) for bar in panel.patches] == [False, False, False, True]  # it alone ran the target


def test_a_method_without_an_iia_has_no_bar():
    (panel,) = iia_bars([score("clmas", None), score("mas", 1.0, ran=True)], [("a to b", "a", "b")]).axes
    assert len(panel.patches) == 1


def test_wrong_pairs_are_counted_by_value():
    values = [
        ValueScore(values={"phase": phase, "count": str(count)}, n_pairs=10 * count, n_missed=0, iia=iia)
        for phase, count, iia in (("demo", 1, 1.0), ("demo", 2, 0.5), ("response", 3, 0.9))
    ]
    demo, response = value_histogram(score("clmas", 0.8, values=tuple(values)), "phase", "count").axes
    assert [bar.get_height() for bar in demo.patches] == [10, 20, 0, 10]
    assert [bar.get_height() for bar in response.patches] == pytest.approx([30, 3])


def test_the_plane_is_that_of_the_other_samples():
    """Drawn samples that do not hold what separates the training samples look mixed: the picture cannot flatter."""
    rng = np.random.default_rng(0)
    groups = np.repeat("demo", 300)
    values = rng.integers(0, 4, 300).astype(float)
    apart = rng.normal(size=(300, 5)) * 0.1
    apart[:, 2] += 10 * values
    training, held_out = Cloud(apart, values, groups), Cloud(rng.normal(size=(300, 5)), values, groups)
    for drawn, separate in ((training, True), (held_out, False)):
        (panel, _) = overlaid_components({"a": training}, {"a": drawn}, "count").axes
        first = panel.collections[0].get_offsets()[:, 0]
        assert (abs(np.corrcoef(first, values)[0, 1]) > 0.95) == separate


def test_equal_figures_are_equal_files():
    scores = [score("none", 0.05, low=0.0, high=0.1)]
    assert png(iia_bars(scores, [("t", "a", "b")])) == png(iia_bars(scores, [("t", "a", "b")]))


def test_ratios_are_drawn_by_method_and_those_of_subspaces_are_not():
    scores = [
        score("none", 0.05, l2_ratio=5.0, mahalanobis_ratio=1.1),
        score("clmas", 0.9, l2_ratio=1.3, mahalanobis_ratio=23.0),
        score("clmas", 0.8, l2_ratio=9.0, mahalanobis_ratio=9.0, subspace="count"),
        score("mas", 1.0, mahalanobis_ratio=170.0),
    ]
    above, below = divergence_bars(scores, [("a to b", "a", "b")]).axes
    assert [bar.get_height() for bar in above.patches] == [5.0, 1.3]
    assert [bar.get_height() for bar in below.patches] == [1.1, 23.0, 170.0]
    assert [label.get_text() for label in above.get_xticklabels()] == ["none", "clmas"]  # no yardstick, no bar
    assert above.get_title(loc="left") == "a to b"
    assert below.get_yscale() == "log"


def test_the_map_pools_other_variables_and_leaves_blank_what_did_not_occur():
    cells = [
        SourceTargetScore(
            source={"phase": "demo", "count": source},
            target={"phase": phase, "count": target},
            n_pairs=n_pairs,
            iia=iia,
        )
        for source, phase, target, n_pairs, iia in (
            ("1", "demo", "1", 3, 1.0),
            ("1", "response", "1", 1, 0.0),
            ("10", "demo", "2", 2, 0.5),
        )
    ]
    panel, _ = source_target_map(score("clmas", 0.8, by_source_target=tuple(cells)), "phase", "count").axes
    shown = panel.images[0].get_array()
    np.testing.assert_array_equal(shown.mask, [[False, True], [True, False]])
    assert (shown[0, 0], shown[1, 1]) == (0.75, 0.5)  # rows: from the source, 1 and 10; columns: the target's, 1 and 2
    assert [label.get_text() for label in panel.get_yticklabels()] == ["1", "10"]
