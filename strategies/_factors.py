"""Arithmetic of low-rank products that never builds them: QR of each stack and the SVD of a small core."""

from collections.abc import Sequence

import numpy as np

from rainhill.adapter import A_SUFFIX, B_SUFFIX, CORE_SUFFIX, Adapter, Array, Pair, padded, split_name


def svd(pairs: Sequence[Pair], weights: Sequence[float]) -> tuple[Array, Array, Array]:
    """U (d_out, k), all k singular values, V^T (k, d_in) of sum w_i B_i A_i, in float64."""
    # The weight goes into one stack only: in both it would count squared.
    b_stack = np.concatenate([weight * pair.b.astype(np.float64) for weight, pair in zip(weights, pairs, strict=True)], axis=1)
    a_stack = np.concatenate([pair.a.astype(np.float64) for pair in pairs], axis=0)
    q_b, r_b = np.linalg.qr(b_stack)
    q_a, r_a = np.linalg.qr(a_stack.T)
    u, spectrum, vt = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return q_b @ u, spectrum, vt @ q_a.T


def numerical_rank(spectrum: Array, size: int) -> int:
    """How many singular values stand above rounding, for a matrix whose longer side is `size`."""
    if not spectrum.size or spectrum[0] == 0.0:
        return 0
    return int(np.count_nonzero(spectrum > spectrum[0] * np.finfo(np.float64).eps * size))


def balanced(u: Array, spectrum: Array, vt: Array, rank: int) -> Pair:
    """The best factors of that rank (Eckart-Young), both with the roots of the singular values."""
    root = np.sqrt(spectrum[:rank])
    return Pair(a=root[:, None] * vt[:rank], b=u[:, :rank] * root)


def compress(pairs: Sequence[Pair], weights: Sequence[float], *, cap: int | None = None) -> Pair:
    """sum w_i B_i A_i as one pair of as low a rank as holds it, or of at most `cap`."""
    u, spectrum, vt = svd(pairs, weights)
    # Terms that cancel leave rounding of their own size behind, however small the sum is.
    terms = sum(abs(weight) * np.linalg.norm(pair.b) * np.linalg.norm(pair.a) for weight, pair in zip(weights, pairs, strict=True))
    rounding = max(np.finfo(factor.dtype).eps for pair in pairs for factor in (pair.a, pair.b))
    held = int(np.count_nonzero(spectrum > terms * rounding * np.sqrt(max(u.shape[0], vt.shape[1]))))
    return balanced(u, spectrum, vt, held if cap is None else min(held, cap))


def gram(pairs: Sequence[Pair], others: Sequence[Pair]) -> Array:
    """(n, m) inner products <B_i A_i, B_j A_j> = tr(B_i^T B_j A_j A_i^T), through r x r matrices."""
    b, b_other = (np.concatenate([pair.b.astype(np.float64) for pair in some], axis=1) for some in (pairs, others))
    a, a_other = (np.concatenate([pair.a.astype(np.float64) for pair in some], axis=0) for some in (pairs, others))
    entries = (b.T @ b_other) * (a @ a_other.T)
    rows = np.cumsum([0, *(pair.rank for pair in pairs)])[:-1]
    columns = np.cumsum([0, *(pair.rank for pair in others)])[:-1]
    return np.add.reduceat(np.add.reduceat(entries, rows, axis=0), columns, axis=1)


def difference(pair: Pair, other: Pair) -> Pair:
    """A pair of the added ranks whose product is B A - B' A'."""
    return Pair(a=np.concatenate([pair.a, other.a], axis=0), b=np.concatenate([pair.b, -other.b], axis=1))


def with_pairs(adapter: Adapter, pairs: dict[str, Pair]) -> Adapter:
    """The adapter with these modules' factors, in the dtype that it had."""
    arrays: dict[str, Array] = {}
    for module, pair in pairs.items():
        arrays[module + A_SUFFIX] = pair.a.astype(adapter[module + A_SUFFIX].dtype)
        arrays[module + B_SUFFIX] = pair.b.astype(adapter[module + B_SUFFIX].dtype)
    return adapter.replace(arrays)


def narrow(adapter: Adapter, rank: int) -> Adapter:
    """The first `rank` rows of every A and columns of every B; pairs of lower rank stay as they are. Cho et al. 2024, arXiv:2401.06432."""
    return Adapter({name: array[_leading(name, rank)] for name, array in adapter.items()})


def widen(adapter: Adapter, like: Adapter) -> Adapter:
    """Rows and columns of zeros up to the ranks of `like`; the products stay."""
    return Adapter({name: padded(array, like[name].shape) if name in like else array for name, array in adapter.items()})


def _leading(name: str, rank: int) -> tuple[slice, ...]:
    suffix = split_name(name)[1]
    return {A_SUFFIX: (slice(rank),), B_SUFFIX: (slice(None), slice(rank))}.get(suffix, (slice(None),))


def effective(adapter: Adapter) -> dict[str, Pair]:
    """Module -> factors of its product, with the core in B where there is one."""
    return {
        module: Pair(a=pair.a, b=pair.b @ adapter[module + CORE_SUFFIX]) if module + CORE_SUFFIX in adapter else pair
        for module, pair in adapter.pairs().items()
    }
