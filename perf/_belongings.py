"""What belongs to one hospital and must not leave it: films, manifest, headers, names of files, pseudonyms and keys, as they lie there."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from client.data import manifest
from client.data.pixels import read_image
from client.home import SiteHome
from client.privacy.events import Members
from client.privacy.ledger import Ledger
from perf._canaries import Canaries
from rainhill.adapter import Adapter, Array
from rainhill.compression import Encoding, pack
from rainhill.errors import DataError

WORDS = 3
"""Of a text that are looked for together: a finding's name alone is in every recipe."""
PACKED: tuple[Encoding, ...] = ("float32", "bf16", "int8")
"""`top_k` leaves no run of pixels together."""
_TEXT = frozenset(("AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"))


def canaries_of(home: SiteHome, noise_keys: Iterable[bytes] = ()) -> Canaries:
    """Of a site that has trained: its films are taken at the sizes that its models take them. DataError where its file names no data.

    `noise_keys` are those of its fits, as far as they were seen while there were any.
    """
    all_of_it, data = Canaries(), home.config.data
    if data is None:
        raise DataError(f"{home.file}: has no section [data]")
    path = manifest.resolve(data.manifest, home.file.parent)
    folder = manifest.resolve(data.images, home.file.parent) if data.images else path.parent
    sizes = _add_cache(all_of_it, home)
    _add_paths(all_of_it, home, path, folder)
    for _, cells in manifest.read_table(path).rows:
        _add_cells(all_of_it, cells)
        _add_film(all_of_it, folder / cells[data.columns.image], sizes)
    _add_secrets(all_of_it, home, noise_keys)
    return all_of_it


def _add_cache(all_of_it: Canaries, home: SiteHome) -> set[int]:
    """What was decoded, and what the network made of it; gives the sides of decoded films."""
    sizes = set()
    for kept in sorted(home.cache.rglob("*.npy")):
        array = np.load(kept, mmap_mode="r")
        all_of_it.runs("cached arrays", kept.name, array.tobytes())
        # (N, 1, S, S)
        if array.ndim == 4 and array.shape[1] == 1:
            sizes.add(int(array.shape[-1]))
    return sizes


def _add_paths(all_of_it: Canaries, home: SiteHome, path: Path, folder: Path) -> None:
    for one in (home.file, home.file.parent, home.state, path, folder, home.keys):
        all_of_it.text("names of files", str(one))


def _add_cells(all_of_it: Canaries, cells: Any) -> None:
    for text in cells.values():
        words = text.split()
        all_of_it.text("manifest", text)
        for start in range(len(words) - WORDS + 1):
            all_of_it.text("manifest", " ".join(words[start : start + WORDS]))
        for word in words:
            # Identifiers, accession numbers, and whatever else is not just a word.
            if re.search(r"\d", word):
                all_of_it.text("manifest", word)


def _add_film(all_of_it: Canaries, path: Path, sizes: Iterable[int]) -> None:
    for text in (str(path), path.name, path.stem):
        all_of_it.text("names of files", text)
    for text in _header(path):
        all_of_it.text("DICOM headers", text)
    name = path.name
    stored = _stored(path)
    if stored is not None:
        for form in (stored.astype("<u2"), stored.astype(">u2"), (stored >> 4).astype(np.uint8)):
            all_of_it.runs("stored pixels", name, form.tobytes())
    for form in (form for size in sizes for form in _forms(read_image(path, size))):
        all_of_it.runs("decoded pixels", name, form.tobytes())


def _forms(image: Array) -> Iterator[Any]:
    """As numbers of a tensor, in the ways in which tensors are sent; and as a picture."""
    for encoding in PACKED:
        yield next(iter(pack(Adapter({"image": image}), encoding).values()))
    yield image.astype("<f2")
    yield np.rint((image + 1) * 127.5).astype(np.uint8)


def _header(path: Path) -> Iterator[str]:
    try:
        dataset = dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return
    for element in dataset.iterall():
        if element.VR in _TEXT:
            values = element.value if element.VM > 1 else [element.value]
            yield from (str(value) for value in values)


def _stored(path: Path) -> Any:
    try:
        return dcmread(path).pixel_array
    except InvalidDicomError:
        return None


def _add_secrets(all_of_it: Canaries, home: SiteHome, noise_keys: Iterable[bytes]) -> None:
    identity = home.identity()
    scalar = identity.node.private_numbers().private_value
    all_of_it.secret("private keys", "node", scalar.to_bytes(48, "big"))
    all_of_it.secret("private keys", "signing", identity.signing)
    all_of_it.text("private keys", str(scalar))
    all_of_it.secret("pseudonym key", "pseudonym.key", home.pseudonym_key())
    for key in noise_keys:
        all_of_it.secret("noise keys", "key", key)
    for event in Ledger.open(home.state, site=home.config.name).events():
        for patient in event.patients if isinstance(event, Members) else ():
            all_of_it.text("pseudonyms", patient)
            all_of_it.secret("pseudonyms", patient, bytes.fromhex(patient))
