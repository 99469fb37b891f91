"""Ways to spoil a message: bytes, JSON and tensors that no writer of Rainhill makes.

Each takes a good message and a source of chance, and gives a spoilt one, or None where that message has nothing to spoil in this way.
"""

import io
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from rainhill.adapter import Adapter, Array
from rainhill.compression import ENCODINGS, pack
from rainhill.wire import LARGEST

Mutate = Callable[[bytes, Random], bytes | None]
Path = tuple[str | int, ...]

SEVERAL = 8
"""Bits flipped at most, and sides of an odd shape."""
_MARK = "@here@"
_NAMED = frozenset({"metrics", "peers", "sites", "shapes"})
"""Tables whose keys are anybody's names: another key makes another message, and no malformed one."""
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U16": "<u2", "I8": "i1", "U8": "u1"}


# Bytes of whatever kind.


def truncated(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data))]


def appended(data: bytes, rng: Random) -> bytes:
    return data + rng.randbytes(rng.randint(1, 64))


def flipped(data: bytes, rng: Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, SEVERAL)):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def arbitrary(data: bytes, rng: Random) -> bytes:
    return rng.randbytes(rng.randrange(300))


class _Called:
    """Whoever unpickles it leaves the process, which is counted."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('a pickle was opened')",)


def pickled(data: bytes, rng: Random) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([_Called()], dtype=object), allow_pickle=True)
    payload = rng.choice([pickle.dumps(_Called()), pickle.dumps({"delta": np.zeros(3)}), file.getvalue()])
    return rng.choice([payload, len(payload).to_bytes(8, "little") + payload, data[: len(data) // 2] + payload])


def length_declared(data: bytes, rng: Random) -> bytes:
    """A safetensors header of up to 2^64 - 1 bytes."""
    length = rng.choice([0, 1, len(data) - 7, len(data) + 1, 10**8, 2**30, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
    return length.to_bytes(8, "little") + data[8:]


# JSON.


def confused(document: Any, rng: Random, *, loose: frozenset[str] = frozenset()) -> str | None:
    """The text of a document with one value of another type, one key too many, too few or twice; nothing within the keys of `loose`."""
    path, value = rng.choice(list(_places(document, loose)))
    if rng.random() < 0.3 and isinstance(value, dict) and value and not _NAMED.intersection(map(str, path)):
        return _rekeyed(document, path, rng.choice(sorted(value)), value, rng)
    return _replaced(document, path, rng.choice(list(_wrong(value, rng))))


def set_to(document: Any, path: Path, value: object) -> Any:
    """A copy."""
    if not path:
        return value
    copy: Any = list(document) if isinstance(document, list) else dict(document)
    copy[path[0]] = set_to(copy[path[0]], path[1:], value)
    return copy


def _places(value: Any, loose: frozenset[str], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    yield path, value
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key not in loose:
            yield from _places(inner, loose, (*path, key))


def _replaced(document: Any, path: Path, raw: str) -> str:
    return json.dumps(set_to(document, path, _MARK), separators=(",", ":"), ensure_ascii=False).replace(f'"{_MARK}"', raw)


def _rekeyed(document: Any, path: Path, key: str, value: Mapping[str, Any], rng: Random) -> str:
    without = {name: inner for name, inner in value.items() if name != key}
    text = json.dumps(value[key])
    other = json.dumps(value[key] + "x" if isinstance(value[key], str) else [value[key]])
    twice = "{" + ",".join([*(f"{json.dumps(name)}:{json.dumps(inner)}" for name, inner in without.items())])
    comma = "," if without else ""
    return _replaced(
        document,
        path,
        rng.choice(
            [
                json.dumps({**value, rng.choice(["image", "", "__class__", "\x00", "kind "]): 1}),
                json.dumps(without),
                f"{twice}{comma}{json.dumps(key)}:{text},{json.dumps(key)}:{other}}}",
                f"{twice}{comma}{json.dumps(key)}:{other},{json.dumps(key)}:{text}}}",
                json.dumps({**without, key + "\u200b": value[key]}),
            ]
        ),
    )


def _wrong(value: Any, rng: Random) -> Iterator[str]:
    """JSON texts that stand for nothing that may stand where `value` does."""
    text, deep = json.dumps(value), rng.choice([3, 150, 900, 3000, 100_000])
    yield from (f"[{text}]" if not isinstance(value, list) else '"x"', "[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep)
    yield from (
        '"\\ud800"',
        '"\\udc00\\ud800"',
        "1e999",
        "NaN",
        "Infinity",
        "-Infinity",
        "1" + "0" * 400,
        "9" * 5000,
        ",",
        "undefined",
        "'x'",
    )
    if isinstance(value, bool):
        yield from ('"true"', "1", "0", "null", "1.0")
    elif isinstance(value, int):
        yield from (f'"{value}"', "true", f"{value}.5", str(10**30), str(2**64), "{}", f"{value}.0")
    elif isinstance(value, float):
        yield from (f'"{value}"', "true", "{}")
    elif isinstance(value, str):
        yield from ("5", "true", "null", "{}", "1.5")
    elif value is None:
        yield from ("true", '"x"', '{"a":1}')
    else:
        yield from ("null", "5", "true", '"x"', "{}" if isinstance(value, list) else "[]")


# Safetensors.


@dataclass(frozen=True, kw_only=True)
class Tensor:
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def array(self) -> Array:
        return np.frombuffer(self.data, _DTYPES[self.dtype]).reshape(self.shape)

    @classmethod
    def of(cls, array: Array) -> "Tensor":
        name = next(name for name, code in _DTYPES.items() if np.dtype(code) == array.dtype)
        return cls(dtype=name, shape=array.shape, data=np.ascontiguousarray(array).tobytes())


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A safetensors message taken apart, to be put together as no library would."""

    key: str
    """Of the header in safetensors' own metadata."""
    header: str
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, blob: bytes) -> "Parts":
        length = int.from_bytes(blob[:8], "little")
        outer, data = json.loads(blob[8 : 8 + length]), blob[8 + length :]
        ((key, header),) = outer.pop("__metadata__").items()
        tensors = {
            name: Tensor(dtype=about["dtype"], shape=tuple(about["shape"]), data=data[slice(*about["data_offsets"])])
            for name, about in outer.items()
        }
        return cls(key=key, header=header, tensors=tensors)

    def outer(self) -> dict[str, Any]:
        outer: dict[str, Any] = {"__metadata__": {self.key: self.header}}
        start = 0
        for name, tensor in self.tensors.items():
            end = start + len(tensor.data)
            outer[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
            start = end
        return outer

    def written(self, outer: str | None = None) -> bytes:
        text = (json.dumps(self.outer(), separators=(",", ":")) if outer is None else outer).encode()
        return len(text).to_bytes(8, "little") + text + b"".join(tensor.data for tensor in self.tensors.values())

    def with_tensor(self, name: str, tensor: Tensor) -> "Parts":
        return replace(self, tensors={**self.tensors, name: tensor})


def header_confused(blob: bytes, rng: Random) -> bytes | None:
    parts = Parts.of(blob)
    text = confused(json.loads(parts.header), rng)
    return None if text is None else replace(parts, header=text).written()


def outer_confused(blob: bytes, rng: Random) -> bytes | None:
    parts = Parts.of(blob)
    text = confused(parts.outer(), rng)
    return None if text is None else parts.written(text)


def header_set(name: str, values: tuple[object, ...]) -> Mutate:
    """One field of the header to one of these values."""

    def mutate(blob: bytes, rng: Random) -> bytes | None:
        parts = Parts.of(blob)
        header = json.loads(parts.header)
        wanted = [value for value in values if value != header.get(name) or type(value) is not type(header.get(name))]
        if name not in header or not wanted:
            return None
        return replace(parts, header=json.dumps({**header, name: rng.choice(wanted)}, separators=(",", ":"))).written()

    return mutate


def shape_huge(blob: bytes, rng: Random) -> bytes | None:
    """Declared, with nothing behind it."""
    parts = Parts.of(blob)
    if not parts.tensors:
        return None
    name, outer = rng.choice(sorted(parts.tensors)), parts.outer()
    shape = rng.choice([[2**28], [2**30], [2**32, 2**32], [2**62, 2**62], [2**64], [10**30], [0, 2**62], [2**40, 0], [-1], [2**20] * 64])
    outer[name]["shape"] = shape
    if rng.random() < 0.5:
        outer[name]["data_offsets"][1] = outer[name]["data_offsets"][0] + rng.choice([2**30, 2**32, 2**63, 2**64, -1, 0])
    return parts.written(json.dumps(outer))


def sparse_huge(blob: bytes, rng: Random) -> bytes | None:
    """Few of the largest entries, among so many that all of them would fill the memory."""
    parts = Parts.of(blob)
    shapes = [name for name in parts.tensors if name.endswith("#shape")]
    if not shapes:
        return None
    sides = rng.choice([[2**28], [2**14, 2**14], [2**31, 2], [2**32 - 1] * 8, [2**26, 1], [1] * 9, [2**27] + [1] * 7, [0, 2**31]])
    return parts.with_tensor(rng.choice(shapes), Tensor.of(np.array(sides, np.uint32))).written()


def dtype_wrong(blob: bytes, rng: Random) -> bytes | None:
    parts = Parts.of(blob)
    if not parts.tensors:
        return None
    name = rng.choice(sorted(parts.tensors))
    tensor = parts.tensors[name]
    if rng.random() < 0.5:
        dtype = rng.choice([code for code in _DTYPES.values() if np.dtype(code) != tensor.array().dtype])
        return parts.with_tensor(name, Tensor.of(np.zeros(tensor.shape, dtype))).written()
    size = len(tensor.data) // max(1, tensor.array().size)
    same_size = {1: ["I8", "U8", "BOOL", "F8_E4M3"], 2: ["F16", "BF16", "I16", "U16"], 4: ["F32", "I32", "U32"]}[size]
    others = [dtype for dtype in [*same_size, "BF8", "O", "float32", ""] if dtype != tensor.dtype]
    return parts.with_tensor(name, replace(tensor, dtype=rng.choice(others))).written()


def not_finite(blob: bytes, rng: Random) -> bytes | None:
    """NaN and infinities, and what becomes one on unpacking."""
    return _with_value(blob, rng, [np.nan, np.inf, -np.inf, 3e38])


def too_large(blob: bytes, rng: Random) -> bytes | None:
    return _with_value(blob, rng, [3 * LARGEST, -3 * LARGEST, 2e20])


def _with_value(blob: bytes, rng: Random, values: list[float]) -> bytes | None:
    parts = Parts.of(blob)
    names = [name for name, tensor in parts.tensors.items() if tensor.dtype == "F32" or name.endswith("#bf16")]
    if not names:
        return None
    name = rng.choice(names)
    array = np.array(parts.tensors[name].array())
    value = np.float32(rng.choice(values))
    array.flat[rng.randrange(array.size)] = value.view(np.uint32) >> 16 if array.dtype == np.uint16 else value
    return parts.with_tensor(name, Tensor.of(array)).written()


def shape_wrong(blob: bytes, rng: Random) -> bytes | None:
    parts = Parts.of(blob)
    if not parts.tensors:
        return None
    name = rng.choice(sorted(parts.tensors))
    array = parts.tensors[name].array()
    other = rng.choice([array[None], array[..., None], array.reshape(-1) if array.ndim > 1 else array[:, None], array.T[None]])
    return parts.with_tensor(name, Tensor.of(other)).written()


def shape_odd(blob: bytes, rng: Random) -> bytes | None:
    """Of no dimension, of no entry, of more dimensions than numpy has."""
    parts = Parts.of(blob)
    if not parts.tensors:
        return None
    name = rng.choice(sorted(parts.tensors))
    array = parts.tensors[name].array()
    shape = rng.choice(
        [(), (0,), (0, 3), (3, 0), (0, 0), (1,) * 5, (1,) * 40, (1,) * 65, (0,) * 100, (1,) * 1000, (0, 2**62), (0, 2**40, 2**40)]
    )
    size = int(0 not in shape)
    return parts.with_tensor(
        name, Tensor(dtype=parts.tensors[name].dtype, shape=shape, data=array.tobytes()[: size * array.itemsize])
    ).written()


def tensor_extra(blob: bytes, rng: Random) -> bytes | None:
    """One that nobody asked for, or another spelling of one that is there."""
    parts = Parts.of(blob)
    known = sorted(parts.tensors) or ["x"]
    base = rng.choice(known).partition("#")[0]
    if rng.random() < 0.4:
        packed = _packed(base, (4, 2), rng)
        return None if packed.keys() & parts.tensors.keys() else replace(parts, tensors={**parts.tensors, **packed}).written()
    names = ["image", "", "adapter/image", "choice-9/m.lora_B", "correction/image", "variate/image", "zz#scale", "zz#shape", "zz#values"]
    return parts.with_tensor(
        rng.choice([name for name in names if name not in parts.tensors]), Tensor.of(np.full((4, 2), 0.5, np.float32))
    ).written()


def _packed(name: str, shape: tuple[int, ...], rng: Random) -> dict[str, Tensor]:
    array = np.full(shape, 0.25, np.float32)
    plain = "other" if "lora" in name else name
    packed = pack(Adapter({plain: array}), rng.choice(ENCODINGS[1:]), share=0.5)
    return {name + key.removeprefix(plain): Tensor.of(one) for key, one in packed.items()}


def tensor_missing(blob: bytes, rng: Random) -> bytes | None:
    parts = Parts.of(blob)
    # A correction may be of some tensors only.
    names = [name for name in parts.tensors if not name.startswith("correction/")]
    if not names:
        return None
    gone = rng.choice(names)
    return replace(parts, tensors={name: tensor for name, tensor in parts.tensors.items() if name != gone}).written()


def alike(message: bytes, mutant: bytes) -> bool:
    """Whether it is as well formed as the good message: the same fields of the same types, the same tensors, another content."""
    try:
        one, other = Parts.of(message), Parts.of(mutant)
        same = _form(json.loads(one.header)) == _form(json.loads(other.header))
    except (ValueError, KeyError, TypeError):
        return False
    return same and {name: (tensor.dtype, tensor.shape) for name, tensor in one.tensors.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in other.tensors.items()
    }


def _form(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _form(inner) for key, inner in value.items()}
    return [_form(inner) for inner in value] if isinstance(value, list) else type(value)
