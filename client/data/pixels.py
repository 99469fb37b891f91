"""One film from file to model input: DICOM, PNG, JPEG or TIFF. DICOM PS3.3 C.7.6.3 (Image Pixel), C.11.1 (Modality LUT)."""

from pathlib import Path
from struct import error as StructError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut

from rainhill.errors import DataError

Pixels = NDArray[np.float32]

# Nothing else of a file is parsed: the elements that identify a patient are never even looked at.
_ELEMENTS = [
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "HighBit",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelData",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PlanarConfiguration",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "Rows",
    "SamplesPerPixel",
]

# What pydicom, Pillow and the decoders are known to raise on a damaged file.
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    StructError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
)


def read_image(path: Path, size: int) -> Pixels:
    """(1, size, size) float32 in [-1, 1], bone bright; the kind of file is told by its content. Raises DataError."""
    try:
        values, valid = _dicom(path) if _is_dicom(path) else _picture(path)
        return _resized(_scaled(values, valid), size)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read as an image ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    text = str(error).partition("\n")[0].strip()
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"  # PS3.10 7.1: a preamble of 128 bytes, then the prefix


def _dicom(path: Path) -> tuple[Pixels, NDArray[np.bool_] | None]:
    """(H, W) with bone bright, and where it is not padding (None: everywhere)."""
    dataset = dcmread(path, specific_tags=list(_ELEMENTS))
    if "PixelData" not in dataset:
        raise DataError("a DICOM file without an image (no PixelData)")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DataError(f"NumberOfFrames is {frames}, expected 1")
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(f"PhotometricInterpretation is {photometric}, expected MONOCHROME1 or MONOCHROME2")
    stored = dataset.pixel_array
    values = apply_modality_lut(stored, dataset).astype(np.float32)
    # (0028,0004) MONOCHROME1 shows its lowest value white: PS3.3 C.7.6.3.1.2
    return (-values if photometric == "MONOCHROME1" else values), _not_padding(stored, dataset)


def _not_padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_] | None:
    """(0028,0120) Pixel Padding Value, (0028,0121) its Range Limit: in stored values, before the modality LUT (PS3.3 C.7.5.1.1.2)."""
    if dataset.get("PixelPaddingValue") is None:
        return None
    padding = _stored_value(dataset, "PixelPaddingValue")
    limit = _stored_value(dataset, "PixelPaddingRangeLimit") if dataset.get("PixelPaddingRangeLimit") is not None else padding
    low, high = sorted((padding, limit))
    valid: NDArray[np.bool_] = (stored < low) | (stored > high)
    return None if valid.all() else valid


def _stored_value(dataset: Dataset, keyword: str) -> int:
    """A US-or-SS element as a stored value; writers do get the sign of the two wrong."""
    value = dataset[keyword].value
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
    number %= 1 << 16
    return number - (1 << 16) if dataset.get("PixelRepresentation") == 1 and number >= 1 << 15 else number


def _picture(path: Path) -> tuple[Pixels, None]:
    try:
        image = Image.open(path, formats=("PNG", "JPEG", "TIFF"))
    except UnidentifiedImageError as error:
        raise DataError("not a DICOM, PNG, JPEG or TIFF file") from error
    with image:
        frames = getattr(image, "n_frames", 1)
        if frames != 1:
            raise DataError(f"has {frames} frames, expected 1")
        # TIFF WhiteIsZero; Pillow inverts it itself at 8 bit, not at 16
        white_is_zero = image.format == "TIFF" and image.mode.startswith("I") and getattr(image, "tag_v2", {}).get(262) == 0
        values = np.asarray(_gray(ImageOps.exif_transpose(image)), dtype=np.float32)
    return (-values if white_is_zero else values), None


def _gray(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "F") or image.mode.startswith("I"):
        return image
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("L") if image.mode in ("1", "LA") else image.convert("RGB").convert("L")


def _scaled(values: Pixels, valid: NDArray[np.bool_] | None) -> Pixels:
    """1st to 99th percentile of what is not padding -> [-1, 1], clipped; padding -> -1."""
    if values.ndim != 2:
        raise DataError(f"shape {values.shape} is not (H, W)")
    seen = values if valid is None else values[valid]
    if seen.size == 0:
        raise DataError("is padding only")
    if not np.isfinite(seen).all():
        raise DataError("has values that are not finite")
    low, high = np.percentile(seen, (1.0, 99.0))
    if not high > low:
        constant = seen.min() == seen.max()
        raise DataError("has a single value" if constant else "has a single value but for at most 2 % of its pixels")
    scaled = np.clip((values - np.float32(low)) * np.float32(2.0 / (high - low)) - np.float32(1.0), -1.0, 1.0)
    return scaled if valid is None else np.where(valid, scaled, np.float32(-1.0))


def _resized(values: Pixels, size: int) -> Pixels:
    height, width = values.shape
    if height != width:
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = np.full((side, side), -1.0, dtype=np.float32)
        square[top : top + height, left : left + width] = values
        values = square
    # Pillow widens the triangle by the scale when it shrinks, which is what keeps a fine grid from aliasing.
    image = Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.clip(np.asarray(image, dtype=np.float32)[np.newaxis], -1.0, 1.0)
