"""The base model is trained on films in memory: they must be what a hospital reads back from its files."""

from pathlib import Path

import numpy as np

from client.data.pixels import read_image
from rainhill.toml import read_toml
from sites import dicom_file, phantom, shift
from sites.consortium import HERE
from sites.films import PIXELS, as_read
from sites.hospital import HospitalConfig, draw


def test_films_in_memory_are_the_films_read_from_dicom(tmp_path: Path) -> None:
    for name in ("manchester", "bury"):
        hospital = read_toml(HERE / f"{name}.toml", HospitalConfig)
        config = hospital.phantom
        shown = [case for patient in draw(config, seed=0)[0][:3] for case in patient.cases]
        stored = shift.apply(phantom.render(shown, config.size).attenuation, config.shift, [case.exposure for case in shown])
        for values, case, film in zip(stored, shown, as_read(stored, config.shift.photometric), strict=True):
            path = tmp_path / "film.dcm"
            path.write_bytes(dicom_file.encode(values, case, "P1", "X", config.equipment, config.shift.photometric))
            # Both average areas; where 1.5 old pixels meet a new one, Pillow's box takes whole old pixels and the matrix takes parts.
            read = read_image(path, PIXELS)[0]
            assert np.corrcoef(read.ravel(), film.ravel())[0, 1] > 0.998, name
            assert np.abs(read - film).mean() < 0.02, name
