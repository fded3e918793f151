"""What describes units: metadata from tables, and statistics of their activity, against NumPy's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neuromas.actions.annotate import annotate as annotate_action
from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.annotate import annotate, select, standardised, unit_columns
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.recordings.units import statistics
from neuromas.schema.actions import AnnotateRequest
from neuromas.schema.recipe import VariableRecipe

RATES = np.array([[0.0, 0.2, 3.0, np.nan], [0.0, 0.4, 3.0, 1.0], [0.0, 0.0, 3.0, 7.0]])


@pytest.fixture
def made() -> Recording:
    """Three samples of four units, called as clusters are: silent, slow, constant, and missing once."""
    return Recording.from_arrays(
        RATES,
        {"side": ["l", "r", "l"]},
        name="made",
        units=["0", "2", "10", "11"],
        unit_metadata={"depth": [1.0, 2.0, 3.0, 4.0]},
        activity_units="Hz",
        missing=True,
    )


# ------------------------------------------------------------------------------------------------------- statistics


def test_statistics_over_blocks_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    activity = rng.normal(1e3, [1e-3, 1.0, 5.0, 0.0], size=(1000, 4))
    activity[rng.random(activity.shape) < 0.2] = np.nan
    activity[:, 3] = 0.0
    blocks = np.split(activity, [1, 7, 7, 400])
    seen = statistics(blocks)
    np.testing.assert_allclose(seen["mean"], np.nanmean(activity, axis=0), rtol=1e-12)
    np.testing.assert_allclose(seen["sd"], np.nanstd(activity, axis=0), rtol=1e-9)
    np.testing.assert_allclose(seen["recorded"], np.isfinite(activity).mean(axis=0))
    assert seen["silent"].tolist() == seen["constant"].tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("units_where", "kept"),
    [
        ("rate > 0.5", ["10", "11"]),
        ("rate > 0.19 and rate < 0.21", ["2"]),
        ("silent", ["0"]),
        ("not silent", ["2", "10", "11"]),
        ("constant", ["0", "10"]),
        ("recorded == 1 and depth > 1", ["2", "10"]),
        ("mean > 2 and sd > 0", ["11"]),
        ("std > 0 and average > 2", ["11"]),
        ("stddev > 0 and firing_rate > 2", ["11"]),
        ("unit in ['0', '11']", ["0", "11"]),
    ],
)
def test_units_are_chosen_by_their_activity(made, units_where, kept):
    chosen = select(made, units_where=units_where)
    assert chosen.unit_names == kept
    assert f"only units where {units_where}" in chosen.manifest.provenance.notes


@pytest.mark.parametrize(("name", "nearest"), [("sdt", "sd"), ("rates", "rate"), ("silnet", "silent")])
def test_a_statistic_that_is_misspelt_gets_the_nearest_name(made, name, nearest):
    with pytest.raises(NotFound, match=f"no column '{name}'.*did you mean '{nearest}'"):
        select(made, units_where=f"{name} > 0")


def test_a_column_comes_before_a_statistic_of_its_name():
    metadata = {"std": [1.0, 2.0, 3.0, 4.0]}
    recording = Recording.from_arrays(RATES[:1] * 0, {"n": [1]}, name="x", unit_metadata=metadata, missing=True)
    assert select(recording, units_where="std > 2 and sd == 0").unit_names == ["u2"]


def test_only_eligible_samples_count():
    recording = Recording.from_arrays(RATES[:, :3], {"n": [1, 2, 3]}, name="x", eligible=[True, False, True])
    np.testing.assert_allclose(unit_columns(recording)["mean"], RATES[[0, 2], :3].mean(axis=0), rtol=1e-6)


def test_counts_become_rates_by_the_length_of_a_step_and_other_activity_has_none():
    step = {"step": "time bin", "step_s": 0.5, "start_s": 0}
    counts = Recording.from_arrays([[0.0, 3.0], [1.0, 4.0]], {"n": [1, 2]}, name="counts", sampling=step)
    assert unit_columns(counts)["rate"].tolist() == [1.0, 7.0]
    others = {
        "no length": Recording.from_arrays([[0.0, 3.0], [1.0, 4.0]], {"n": [1, 2]}, name="x"),
        "no counts": Recording.from_arrays([[0.5, 3.0], [1.0, 4.0]], {"n": [1, 2]}, name="x", sampling=step),
        "volts": Recording.from_arrays(
            [[0.0, 3.0], [1.0, 4.0]], {"n": [1, 2]}, name="x", sampling=step, activity_units="mV"
        ),
        "standardised": standardised(counts),
    }
    for what, recording in others.items():
        with pytest.raises(InvalidInput, match="'rate' needs activity in Hz") as raised:
            select(recording, units_where="rate > 1")
        assert raised.value.kind == "invalid_expression", what


def test_a_column_of_the_recording_comes_before_a_statistic(made):
    named = annotate(made, {"rate": "depth * 10"}, on="unit")
    assert select(named, units_where="rate > 25").unit_names == ["10", "11"]


def test_activity_on_disk_is_read_only_if_a_statistic_is_asked_for(made, tmp_path, monkeypatch):
    store = RecordingStore(tmp_path / "store")
    store.register([made], set="s")
    lazy = store.get("s/made", load=False)
    assert select(lazy, units_where="rate > 0.5").unit_names == ["10", "11"]

    def refuse(*_):
        raise AssertionError("activity was read")

    monkeypatch.setattr(Recording, "blocks", refuse)
    assert select(lazy, units_where="depth > 2").unit_names == ["10", "11"]
    with pytest.raises(NotFound, match=r"no column 'rat'; .*; did you mean 'rate'\?"):
        select(lazy, units_where="rat > 0.5")


# ------------------------------------------------------------------------------------------------------- metadata


def test_a_table_describes_units_whatever_its_order(made):
    table = pd.DataFrame({"unit": [11, 7, 0, 10, 2], "group": ["a", "b", "c", "d", "e"], "ch": [4, 9, 1, 3, 2]})
    seen = annotate(made, {"g": "group", "far": "ch > 2 and depth > 3"}, table=table, on=["unit"])
    assert seen.dataset["g"].values.tolist() == ["c", "e", "d", "a"]
    assert seen.dataset["far"].values.tolist() == [False, False, False, True]
    assert seen.variable_names == ["side"]
    np.testing.assert_array_equal(seen.latents(), made.latents())
    assert select(seen, units_where="g == 'a'").unit_names == ["11"]
    assert "metadata of units g, far added" in seen.manifest.provenance.notes


@pytest.mark.parametrize("on", ["unit=label", ["unit=label"], {"unit": "label"}])
def test_the_column_may_have_another_name_and_all_columns_come_by_default(made, on):
    table = {"label": ["0", "2", "10", "11"], "brain area": ["a", "b", "c", "d"], "n": [1, 2, 3, 4]}
    seen = annotate(made, table=table, on=on)
    assert seen.dataset["brain_area"].values.tolist() == ["a", "b", "c", "d"]
    assert seen.dataset["n"].values.tolist() == [1, 2, 3, 4]
    assert "label" not in seen.dataset.coords


def test_the_column_of_clusters_is_known(made):
    table = pd.DataFrame({"cluster_id": [0, 2, 10, 11], "group": ["good", "mua", "good", "noise"]})
    seen = annotate(made, table=table, on="unit")
    assert select(seen, units_where="group == 'good'").unit_names == ["0", "10"]


def test_units_may_be_matched_by_their_metadata(made):
    sites = annotate(made, {"site": "where(depth < 2.5, 'up', 'down')"}, on="unit")
    seen = annotate(sites, table={"site": ["down", "up"], "area": ["CA3", "CA1"]}, on="site")
    assert seen.dataset["area"].values.tolist() == ["CA1", "CA1", "CA3", "CA3"]


def test_a_unit_without_a_row_has_missing_metadata_and_the_notes_say_so(made):
    table = {"unit": ["0", "10"], "group": ["good", "mua"], "ch": [5, 6], "ok": [True, False]}
    seen = annotate(made, table=table, on="unit")
    assert seen.dataset["group"].values.tolist() == ["good", "", "mua", ""]
    np.testing.assert_array_equal(seen.dataset["ch"].values, [5, np.nan, 6, np.nan])
    np.testing.assert_array_equal(seen.dataset["ok"].values, [1, np.nan, 0, np.nan])
    assert "the table has no row for units '2', '11'" in seen.manifest.provenance.notes
    assert select(seen, units_where="group != 'good'").unit_names == ["10"]  # missing is neither


def test_meanings_bins_and_units_of_metadata(made):
    table = {"unit": ["0", "2", "10", "11"], "code": [0, 1, 2, 1]}
    recipes = {
        "group": VariableRecipe(expression="code", meanings={"0": "noise", "1": "mua", "2": "good"}),
        "layer": VariableRecipe(expression="depth", bins=(0, 2.5, 5)),
        "depth_um": VariableRecipe(expression="depth * 1000", units="um"),
    }
    seen = annotate(made, recipes, table=table, on="unit")
    assert seen.dataset["group"].values.tolist() == ["noise", "mua", "good", "mua"]
    assert seen.dataset["layer"].values.tolist() == ["[0, 2.5)"] * 2 + ["[2.5, 5]"] * 2
    assert seen.dataset["depth_um"].values.tolist() == [1000, 2000, 3000, 4000]
    assert seen.dataset["depth_um"].attrs["units"] == "um"


def test_metadata_are_replaced_only_if_that_is_said(made):
    with pytest.raises(InvalidDocument, match="'depth' exists already"):
        annotate(made, {"depth": "depth + 1"}, on="unit")
    assert annotate(made, {"depth": "depth + 1"}, on="unit", replace=True).dataset["depth"].values.tolist() == [
        2,
        3,
        4,
        5,
    ]
    for name in ("unit", "side", "trial", "activity"):
        with pytest.raises(InvalidDocument, match=f"'{name}' exists already"):
            annotate(made, {name: "depth"}, on="unit", replace=True)


@pytest.mark.parametrize(
    ("table", "on", "error", "message"),
    [
        (
            {"unit": ["x", "y"], "g": [1, 2]},
            "unit",
            InvalidInput,
            "a row for none of the 4 units, e.g. unit '0'; .* 'x', 'y'",
        ),
        ({"unit": ["0", "0"], "g": [1, 2]}, "unit", InvalidInput, "two rows for unit '0'"),
        ({"nr": [0], "g": [1]}, "unit", NotFound, "no column 'unit'; it has nr, g; .*unit=COLUMN"),
        ({"nr": [0], "g": [1]}, "neuron", NotFound, "no coordinate 'neuron'; .* and of units unit, depth"),
        ({"unit": ["0"]}, "unit", InvalidDocument, "no column beside those"),
        ({"unit": ["0"], "trial": [1]}, "unit", InvalidDocument, "'trial' exists already"),
    ],
)
def test_tables_that_do_not_fit(made, table, on, error, message):
    with pytest.raises(error, match=message):
        annotate(made, table=table, on=on)
    with pytest.raises(InvalidInput, match="column 'depth' is also metadata"):
        annotate(made, {"d": "depth"}, table={"unit": ["0"], "depth": [1]}, on="unit")


def test_a_table_of_samples_without_variables_is_refused_and_a_column_called_as_a_statistic_is_a_column(made):
    with pytest.raises(InvalidInput, match="variables say which of them to take"):
        annotate(made, table={"trial": [0, 1, 2], "x": [1, 2, 3]})
    table = {"unit": [0.0, 2.0, 10.0, 11.0, np.nan, np.nan], "rate": [9, 8, 7, 6, 5, 4]}
    assert annotate(made, {"r": "rate"}, table=table, on="unit").dataset["r"].values.tolist() == [9, 8, 7, 6]
    stored = annotate(made, {"r": "rate", "quiet": "silent"}, on="unit")
    np.testing.assert_allclose(stored.dataset["r"].values, np.nanmean(RATES, axis=0), rtol=1e-6)
    assert stored.dataset["quiet"].values.tolist() == [True, False, False, False]


def test_in_the_shell_a_table_of_units_comes_first_so_that_units_where_can_use_it(made, tmp_path):
    store = RecordingStore(tmp_path / "store")
    store.register([made], set="s")
    (tmp_path / "cluster_group.tsv").write_text("cluster_id\tgroup\n0\tgood\n10\tgood\n11\tmua\n")
    request = AnnotateRequest(
        store=str(tmp_path / "store"),
        recording="s/made",
        table=str(tmp_path / "cluster_group.tsv"),
        on=("unit",),
        where="side == 'l'",
        units_where="group == 'good' and not silent",
    )
    registered = annotate_action(request)
    assert registered.name == "s/made.v2"
    stored = store.get("s/made.v2")
    assert (stored.unit_names, stored.n_samples) == (["10"], 2)
    assert stored.dataset["group"].values.tolist() == ["good"]
