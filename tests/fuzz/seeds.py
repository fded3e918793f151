"""One small valid input of every format and document, and how each is read and mutated."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from neuromas import Recording, RecordingStore
from neuromas.align.alignment import Alignment
from neuromas.experiments.figures import FIGURES
from neuromas.fit.result import FitResult
from neuromas.recordings.check import problems_of
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.convert.pickled_array import read_pickled_array
from neuromas.recordings.expression import evaluate, evaluate_known, names_in
from neuromas.schema.actions import requests_by_verb
from neuromas.schema.fit import FitRequest
from neuromas.schema.recipe import ArraysRecipe, NwbRecipe, SpikesRecipe
from neuromas.schema.sweep import Sweep
from neuromas.systems.training import SHIPPED, load_system
from neuromas.weights import read_safetensors

from mutate import change_arrays, change_bytes, change_file, change_json, expression, json_bytes  # isort: skip

TESTS = Path(__file__).parents[1]

N = 6
"""Samples of the seeds."""


@dataclass(frozen=True)
class Case:
    """Something to mutate.

    Attributes
    ----------
    name : str
    make : callable
        ``make(folder)`` writes the seed and returns its path.
    mutate : callable
        ``mutate(path, rng)`` changes it in place.
    read : callable
        ``read(path, rng)`` must raise nothing but a NeuromasError.
    """

    name: str
    make: Callable[[Path], Path]
    mutate: Callable[[Path, Random], None]
    read: Callable[[Path, Random], None]


def check(recording: Recording) -> None:
    """What is made must be whole: it passes its checks, and can be looked at and written."""
    problems = problems_of(recording.dataset, recording.manifest)
    assert not problems, problems
    assert recording.latents().shape == (recording.n_samples, recording.n_units)
    repr(recording)
    recording._repr_html_()
    recording.manifest.to_json()


# ------------------------------------------------------------------------------------------------------- files of arrays


def arrays() -> dict[str, Any]:
    """Six samples of two units."""
    return {
        "activity": np.arange(2.0 * N).reshape(N, 2),
        "trial": np.arange(N) // 2,
        "step": np.arange(N) % 2,
        "count": np.arange(N),
        "side": np.array(["left", "right"] * 3),
    }


def converted(**recipe: Any) -> Callable[[Path, Random], None]:
    """Contents and conversion, now and then with a changed recipe."""

    def read(path: Path, rng: Random) -> None:
        document = change_json(recipe, rng) if recipe and rng.random() < 0.2 else recipe
        if not isinstance(document, dict):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if rng.random() < 0.3:
                find_converter(path).contents(path)  # type: ignore[misc]
            check(convert(path, document or None))

    return read


def either(whole: Callable[[Path, Random], None]) -> Callable[[Path, Random], None]:
    """Bytes of a file, or `whole`, which knows its structure."""

    def mutate(path: Path, rng: Random) -> None:
        (change_file if rng.random() < 0.5 else whole)(path, rng)

    return mutate


def _npz(path: Path, rng: Random) -> None:
    np.savez(path, **change_arrays(arrays(), rng))


def _mat5(path: Path, rng: Random) -> None:
    from scipy.io import savemat

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            changed = {
                name: values
                for name, values in change_arrays(arrays(), rng).items()
                if np.asarray(values).dtype.kind != "M"
            }
            savemat(path, {"s": changed} if rng.random() < 0.3 else changed, do_compression=rng.random() < 0.5)
        except (TypeError, ValueError):
            change_file(path, rng)


def _hdf5(path: Path, rng: Random) -> None:
    """Replace, remove or link a dataset, an attribute or a group."""
    import h5py

    with h5py.File(path, "r+") as file:
        places: list[str] = []
        file.visit(places.append)
        place = rng.choice(places)
        parent, name = file[place].parent, place.rsplit("/", 1)[-1]
        action = rng.randrange(6)
        attributes = list(file[place].attrs)
        if action == 0 and attributes:
            attribute = rng.choice(attributes)
            file[place].attrs[attribute] = rng.choice([0, "x", np.arange(3), "\x1b", np.float64("nan")])
        elif action == 1 and attributes:
            del file[place].attrs[rng.choice(attributes)]
        elif action == 2:
            del parent[name]
        elif action == 3:
            del parent[name]
            parent[name] = h5py.SoftLink(rng.choice(["/", "/nowhere", "/" + rng.choice(places)]))
        else:
            values = np.asarray(next(iter(change_arrays({name: np.zeros(1)}, rng).values()), np.zeros(2)))
            if values.dtype.kind in "UMm":
                values = np.char.encode(values.astype(str), "utf-8", "replace")
            del parent[name]
            parent[name] = values


def _parquet(path: Path, rng: Random) -> None:
    import pandas as pd

    columns = {name: list(np.atleast_1d(values)) for name, values in change_arrays(_columns(), rng).items()}
    try:
        pd.DataFrame({name: pd.Series(values) for name, values in columns.items()}).to_parquet(path)
    except Exception:  # what pyarrow cannot write
        change_file(path, rng)


def _columns() -> dict[str, Any]:
    table = arrays()
    activity = table.pop("activity")
    return {"u1": activity[:, 0], "u2": activity[:, 1], **table}


CELLS = ("", "nan", "=1", '"', "'", "1e999", "inf", "-", "\x00", "a" * 200, "\r", "99999999999999999999", "é", "\x1b")


def _csv(path: Path, rng: Random) -> None:
    separator = "\t" if ".tsv" in path.name else ","
    rows = [line.split(separator) for line in path.read_text().splitlines()]
    for _ in range(rng.randint(1, 4)):
        row = rng.choice(rows)
        row[rng.randrange(len(row) or 1) :] = [rng.choice([*CELLS, separator])] * rng.choice([1, 1, 2, len(row)])
    path.write_bytes("\n".join(separator.join(row) for row in rows).encode())


def _table(folder: Path, name: str) -> Path:
    import pandas as pd

    pd.DataFrame(_columns()).to_csv(folder / name, index=False, sep="\t" if ".tsv" in name else ",")
    return folder / name


def _make_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "seed.npz", **arrays())
    return folder / "seed.npz"


def _make_mat(folder: Path) -> Path:
    from scipy.io import savemat

    savemat(folder / "seed.mat", arrays(), do_compression=True)
    return folder / "seed.mat"


def _make_mat73(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "seed.mat", "w", userblock_size=512) as file:
        for name, values in arrays().items():
            if values.dtype.kind == "U":
                cells = file.create_group("#refs#")
                refs = np.empty((N, 1), dtype=h5py.ref_dtype)
                for row, text in enumerate(values):
                    cells[f"{row}"] = np.frombuffer(str(text).encode("utf-16-le"), dtype="<u2")[:, None]
                    cells[f"{row}"].attrs["MATLAB_class"] = np.bytes_("char")
                    refs[row, 0] = cells[f"{row}"].ref
                file[name] = refs
                file[name].attrs["MATLAB_class"] = np.bytes_("cell")
            else:
                file.create_dataset(name, data=np.atleast_2d(values.T), compression="gzip")
                file[name].attrs["MATLAB_class"] = np.bytes_("double")
    return folder / "seed.mat"


def _recording() -> Recording:
    table = arrays()
    return Recording.from_arrays(
        table["activity"],
        {"count": table["count"], "side": table["side"]},
        name="seed",
        trial=table["trial"],
        step=table["step"],
    )


def _make_nc(folder: Path) -> Path:
    from neuromas.recordings.export import export

    return export(_recording(), folder / "seed.nc")


def _make_zarr(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _recording().to_dataset().to_zarr(folder / "seed.zarr")
    return folder / "seed.zarr"


def _make_h5ad(folder: Path) -> Path:
    from neuromas.recordings.convert.anndata import to_anndata

    to_anndata(_recording()).write_h5ad(folder / "seed.h5ad")
    return folder / "seed.h5ad"


def _make_parquet(folder: Path) -> Path:
    import pandas as pd

    pd.DataFrame(_columns()).to_parquet(folder / "seed.parquet")
    return folder / "seed.parquet"


def _make_spikes(folder: Path) -> Path:
    (folder / "seed.txt").write_text(
        "spikes,unit,cue1,cue2\n" + "".join(f"{t / 10},{t % 2},{t},{t + 0.5}\n" for t in range(30))
    )
    return folder / "seed.txt"


def _make_nwb(folder: Path) -> Path:
    with zipfile.ZipFile(TESTS / "recordings" / "nwb" / "small.zip") as archive:
        name = next(name for name in sorted(archive.namelist()) if name.endswith(".nwb"))
        (folder / "seed.nwb").write_bytes(archive.read(name))
    return folder / "seed.nwb"


FLAT = {"axes": ["sample", "unit"], "variables": {"count": "count", "left": "side == 'left'"}}
TABLE = {"unit_columns": r"u\d+", "variables": {"count": "count", "left": "side == 'left'"}}
SPIKES = {
    "times": "spikes",
    "unit": "unit",
    "event_columns": r"cue(?P<cue>\d)",
    "start_s": 0,
    "stop_s": 0.2,
    "bin_s": 0.1,
    "variables": {"cue": "cue"},
}
NWB = {"start_s": 0, "stop_s": 0.1, "variables": {"late": "start_time > 1"}}

FILES = (
    Case("npz", _make_npz, either(_npz), converted(**FLAT)),
    Case("npz without a recipe", _make_npz, either(_npz), converted()),
    Case("mat 5", _make_mat, either(_mat5), converted(**FLAT)),
    Case("mat 7.3", _make_mat73, either(_hdf5), converted(**FLAT)),
    Case("netcdf", _make_nc, either(_hdf5), converted()),
    Case("zarr", _make_zarr, change_file, converted()),
    Case("h5ad", _make_h5ad, either(_hdf5), converted()),
    Case("csv", lambda folder: _table(folder, "seed.csv"), either(_csv), converted(**TABLE)),
    Case("tsv.gz", lambda folder: _table(folder, "seed.tsv.gz"), change_file, converted(**TABLE)),
    Case("parquet", _make_parquet, either(_parquet), converted(**TABLE)),
    Case("spikes", _make_spikes, either(_csv), converted(**SPIKES)),
    Case("nwb", _make_nwb, either(_hdf5), converted(**NWB)),
)

# ------------------------------------------------------------------------------------------------------- documents


def _document(name: str, kind: Any, seed: Any) -> Case:
    def make(folder: Path) -> Path:
        (folder / "document.json").write_text(json.dumps(seed))
        return folder / "document.json"

    def mutate(path: Path, rng: Random) -> None:
        path.write_bytes(json_bytes(seed, rng))

    def read(path: Path, rng: Random) -> None:
        kind.parse(path.read_bytes(), "document")

    return Case(name, make, mutate, read)


REQUESTS: dict[str, Any] = {
    "register": {"sources": ["a.npz"], "set": "lab", "recipe": FLAT, "manifest": {"name": "a"}, "largest_gib": 2},
    "annotate": {"recording": "lab/a", "variable": {"fast": "rt < 1"}, "rename": {"a": "b"}},
    "pool": {"recordings": ["lab/a", "lab/b"], "by": ["count"], "name": "pooled"},
    "list": {"store": "recordings"},
    "verify": {"names": ["lab"]},
    "remove": {"name": "lab/a"},
    "train": {"task": "multi-object", "seed": 1},
    "capture": {"system": "multi-object/gru-0", "set": "lab"},
    "fit": {"systems": ["multi-object/gru-0", "multi-object/gru-1"], "config": {"method": "clmas", "rank": 4}},
    "evaluate": {"folder": "out", "seed": 1},
    "plan": {"folder": "out", "source": "a", "target": "b", "want": {"count": 1}},
    "compare": {"x": "lab/a", "y": "lab/b", "option": {"metric": "cosine"}},
}


def _documents() -> Iterator[Case]:
    for verb, kind in requests_by_verb().items():
        yield _document(f"request {verb}", kind, REQUESTS.get(verb, {"recording": "lab/a"}))
    archive = TESTS / "fit" / "archive" / "format-1" / "clmas"
    yield _document("request of a fit", FitRequest, json.loads((archive / "request.json").read_text()))
    figure = next(iter(FIGURES.values()))
    yield _document("sweep", Sweep, json.loads(figure.sweep(True).to_json()))
    yield _document("recipe of arrays", ArraysRecipe, FLAT)
    yield _document("recipe of spikes", SpikesRecipe, SPIKES)
    yield _document("recipe of NWB", NwbRecipe, NWB)


def _copy(source: Path) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        shutil.copytree(source, folder / source.name)
        return folder / source.name

    return make


def _read_fit(path: Path, rng: Random) -> None:
    result = FitResult.load(path)
    repr(result)
    result._repr_html_()


def _read_store(path: Path, rng: Random) -> None:
    store = RecordingStore(path)
    entries = store.list()
    for entry in entries:
        if entry.problem is None:
            check(store.get(entry.name))
    store.get("archived/toy")


def _make_alignment(folder: Path) -> Path:
    shutil.copy(TESTS / "fit" / "archive" / "format-1" / "clmas" / "alignment.safetensors", folder)
    return folder / "alignment.safetensors"


def _read_alignment(path: Path, rng: Random) -> None:
    read_safetensors(path)
    repr(Alignment.load(path))


def _safetensors(path: Path, rng: Random) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(change_json(json.loads(data[8 : 8 + length]), rng)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


def _make_pickle(folder: Path) -> Path:
    import pickle

    (folder / "array.pickle").write_bytes(pickle.dumps(np.array(["left", None, 3, 2.5, "right"], dtype=object)))
    return folder / "array.pickle"


def _read_pickle(path: Path, rng: Random) -> None:
    # its caller, the reader of the folder, makes an InvalidInput of it
    with contextlib.suppress(ValueError):
        read_pickled_array(path.read_bytes())


def _shipped(folder: Path) -> Path:
    shutil.copytree(SHIPPED / "multi-object" / "gru-0", folder / "system")
    return folder / "system"


def _expression(path: Path, rng: Random) -> None:
    path.write_text(expression(rng), encoding="utf-8", errors="surrogatepass")


def _read_expression(path: Path, rng: Random) -> None:
    text = path.read_bytes().decode("utf-8", "surrogatepass")
    columns = {**arrays(), "time": np.array([np.nan, 1, 2, 3, 4, 5])}
    names_in(text)
    evaluate_known(text, columns)
    evaluate(text, columns)


def _make_text(folder: Path) -> Path:
    (folder / "expression.txt").write_text("count + 1")
    return folder / "expression.txt"


DOCUMENTS = (
    *_documents(),
    Case("result of a fit", _copy(TESTS / "fit" / "archive" / "format-1" / "clmas"), change_file, _read_fit),
    Case("store", _copy(TESTS / "recordings" / "archive" / "format-1"), change_file, _read_store),
    Case("alignment", _make_alignment, either(_safetensors), _read_alignment),
    Case("pickled array", _make_pickle, lambda path, rng: change_file(path, rng), _read_pickle),
    Case("system", _shipped, change_file, lambda path, rng: repr(load_system(path))),  # type: ignore[arg-type,return-value]
    Case("expression", _make_text, _expression, _read_expression),
)

CASES = {case.name: case for case in (*FILES, *DOCUMENTS)}
__all__ = ["CASES", "change_bytes"]
