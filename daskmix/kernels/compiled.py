"""The kernels compiled by numba: one call for many rows, without the interpreter lock, tile by tile.

Rows of a tile lie along the last axis, so that every loop over rows is a vector operation; BLAS does the products.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import accumulate
from typing import Any

import numba
import numpy as np
import scipy.linalg  # noqa: F401  numba's np.dot calls SciPy's BLAS
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from daskmix.block import Array
from daskmix.kernels import Assigned, Bounds, Centred, Densities, Explained, Frame, Order, Product, reference
from daskmix.kernels.elementary import exp
from daskmix.kernels.reference import distance

__all__ = ["assign", "assign_again", "distance", "explain", "joint"]

# Sums may be reordered for vectors; infinities and NaN keep their meaning.
FASTMATH = {"contract", "reassoc", "nsz"}
EXACT = FASTMATH - {"reassoc"}
SQUARE = 8  # rows and columns that are transposed at a time
# Rows: few enough for the first-level cache where features are few. No power of two, whose columns share a cache set.
ASSIGN_TILE = 240
STRIPS = (240, 120, 80, 48, 24)  # rows of a tile that are multiplied at a time
SMALL_PRODUCT = 1_000_000  # multiplications: up to so many, OpenBLAS does not copy the factors first, and is faster
LINE = 64  # bytes in a cache line
BLOCK_FEATURES = 256
# Of a block of features, and of log densities of all models: both stay in the second-level cache, and OpenBLAS
# multiplies what is that small without copying it first.
FEATURES_TILE_BYTES = 1 << 18
JOINT_TILE_BYTES = 1 << 20
STEP = 64  # rows
SMALL_STEP, LEAST_STRIP = 16, 48  # rows, of tiles that are multiplied without copying; of fewer that is no faster
NO_WEIGHTS = np.empty(0)


def _jit(function: Callable[..., Any], fastmath: set[str] = FASTMATH) -> Any:
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write a cache: compile once per process
        return numba.njit(**options)(function)


def _in_all_lanes(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of so many times this number."""
    first = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, ir.IntType(32)(0)
    )
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


@intrinsic
def _transpose_square(typing: Any, a: Any, at: Any, step: Any, out: Any, to: Any, stride: Any) -> Any:
    """Eight rows of eight in the flat array `a`, `step` apart, become columns in `out`: in registers, by shuffles."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = ir.VectorType(context.get_value_type(signature.args[0].dtype), SQUARE)
        alignment = signature.args[0].dtype.bitwidth // 8

        def address(array: int, row: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            begin, apart = arguments[array + 1], arguments[array + 2]
            offset = builder.add(begin, builder.mul(apart, ir.Constant(begin.type, row)))
            return builder.bitcast(builder.gep(data, [offset]), values.as_pointer())

        def interleaved(first: int) -> Any:
            pairs = [first + i // 2 + i % 2 * SQUARE for i in range(SQUARE)]
            return ir.Constant(ir.VectorType(ir.IntType(32), SQUARE), pairs)

        rows = [builder.load(address(0, row), align=alignment) for row in range(SQUARE)]
        halves = [interleaved(0), interleaved(SQUARE // 2)]
        # Interleaving the first half of the rows with the second, log2 of their number times, transposes them.
        for _ in range(SQUARE.bit_length() - 1):
            pairs = zip(rows[: SQUARE // 2], rows[SQUARE // 2 :], strict=True)
            rows = [builder.shuffle_vector(one, other, half) for one, other in pairs for half in halves]
        for row, value in enumerate(rows):
            builder.store(value, address(3, row), align=alignment)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, out, types.intp, types.intp), emit


@_jit
def _transpose(a, out):
    """Copy a (n, m) to out (m, n)."""
    n, m = a.shape
    flat, flat_out = a.reshape(n * m), out.reshape(n * m)
    whole, squares = n // SQUARE * SQUARE, m // SQUARE * SQUARE
    for i in range(0, whole, SQUARE):
        for j in range(0, squares, SQUARE):
            _transpose_square(flat, i * m + j, m, flat_out, j * n + i, n)
        for j in range(squares, m):
            for row in range(i, i + SQUARE):
                out[j, row] = a[row, j]
    for i in range(whole, n):
        for j in range(m):
            out[j, i] = a[i, j]


@intrinsic
def _prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of element `index` of a flat array, without waiting for it."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), kind)
        # To read (0), into the second level (2), data (1).
        builder.call(fetch, [address, word(0), word(2), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@intrinsic
def _per_line(typing: Any, array: Any) -> Any:
    """How many elements are in a cache line: a constant to the compiler."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, 8 * LINE // signature.args[0].dtype.bitwidth)

    return types.intp(array), emit


@_jit
def _add(sums, more):
    """sums += more, without an array in between."""
    for j in range(sums.shape[0]):
        for f in range(sums.shape[1]):
            sums[j, f] += more[j, f]


@_jit
def _repeated(a):
    """The same numbers SQUARE times: loops over a row alone are too short where features are few."""
    out = np.empty(SQUARE * len(a), a.dtype)
    for i in range(0, len(out), len(a)):
        out[i : i + len(a)] = a
    return out


@_jit
def _enter(flat, begin, count, shifts, scales, y):
    """`count` numbers of rows, at flat[begin:], in the frame; shifts and scales of several rows."""
    for i in range(0, count, len(shifts)):
        m = min(len(shifts), count - i)
        rows, out = flat[begin + i : begin + i + m], y[i : i + m]
        for j in range(m):
            out[j] = (rows[j] - shifts[j]) * scales[j]


@_jit
def _nothing_to_do(shift, scale):
    """Whether rows are in the frame as they come."""
    return not np.any(shift != 0) and np.all(scale == 1)


@_jit
def _in_frame(flat, begin, count, shifts, scales, as_they_are, out):
    """A tile in the frame, flat: a copy in `out`, or the rows where they lie if as many follow as are read beyond."""
    if as_they_are and begin + len(out) <= len(flat):
        return flat[begin : begin + len(out)]
    _enter(flat, begin, count, shifts, scales, out)
    return out


@_jit
def _filled_up(c):
    """Centres (k, d) with zeros up to a whole number of vectors."""
    out = np.zeros((len(c), -(-c.shape[1] // SQUARE) * SQUARE), c.dtype)
    out[:, : c.shape[1]] = c
    return out


@_jit
def _better(score, j, best, cluster):
    return (score, j) if score > best else (best, cluster)


@_jit
def _nearest(scores, half, u, v, b, best, cluster):
    """Of each row the cluster of highest score from u to v, of equals the first; scores (k, rows)."""
    for i in range(b):
        best[i], cluster[i] = scores[u, i] - half[u], u
    # Four at a time: what is best so far is loaded and stored a quarter as often.
    fours = u + 1 + (v - u - 1) // 4 * 4
    for j in range(u + 1, fours, 4):
        one, two, three, four = half[j], half[j + 1], half[j + 2], half[j + 3]
        for i in range(b):
            top, which = _better(scores[j, i] - one, j, best[i], cluster[i])
            top, which = _better(scores[j + 1, i] - two, j + 1, top, which)
            top, which = _better(scores[j + 2, i] - three, j + 2, top, which)
            best[i], cluster[i] = _better(scores[j + 3, i] - four, j + 3, top, which)
    for j in range(fours, v):
        one = half[j]
        for i in range(b):
            best[i], cluster[i] = _better(scores[j, i] - one, j, best[i], cluster[i])


@_jit
def _label(y, b, c, c_transposed, half, edges, between, scores, best, cluster):
    """The nearest centre of each model to the first b rows of a flat tile, strip by strip: cluster (models, rows)."""
    (k, d), strip = c.shape, scores.shape[1]
    for r in range(0, b, strip):
        rows = y[r * d : (r + strip) * d].reshape(strip, d)
        # For so small a product BLAS is twice as slow with a transposed factor; whichever is smaller is transposed by
        # hand.
        if d < k:
            _transpose(rows, between)
            np.dot(c, between, scores)
        else:
            np.dot(rows, c_transposed, between)
            _transpose(between, scores)
        for m in range(len(edges) - 1):
            _nearest(scores, half, edges[m], edges[m + 1], min(strip, b - r), best[m, r:], cluster[m, r:])


@intrinsic
def _gather_row(typing: Any, y: Any, at: Any, d: Any, share: Any, c: Any, first: Any, to: Any) -> Any:
    """The row at y[at:] times its share is added to first[to:]; its squared distance to the centre at c[to:].

    Centres and sums are filled up to whole vectors; what is read of y beyond the row counts as zero. The order of the
    additions is fixed here, so that the bits do not depend on where this is compiled.
    """
    number = y.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes, word = ir.VectorType(context.get_value_type(number), SQUARE), ir.IntType(32)
        vector, alignment = lanes.as_pointer(), number.bitwidth // 8
        _, at, d, share, _, _, to = arguments
        nothing = ir.Constant(lanes, [0.0] * SQUARE)
        shares = _in_all_lanes(builder, share, SQUARE)
        total = cgutils.alloca_once_value(builder, nothing)

        def address(array: int, offset: Any) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            return builder.bitcast(builder.gep(data, [offset]), vector)

        def take(offset: Any, present: Callable[[Any], Any]) -> None:
            row = present(builder.load(address(0, builder.add(at, offset)), align=alignment))
            centre, sums = address(4, builder.add(to, offset)), address(5, builder.add(to, offset))
            away = builder.fsub(row, builder.load(centre, align=alignment))
            square = builder.fmul(away, away, flags=("contract",))
            builder.store(builder.fadd(builder.load(total), square, flags=("contract",)), total)
            added = builder.fmul(shares, row, flags=("contract",))
            added = builder.fadd(builder.load(sums, align=alignment), added, flags=("contract",))
            builder.store(added, sums, align=alignment)

        begin, step = ir.Constant(d.type, 0), ir.Constant(d.type, SQUARE)
        whole = builder.and_(d, ir.Constant(d.type, -SQUARE))
        with cgutils.for_range_slice(builder, begin, whole, step) as (offset, _):
            take(offset, lambda row: row)
        left = builder.trunc(builder.sub(d, whole), word)
        with builder.if_then(builder.icmp_signed(">", left, word(0))):
            places = ir.Constant(ir.VectorType(word, SQUARE), list(range(SQUARE)))
            inside = builder.icmp_signed("<", places, _in_all_lanes(builder, left, SQUARE))
            take(whole, lambda row: builder.select(inside, row, nothing))
        found = builder.load(total)
        half = SQUARE // 2
        while half:
            turned = ir.Constant(ir.VectorType(word, SQUARE), [(lane + half) % SQUARE for lane in range(SQUARE)])
            found = builder.fadd(found, builder.shuffle_vector(found, found, turned))
            half //= 2
        return builder.extract_element(found, word(0))

    return number(y, types.intp, types.intp, number, c, first, types.intp), emit


@partial(_jit, fastmath=EXACT)
def _gather(y, d, b, w, start, c, cluster, distance, mass, first, ahead, at, reach):
    """Each row to its cluster; how far it is, what all of them cost, and the largest distance.

    Meanwhile `reach` of each row of the next tile is fetched.
    """
    k, stride = c.shape
    flat_c, flat_first = c.reshape(k * stride), first.reshape(k * stride)
    cost, farthest = 0.0, 0.0
    for i in range(b):
        for f in range(0, reach, _per_line(ahead)):
            _prefetch(ahead, at + i * d + f)
        j = cluster[i]
        weight = 1.0 if w is None else w[start + i]
        mass[j] += weight
        distance[i] = _gather_row(y, i * d, d, y.dtype.type(weight), flat_c, flat_first, j * stride)
        cost += weight * distance[i]
        farthest = max(farthest, distance[i])
    return cost, farthest


@_jit
def _next_to_give_way(distance, row):
    """Of the farthest rows the nearest, of equals the last."""
    slot = 0
    for m in range(1, len(distance)):
        later = distance[m] == distance[slot] and row[m] > row[slot]
        if distance[m] < distance[slot] or later:
            slot = m
    return slot


@_jit
def _keep_farthest(distance, b, w, start, cluster, u, far_distance, far_row, far_cluster):
    """Rows of a tile take the place of those kept so far that are nearer; the least distance that is kept."""
    slot = _next_to_give_way(far_distance, far_row)
    for i in range(b):
        if distance[i] > far_distance[slot] and (w is None or w[start + i] > 0):
            far_distance[slot], far_row[slot], far_cluster[slot] = distance[i], start + i, cluster[i] - u
            slot = _next_to_give_way(far_distance, far_row)
    return far_distance[slot]


@_jit
def _assign(
    x, w, shift, scale, c, half, edges, strip, mass, first, cost, far_edges, far_distance, far_row, far_cluster
):
    """Model m has the centres edges[m] to edges[m + 1]. w is an array or None, which compiles to no weights."""
    n, d = x.shape
    k, models = len(c), len(cost)
    size = ASSIGN_TILE
    flat = x.reshape(n * d)
    shifts, scales, as_they_are = _repeated(shift), _repeated(scale), _nothing_to_do(shift, scale)
    entered = np.zeros(size * d + SQUARE, x.dtype)
    c_filled = _filled_up(c)
    c_transposed = np.ascontiguousarray(c.T)
    between = np.empty((d, strip) if d < k else (strip, k), x.dtype)
    scores = np.empty((k, strip), x.dtype)
    best = np.empty((models, size), x.dtype)
    cluster = np.empty((models, size), np.int32)
    distance = np.empty(size, x.dtype)
    tile_first = np.empty_like(c_filled)
    least = np.where(far_edges[1:] > far_edges[:-1], -1.0, np.inf)
    for start in range(0, n, size):
        b = min(size, n - start)
        y = _in_frame(flat, start * d, b * d, shifts, scales, as_they_are, entered)
        _label(y, b, c, c_transposed, half, edges, between, scores, best, cluster)
        # The next tile is fetched once; where rows are shorter than a cache line, the processor's own way is as good.
        reach = d - _per_line(flat) + 1
        tile_first[:] = 0
        for m in range(models):
            spent, farthest = _gather(
                y, d, b, w, start, c_filled, cluster[m], distance, mass, tile_first,
                flat, (start + size) * d, reach,
            )  # fmt: skip
            reach = 0
            cost[m] += spent
            if farthest > least[m]:
                u, v = far_edges[m], far_edges[m + 1]
                least[m] = _keep_farthest(
                    distance, b, w, start, cluster[m], edges[m], far_distance[u:v], far_row[u:v], far_cluster[u:v]
                )
        _add(first, tile_first)


@_jit
def _softmax(joint, top, total, w, start, b):
    """Columns of log p(x, k) -> weighted responsibilities, in place; (score, certainty) of the tile."""
    k = joint.shape[0]
    one = joint.dtype.type(1)
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
    for j in range(k):
        for i in range(b):
            joint[j, i] *= total[i]
    return score, certainty


@_jit
def _columns(y, out):
    """The features of a tile as rows of `out`; below them ones, zeros (both are there) and the sum of squares."""
    d = y.shape[1]
    _transpose(y, out[:d])
    for i in range(out.shape[1]):
        out[d + 2, i] = 0
    for f in range(d):
        for i in range(out.shape[1]):
            out[d + 2, i] += out[f, i] * out[f, i]


@_jit
def _multiply(columns, left, right, phi):
    """Each feature of phi is the product of two columns."""
    for f in range(len(phi)):
        one, other = left[f], right[f]
        for i in range(phi.shape[1]):
            phi[f, i] = columns[one, i] * columns[other, i]


@_jit
def _log_joint(columns, left, right, theta, phi, of_block, joint):
    """log p(x, k) of a tile, block by block of its features; phi holds the last block."""
    for block in range(len(theta)):
        _multiply(columns, left[block], right[block], phi)
        np.dot(theta[block], phi, of_block if block else joint)
        if block:
            _add(joint, of_block)


@_jit
def _joint_product(x, shift, scale, left, right, theta, whiten, size, out):
    n, d = x.shape
    _, k, p = theta.shape
    flat, shifts, scales = x.reshape(n * d), _repeated(shift), _repeated(scale)
    y = np.zeros((size, d), theta.dtype)
    whitened = np.zeros((size, d), theta.dtype)
    columns = np.zeros((d + 3, size), theta.dtype)
    columns[d] = theta.dtype.type(1)
    phi = np.empty((p, size), theta.dtype)
    joint = np.empty((k, size), theta.dtype)
    of_block = np.empty((k, size), theta.dtype)
    of_rows = np.empty((size, k), theta.dtype)
    for start in range(0, n, size):
        b = min(size, n - start)
        _enter(flat, start * d, b * d, shifts, scales, y.reshape(size * d))
        if len(whiten) > 0:
            np.dot(y, whiten, whitened)
            _columns(whitened, columns)
        else:
            _columns(y, columns)
        _log_joint(columns, left, right, theta, phi, of_block, joint)
        _transpose(joint, of_rows)
        out[start : start + b] = of_rows[:b]


@_jit
def _explain_product(x, w, shift, scale, left, right, theta, edges, whiten, sums, pooled, score, certainty, size):
    """Theta (blocks, k, features of a block); model m has the rows edges[m] to edges[m + 1] of k.

    phi is made block by block, and made again for the sums: many features do not fit the second-level cache, and a
    product costs less than to fetch what it gave from further away.
    """
    n, d = x.shape
    blocks, k, p = theta.shape
    flat, shifts, scales = x.reshape(n * d), _repeated(shift), _repeated(scale)
    one = theta.dtype.type(1)
    y = np.zeros((size, d), theta.dtype)
    whitened = np.zeros((size, d), theta.dtype)
    columns = np.zeros((d + 3, size), theta.dtype)
    columns[d] = one
    phi = np.empty((p, size), theta.dtype)
    joint = np.empty((k, size), theta.dtype)
    of_block = np.empty((k, size), theta.dtype)
    top = np.empty(size, theta.dtype)
    total = np.empty(size, theta.dtype)
    block_sums = np.empty((k, p), theta.dtype)
    tile_pooled = np.empty((d, d), theta.dtype)
    is_pooled = len(whiten) > 0
    for start in range(0, n, size):
        b = min(size, n - start)
        _enter(flat, start * d, b * d, shifts, scales, y.reshape(size * d))
        if is_pooled:
            np.dot(y, whiten, whitened)
            _columns(whitened, columns)
        else:
            _columns(y, columns)
        _log_joint(columns, left, right, theta, phi, of_block, joint)
        for m in range(len(score)):
            s, c = _softmax(joint[edges[m] : edges[m + 1]], top, total, w, start, b)
            score[m] += s
            certainty[m] += c
        joint[:, b:] = 0  # what a last, shorter tile leaves over counts for nothing
        if is_pooled:
            # The sums are of the rows themselves, not of the whitened ones.
            _columns(y, columns)
        for block in range(blocks - 1, -1, -1):
            if is_pooled or block < blocks - 1:
                _multiply(columns, left[block], right[block], phi)
            np.dot(joint, phi.T, block_sums)
            _add(sums[block], block_sums)
        if is_pooled:
            for i in range(size):
                weight = one if i < b else theta.dtype.type(0)
                if i < b and len(w):
                    weight = theta.dtype.type(w[start + i])
                for f in range(d):
                    whitened[i, f] = weight * y[i, f]
            np.dot(whitened.T, y, tile_pooled)
            _add(pooled, tile_pooled)


@_jit
def _explain_centred(
    x, w, shift, scale, order, means, narrow, wide, constants, first, narrow_second, wide_second, mass
):
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
        s, c = _softmax(joint, top, total, w, start, b)
        score += s
        certainty += c
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


def _frozen(a: Array, dtype: Any = None) -> Array:
    """A contiguous read-only view: one type for the compiler, whatever the caller's flags."""
    view = np.ascontiguousarray(a, dtype=dtype)[...]
    view.flags.writeable = False
    return view


def _weights(w: Array | None) -> Array:
    return _frozen(NO_WEIGHTS if w is None else w, np.float64)


def _edges(sizes: Sequence[int]) -> Array:
    """Where each part of these sizes begins, and the last one ends."""
    return _frozen([0, *accumulate(sizes)], np.int64)


def assign(x: Array, w: Array | None, frame: Frame, centres: Sequence[Array], far: Sequence[int]) -> list[Assigned]:
    c = np.concatenate(centres).astype(x.dtype)
    half = 0.5 * (c * c).sum(axis=1)
    edges, far_edges = _edges([len(own) for own in centres]), _edges(far)
    mass, first, cost = np.zeros(len(c)), np.zeros(c.shape), np.zeros(len(centres))
    farthest = [np.full(sum(far), fill) for fill in (-1.0, 0, 0)]
    shift, scale = _frozen(frame.shift, x.dtype), _frozen(frame.scale, x.dtype)
    weights = None if w is None else _weights(w)
    _assign(
        _frozen(x), weights, shift, scale, _frozen(c), _frozen(half), edges, strip_of(*c.shape), mass, first, cost,
        far_edges, *farthest,
    )  # fmt: skip
    answers = []
    for u, v, a, b, spent in zip(edges, edges[1:], far_edges, far_edges[1:], cost.tolist(), strict=False):
        answers.append(Assigned(mass[u:v], first[u:v], spent, *(its[a:b] for its in farthest)))
    return answers


def strip_of(k: int, d: int) -> int:
    """How many rows of a tile are multiplied at a time."""
    return next((strip for strip in STRIPS if strip * k * d <= SMALL_PRODUCT), ASSIGN_TILE)


def assign_again(
    x: Array, w: Array | None, frame: Frame, centres: Array, far: int, bounds: Bounds | None
) -> tuple[Assigned, Bounds | None, int]:
    from daskmix.kernels import pruned  # which is made of the parts of this module

    return pruned.assign(x, w, frame, centres, far, bounds)


_ORDERS = {Order.trace: 0, Order.diagonal: 1, Order.full: 2, Order.pooled: 3}


def explain(x: Array, w: Array | None, frame: Frame, densities: Densities) -> list[Explained]:
    if isinstance(densities, Product):
        return _by_product(x, w, frame, densities)
    return [_by_centred(x, w, frame, densities)]


def _product_tile(n: int, k: int, p: int, itemsize: int) -> int:
    """How many of n rows at a time, with blocks of p features."""
    rows = min(1024, FEATURES_TILE_BYTES // (p * itemsize), JOINT_TILE_BYTES // (k * itemsize))
    rows = max(STEP, min(rows // STEP, -(-n // STEP)) * STEP)
    small = SMALL_PRODUCT // (k * p) // SMALL_STEP * SMALL_STEP
    return small if LEAST_STRIP <= small < rows else rows


def _by_product(x: Array, w: Array | None, frame: Frame, densities: Product) -> list[Explained]:
    d, (k, p) = x.shape[1], densities.theta.shape
    left, right, theta, whiten, size = _tiled(len(x), d, densities)
    edges = _frozen([0, *densities.cuts, k], np.int64)
    block_sums, pooled = np.zeros(theta.shape), np.zeros((d, d))
    score, certainty = np.zeros((2, len(edges) - 1))
    _explain_product(
        _frozen(x), _weights(w), _frozen(frame.shift, x.dtype), _frozen(frame.scale, x.dtype), left, right,
        theta, edges, whiten, block_sums, pooled, score, certainty, size,
    )  # fmt: skip
    sums = block_sums.transpose(1, 0, 2).reshape(k, -1)[:, :p]
    return [
        Explained(own[:, -1].copy(), own[:, :d].copy(), _second(own, pooled, densities.order), float(s), float(c))
        for own, s, c in zip(np.split(sums, densities.cuts), score, certainty, strict=True)
    ]


def _tiled(n: int, d: int, densities: Product) -> tuple[Array, Array, Array, Array, int]:
    """The factors of the features and theta in blocks, the whitening or nothing, and how many rows a tile has."""
    dtype = densities.theta.dtype
    left, right = _factors(densities.order, d)
    whiten = np.empty((0, 0)) if densities.whiten is None else densities.whiten
    size = _product_tile(n, len(densities.theta), left.shape[1], dtype.itemsize)
    return left, right, _frozen(_in_blocks(densities.theta)), _frozen(whiten, dtype), size


def joint(x: Array, frame: Frame, densities: Densities) -> Array:
    if not isinstance(densities, Product):
        return reference.joint(x, frame, densities)
    left, right, theta, whiten, size = _tiled(len(x), x.shape[1], densities)
    out = np.empty((len(x), theta.shape[1]), theta.dtype)
    shift, scale = _frozen(frame.shift, x.dtype), _frozen(frame.scale, x.dtype)
    _joint_product(_frozen(x), shift, scale, left, right, theta, whiten, size, out)
    return out


def _blocks(p: int) -> tuple[int, int]:
    """How many blocks p features are cut into, and how long each is."""
    blocks = -(-p // BLOCK_FEATURES)
    return blocks, -(-p // blocks)


def _in_blocks(theta: Array) -> Array:
    """Theta (k, p) -> (blocks, k, features of a block), zero where there is no feature."""
    k, p = theta.shape
    blocks, length = _blocks(p)
    return np.pad(theta, ((0, 0), (0, blocks * length - p))).reshape(k, blocks, length).transpose(1, 0, 2)


@cache
def _factors(order: Order, d: int) -> tuple[Array, Array]:
    """The two columns (see `_columns`) whose product each feature is: (blocks, features of a block)."""
    ones, zeros, squares = d, d + 1, d + 2
    own = np.arange(d)
    rows, columns = {
        Order.diagonal: lambda: (own, own),
        Order.full: lambda: np.triu_indices(d),
        Order.trace: lambda: ([squares], [ones]),
        Order.pooled: lambda: ([squares], [ones]),
    }[order]()
    left = np.concatenate([own, rows, [ones]])
    right = np.concatenate([np.full(d, ones), columns, [ones]])
    blocks, length = _blocks(len(left))
    padded = [np.pad(side, (0, blocks * length - len(side)), constant_values=zeros) for side in (left, right)]
    left, right = (_frozen(side.reshape(blocks, length), np.int64) for side in padded)
    return left, right


def _second(sums: Array, pooled: Array, order: Order) -> Array:
    k, d = len(sums), len(pooled)
    if order is Order.pooled:
        return pooled
    if order is Order.trace:
        return sums[:, d].copy()
    if order is Order.diagonal:
        return sums[:, d : 2 * d].copy()
    rows, columns = np.triu_indices(d)
    second = np.empty((k, d, d))
    second[:, rows, columns] = second[:, columns, rows] = sums[:, d:-1]
    return second


def _by_centred(x: Array, w: Array | None, frame: Frame, densities: Centred) -> Explained:
    k, d = densities.means.shape
    order = densities.order
    general = order in (Order.full, Order.pooled)
    narrow, wide = np.empty((k, d)), np.empty((k if general else 0, d, d))
    if general:
        wide[:] = densities.factors
    else:
        narrow[:] = densities.factors.reshape(k, -1)
    mass, first, diagonal, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d)), np.zeros_like(wide)
    score, certainty = _explain_centred(
        _frozen(x), _weights(w), _frozen(frame.shift, x.dtype), _frozen(frame.scale, x.dtype), _ORDERS[order],
        _frozen(densities.means), _frozen(narrow), _frozen(wide), _frozen(densities.constants),
        first, diagonal, second, mass,
    )  # fmt: skip
    answer = {
        Order.trace: lambda: diagonal.sum(axis=1),
        Order.diagonal: lambda: diagonal,
        Order.full: lambda: second,
        Order.pooled: lambda: second.sum(axis=0),
    }[order]()
    return Explained(mass, first, answer, score, certainty)
