"""Smaller tensors on the wire: bfloat16, int8 with one scale per tensor, or the largest entries alone.

All are deterministic and, applied twice, the same as once. With error feedback (Seide et al. 2014; Karimireddy et al. 2019,
arXiv:1901.09847) a site adds what was lost to what it sends in the next round, so that small changes are delayed and not dropped.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from rainhill.adapter import Adapter, Array
from rainhill.errors import ProtocolError

Encoding = Literal["float32", "bf16", "int8", "top_k"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

_BF16, _INT8, _SCALE, _VALUES, _PLACES, _SHAPE = "#bf16", "#int8", "#scale", "#values", "#places", "#shape"
_SIDES = 8
_LARGEST = 2**28
"""Entries of a tensor that a message may ask to be unpacked."""


def pack(adapter: Adapter, encoding: Encoding, *, share: float = 0.1) -> dict[str, Array]:
    """What crosses in place of the float32 arrays; `top_k` keeps this share of each tensor's entries, at least one."""
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


def unpack(packed: Mapping[str, Array]) -> Adapter:
    """The float32 arrays again; ProtocolError where what came is not what `pack` makes."""
    arrays: dict[str, Array] = {}
    for key, array in packed.items():
        name, mark, kind = key.rpartition("#")
        if not mark:
            arrays[key] = array
        elif mark + kind == _BF16:
            arrays[name] = _from_bf16(_of(array, np.uint16, key))
        elif mark + kind == _INT8:
            scale = _of(_partner(packed, name + _SCALE), np.float32, name + _SCALE)
            if scale.shape != (1,):
                raise ProtocolError(f"{name}{_SCALE}: shape {scale.shape} is not (1,)")
            arrays[name] = _of(array, np.int8, key).astype(np.float32) * scale[0]
        elif mark + kind == _PLACES:
            arrays[name] = _scattered(name, _of(array, np.uint32, key), packed)
        elif mark + kind not in (_SCALE, _VALUES, _SHAPE):
            raise ProtocolError(f"{key}: no encoding is called {kind!r}")
    return Adapter(arrays)


def lossy(adapter: Adapter, encoding: Encoding, *, share: float = 0.1) -> Adapter:
    """What arrives of it."""
    return unpack(pack(adapter, encoding, share=share))


def _scattered(name: str, places: Array, packed: Mapping[str, Array]) -> Array:
    values = _of(_partner(packed, name + _VALUES), np.float32, name + _VALUES)
    sides = _of(_partner(packed, name + _SHAPE), np.uint32, name + _SHAPE)
    if sides.ndim != 1 or len(sides) > _SIDES:
        raise ProtocolError(f"{name}{_SHAPE}: shape {sides.shape} is not a list of at most {_SIDES} sides")
    shape = tuple(map(int, sides))
    size = int(np.prod(shape, dtype=np.float64))
    if size > _LARGEST:
        raise ProtocolError(f"{name}: {size} entries are more than {_LARGEST}")
    if values.shape != places.shape or places.ndim != 1:
        raise ProtocolError(f"{name}: {values.shape} values at {places.shape} places")
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


def _of(array: Array, dtype: type, name: str) -> Array:
    if array.dtype != dtype:
        raise ProtocolError(f"{name}: dtype {array.dtype} is not {np.dtype(dtype)}")
    return array


def _partner(packed: Mapping[str, Array], key: str) -> Array:
    if key not in packed:
        raise ProtocolError(f"{key}: missing")
    return packed[key]
