"""RDMs of a recording's conditions against RDMs in files: planted geometry, and scipy's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, spearmanr
from typer.testing import CliRunner

from neuromas.actions.compare import compare
from neuromas.cli.verbs import app
from neuromas.errors import InvalidInput, NotFound
from neuromas.measures.condition_rdms import conditions_of
from neuromas.measures.rdms import compare_rdm_files, read_rdm
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.actions import CompareRequest

WORDS = ["face", "body", "house", "tool", "animal"]
MEANS = np.random.default_rng(0).normal(size=(5, 4))
"""Of each condition, in the order of `WORDS`."""


def recording(values: Any = None, **fields: Any) -> Recording:
    """6 samples of each condition about its mean, in random order; the mean is exact."""
    rng = np.random.default_rng(1)
    which = rng.permutation(np.repeat(np.arange(5), 6))
    noise = rng.normal(size=(30, 4))
    for condition in range(5):
        noise[which == condition] -= noise[which == condition].mean(axis=0)
    column = np.array(WORDS if values is None else values)[which]
    return Recording.from_arrays(MEANS[which] + noise, {"object": column, "even": which % 2}, name="brain", **fields)


def file_of(folder: Path, labels: Any, matrix: np.ndarray, name: str = "rdm.npz") -> str:
    path = folder / name
    if name.endswith(".csv"):
        lines = [
            ",".join(["", *labels]),
            *(",".join([label, *map(repr, row)]) for label, row in zip(labels, matrix.tolist(), strict=True)),
        ]
        path.write_text("\n".join(lines))
    elif name.endswith(".mat"):
        cell = np.empty(len(labels), dtype=object)
        cell[:] = labels
        savemat(path, {"monkey": {"RDM": matrix, "labels": cell}})
    else:
        np.savez(path, rdm=matrix, **({} if labels is None else {"labels": labels}))
    return str(path)


@pytest.mark.parametrize("ending", [".npz", ".csv", ".mat"])
@pytest.mark.parametrize("swap", [False, True])
def test_conditions_meet_by_meaning_whatever_their_order(tmp_path, ending, swap):
    order = np.array([3, 0, 4, 2, 1])
    own = squareform(pdist(MEANS))
    file = file_of(tmp_path, [WORDS[place] for place in order], own[np.ix_(order, order)], f"rdm{ending}")
    sides = (recording(), file) if swap else (file, recording())
    result = compare_rdm_files(*sides, by="object", dissimilarity="euclidean")
    assert result.mean == pytest.approx(1, abs=1e-12)
    assert (result.n_usable, result.matched_by) == (5, ("value of the condition",))
    assert sorted(result.recordings) == ["brain", "rdm"]


@pytest.mark.parametrize("dissimilarity", ["cosine", "correlation", "euclidean"])
@pytest.mark.parametrize("comparison", ["spearman", "pearson"])
def test_the_value_is_scipys(tmp_path, dissimilarity, comparison):
    theirs = pdist(np.random.default_rng(5).normal(size=(5, 3)))
    file = file_of(tmp_path, WORDS, squareform(theirs))
    expected = {"spearman": spearmanr, "pearson": pearsonr}[comparison](pdist(MEANS, dissimilarity), theirs).statistic
    result = compare_rdm_files(recording(), file, by="object", dissimilarity=dissimilarity, comparison=comparison)
    assert result.mean == pytest.approx(expected, abs=1e-10)
    assert result.options == {"comparison": comparison, "dissimilarity": dissimilarity}


def test_numbers_meet_by_value_and_never_by_code(tmp_path):
    own = squareform(pdist(MEANS))
    for values, labels in (
        ([10, 2, 30, 4, 5], ["10", "2.0", "30", "4", "5"]),
        (["10", "2", "30", "4", "5"], ["10", "2", "30", "4", "5"]),
        (["10", "2", "30", "4", "5"], [10, 2, 30, 4, 5]),
        ([0.5, 1.5, 2.5, 3.5, 4.5], ["0.5", "1.5", "2.5", "3.5", "4.5"]),
    ):
        file = file_of(tmp_path, labels, own)
        assert compare_rdm_files(file, recording(values), by="object", dissimilarity="euclidean").mean == pytest.approx(
            1
        )
    coded = file_of(tmp_path, ["0", "1", "2", "3", "4"], own)
    with pytest.raises(InvalidInput, match=r"share 0 conditions, expected at least 3: '0', .*'animal'"):
        compare_rdm_files(coded, recording(), by="object")
    with pytest.raises(InvalidInput, match="two names mean one condition"):
        compare_rdm_files(
            file_of(tmp_path, ["10", "10.0", "30", "4", "5"], own), recording([10, 2, 30, 4, 5]), by="object"
        )


def test_only_shared_conditions_count(tmp_path):
    own = squareform(pdist(MEANS))
    file = file_of(tmp_path, [*WORDS[:4], "car"], own)
    result = compare_rdm_files(file, recording(), by="object", dissimilarity="euclidean")
    assert (result.mean, result.n_usable) == (pytest.approx(1), 4)


def test_a_file_without_names_needs_them(tmp_path):
    file = file_of(tmp_path, None, squareform(pdist(MEANS)))
    with pytest.raises(
        InvalidInput, match=r"does not name its 5 conditions.*\(conditions=\), e\.g\. animal,body,face,"
    ):
        compare_rdm_files(file, recording(), by="object")
    result = compare_rdm_files(file, recording(), by="object", conditions=WORDS, dissimilarity="euclidean")
    assert result.mean == pytest.approx(1)
    with pytest.raises(InvalidInput, match="names 2 conditions, 2 of them different; the RDM has 5"):
        compare_rdm_files(file, recording(), by="object", conditions=WORDS[:2])


def test_samples_and_units_that_do_not_count(tmp_path):
    """Missing units, chosen units, end tokens and a recording on disk."""
    which = np.repeat(np.arange(5), 3)
    activity = np.c_[MEANS[which], np.zeros(15)]
    activity[2::3] = 100.0
    activity[2::3, 1] = np.nan
    toy = Recording.from_arrays(activity, {"object": np.array(WORDS)[which]}, name="toy", missing=True)
    conditions = conditions_of(toy, "object", "euclidean", units=["u0", "u1"])
    order = np.argsort(WORDS)
    np.testing.assert_allclose(conditions.matrix, squareform(pdist(MEANS[order][:, :2])), atol=1e-12)
    assert (conditions.labels, conditions.n_incomplete) == (tuple(sorted(WORDS)), 5)
    store = RecordingStore(tmp_path / "store")
    store.register(toy, set="lab")
    lazy = conditions_of(store.get("lab/toy", load=False), "object", "euclidean", units=["u0", "u1"])
    np.testing.assert_allclose(lazy.matrix, conditions.matrix, rtol=1e-5)
    tokens = Recording.from_arrays(
        activity[:, [0, 2]], {"object": np.array(WORDS)[which]}, name="toy", token=[0, 0, 1] * 5, vocabulary=["x", "E"]
    )
    ended = conditions_of(tokens, "object", "euclidean")
    np.testing.assert_allclose(ended.matrix, squareform(pdist(MEANS[order][:, [0, 2]])), atol=1e-12)
    assert ended.n_ended == 5


def test_resamples_are_those_of_two_files(tmp_path):
    own, other = squareform(pdist(MEANS)), file_of(tmp_path, WORDS, squareform(pdist(MEANS[:, :2])), "other.npz")
    file = file_of(tmp_path, WORDS, own)
    how = {"n_samples": 4, "n_resamples": 5, "seed": 3}
    # names of a recording stand in the order of its values
    ordered = np.argsort(WORDS)
    ordered_file = file_of(tmp_path, [WORDS[place] for place in ordered], own[np.ix_(ordered, ordered)], "ordered.npz")
    of_recording = compare_rdm_files(other, recording(), by="object", dissimilarity="euclidean", **how)
    of_files = compare_rdm_files(other, file, **how)
    np.testing.assert_allclose(of_recording.values, of_files.values, atol=1e-12)
    assert len(of_recording.values) == 5
    assert read_rdm(ordered_file).labels == tuple(sorted(WORDS))


def test_what_does_not_fit_is_refused(tmp_path):
    file = file_of(tmp_path, WORDS, squareform(pdist(MEANS)))
    with pytest.raises(InvalidInput, match="'even' has 2 values"):
        compare_rdm_files(file, recording(), by="even")
    with pytest.raises(NotFound, match=r"no variable 'objects'.*did you mean 'object'"):
        compare_rdm_files(file, recording(), by="objects")
    with pytest.raises(InvalidInput, match="expected measure 'rsa'"):
        compare_rdm_files(file, recording(), "cka", by="object")
    with pytest.raises(InvalidInput, match="by='object' is for recordings"):
        compare_rdm_files(file, file, by="object")
    with pytest.raises(NotFound, match="units are chosen for 'other'"):
        compare_rdm_files(file, recording(), by="object", units={"other": ["u0"]})


def test_the_command_line(tmp_path):
    store = RecordingStore(tmp_path / "store")
    store.register(recording(), set="lab")
    file = file_of(tmp_path, WORDS, squareform(pdist(MEANS)), "rdm.csv")
    words = ["compare", file, "lab/brain", "--store", str(store.path), "-o", "dissimilarity=euclidean", "--json"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "--by" in refused.output
    done = CliRunner().invoke(app, [*words, "--by", "object"])
    assert done.exit_code == 0, done.output
    assert '"mean": 1.0' in done.output or '"mean": 0.99999' in done.output
    both = compare(CompareRequest(x="lab/brain", y="lab/brain", by="object", store=str(store.path)))
    assert both.mean == pytest.approx(1)
    missing = CliRunner().invoke(
        app, ["compare", "lab/brain", "lab/brain", "--conditions", "a,b", "--store", str(store.path)]
    )
    assert (missing.exit_code, "--conditions" in missing.output) == (2, True)
