"""Make ``small.zip``: one planted session as HDF5, ``small.nwb``, and by hdmf-zarr as zarr, ``small.nwb.zarr``.

hdmf-zarr needs zarr 2, so this runs in an environment of its own::

    pip install hdmf-zarr pynwb
    python make.py

And ``invalid.zip``: a session with ``invalid_times``, some of which hold for a series alone. numcodecs 0.15 and later refuse to
pickle such references, so this one needs ``numcodecs<0.15``.

They are zipped because the folder has hundreds of files. Trials do not refer to series in ``small.zip``.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


def planted() -> Any:
    """A session of 12 s with four units, six trials, a field potential and the fluorescence of three cells."""
    from pynwb import NWBFile
    from pynwb.ecephys import LFP, ElectricalSeries
    from pynwb.file import Subject
    from pynwb.ophys import DfOverF, ImageSegmentation, OpticalChannel, RoiResponseSeries

    rng = np.random.default_rng(0)
    file = NWBFile(
        session_description="planted",
        identifier="planted",
        session_start_time=datetime(2020, 1, 1, tzinfo=UTC),
        related_publications=["Nobody (2020)", "Nobody else (2021)"],
    )
    file.subject = Subject(subject_id="m1", species="Mus musculus", sex="F", age="P90D")
    device = file.create_device("probe")
    group = file.create_electrode_group("shank", description="-", location="CA1", device=device)
    for number in range(4):
        file.add_electrode(location="CA1" if number < 2 else "CA3", group=group)

    file.add_unit_column("label", "name of the unit")
    file.add_unit_column("quality", "how well it is separated")
    for number in range(4):
        file.add_unit(
            spike_times=np.sort(rng.uniform(0, 12, 60)).round(4),
            obs_intervals=[[0.0, 6.0], [8.0, 12.0]] if number == 1 else [[0.0, 12.0]],
            electrodes=[number],
            label=f"cell {'abcd'[number]}",
            quality=0.25 * number,
        )

    field = ElectricalSeries(
        name="ElectricalSeries",
        data=rng.integers(-1000, 1000, (1200, 4)).astype(np.int16),
        electrodes=file.create_electrode_table_region([0, 1, 2, 3], "all"),
        rate=100.0,
        starting_time=0.0,
        conversion=1e-6,
    )
    ecephys = file.create_processing_module("ecephys", "field potentials")
    ecephys.add(LFP(electrical_series=field))

    file.add_trial_column("stimulus", "what was shown")
    file.add_trial_column("choice", "0 none, 1 left, 2 right")
    for number in range(6):
        start = 0.5 + 1.8 * number
        file.add_trial(
            start_time=start,
            stop_time=start + 1.5,
            stimulus="gräting" if number % 2 else "noise",
            choice=np.uint8(number % 3),
        )

    optical = OpticalChannel(name="optical", description="-", emission_lambda=500.0)
    plane = file.create_imaging_plane(
        name="plane",
        optical_channel=optical,
        description="-",
        device=file.create_device("microscope"),
        excitation_lambda=600.0,
        indicator="GCaMP",
        location="V1",
    )
    masks = ImageSegmentation()
    cells = masks.create_plane_segmentation("cells", plane, name="PlaneSegmentation")
    for number in range(3):
        cells.add_roi(pixel_mask=[(number, number, 1.0)])
    ophys = file.create_processing_module("ophys", "fluorescence")
    ophys.add(masks)
    ophys.add(
        DfOverF(
            roi_response_series=RoiResponseSeries(
                name="RoiResponseSeries",
                data=rng.normal(size=(360, 3)).astype(np.float32),
                rois=cells.create_roi_table_region("all", region=[0, 1, 2]),
                timestamps=0.1 + np.arange(360) / 30,
                unit="fraction",
            )
        )
    )
    return file


def with_invalid_times() -> Any:
    """Four trials at 0, 10, 20 and 30 s, two units that fire in every bin, a pupil and two channels; three invalid intervals."""
    from pynwb import NWBFile, TimeSeries
    from pynwb.ecephys import ElectricalSeries

    file = NWBFile(session_description="-", identifier="-", session_start_time=datetime(2020, 1, 1, tzinfo=UTC))
    file.add_trial_column("side", "-")
    for number in range(4):
        file.add_trial(start_time=10.0 * number, stop_time=10.0 * number + 5, side="lr"[number % 2])
    for phase in (0.1, 0.3):
        file.add_unit(spike_times=np.arange(0, 40, 0.5) + phase)
    file.add_acquisition(TimeSeries(name="pupil", data=np.arange(400.0), unit="mm", rate=10.0))
    group = file.create_electrode_group("g", "-", "-", file.create_device("probe"))
    for _ in range(2):
        file.add_electrode(location="CA1", group=group)
    for name in ("raw", "lfp"):
        electrodes = file.create_electrode_table_region([0, 1], "-")
        file.add_acquisition(ElectricalSeries(name=name, data=np.ones((400, 2)), rate=10.0, electrodes=electrodes))
    for start, stop, names, tag in (
        (10.0, 11.0, ["pupil"], "blink"),
        (20.0, 20.5, ["raw"], "artefact"),
        (30.7, 30.8, ["pupil", "raw"], "both"),
    ):
        series = [file.acquisition[name] for name in names]
        file.add_invalid_time_interval(start_time=start, stop_time=stop, timeseries=series, tags=[tag])
    return file


def main() -> None:
    """Write all, and zip them."""
    write("small", planted)
    write("invalid", with_invalid_times)


def write(stem: str, session: Callable[[], Any]) -> None:
    """Write a session as HDF5 and as zarr, and zip both."""
    from hdmf_zarr.nwb import NWBZarrIO
    from pynwb import NWBHDF5IO

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with NWBHDF5IO(folder / f"{stem}.nwb", "w") as io:
            io.write(session(), cache_spec=False)
        with (
            NWBHDF5IO(folder / f"{stem}.nwb", "r") as read,
            NWBZarrIO(str(folder / f"{stem}.nwb.zarr"), mode="w") as write,
        ):
            write.export(src_io=read, write_args={"link_data": False})
        with zipfile.ZipFile(HERE / f"{stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(one for one in folder.rglob("*") if one.is_file() and one.name != ".zmetadata"):
                archive.write(file, file.relative_to(folder))


if __name__ == "__main__":
    main()
