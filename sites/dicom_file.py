"""A phantom film as a DICOM file: CR or DX image storage, 12 bits stored in 16, nothing in it that depends on the day it is written."""

import hashlib
from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydicom import dcmread, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from rainhill.toml import Section
from sites.cases import Case
from sites.shift import BITS

_KINDS = {"CR": ComputedRadiographyImageStorage, "DX": DigitalXRayImageStorageForPresentation}


class EquipmentConfig(Section):
    """What the department's equipment writes into its headers."""

    modality: Literal["CR", "DX"] = "DX"
    manufacturer: str = "Phantom Imaging"
    model: str = "P1"
    width_mm: float = Field(default=430.0, gt=0)
    """Of the detector; pixel spacing follows from it."""
    rescale: tuple[float, float] | None = None
    """(0028,1053) slope and (0028,1052) intercept; not written where not given."""
    window: tuple[float, float] | None = (2048.0, 4096.0)
    """(0028,1050) centre and (0028,1051) width; not written where not given."""


def uid(*key: object) -> str:
    """A UID that is always the same for this key, of the UUID-derived kind (PS3.5 B.2)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:15])}"


def encode(
    values: NDArray[np.uint16], case: Case, patient_id: str, institution: str, equipment: EquipmentConfig, photometric: str
) -> bytes:
    """One file in full; (H, W) stored values in, bytes out."""
    hospital, patient, image = case.exposure.seed
    taken = date(2015, 1, 1) + timedelta(days=(patient * 37 + image * 61) % 2000)
    instance = uid(hospital, patient, image)
    # Only what differs between films is encoded anew, and as raw elements: an element object for each takes twice as long.
    film = Dataset(dict(_common(equipment, institution, photometric, values.shape[0], values.shape[1])))
    own = {
        "SOPInstanceUID": instance,
        "StudyDate": taken.strftime("%Y%m%d"),
        "StudyTime": f"{8 + patient % 10:02d}{image * 7 % 60:02d}00",
        "AccessionNumber": f"A{patient:06d}{image}",
        "PatientName": f"PHANTOM^{patient_id}",
        "PatientID": patient_id,
        "PatientBirthDate": (taken - timedelta(days=int(case.age * 365.25))).strftime("%Y%m%d"),
        "PatientSex": case.sex,
        "PatientAge": f"{int(case.age):03d}Y" if case.age >= 2 else f"{int(case.age * 12):03d}M",
        "ViewPosition": case.exposure.view,
        "StudyInstanceUID": uid(hospital, patient, image, "study"),
        "SeriesInstanceUID": uid(hospital, patient, image, "series"),
    }
    for keyword, text in own.items():
        film[keyword] = _raw(keyword, text)
    pixels = values.astype("<u2", copy=False).tobytes()
    film["PixelData"] = RawDataElement(Tag("PixelData"), "OW", len(pixels), pixels, 0, False, True)
    film.file_meta = FileMetaDataset()
    film.file_meta.MediaStorageSOPClassUID = _KINDS[equipment.modality]
    film.file_meta.MediaStorageSOPInstanceUID = UID(instance)
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    dcmwrite(file, film, enforce_file_format=True)
    return file.getvalue()


def _raw(keyword: str, text: str) -> RawDataElement:
    tag = Tag(keyword)
    vr = dictionary_VR(tag)
    value = text.encode("ascii")
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)  # even length, PS3.5 section 6.2
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


@lru_cache(maxsize=64)
def _common(
    equipment: EquipmentConfig, institution: str, photometric: str, rows: int, columns: int
) -> Mapping[BaseTag, DataElement | RawDataElement]:
    """The elements that all films of a department share, as they are encoded."""
    film = Dataset()
    film.SpecificCharacterSet = "ISO_IR 192"
    film.ImageType = ["ORIGINAL", "PRIMARY"]
    film.SOPClassUID = _KINDS[equipment.modality]
    film.Modality = equipment.modality
    film.Manufacturer = equipment.manufacturer
    film.InstitutionName = institution
    film.ReferringPhysicianName = ""
    film.StudyDescription = "CHEST"
    film.ManufacturerModelName = equipment.model
    film.BodyPartExamined = "CHEST"
    film.StudyID = "1"
    film.SeriesNumber = 1
    film.InstanceNumber = 1
    film.PatientOrientation = ["L", "F"]
    film.SamplesPerPixel = 1
    film.PhotometricInterpretation = photometric
    film.Rows, film.Columns = rows, columns
    spacing = f"{equipment.width_mm / columns:.4f}"
    film.ImagerPixelSpacing = [spacing, spacing]
    film.PixelSpacing = [spacing, spacing]
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, BITS, BITS - 1, 0
    if equipment.window:
        film.WindowCenter, film.WindowWidth = equipment.window
    if equipment.rescale:
        film.RescaleSlope, film.RescaleIntercept = equipment.rescale
        film.RescaleType = "US"
    file = BytesIO()
    dcmwrite(file, film, implicit_vr=False, little_endian=True)
    file.seek(0)
    encoded = dcmread(file, force=True)
    return {tag: encoded.get_item(tag) for tag in list(encoded.keys())}
