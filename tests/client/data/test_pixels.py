from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, RLELossless, generate_uid

from client.data.pixels import read_image
from rainhill.errors import DataError

SIZE = 32
FILMS = Path(__file__).parents[4] / "shared/data/cxr/dicom"

needs_films = pytest.mark.skipif(not FILMS.is_dir(), reason="the real DICOM films are not on this machine")


def film(shape=(48, 48), peak=4095):
    """Stored values of something smooth, bright in the middle and darker on the left."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    values = np.exp(-2 * (x**2 + y**2)) + 0.2 * x
    return np.round((values - values.min()) / np.ptp(values) * peak).astype(np.uint16)


def write_dicom(path, stored, *, bits=16, **elements):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName = "Doe^Jane"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def plain(tmp_path):
    return write_dicom(tmp_path / "plain.dcm", film())


def test_a_film_has_the_shape_type_and_range_of_a_model_input(plain):
    image = read_image(plain, SIZE)
    assert image.shape == (1, SIZE, SIZE)
    assert image.dtype == np.float32
    assert image.min() >= -1
    assert image.max() <= 1
    assert image[0, SIZE // 2, SIZE // 2] > 0.8  # bone, that is: bright
    assert image[0, 0, 0] < -0.8


def test_monochrome1_is_the_same_film_inverted(tmp_path, plain):
    inverted = write_dicom(tmp_path / "m1.dcm", 4095 - film(), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_image(inverted, SIZE), read_image(plain, SIZE), atol=1e-6)


def test_a_rescale_does_not_change_what_percentiles_take_away(tmp_path, plain):
    rescaled = write_dicom(tmp_path / "r.dcm", film(), RescaleSlope="0.25", RescaleIntercept="-1024", RescaleType="US")
    np.testing.assert_allclose(read_image(rescaled, SIZE), read_image(plain, SIZE), atol=1e-5)


def test_a_negative_rescale_slope_inverts(tmp_path, plain):
    inverted = write_dicom(tmp_path / "n.dcm", 4095 - film(), RescaleSlope="-1", RescaleIntercept="4095")
    np.testing.assert_allclose(read_image(inverted, SIZE), read_image(plain, SIZE), atol=1e-5)


def test_a_modality_lut_is_applied(tmp_path, plain):
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4096, 0, 16], "US"
    item.LUTData = list(range(4095, -1, -1))
    item["LUTData"].VR = "US"
    looked_up = write_dicom(tmp_path / "lut.dcm", 4095 - film(), ModalityLUTSequence=[item])
    np.testing.assert_allclose(read_image(looked_up, SIZE), read_image(plain, SIZE), atol=1e-6)


def test_signed_and_unsigned_storage_agree(tmp_path, plain):
    signed = write_dicom(tmp_path / "s.dcm", film().astype(np.int16) - 2000)
    np.testing.assert_allclose(read_image(signed, SIZE), read_image(plain, SIZE), atol=1e-5)


def test_eight_and_sixteen_bit_agree(tmp_path):
    eight = write_dicom(tmp_path / "8.dcm", film(peak=255).astype(np.uint8), bits=8)
    sixteen = write_dicom(tmp_path / "16.dcm", film(peak=255) * 256)
    np.testing.assert_allclose(read_image(eight, SIZE), read_image(sixteen, SIZE), atol=1e-5)


def test_a_compressed_film_is_the_film(tmp_path, plain):
    from pydicom import dcmread

    dataset = dcmread(plain)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(read_image(tmp_path / "rle.dcm", SIZE), read_image(plain, SIZE))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_padding_is_dark_and_does_not_count(tmp_path, photometric, dtype):
    stored = film((48, 32)).astype(dtype) + dtype(100)
    if photometric == "MONOCHROME1":
        stored = dtype(5000) - stored
    padded = np.full((48, 48), 30000 if dtype is np.uint16 else -30000, dtype=dtype)
    padded[:, 8:40] = stored
    bare = write_dicom(tmp_path / "bare.dcm", stored, PhotometricInterpretation=photometric)
    with_padding = write_dicom(
        tmp_path / "padded.dcm", padded, PhotometricInterpretation=photometric, PixelPaddingValue=padded[0, 0].item()
    )
    np.testing.assert_allclose(read_image(with_padding, SIZE), read_image(bare, SIZE), atol=1e-5)


def test_a_range_of_padding_is_padding(tmp_path):
    stored = film() + 100
    stored[:, :6] = np.arange(6)
    image = read_image(write_dicom(tmp_path / "p.dcm", stored, PixelPaddingValue=0, PixelPaddingRangeLimit=5), 48)
    assert (image[0, :, :6] == -1).all()


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"NumberOfFrames": 2}, "NumberOfFrames is 2, expected 1"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            "PhotometricInterpretation is RGB, expected MONOCHROME1 or",
        ),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation is PALETTE COLOR"),
        ({"Rows": 4000}, "cannot be read as an image"),
        ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}, "is padding only"),
    ],
)
def test_what_is_not_one_gray_film_is_refused(tmp_path, elements, message):
    path = write_dicom(tmp_path / "x.dcm", film(), **elements)
    with pytest.raises(DataError) as refusal:
        read_image(path, SIZE)
    assert str(refusal.value).startswith(f"{path}: ")
    assert message in str(refusal.value)
    assert "Doe" not in str(refusal.value)


def test_a_dicom_file_without_pixels_is_refused(tmp_path):
    path = write_dicom(tmp_path / "x.dcm", np.zeros((0, 0), np.uint16))
    from pydicom import dcmread

    dataset = dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(DataError, match="without an image"):
        read_image(path, SIZE)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_the_kind_of_file_is_told_by_its_content(tmp_path, suffix):
    Image.fromarray((film() // 16).astype(np.uint8)).save(tmp_path / f"film.{suffix}", **({"quality": 95} if suffix == "jpg" else {}))
    write_dicom(tmp_path / "reference.dcm", (film() // 16).astype(np.uint8), bits=8)
    (tmp_path / f"film.{suffix}").rename(tmp_path / "film")
    tolerance = 0.05 if suffix == "jpg" else 1e-6
    np.testing.assert_allclose(read_image(tmp_path / "film", SIZE), read_image(tmp_path / "reference.dcm", SIZE), atol=tolerance)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_a_picture_are_kept(tmp_path, plain, suffix):
    Image.fromarray(film()).save(tmp_path / f"film.{suffix}")
    np.testing.assert_allclose(read_image(tmp_path / f"film.{suffix}", SIZE), read_image(plain, SIZE), atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_gray_in_colour_is_gray_and_alpha_is_dropped(tmp_path, mode):
    gray = Image.fromarray((film() // 16).astype(np.uint8))
    gray.save(tmp_path / "gray.png")
    gray.convert(mode).save(tmp_path / "film.png")
    np.testing.assert_allclose(read_image(tmp_path / "film.png", SIZE), read_image(tmp_path / "gray.png", SIZE), atol=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_with_white_as_zero_is_inverted(tmp_path, dtype):
    stored = film(peak=255).astype(dtype)
    Image.fromarray(stored).save(tmp_path / "black.tif")
    # Pillow writes what it is given and takes the tag on trust: 8 bit it inverts itself, 16 bit it does not.
    Image.fromarray(stored if dtype is np.uint8 else 255 - stored).save(tmp_path / "white.tif", tiffinfo={262: 0})
    np.testing.assert_allclose(read_image(tmp_path / "white.tif", SIZE), read_image(tmp_path / "black.tif", SIZE), atol=1e-6)


def test_several_pages_are_refused(tmp_path):
    page = Image.fromarray((film() // 16).astype(np.uint8))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    with pytest.raises(DataError, match="has 2 frames, expected 1"):
        read_image(tmp_path / "pages.tif", SIZE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((40, 40), 7, np.uint8), "has a single value$"),
        (np.pad(np.full((1, 1), 7, np.uint8), 20), "has a single value but for at most 2 % of its pixels"),
    ],
)
def test_an_image_of_a_single_value_is_refused(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "flat.png")
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "flat.png", SIZE)


def test_values_that_are_not_finite_are_refused(tmp_path):
    values = film().astype(np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    with pytest.raises(DataError, match="has values that are not finite"):
        read_image(tmp_path / "nan.tif", SIZE)


def test_a_film_that_is_not_square_keeps_its_aspect(tmp_path):
    tall = film((64, 32))
    Image.fromarray(tall).save(tmp_path / "tall.png")
    image = read_image(tmp_path / "tall.png", 64)[0]
    assert (image[:, :15] == -1).all()
    assert (image[:, -15:] == -1).all()
    low, high = np.percentile(tall, (1, 99))
    expected = np.clip((tall - low) / (high - low) * 2 - 1, -1, 1)
    np.testing.assert_allclose(image[:, 16:48], expected, atol=1e-5)  # the percentiles are of the film, not of the bars


def test_a_fine_grid_does_not_alias(tmp_path):
    grid = np.zeros((512, 512), np.uint8)
    grid[:, ::2] = 255
    Image.fromarray(grid).save(tmp_path / "grid.png")
    assert np.abs(read_image(tmp_path / "grid.png", SIZE)).max() < 0.1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png", SIZE)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "film.png").write_text("not a film")
    with pytest.raises(DataError, match="not a DICOM, PNG, JPEG or TIFF file"):
        read_image(tmp_path / "film.png", SIZE)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    for suffix in ("png", "jpg"):
        Image.fromarray((film() // 16).astype(np.uint8)).save(folder / f"film.{suffix}")
    write_dicom(folder / "film.dcm", film())
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(which=st.integers(0, 2), keep=st.floats(0.01, 1), hits=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), max_size=4))
def test_a_damaged_file_is_read_or_refused_but_nothing_else(whole_files, which, keep, hits):
    content = bytearray(whole_files[which].read_bytes())
    for place, value in hits:
        content[place % len(content)] = value
    damaged = whole_files[which].parent / "damaged"
    damaged.write_bytes(content[: max(1, int(len(content) * keep))])
    try:
        image = read_image(damaged, SIZE)
    except DataError:
        return
    finally:
        damaged.unlink()
    assert image.shape == (1, SIZE, SIZE)
    assert np.isfinite(image).all()


@needs_films
@pytest.mark.filterwarnings("ignore")
def test_real_films_are_read():
    for path in sorted(FILMS.glob("*.dcm")):
        image = read_image(path, 64)[0]
        assert image.std() > 0.2
        # Lungs are darker than the mediastinum between them, whatever the photometric interpretation and transfer syntax.
        assert min(image[20:36, 12:24].mean(), image[20:36, 40:52].mean()) < image[20:36, 28:36].mean()
