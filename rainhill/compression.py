"""Smaller tensors on the wire: bfloat16, int8 with one scale per tensor, or the largest entries alone.

All are deterministic and, applied twice, the same as once. With error feedback (Seide et al. 2014; Karimireddy et al. 2019,
arXiv:1901.09847) a site adds what was lost to what it sends in the next round, so that small changes are delayed and not dropped.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from rainhill.adapter import Adapter, Array
from rainhill.errors import ProtocolError

Encoding = Literal["float32", "bf16", "int8", "top_k"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

_BF16, _INT8, _SCALE, _VALUES, _PLACES, _SHAPE = "#bf16", "#int8", "#scale", "#values", "#places", "#shape"
_MARKS: dict[Encoding, tuple[str, ...]] = {"float32": ("",), "bf16": (_BF16,), "int8": (_INT8, _SCALE), "top_k": (_PLACES, _VALUES, _SHAPE)}
"""What stands behind a tensor's name; the first of each is what the others go with."""
_SIDES = 8
_LARGEST = 2**40
SMALLEST_SHARE = 0.001
"""Of its entries that a tensor may be packed to: what is unpacked is then at most so many times larger than what came."""


def pack(adapter: Adapter, encoding: Encoding, *, share: float = 0.1) -> dict[str, Array]:
    """What crosses in place of the float32 arrays; `top_k` keeps this share of each tensor's entries, at least one."""
    if not SMALLEST_SHARE <= share <= 1:
        raise ProtocolError(f"share {share} is not one of {SMALLEST_SHARE} to 1")
    packed: dict[str, Array] = {}
    for name, array in adapter.items():
        values = array.astype(np.float32)
        if encoding == "float32":
            packed[name] = values
        elif encoding == "bf16":
            packed[name + _BF16] = _to_bf16(values)
        elif encoding == "int8":
            scale = np.float32(np.max(np.abs(values), initial=0.0) / 127)
            packed[name + _INT8] = np.rint(values / scale).astype(np.int8) if scale > 0 else np.zeros(values.shape, np.int8)
            packed[name + _SCALE] = np.array([scale])
        else:
            places = np.sort(_largest(values.ravel(), share)).astype(np.uint32)
            packed |= {name + _PLACES: places, name + _VALUES: values.ravel()[places], name + _SHAPE: np.array(values.shape, np.uint32)}
    return packed


def unpack(packed: Mapping[str, Array], encoding: Encoding) -> Adapter:
    """The float32 arrays again; ProtocolError where what came is not what `pack` makes in this encoding."""
    arrays: dict[str, Array] = {}
    main = _MARKS[encoding][0]
    for key in packed:
        name, mark = _parted(key)
        if mark not in _MARKS[encoding]:
            raise ProtocolError(f"{key}: is not of encoding {encoding}")
        if mark == main:
            arrays[name] = _unpacked(name, encoding, packed)
        elif name + main not in packed:
            raise ProtocolError(f"{name + main}: missing, and {key} is there")
    return Adapter(arrays)


def _unpacked(name: str, encoding: Encoding, packed: Mapping[str, Array]) -> Array:
    if encoding == "bf16":
        return _from_bf16(_of(packed, name + _BF16, np.uint16))
    if encoding == "int8":
        scale = _of(packed, name + _SCALE, np.float32)
        if scale.shape != (1,):
            raise ProtocolError(f"{name}{_SCALE}: shape {scale.shape} is not (1,)")
        # What overflows is no number any more, and refused as such.
        with np.errstate(all="ignore"):
            return np.asarray(_of(packed, name + _INT8, np.int8).astype(np.float32) * scale[0])
    return packed[name] if encoding == "float32" else _scattered(name, packed)


def _parted(key: str) -> tuple[str, str]:
    name, mark, kind = key.rpartition("#")
    return (name, mark + kind) if mark else (key, "")


def lossy(adapter: Adapter, encoding: Encoding, *, share: float = 0.1) -> Adapter:
    """What arrives of it."""
    return unpack(pack(adapter, encoding, share=share), encoding)


def _scattered(name: str, packed: Mapping[str, Array]) -> Array:
    places = _of(packed, name + _PLACES, np.uint32)
    values = _of(packed, name + _VALUES, np.float32)
    sides = _of(packed, name + _SHAPE, np.uint32)
    if sides.ndim != 1 or len(sides) > _SIDES:
        raise ProtocolError(f"{name}{_SHAPE}: shape {sides.shape} is not a list of at most {_SIDES} sides")
    shape = tuple(map(int, sides))
    size = int(np.prod(shape, dtype=np.float64))
    if values.shape != places.shape or places.ndim != 1:
        raise ProtocolError(f"{name}: {values.shape} values at {places.shape} places")
    if len(places) < SMALLEST_SHARE * size:
        raise ProtocolError(f"{name}: {len(places)} of {size:.4g} entries are less than a share of {SMALLEST_SHARE}")
    if len(places) and (int(places.max()) >= size or len(np.unique(places)) != len(places)):
        raise ProtocolError(f"{name}: places up to {int(places.max())}, or twice the same, among {size} entries")
    flat = np.zeros(size, np.float32)
    flat[places] = values
    return flat.reshape(shape)


def _largest(flat: Array, share: float) -> Array:
    count = min(len(flat), max(1, int(np.ceil(share * len(flat)))))
    # A stable sort: entries of equal size are taken in their order, at every site and on every machine.
    return np.argsort(-np.abs(flat), kind="stable")[:count]


def _to_bf16(values: Array) -> Array:
    """The upper half of each float32, rounded to the nearest, ties to even. NaN and infinities stay what they are."""
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isfinite(values), rounded, (bits >> 16).astype(np.uint16) | np.where(np.isnan(values), 0x40, 0).astype(np.uint16))


def _from_bf16(halves: Array) -> Array:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _of(packed: Mapping[str, Array], key: str, dtype: type) -> Array:
    if key not in packed:
        raise ProtocolError(f"{key}: missing")
    if packed[key].dtype != dtype:
        raise ProtocolError(f"{key}: dtype {packed[key].dtype} is not {np.dtype(dtype)}")
    # numpy holds an array without entries whatever its other sides, and cannot turn it into one of larger entries.
    if math.prod(side or 1 for side in packed[key].shape) > _LARGEST:
        raise ProtocolError(f"{key}: shape {packed[key].shape} is of more than {_LARGEST} entries")
    return packed[key]
