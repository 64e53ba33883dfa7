"""The kernels compiled by numba: one call for many rows, without the interpreter lock, tile by tile.

Rows of a tile lie along the last axis, so that every loop over rows is a vector operation. Products of a block of rows
with a few centres or components stay in registers.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import accumulate, chain
from typing import Any

import numba
import numpy as np
import scipy.linalg  # noqa: F401  numba's np.dot calls SciPy's BLAS
from llvmlite import binding, ir
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
# Rows: few enough for the first-level cache where features are few. No power of two, whose columns share a cache set.
ASSIGN_TILE = 240
MANY = 64  # clusters: of more, each has few of the rows that are added to each other in their own dtype
# Products of so many vectors with so many numbers stay in registers, of which AVX2 has sixteen. BLAS, which copies its
# factors first, reaches half of that speed where centres are few. Tiles hold a whole number of such blocks of rows.
VECTORS, CENTRES = 3, 4
VECTOR = 64 if binding.get_host_cpu_features().get("avx512f") else 32  # bytes
SIDE = VECTOR // 8  # of the squares that are transposed in registers
LANES = 8  # of the vectors in which a row is added to its cluster
LINE = 64  # bytes in a cache line
BLOCK_FEATURES = 256
# Of a block of features, and of log densities of all models: both stay in the second-level cache.
FEATURES_TILE_BYTES = 1 << 18
JOINT_TILE_BYTES = 1 << 20
MOST_ROWS, STEP = 144, 48  # a whole number of blocks, and no power of two either
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


def _total(builder: Any, vector: Any, lanes: int) -> Any:
    """The sum of the numbers in a vector, always in the same order."""
    word, half = ir.IntType(32), lanes // 2
    while half:
        turned = ir.Constant(ir.VectorType(word, lanes), [(lane + half) % lanes for lane in range(lanes)])
        vector = builder.fadd(vector, builder.shuffle_vector(vector, vector, turned))
        half //= 2
    return builder.extract_element(vector, word(0))


@intrinsic
def _transpose_square(typing: Any, a: Any, at: Any, step: Any, out: Any, to: Any, stride: Any) -> Any:
    """A square of the flat array `a`, rows `step` apart, becomes columns in `out`: in registers, by shuffles."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = ir.VectorType(context.get_value_type(signature.args[0].dtype), SIDE)
        alignment = signature.args[0].dtype.bitwidth // 8

        def address(array: int, row: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            begin, apart = arguments[array + 1], arguments[array + 2]
            offset = builder.add(begin, builder.mul(apart, ir.Constant(begin.type, row)))
            return builder.bitcast(builder.gep(data, [offset]), values.as_pointer())

        def interleaved(first: int) -> Any:
            pairs = [first + i // 2 + i % 2 * SIDE for i in range(SIDE)]
            return ir.Constant(ir.VectorType(ir.IntType(32), SIDE), pairs)

        rows = [builder.load(address(0, row), align=alignment) for row in range(SIDE)]
        halves = [interleaved(0), interleaved(SIDE // 2)]
        # Interleaving the first half of the rows with the second, log2 of their number times, transposes them.
        for _ in range(SIDE.bit_length() - 1):
            pairs = zip(rows[: SIDE // 2], rows[SIDE // 2 :], strict=True)
            rows = [builder.shuffle_vector(one, other, half) for one, other in pairs for half in halves]
        for row, value in enumerate(rows):
            builder.store(value, address(3, row), align=alignment)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, out, types.intp, types.intp), emit


@_jit
def _transpose(flat, at, out):
    """Rows of m numbers, at flat[at:], as columns: out (m, n)."""
    m, n = out.shape
    flat_out = out.reshape(n * m)
    whole, squares = n // SIDE * SIDE, m // SIDE * SIDE
    for i in range(0, whole, SIDE):
        for j in range(0, squares, SIDE):
            _transpose_square(flat, at + i * m + j, m, flat_out, j * n + i, n)
        for j in range(squares, m):
            for row in range(i, i + SIDE):
                flat_out[j * n + row] = flat[at + row * m + j]
    for i in range(whole, n):
        for j in range(m):
            flat_out[j * n + i] = flat[at + i * m + j]


def _fetch(builder: Any, address: Any) -> None:
    """Ask for a cache line, without waiting for it."""
    address, word = builder.bitcast(address, ir.IntType(8).as_pointer()), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), kind)
    # To read (0), into the second level (2), data (1).
    builder.call(fetch, [address, word(0), word(2), word(1)])


@intrinsic
def _prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of element `index` of a flat array, without waiting for it."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        _fetch(builder, builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@intrinsic
def _per_line(typing: Any, array: Any) -> Any:
    """How many elements are in a cache line: a constant to the compiler."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, 8 * LINE // signature.args[0].dtype.bitwidth)

    return types.intp(array), emit


@_jit
def _move(few, first):
    """Sums of few rows, in their dtype, are added to those of all, in float64, and begin anew."""
    for j in range(first.shape[0]):
        for f in range(first.shape[1]):
            first[j, f] += few[j, f]
            few[j, f] = 0


@_jit
def _is_full(row, k):
    """Whether sums of few rows end before this one: of many clusters each has but few of them."""
    return row % (ASSIGN_TILE * max(1, k // MANY)) == 0


@_jit
def _add(sums, more):
    """sums += more, without an array in between."""
    for j in range(sums.shape[0]):
        for f in range(sums.shape[1]):
            sums[j, f] += more[j, f]


@_jit
def _repeated(a):
    """The same numbers LANES times: loops over a row alone are too short where features are few."""
    out = np.empty(LANES * len(a), a.dtype)
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
    out = np.zeros((len(c), -(-c.shape[1] // LANES) * LANES), c.dtype)
    out[:, : c.shape[1]] = c
    return out


def grouped(c: Array, size: int) -> Array:
    """Centres (k, d) with those of a group side by side: (groups, d, size), the last filled up far away."""
    k, d = c.shape
    filled = np.full((-(-k // size) * size, d), np.finfo(c.dtype).max, c.dtype)
    filled[:k] = c
    return filled.reshape(-1, size, d).transpose(0, 2, 1)


@intrinsic
def _block_rows(typing: Any, array: Any) -> Any:
    """How many rows `_compete` looks at: a constant to the compiler."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, 8 * VECTORS * VECTOR // signature.args[0].dtype.bitwidth)

    return types.intp(array), emit


class _Emitter:
    """Code for one block of rows: elements of the arguments of an intrinsic, and sums that stay in registers."""

    def __init__(self, context: Any, builder: Any, kinds: Sequence[Any], arguments: Sequence[Any], number: Any) -> None:
        self.builder, self.alignment = builder, number.bitwidth // 8
        self.lanes = VECTOR // self.alignment
        self.vector = ir.VectorType(context.get_value_type(number), self.lanes)
        self._data = {
            i: context.make_array(kind)(context, builder, arguments[i]).data
            for i, kind in enumerate(kinds)
            if isinstance(kind, types.Array)
        }

    def address(self, array: int, *offsets: Any) -> Any:
        """Of an element: offsets are added up, also Python's."""
        total = ir.Constant(ir.IntType(64), 0)
        for offset in offsets:
            total = self.builder.add(total, ir.Constant(total.type, offset) if isinstance(offset, int) else offset)
        return self.builder.gep(self._data[array], [total])

    def following(self, index: Any, count: int) -> list[Any]:
        """So many whole numbers, from this one."""
        return [self.builder.add(index, ir.Constant(index.type, i)) for i in range(count)]

    def in_all_lanes(self, array: int, *offsets: Any) -> Any:
        return _in_all_lanes(self.builder, self.builder.load(self.address(array, *offsets)), self.lanes)

    def load(self, array: int, *offsets: Any) -> Any:
        """A vector."""
        place = self.builder.bitcast(self.address(array, *offsets), self.vector.as_pointer())
        return self.builder.load(place, align=self.alignment)

    def places(self, array: int, at: Any, vector: Any) -> list[Any]:
        """Where the vectors of a block are that begins there."""
        offsets = [v * self.lanes for v in range(VECTORS)]
        return [self.builder.bitcast(self.address(array, at, o), vector.as_pointer()) for o in offsets]

    def vectors(self, array: int, at: Any) -> list[Any]:
        """Those of a block that begins there."""
        return [self.load(array, at, v * self.lanes) for v in range(VECTORS)]

    def products(self, count: Any, terms: Callable[[Any], tuple[list[Any], list[Any]]]) -> list[list[Any]]:
        """Sums over i < count of the products of CENTRES and VECTORS vectors, in order."""
        builder, blank = self.builder, ir.Constant(self.vector, [0.0] * self.lanes)
        sums = [[cgutils.alloca_once(builder, self.vector) for _ in range(VECTORS)] for _ in range(CENTRES)]
        for total in chain.from_iterable(sums):
            builder.store(blank, total)
        with cgutils.for_range(builder, count) as loop:
            ours, block = terms(loop.index)
            for one, its in zip(ours, sums, strict=True):
                for x, total in zip(block, its, strict=True):
                    product = builder.fmul(x, one, flags=("contract",))
                    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        return [[builder.load(total) for total in its] for its in sums]


@intrinsic
def _compete(typing: Any, columns: Any, d: Any, groups: Any, half: Any, g: Any, label: Any, best: Any,
             cluster: Any, at: Any, ahead: Any, line: Any, apart: Any) -> Any:  # fmt: skip
    """The rows of a block, columns (d, rows), and the centres of group g, whose first has this label.

    Where the score c.x - |c|^2 / 2 of a centre is above best[at:], it takes its place. The order of the additions is
    fixed here, so that a score depends on nothing but its row and its centre.

    With each feature a line is fetched: the first has the element ahead[line], and they are `apart`.
    """
    number = columns.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Emitter(context, builder, signature.args, arguments, number)
        _, d, _, _, g, label, _, _, at, _, line, apart = arguments
        word, fours = ir.IntType(32), ir.Constant(at.type, CENTRES)
        group = builder.mul(g, builder.mul(d, fours))

        def terms(f: Any) -> tuple[list[Any], list[Any]]:
            _fetch(builder, code.address(9, line, builder.mul(f, apart)))
            centres = [code.in_all_lanes(2, group, builder.mul(f, fours), j) for j in range(CENTRES)]
            return centres, code.vectors(0, builder.mul(f, ir.Constant(f.type, VECTORS * code.lanes)))

        scores = code.products(d, terms)
        halves = [code.in_all_lanes(3, builder.mul(g, fours), j) for j in range(CENTRES)]
        labels = [builder.add(builder.trunc(label, word), word(j)) for j in range(CENTRES)]
        of_labels = ir.VectorType(word, code.lanes)
        places = zip(code.places(6, at, code.vector), code.places(7, at, of_labels), strict=True)
        for v, (to_best, to_cluster) in enumerate(places):
            top, which = builder.load(to_best, align=code.alignment), builder.load(to_cluster, align=4)
            for own, subtracted, its in zip(labels, halves, scores, strict=True):
                score = builder.fsub(its[v], subtracted)
                above = builder.fcmp_ordered(">", score, top)
                top = builder.select(above, score, top)
                which = builder.select(above, _in_all_lanes(builder, own, code.lanes), which)
            builder.store(top, to_best, align=code.alignment)
            builder.store(which, to_cluster, align=4)
        return context.get_dummy_value()

    whole = types.intp
    answer = types.void(columns, whole, groups, half, whole, whole, best, cluster, whole, ahead, whole, whole)
    return answer, emit


@intrinsic
def _multiply_block(typing: Any, theta: Any, j: Any, phi: Any, p: Any, size: Any, at: Any, joint: Any) -> Any:
    """joint[j : j + CENTRES, rows] += theta[j : j + CENTRES] . phi[:, rows], the rows of the block at `at`."""
    number = theta.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Emitter(context, builder, signature.args, arguments, number)
        _, j, _, p, size, at, _ = arguments
        rows = code.following(j, CENTRES)

        def terms(f: Any) -> tuple[list[Any], list[Any]]:
            factors = [code.in_all_lanes(0, builder.mul(row, p), f) for row in rows]
            return factors, code.vectors(2, builder.add(at, builder.mul(f, size)))

        for row, its in zip(rows, code.products(p, terms), strict=True):
            for place, more in zip(
                code.places(6, builder.add(at, builder.mul(row, size)), code.vector), its, strict=True
            ):
                before = builder.load(place, align=code.alignment)
                builder.store(builder.fadd(before, more), place, align=code.alignment)
        return context.get_dummy_value()

    return types.void(theta, types.intp, phi, types.intp, types.intp, types.intp, joint), emit


@intrinsic
def _sum_block(typing: Any, joint: Any, j: Any, phi: Any, f: Any, size: Any, sums: Any, p: Any) -> Any:
    """sums[j : j + CENTRES, f : f + VECTORS] = joint[j : j + CENTRES] . phi[f : f + VECTORS], over all rows."""
    number = phi.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Emitter(context, builder, signature.args, arguments, number)
        _, j, _, f, size, _, p = arguments
        rows = code.following(j, CENTRES)
        features = code.following(f, VECTORS)
        lanes = ir.Constant(size.type, code.lanes)

        def terms(i: Any) -> tuple[list[Any], list[Any]]:
            at = builder.mul(i, lanes)
            ours = [code.load(0, builder.mul(row, size), at) for row in rows]
            return ours, [code.load(2, builder.mul(feature, size), at) for feature in features]

        for row, its in zip(rows, code.products(builder.udiv(size, lanes), terms), strict=True):
            for feature, total in zip(features, its, strict=True):
                builder.store(_total(builder, total, code.lanes), code.address(5, builder.mul(row, p), feature))
        return context.get_dummy_value()

    return types.void(joint, types.intp, phi, types.intp, types.intp, sums, types.intp), emit


@_jit
def _label(y, groups, half, edges, best, cluster, columns, ahead, at):
    """The nearest centre of each model to the rows of a flat tile, of equals the first: cluster (models, rows).

    Meanwhile the next tile, ahead[at:], is fetched.
    """
    (d, block), (models, size) = columns.shape, cluster.shape
    best[:] = -np.inf
    for m in range(models):
        cluster[m] = edges[m]
    for row in range(0, size, block):
        _transpose(y, row * d, columns)
        g, line, apart = 0, at + row * d, _per_line(ahead)
        for m in range(models):
            for label in range(edges[m], edges[m + 1], CENTRES):
                _compete(columns, d, groups, half, g, label, best[m], cluster[m], row, ahead, line, apart)
                g += 1
                line += d * apart
                if line > at + (row + block) * d:
                    line, apart = at + row * d, 0  # all are asked for


@intrinsic
def _gather_row(typing: Any, y: Any, at: Any, d: Any, share: Any, c: Any, first: Any, to: Any) -> Any:
    """The row at y[at:] times its share is added to first[to:]; its squared distance to the centre at c[to:].

    Centres and sums are filled up to whole vectors; what is read of y beyond the row counts as zero. The order of the
    additions is fixed here, so that the bits do not depend on where this is compiled.
    """
    number = y.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes, word = ir.VectorType(context.get_value_type(number), LANES), ir.IntType(32)
        vector, alignment = lanes.as_pointer(), number.bitwidth // 8
        _, at, d, share, _, _, to = arguments
        nothing = ir.Constant(lanes, [0.0] * LANES)
        shares = _in_all_lanes(builder, share, LANES)
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

        begin, step = ir.Constant(d.type, 0), ir.Constant(d.type, LANES)
        whole = builder.and_(d, ir.Constant(d.type, -LANES))
        with cgutils.for_range_slice(builder, begin, whole, step) as (offset, _):
            take(offset, lambda row: row)
        left = builder.trunc(builder.sub(d, whole), word)
        with builder.if_then(builder.icmp_signed(">", left, word(0))):
            places = ir.Constant(ir.VectorType(word, LANES), list(range(LANES)))
            inside = builder.icmp_signed("<", places, _in_all_lanes(builder, left, LANES))
            take(whole, lambda row: builder.select(inside, row, nothing))
        return _total(builder, builder.load(total), LANES)

    return number(y, types.intp, types.intp, number, c, first, types.intp), emit


@partial(_jit, fastmath=EXACT)
def _gather(y, d, b, w, start, c, cluster, distance, cost, mass, first):
    """Each row to its cluster; how far it is, what all of them cost beside those before, and the largest distance."""
    k, stride = c.shape
    flat_c, flat_first = c.reshape(k * stride), first.reshape(k * stride)
    farthest = 0.0
    for i in range(b):
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
    x, w, shift, scale, c, groups, half, edges, mass, first, cost, far_edges, far_distance, far_row, far_cluster
):
    """Model m has the centres edges[m] to edges[m + 1]. w is an array or None, which compiles to no weights."""
    n, d = x.shape
    size, models = ASSIGN_TILE, len(cost)
    flat = x.reshape(n * d)
    shifts, scales, as_they_are = _repeated(shift), _repeated(scale), _nothing_to_do(shift, scale)
    entered = np.zeros(size * d + LANES, x.dtype)
    c_filled = _filled_up(c)
    columns = np.empty((d, _block_rows(x)), x.dtype)
    best, distance = np.empty((models, size), x.dtype), np.empty(size, x.dtype)
    cluster = np.empty((models, size), np.int32)
    few = np.zeros_like(c_filled)
    least = np.where(far_edges[1:] > far_edges[:-1], -1.0, np.inf)
    for start in range(0, n, size):
        b = min(size, n - start)
        y = _in_frame(flat, start * d, b * d, shifts, scales, as_they_are, entered)
        _label(y, groups, half, edges, best, cluster, columns, flat, (start + size) * d)
        for m in range(models):
            cost[m], farthest = _gather(y, d, b, w, start, c_filled, cluster[m], distance, cost[m], mass, few)
            if farthest > least[m]:
                u, v = far_edges[m], far_edges[m + 1]
                least[m] = _keep_farthest(
                    distance, b, w, start, cluster[m], edges[m], far_distance[u:v], far_row[u:v], far_cluster[u:v]
                )
            if _is_full(start + size, edges[m + 1] - edges[m]):
                _move(few[edges[m] : edges[m + 1]], first[edges[m] : edges[m + 1]])
    _move(few, first)


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
    n = len(y)
    _transpose(y.reshape(n * d), 0, out[:d])
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
def _log_joint(columns, left, right, theta, phi, joint):
    """log p(x, k) of a tile, block by block of its features; phi holds the last block."""
    p, size = phi.shape
    for j in range(len(joint)):
        joint[j] = 0
    for block in range(len(theta)):
        _multiply(columns, left[block], right[block], phi)
        for at in range(0, size, _block_rows(phi)):
            for j in range(0, len(joint), CENTRES):
                _multiply_block(theta[block], j, phi, p, size, at, joint)


@_jit
def _moments(joint, phi, sums):
    """Sums of the features of a tile, by responsibilities."""
    p, size = phi.shape
    for f in range(0, p, VECTORS):
        for j in range(0, len(joint), CENTRES):
            _sum_block(joint, j, phi, f, size, sums, p)


@_jit
def _joint_product(x, shift, scale, left, right, theta, whiten, size, out):
    n, d = x.shape
    (_, filled, p), k = theta.shape, out.shape[1]
    flat, shifts, scales = x.reshape(n * d), _repeated(shift), _repeated(scale)
    y = np.zeros((size, d), theta.dtype)
    whitened = np.zeros((size, d), theta.dtype)
    columns = np.zeros((d + 3, size), theta.dtype)
    columns[d] = theta.dtype.type(1)
    phi = np.empty((p, size), theta.dtype)
    joint = np.empty((filled, size), theta.dtype)
    of_rows = np.empty((size, k), theta.dtype)
    for start in range(0, n, size):
        b = min(size, n - start)
        _enter(flat, start * d, b * d, shifts, scales, y.reshape(size * d))
        if len(whiten) > 0:
            np.dot(y, whiten, whitened)
            _columns(whitened, columns)
        else:
            _columns(y, columns)
        _log_joint(columns, left, right, theta, phi, joint)
        _transpose(joint[:k].reshape(size * k), 0, of_rows)
        out[start : start + b] = of_rows[:b]


@_jit
def _explain_product(x, w, shift, scale, left, right, theta, edges, whiten, sums, pooled, score, certainty, size):
    """Theta (blocks, k, features of a block); model m has the rows edges[m] to edges[m + 1] of k.

    phi is made block by block, and made again for the sums: many features do not fit the second-level cache, and a
    product costs less than to fetch what it gave from further away.
    """
    n, d = x.shape
    blocks, filled, p = theta.shape
    flat, shifts, scales = x.reshape(n * d), _repeated(shift), _repeated(scale)
    one = theta.dtype.type(1)
    y = np.zeros((size, d), theta.dtype)
    whitened = np.zeros((size, d), theta.dtype)
    columns = np.zeros((d + 3, size), theta.dtype)
    columns[d] = one
    phi = np.empty((p, size), theta.dtype)
    joint = np.empty((filled, size), theta.dtype)
    top = np.empty(size, theta.dtype)
    total = np.empty(size, theta.dtype)
    tile_sums = np.empty((filled, p), theta.dtype)
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
        _log_joint(columns, left, right, theta, phi, joint)
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
            _moments(joint, phi, tile_sums)
            _add(sums[block], tile_sums)
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
    edges, far_edges = _edges([len(own) for own in centres]), _edges(far)
    mass, first, cost = np.zeros(len(c)), np.zeros(c.shape), np.zeros(len(centres))
    farthest = [np.full(sum(far), fill) for fill in (-1.0, 0, 0)]
    shift, scale = _frozen(frame.shift, x.dtype), _frozen(frame.scale, x.dtype)
    weights = None if w is None else _weights(w)
    _assign(
        _frozen(x), weights, shift, scale, _frozen(c), *_side_by_side(centres, x.dtype), edges, mass, first, cost,
        far_edges, *farthest,
    )  # fmt: skip
    answers = []
    for u, v, a, b, spent in zip(edges, edges[1:], far_edges, far_edges[1:], cost.tolist(), strict=False):
        answers.append(Assigned(mass[u:v], first[u:v], spent, *(its[a:b] for its in farthest)))
    return answers


def _side_by_side(centres: Sequence[Array], dtype: Any) -> tuple[Array, Array]:
    """The centres of each model in groups, the last filled up, and half the square of their lengths: both flat."""
    groups = np.concatenate([grouped(c.astype(dtype), CENTRES) for c in centres])
    with np.errstate(over="ignore"):  # of what a group is filled up with
        half = 0.5 * (groups * groups).sum(axis=1)
    return _frozen(groups).reshape(-1), _frozen(half).reshape(-1)


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
    rows = min(MOST_ROWS, FEATURES_TILE_BYTES // (p * itemsize), JOINT_TILE_BYTES // (k * itemsize))
    return max(STEP, min(rows // STEP, -(-n // STEP)) * STEP)


def _by_product(x: Array, w: Array | None, frame: Frame, densities: Product) -> list[Explained]:
    d, (k, p) = x.shape[1], densities.theta.shape
    left, right, theta, whiten, size = _tiled(len(x), d, densities)
    edges = _frozen([0, *densities.cuts, k], np.int64)
    block_sums, pooled = np.zeros((len(theta), k, theta.shape[2])), np.zeros((d, d))
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
    theta, dtype = densities.theta, densities.theta.dtype
    left, right = _factors(densities.order, d)
    whiten = np.empty((0, 0)) if densities.whiten is None else densities.whiten
    size = _product_tile(n, len(theta), left.shape[1], dtype.itemsize)
    return left, right, _frozen(_in_blocks(theta, *left.shape)), _frozen(whiten, dtype), size


def joint(x: Array, frame: Frame, densities: Densities) -> Array:
    if not isinstance(densities, Product):
        return reference.joint(x, frame, densities)
    left, right, theta, whiten, size = _tiled(len(x), x.shape[1], densities)
    out = np.empty((len(x), len(densities.theta)), theta.dtype)
    shift, scale = _frozen(frame.shift, x.dtype), _frozen(frame.scale, x.dtype)
    _joint_product(_frozen(x), shift, scale, left, right, theta, whiten, size, out)
    return out


def _in_blocks(theta: Array, blocks: int, length: int) -> Array:
    """Theta (k, p) -> (blocks, k, length), k and features filled up with zeros."""
    k, p = theta.shape
    filled = np.pad(theta, ((0, -k % CENTRES), (0, blocks * length - p)))
    return filled.reshape(-1, blocks, length).transpose(1, 0, 2)


@cache
def _factors(order: Order, d: int) -> tuple[Array, Array]:
    """The two columns (see `_columns`) whose product each feature is: (blocks, features), a multiple of VECTORS."""
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
    blocks = -(-len(left) // BLOCK_FEATURES)
    length = -(-len(left) // (blocks * VECTORS)) * VECTORS
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
