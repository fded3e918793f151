"""RDMs in files of every kind, in every shape, read as scipy wrote or ordered them, and compared as rsatoolbox would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, spearmanr

from neuromas.actions.compare import compare
from neuromas.errors import InvalidInput, NotFound
from neuromas.measures.rdms import compare_rdm_files, read_rdm
from neuromas.schema.actions import CompareRequest


def planted(n: int = 7, seed: int = 0) -> np.ndarray:
    """Euclidean dissimilarities of n random points, shape (n_pairs,)."""
    return pdist(np.random.default_rng(seed).normal(size=(n, 3)))


def written(folder: Path, form: str, pairs: np.ndarray) -> str:
    """The RDM in a file of some form; what names it."""
    square = squareform(pairs)
    nan = square.copy()
    np.fill_diagonal(nan, np.nan)
    path = folder / form
    if form == "square.npz":
        np.savez(path, rdm=square, other=np.zeros(5))
    elif form == "pairs.npz":
        np.savez(path, rdm=pairs)
    elif form == "square.npy":
        np.save(path, square)
    elif form == "square.mat":
        savemat(path, {"RDM": square, "n": 3.0})
    elif form == "pairs.mat":
        savemat(path, {"RDM": pairs})
    elif form == "nan.mat":
        savemat(path, {"subject": {"RDM": nan}})
    elif form == "several.mat":
        savemat(path, {"RDM": np.stack([square - 0.1 * (square > 0), square + 0.1 * (square > 0)], axis=2)})
    elif form == "plain.csv":
        np.savetxt(path, square, delimiter=",", fmt="%.17g")
    else:
        names = [f"c{number}" for number in range(len(square))]
        lines = [
            ",".join(["", *names]),
            *(",".join([name, *map(repr, row.tolist())]) for name, row in zip(names, square, strict=True)),
        ]
        path.write_text("\n".join(lines))
    return str(path)


FORMS = (
    *("square.npz", "pairs.npz", "square.npy", "square.mat", "pairs.mat", "nan.mat", "several.mat", "plain.csv"),
    "named.csv",
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_rdm(tmp_path, form):
    pairs = planted()
    rdm = read_rdm(written(tmp_path, form, pairs))
    np.testing.assert_allclose(squareform(rdm.matrix), pairs, rtol=1e-12)
    assert rdm.n_rdms == (2 if form.startswith("several") else 1)
    assert (rdm.labels is not None) == (form == "named.csv")


@pytest.mark.parametrize("comparison", ["spearman", "pearson"])
def test_the_value_is_scipys(tmp_path, comparison):
    a, b = planted(), planted(seed=1) + planted()
    x, y = written(tmp_path, "square.mat", a), written(tmp_path, "plain.csv", b)
    expected = {"spearman": spearmanr, "pearson": pearsonr}[comparison](a, b).statistic
    result = compare(CompareRequest(x=x, y=y, option={"comparison": comparison}))
    assert result.mean == pytest.approx(expected, abs=1e-12)
    assert (result.n_samples, result.n_resamples, result.matched_by) == (7, 1, ("order of the conditions",))


def test_conditions_are_matched_by_name(tmp_path):
    square = squareform(planted())
    names, order = np.array([f"c{number}" for number in range(7)]), np.random.default_rng(0).permutation(7)[:5]
    np.savez(tmp_path / "a.npz", rdm=square, labels=names)
    np.savez(tmp_path / "b.npz", rdm=square[np.ix_(order, order)], labels=names[order])
    result = compare_rdm_files(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    assert (result.mean, result.n_usable) == (pytest.approx(1), 5)
    assert result.matched_by == ("name of the conditions",)
    np.savez(tmp_path / "c.npz", rdm=square, labels=np.char.add("x", names))
    with pytest.raises(InvalidInput, match="share 0 conditions"):
        compare_rdm_files(str(tmp_path / "a.npz"), str(tmp_path / "c.npz"))


def test_fewer_conditions_are_drawn_with_a_seed(tmp_path):
    x, y = written(tmp_path, "square.mat", planted()), written(tmp_path, "square.npy", planted(seed=1))
    first, again = (compare_rdm_files(x, y, n_samples=5, n_resamples=4, seed=2) for _ in range(2))
    assert first.values == again.values
    assert (first.n_samples, first.n_resamples) == (5, 4)


def test_what_is_no_rdm_is_refused(tmp_path):
    square = squareform(planted())
    np.savez(tmp_path / "two.npz", a=square, b=square)
    with pytest.raises(InvalidInput, match=r"2 arrays have the shape of an RDM.*two.npz:ARRAY"):
        read_rdm(str(tmp_path / "two.npz"))
    assert read_rdm(f"{tmp_path / 'two.npz'}:b").n_rdms == 1
    with pytest.raises(NotFound, match="no array 'c'"):
        read_rdm(f"{tmp_path / 'two.npz'}:c")
    with pytest.raises(NotFound, match="no such file"):
        read_rdm(str(tmp_path / "none.mat"))
    square[0, 1] = 9
    np.save(tmp_path / "skew.npy", square)
    with pytest.raises(InvalidInput, match="not symmetric"):
        read_rdm(str(tmp_path / "skew.npy"))
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    with pytest.raises(InvalidInput, match="cannot be read as a table of numbers"):
        read_rdm(str(tmp_path / "words.csv"))
    np.save(tmp_path / "wide.npy", np.zeros((4, 9)))
    with pytest.raises(InvalidInput, match=r"expected an RDM of at least 3 conditions.*got \(4, 9\)"):
        read_rdm(str(tmp_path / "wide.npy"))


def test_an_rdm_goes_with_an_rdm_and_with_rsa(tmp_path):
    x = written(tmp_path, "square.npy", planted())
    with pytest.raises(
        InvalidInput, match=r"the variable whose values are the conditions of the RDM \(by=\); there are"
    ):
        compare(CompareRequest(x=x, y="multi-object/gru-0"))
    with pytest.raises(InvalidInput, match="no activity: expected measure 'rsa'"):
        compare(CompareRequest(x=x, y=x, measure="cka"))
