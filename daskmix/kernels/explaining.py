"""Each row shared out among the components that explain it: mixtures, compiled."""

from functools import cache

import numpy as np
import scipy.linalg  # noqa: F401  numba's np.dot calls SciPy's BLAS

from daskmix.block import Array
from daskmix.kernels import Centred, Explained, Frame, Order, Product, Tails, reference, upper_triangle
from daskmix.kernels.elementary import exp, log1p
from daskmix.kernels.jit import jit
from daskmix.kernels.registers import CENTRES, VECTORS, block_rows, multiply_block, sum_block
from daskmix.kernels.tiles import add, enter, frozen, repeated, transpose, weights_of

BLOCK_FEATURES = 256
# Of a block of features, and of log densities of all models: both stay in the second-level cache.
FEATURES_TILE_BYTES = 1 << 18
JOINT_TILE_BYTES = 1 << 20
MOST_ROWS, STEP = 144, 48  # a whole number of blocks, and no power of two, whose columns share a set of the cache
_ORDERS = {Order.trace: 0, Order.diagonal: 1, Order.full: 2, Order.pooled: 3}


@jit
def _keep_known(joint, pick, start, b):
    """Of rows whose component is known, the others are made so unlikely that their share is zero."""
    for i in range(b):
        if pick[start + i] < 0:
            known = int(-1 - pick[start + i])
            own = joint[known, i]
            for j in range(joint.shape[0]):
                joint[j, i] = own if j == known else own - joint.dtype.type(1000)


@jit
def _give_whole(joint, factor, w, pick, start, b):
    """Shares of rows, not normalised, in columns -> 1 for one component of each and 0 for the others, in place.

    What they are still to be multiplied by becomes the weight of the row.
    """
    k = joint.shape[0]
    for i in range(b):
        if not pick[start + i] >= 0:
            continue
        total = 0.0
        for j in range(k):
            total += joint[j, i]
        left, chosen = pick[start + i] * total, k - 1
        for j in range(k):
            left -= joint[j, i]
            # The largest share is exp(0).
            if (left <= 0) if pick[start + i] > 0 else (joint[j, i] == 1):
                chosen = j
                break
        for j in range(k):
            joint[j, i] = 0
        joint[chosen, i] = 1
        factor[i] = w[start + i] if len(w) else 1.0


@jit
def softmax(joint, top, total, w, pick, start, b):
    """Columns of log p(x, k) -> weighted responsibilities, in place; (score, certainty) of the tile."""
    k = joint.shape[0]
    one = joint.dtype.type(1)
    if len(pick):
        _keep_known(joint, pick, start, b)
    for i in range(b):
        top[i] = joint[0, i]
    for j in range(1, k):
        for i in range(b):
            top[i] = max(top[i], joint[j, i])
    for i in range(b):
        total[i] = 0
    for j in range(k):
        for i in range(b):
            share = exp(joint[j, i] - top[i])
            joint[j, i] = share
            total[i] += share
    score, certainty = 0.0, 0.0
    for i in range(b):
        weight = w[start + i] if len(w) else 1.0
        log_total = np.log(total[i])
        score += weight * (top[i] + log_total)
        certainty -= weight * log_total
        total[i] = joint.dtype.type(weight) * (one / total[i])
    if len(pick):
        _give_whole(joint, total, w, pick, start, b)
    for j in range(k):
        for i in range(b):
            joint[j, i] *= total[i]
    return score, certainty


@jit
def _stretch(joint, logs, tails, b):
    """Columns of q -> log p(x, k), in place, and log(1 - 2 q / nu); `tails` are those of `Tails.rows`."""
    zero = joint.dtype.type(0)
    for j in range(joint.shape[0]):
        slope, constant, power = tails[0, j], tails[1, j], tails[2, j]
        for i in range(b):
            # Rounding may leave more than nothing.
            log = log1p(max(slope * joint[j, i], zero))
            logs[j, i] = log
            joint[j, i] = constant - power * log


@jit
def _pull(joint, logs, tails, told, total, b):
    """Weighted responsibilities -> those times u, in place, and of each row in total.

    `told` (2, k) gains the sum of the former, and that of log u - u.
    """
    for i in range(b):
        total[i] = 0
    for j in range(logs.shape[0]):
        most = tails[3, j]
        mass, lost = joint.dtype.type(0), joint.dtype.type(0)
        for i in range(b):
            share = joint[j, i]
            u = most * exp(-logs[j, i])
            mass += share
            lost += share * (logs[j, i] + u)
            joint[j, i] = share * u
            total[i] += share * u
        told[0, j] += mass
        told[1, j] += mass * np.log(most) - lost


@jit
def _columns(y, out):
    """The features of a tile as rows of `out`; below them ones, zeros (both are there) and the sum of squares.

    Where `out` has room for it what is there of each feature comes between, and what is missing is zero.
    """
    (n, d), squares = y.shape, len(out) - 1
    transpose(y.reshape(n * d), 0, out[:d])
    if len(out) > d + 3:
        for f in range(d):
            for i in range(out.shape[1]):
                there = not np.isnan(out[f, i])
                out[d + f, i] = there
                out[f, i] = out[f, i] if there else out.dtype.type(0)
    for i in range(out.shape[1]):
        out[squares, i] = 0
    for f in range(d):
        for i in range(out.shape[1]):
            out[squares, i] += out[f, i] * out[f, i]


@jit
def _multiply(columns, left, right, phi):
    """Each feature of phi is the product of two columns."""
    for f in range(len(phi)):
        one, other = left[f], right[f]
        for i in range(phi.shape[1]):
            phi[f, i] = columns[one, i] * columns[other, i]


@jit
def _log_joint(columns, left, right, theta, phi, joint):
    """log p(x, k) of a tile, block by block of its features; phi holds the last block."""
    p, size = phi.shape
    for j in range(len(joint)):
        joint[j] = 0
    for block in range(len(theta)):
        _multiply(columns, left[block], right[block], phi)
        for at in range(0, size, block_rows(phi)):
            for j in range(0, len(joint), CENTRES):
                multiply_block(theta[block], j, phi, p, size, at, joint)


@jit
def _moments(joint, phi, sums):
    """Sums of the features of a tile, by responsibilities."""
    p, size = phi.shape
    for f in range(0, p, VECTORS):
        for j in range(0, len(joint), CENTRES):
            sum_block(joint, j, phi, f, size, sums, p)


@jit
def _joint_product(x, shift, scale, width, left, right, theta, tails, whiten, size, out):
    n, d = x.shape
    (_, filled, p), k = theta.shape, out.shape[1]
    flat, shifts, scales = x.reshape(n * d), repeated(shift), repeated(scale)
    y = np.zeros((size, d), theta.dtype)
    whitened = np.zeros((size, d), theta.dtype)
    columns = np.zeros((width, size), theta.dtype)
    columns[width - 3] = theta.dtype.type(1)
    phi = np.empty((p, size), theta.dtype)
    joint = np.empty((filled, size), theta.dtype)
    of_rows = np.empty((size, k), theta.dtype)
    for start in range(0, n, size):
        b = min(size, n - start)
        enter(flat, start * d, b * d, shifts, scales, y.reshape(size * d))
        if len(whiten) > 0:
            np.dot(y, whiten, whitened)
            _columns(whitened, columns)
        else:
            _columns(y, columns)
        _log_joint(columns, left, right, theta, phi, joint)
        if len(tails):
            _stretch(joint[:k], joint[:k], tails, b)
        transpose(joint[:k].reshape(size * k), 0, of_rows)
        out[start : start + b] = of_rows[:b]


@jit
def _explain_product(
    x, w, pick, shift, scale, width, left, right, theta, edges, tails, whiten, sums, pooled, told, score, certainty,
    size,
):  # fmt: skip
    """Theta (blocks, k, features of a block); model m has the rows edges[m] to edges[m + 1] of k.

    phi is made block by block, and made again for the sums: many features do not fit the second-level cache, and a
    product costs less than to fetch what it gave from further away.
    """
    n, d = x.shape
    blocks, filled, p = theta.shape
    flat, shifts, scales = x.reshape(n * d), repeated(shift), repeated(scale)
    one = theta.dtype.type(1)
    y = np.zeros((size, d), theta.dtype)
    whitened = np.zeros((size, d), theta.dtype)
    columns = np.zeros((width, size), theta.dtype)
    columns[width - 3] = one
    phi = np.empty((p, size), theta.dtype)
    joint = np.empty((filled, size), theta.dtype)
    top = np.empty(size, theta.dtype)
    total = np.empty(size, theta.dtype)
    tile_sums = np.empty((filled, p), theta.dtype)
    tile_pooled = np.empty((d, d), theta.dtype)
    logs = np.empty((told.shape[1], size), theta.dtype)
    is_pooled = len(whiten) > 0
    for start in range(0, n, size):
        b = min(size, n - start)
        enter(flat, start * d, b * d, shifts, scales, y.reshape(size * d))
        if is_pooled:
            np.dot(y, whiten, whitened)
            _columns(whitened, columns)
        else:
            _columns(y, columns)
        _log_joint(columns, left, right, theta, phi, joint)
        if len(tails):
            _stretch(joint[: len(logs)], logs, tails, b)
        for m in range(len(score)):
            s, c = softmax(joint[edges[m] : edges[m + 1]], top, total, w, pick, start, b)
            score[m] += s
            certainty[m] += c
        if len(tails):
            _pull(joint, logs, tails, told, total, b)
        joint[:, b:] = 0  # what a last, shorter tile leaves over counts for nothing
        if is_pooled:
            # The sums are of the rows themselves, not of the whitened ones.
            _columns(y, columns)
        for block in range(blocks - 1, -1, -1):
            if is_pooled or block < blocks - 1:
                _multiply(columns, left[block], right[block], phi)
            _moments(joint, phi, tile_sums)
            add(sums[block], tile_sums)
        if is_pooled:
            for i in range(size):
                weight = one if i < b else theta.dtype.type(0)
                if i < b and len(w):
                    weight = theta.dtype.type(w[start + i])
                if i < b and len(tails):
                    weight = total[i]
                for f in range(d):
                    whitened[i, f] = weight * y[i, f]
            np.dot(whitened.T, y, tile_pooled)
            add(pooled, tile_pooled)


@jit
def _explain_centred(
    x, w, pick, shift, scale, order, means, narrow, wide, constants, tails, first, narrow_second, wide_second, mass,
    told,
):  # fmt: skip
    """Order 0 trace, 1 diagonal: factors in `narrow` (k, d); 2 full, 3 pooled: factors in `wide` (k, d, d)."""
    n, d = x.shape
    k = means.shape[0]
    size = 256
    y = np.zeros((size, d))
    z = np.zeros((size, d))
    zf = np.zeros((size, d))
    joint = np.zeros((k, size))
    top = np.empty(size)
    total = np.empty(size)
    logs = np.empty((told.shape[1], size))
    tile_second = np.empty((d, d))
    score, certainty = 0.0, 0.0
    for start in range(0, n, size):
        b = min(size, n - start)
        for i in range(b):
            for f in range(d):
                y[i, f] = (x[start + i, f] - shift[f]) * scale[f]
        for j in range(k):
            for i in range(b):
                for f in range(d):
                    z[i, f] = y[i, f] - means[j, f]
            if order >= 2:
                np.dot(z, wide[j], zf)
            else:
                for i in range(b):
                    for f in range(d):
                        zf[i, f] = z[i, f] * narrow[j, f]
            for i in range(b):
                squared = 0.0
                for f in range(d):
                    squared += zf[i, f] * zf[i, f]
                joint[j, i] = constants[j] - 0.5 * squared
        if len(tails):
            _stretch(joint, logs, tails, b)
        s, c = softmax(joint, top, total, w, pick, start, b)
        score += s
        certainty += c
        if len(tails):
            _pull(joint, logs, tails, told, total, b)
        for j in range(k):
            for i in range(size):
                share = joint[j, i] if i < b else 0.0
                if i < b:
                    mass[j] += share
                for f in range(d):
                    z[i, f] = y[i, f] - means[j, f]
                    zf[i, f] = share * z[i, f]
            for i in range(b):
                for f in range(d):
                    first[j, f] += zf[i, f]
                    narrow_second[j, f] += zf[i, f] * z[i, f]
            if order >= 2:
                np.dot(zf.T, z, tile_second)
                for f in range(d):
                    for g in range(d):
                        wide_second[j, f, g] += tile_second[f, g]
    return score, certainty


def explain(
    x: Array, w: Array | None, frame: Frame, densities: Product | Centred, pick: Array | None = None
) -> list[Explained]:
    if isinstance(densities, Product):
        return _by_product(x, w, frame, densities, pick)
    return [_by_centred(x, w, frame, densities, pick)]


def _product_tile(n: int, k: int, p: int, itemsize: int) -> int:
    """How many of n rows at a time, with blocks of p features."""
    rows = min(MOST_ROWS, FEATURES_TILE_BYTES // (p * itemsize), JOINT_TILE_BYTES // (k * itemsize))
    return max(STEP, min(rows // STEP, -(-n // STEP)) * STEP)


def _by_product(x: Array, w: Array | None, frame: Frame, densities: Product, pick: Array | None) -> list[Explained]:
    d, (k, p) = x.shape[1], densities.theta.shape
    width, left, right, theta, whiten, size = _tiled(len(x), d, densities)
    edges = frozen([0, *densities.cuts, k], np.int64)
    block_sums, pooled = np.zeros((len(theta), k, theta.shape[2])), np.zeros((d, d))
    tails, told = _tails(densities.tails, d, theta.dtype)
    score, certainty = np.zeros((2, len(edges) - 1))
    _explain_product(
        frozen(x), weights_of(w), weights_of(pick), frozen(frame.shift, x.dtype), frozen(frame.scale, x.dtype),
        width, left, right, theta, edges, tails, whiten, block_sums, pooled, told, score, certainty, size,
    )  # fmt: skip
    sums = block_sums.transpose(1, 0, 2).reshape(k, -1)[:, :p]
    answers = []
    for own, s, c in zip(np.split(sums, densities.cuts), score, certainty, strict=True):
        seen = own[:, -1 - d : -1].copy() if densities.observed else None
        second = _second(own, pooled, densities.order)
        found = Explained(own[:, -1].copy(), own[:, :d].copy(), second, float(s), float(c), seen)
        answers.append(_with_told(found, told))
    return answers


def _tails(tails: Tails | None, d: int, dtype: np.dtype) -> tuple[Array, Array]:
    """As the loops take them, and room for what they tell; both of no components where there are none."""
    rows = np.empty((0, 0)) if tails is None else tails.rows(d)
    return frozen(rows, dtype), np.zeros((2, rows.shape[1]))


def _with_told(found: Explained, told: Array) -> Explained:
    """What the loops call mass is what the moments are of."""
    return found._replace(mass=told[0], heft=found.mass, tail=told[1]) if told.size else found


def _tiled(n: int, d: int, densities: Product) -> tuple[int, Array, Array, Array, Array, int]:
    """How many columns features are made of, which, and theta in blocks, the whitening or nothing, rows of a tile."""
    theta, dtype = densities.theta, densities.theta.dtype
    left, right = _factors(densities.order, d, densities.observed)
    whiten = np.empty((0, 0)) if densities.whiten is None else densities.whiten
    size = _product_tile(n, len(theta), left.shape[1], dtype.itemsize)
    width = (2 * d if densities.observed else d) + 3
    return width, left, right, frozen(_in_blocks(theta, *left.shape)), frozen(whiten, dtype), size


def joint(x: Array, frame: Frame, densities: Product | Centred) -> Array:
    if not isinstance(densities, Product):
        return reference.joint(x, frame, densities)
    width, left, right, theta, whiten, size = _tiled(len(x), x.shape[1], densities)
    out = np.empty((len(x), len(densities.theta)), theta.dtype)
    shift, scale = frozen(frame.shift, x.dtype), frozen(frame.scale, x.dtype)
    tails, _ = _tails(densities.tails, x.shape[1], theta.dtype)
    _joint_product(frozen(x), shift, scale, width, left, right, theta, tails, whiten, size, out)
    return out


def _in_blocks(theta: Array, blocks: int, length: int) -> Array:
    """Theta (k, p) -> (blocks, k, length), k and features filled up with zeros."""
    k, p = theta.shape
    filled = np.zeros((-(-k // CENTRES) * CENTRES, blocks * length), theta.dtype)
    filled[:k, :p] = theta
    return filled.reshape(-1, blocks, length).transpose(1, 0, 2)


@cache
def _factors(order: Order, d: int, observed: bool) -> tuple[Array, Array]:
    """The two columns (see `_columns`) whose product each feature is: (blocks, features), a multiple of VECTORS."""
    there = np.arange(d, 2 * d if observed else d)
    ones, zeros, squares = d + len(there) + np.arange(3)
    own = np.arange(d)
    rows, columns = {
        Order.diagonal: lambda: (own, own),
        Order.full: lambda: upper_triangle(d),
        Order.trace: lambda: ([squares], [ones]),
        Order.pooled: lambda: ([squares], [ones]),
    }[order]()
    left = np.concatenate([own, rows, there, [ones]])
    right = np.concatenate([np.full(d, ones), columns, np.full(len(there), ones), [ones]])
    blocks = -(-len(left) // BLOCK_FEATURES)
    length = -(-len(left) // (blocks * VECTORS)) * VECTORS
    padded = [np.pad(side, (0, blocks * length - len(side)), constant_values=zeros) for side in (left, right)]
    left, right = (frozen(side.reshape(blocks, length), np.int64) for side in padded)
    return left, right


def _second(sums: Array, pooled: Array, order: Order) -> Array:
    k, d = len(sums), len(pooled)
    if order is Order.pooled:
        return pooled
    if order is Order.trace:
        return sums[:, d].copy()
    if order is Order.diagonal:
        return sums[:, d : 2 * d].copy()
    rows, columns = upper_triangle(d)
    second = np.empty((k, d, d))
    second[:, rows, columns] = second[:, columns, rows] = sums[:, d:-1]
    return second


def _by_centred(x: Array, w: Array | None, frame: Frame, densities: Centred, pick: Array | None) -> Explained:
    k, d = densities.means.shape
    order = densities.order
    general = order in (Order.full, Order.pooled)
    narrow, wide = np.empty((k, d)), np.empty((k if general else 0, d, d))
    if general:
        wide[:] = densities.factors
    else:
        narrow[:] = densities.factors.reshape(k, -1)
    mass, first, diagonal, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d)), np.zeros_like(wide)
    tails, told = _tails(densities.tails, d, np.dtype(np.float64))
    score, certainty = _explain_centred(
        frozen(x), weights_of(w), weights_of(pick), frozen(frame.shift, x.dtype), frozen(frame.scale, x.dtype),
        _ORDERS[order], frozen(densities.means), frozen(narrow), frozen(wide), frozen(densities.constants), tails,
        first, diagonal, second, mass, told,
    )  # fmt: skip
    answer = {
        Order.trace: lambda: diagonal.sum(axis=1),
        Order.diagonal: lambda: diagonal,
        Order.full: lambda: second,
        Order.pooled: lambda: second.sum(axis=0),
    }[order]()
    return _with_told(Explained(mass, first, answer, score, certainty), told)
