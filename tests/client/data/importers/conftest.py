"""Downloads of three cases each, written in the true layouts: tiny films of noise, invented words."""

import csv
import gzip
import io
import warnings

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from client.data import cohort
from client.data.importers import from_options
from client.data.importers._selection import Choice
from client.data.importers._site import import_site
from rainhill.config import SiteConfig
from rainhill.toml import read_toml


class Disk:
    """A folder that films and tables are written into."""

    def __init__(self, root):
        self.root = root
        self._rng = np.random.default_rng(3)

    def _place(self, path):
        found = self.root / path
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    def film(self, *paths):
        for path in paths:
            pixels = self._rng.integers(0, 256, (16, 16), dtype=np.uint8)
            form = "JPEG" if path.endswith(".jpg") else "TIFF" if path.endswith(".tif") else "PNG"
            Image.fromarray(pixels).save(self._place(path), format=form)

    def dicom(self, path, *, sex="", age="", view=""):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        with warnings.catch_warnings():
            # Ages of the RSNA's films are not written as DICOM has it.
            warnings.simplefilter("ignore")
            one.PatientSex, one.PatientAge, one.ViewPosition = sex, age, view
        one.Rows = one.Columns = 16
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
        one.BitsAllocated, one.BitsStored, one.HighBit = 8, 8, 7
        one.PixelData = self._rng.integers(0, 256, (16, 16), dtype=np.uint8).tobytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one.save_as(self._place(path), enforce_file_format=True)

    def text(self, path, text):
        self._place(path).write_text(text, encoding="utf-8")

    def table(self, path, header, *rows):
        held = io.StringIO()
        csv.writer(held, lineterminator="\n").writerows([header.split(","), *rows])
        data = held.getvalue().encode()
        self._place(path).write_bytes(gzip.compress(data) if path.endswith(".gz") else data)


class Made:
    """What an import wrote, read as a simulation would read it."""

    def __init__(self, imported, folder):
        self.tally, self.notes, self.manifest, self.site_file = imported.tally, imported.notes, imported.manifest, imported.site_file
        self.folder = folder
        self.site = read_toml(imported.site_file, SiteConfig)
        with imported.manifest.open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))

    @property
    def images(self):
        return [row["image"] for row in self.rows]

    def column(self, name):
        return [row[name] for row in self.rows]

    def cohort(self, *findings):
        """Three cases cannot be dealt into three parts: where the site names no column of parts, all are read as training films."""
        site = self.site
        if not site.data.columns.split:
            dealt = self.manifest.with_name("dealt.csv")
            with dealt.open("w", encoding="utf-8", newline="") as file:
                lines = csv.DictWriter(file, self.rows[0])
                lines.writeheader()
                lines.writerows(row | {"split": "train"} for row in self.rows)
            columns = site.data.columns.model_copy(update={"split": "split"})
            site = site.model_copy(update={"data": site.data.model_copy(update={"columns": columns, "manifest": dealt})})
        return cohort.read(site, findings=findings, size=16, base=self.site_file.parent)


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path / "download")


@pytest.fixture
def imported(disk, tmp_path):
    def run(layout, *, choice=None, name="hospital", **options):
        chosen = from_options(layout, {key: str(value) for key, value in options.items()})
        source = chosen.read(disk.root)
        made = import_site(source, folder=disk.root, out=tmp_path / "sites", name=name, title=chosen.title, choice=choice or Choice())
        return Made(made, disk.root)

    return run
