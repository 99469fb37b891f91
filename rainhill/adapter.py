"""Named arrays that are added to a frozen base model: LoRA pairs and small whole tensors. Hu et al. 2021, arXiv:2106.09685.

A pair is `<module>.lora_A` (r, d_in) and `<module>.lora_B` (d_out, r); it adds `scale * lora_B @ lora_A` to the module's weight, or
`scale * lora_B @ lora_R @ lora_A` where there is a core `<module>.lora_R` (r, r) too. A residual pair, `<module>.residual_A` (k, d_in) and
`<module>.residual_B` (d_out, k), adds `scale * residual_B @ residual_A`: no site trains it, a rule puts there what a pair of rank r
cannot hold, since the base is never changed. Any other name is a whole tensor (a head's weight or bias).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rainhill.errors import ProtocolError

Array = NDArray[Any]

A_SUFFIX = ".lora_A"
B_SUFFIX = ".lora_B"
CORE_SUFFIX = ".lora_R"
RESIDUAL_A_SUFFIX = ".residual_A"
RESIDUAL_B_SUFFIX = ".residual_B"
_PAIRS = ((A_SUFFIX, B_SUFFIX), (RESIDUAL_A_SUFFIX, RESIDUAL_B_SUFFIX))
_FACTORS = {A_SUFFIX: "A", B_SUFFIX: "B", CORE_SUFFIX: "R", RESIDUAL_A_SUFFIX: "residual", RESIDUAL_B_SUFFIX: "residual"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One module's LoRA factors: A (r, d_in) and B (d_out, r)."""

    a: Array
    b: Array

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    def product(self) -> Array:
        """(d_out, d_in), before scaling."""
        return self.b @ self.a


class Adapter(Mapping[str, Array]):
    """Read-only arrays by name, in the order of their names; arithmetic is name by name."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays: dict[str, Array] = {}
        for name in sorted(arrays):
            # safetensors writes memory as it lies: an array in Fortran order would come back scrambled.
            array = np.array(arrays[name], order="C")
            if not np.issubdtype(array.dtype, np.floating):
                raise ProtocolError(f"{name}: dtype {array.dtype} is not a floating-point one")
            array.flags.writeable = False
            self._arrays[name] = array
        # Of all, before any is compared with another.
        for name, array in self._arrays.items():
            if split_name(name)[1] and array.ndim != 2:
                raise ProtocolError(f"{name}: a LoRA factor has two dimensions, not {array.ndim}")
        for name in self._arrays:
            self._check_pair(name)

    def _check_pair(self, name: str) -> None:
        module, suffix = split_name(name)
        for suffix_a, suffix_b in _PAIRS:
            a, b = self._arrays.get(module + suffix_a), self._arrays.get(module + suffix_b)
            if suffix == suffix_a and b is not None and self._arrays[name].shape[0] != b.shape[-1]:
                raise ProtocolError(
                    f"{module}: rank {len(self._arrays[name])} of {suffix_a[1:]} is not rank {b.shape[-1]} of {suffix_b[1:]}"
                )
            if suffix == CORE_SUFFIX and a is not None and self._arrays[name].shape != (len(a), len(a)):
                raise ProtocolError(f"{name}: shape {self._arrays[name].shape} is not {(len(a), len(a))}")

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Adapter({len(self)} arrays, {self.nbytes} bytes, {self.fingerprint()[:12]})"

    def __eq__(self, other: object) -> bool:
        """The same names, shapes, dtypes and bits."""
        return isinstance(other, Adapter) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __add__(self, other: "Adapter") -> "Adapter":
        return self._with(other, np.add)

    def __sub__(self, other: "Adapter") -> "Adapter":
        return self._with(other, np.subtract)

    def __mul__(self, factor: float) -> "Adapter":
        return Adapter({name: (array * factor).astype(array.dtype) for name, array in self.items()})

    __rmul__ = __mul__

    def _with(self, other: "Adapter", operation: Callable[[Array, Array], Array]) -> "Adapter":
        check_shapes(other, {name: array.shape for name, array in self.items()})
        return Adapter({name: operation(array, other[name]) for name, array in self.items()})

    def replace(self, arrays: Mapping[str, Array]) -> "Adapter":
        """The same adapter with some arrays exchanged, or added."""
        return Adapter({**self, **arrays})

    def only(self, keep: Callable[[str], bool]) -> "Adapter":
        return Adapter({name: array for name, array in self.items() if keep(name)})

    def pairs(self) -> dict[str, Pair]:
        """Module -> its trained factors, for every module that has both."""
        return self._pairs(A_SUFFIX, B_SUFFIX)

    def residuals(self) -> dict[str, Pair]:
        """Module -> its residual factors, for every module that has both."""
        return self._pairs(RESIDUAL_A_SUFFIX, RESIDUAL_B_SUFFIX)

    def _pairs(self, suffix_a: str, suffix_b: str) -> dict[str, Pair]:
        modules = [name.removesuffix(suffix_a) for name in self if name.endswith(suffix_a)]
        return {module: Pair(a=self[module + suffix_a], b=self[module + suffix_b]) for module in modules if module + suffix_b in self}

    def product(self, module: str) -> Array:
        """(d_out, d_in), what the module's weight gains before scaling: pair, core and residual together."""
        pair, core, residual = self.pairs()[module], self.get(module + CORE_SUFFIX), self.residuals().get(module)
        own = pair.product() if core is None else pair.b @ core @ pair.a
        return own if residual is None else own + residual.product()

    def norm(self) -> float:
        """The l2 norm over all entries, computed in float64."""
        return float(np.sqrt(sum(np.sum(np.square(array, dtype=np.float64)) for array in self.values())))

    def max_abs_difference(self, other: "Adapter") -> float:
        return max((float(np.max(np.abs(array), initial=0.0)) for array in (self - other).values()), default=0.0)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.values())

    def to_bytes(self) -> bytes:
        """safetensors; the same adapter always gives the same bytes."""
        return bytes(save({name: np.ascontiguousarray(array) for name, array in self.items()}))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Adapter":
        try:
            return cls(load(data))
        # KeyError: a dtype that numpy does not have.
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise ProtocolError(f"not a safetensors adapter: {error}") from error

    def fingerprint(self) -> str:
        """sha256 of the safetensors form, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def padded(array: Array, shape: tuple[int, ...]) -> Array:
    """Zeros up to `shape` behind the array's own rows and columns: a factor of lower rank in a place of higher."""
    wide = np.zeros(shape, array.dtype)
    wide[tuple(map(slice, array.shape))] = array
    return wide


def split_name(name: str) -> tuple[str, str]:
    """Module and suffix of a LoRA factor, or the name and "" of a whole tensor."""
    module, dot, last = name.rpartition(".")
    return (module, dot + last) if dot + last in _FACTORS else (name, "")


def factor(name: str) -> str:
    """ "A", "B" or "R" for a LoRA factor, "residual" for what a rule keeps, "" for a whole tensor."""
    return _FACTORS.get(split_name(name)[1], "")


def check_shapes(adapter: Mapping[str, Array], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ProtocolError for the first name that is missing, unknown or of another shape."""
    for name in sorted(expected.keys() | adapter.keys()):
        if name not in adapter:
            raise ProtocolError(f"{name}: missing, expected shape {expected[name]}")
        if name not in expected:
            raise ProtocolError(f"{name}: not a declared tensor")
        if adapter[name].shape != expected[name]:
            raise ProtocolError(f"{name}: shape {adapter[name].shape} is not {expected[name]}")
