"""Assignment that remembers: rows are measured only against the centres that may have come nearest.

Centres are taken in groups of sixteen, in their order. For each row and group a lower bound on the distance to the
group's centres, the row's own left out, is kept from pass to pass and lowered by how far the group has moved since
(Ding et al. 2015, Yinyang K-means). A group whose bound stays above the distance to the row's own centre is passed
over; of others all distances are computed.

The labels are those of the plain kernel, and sums are added in the same order: with bounds or without, this kernel
gives the same bits. Proof for the labels:

With u the unit roundoff of the rows' dtype, e = (d + 8) u, C the length of the longest centre and r the distance of a
row y to its own centre a (|y| <= r + C), the plain kernel takes the first largest of the computed scores
s_j = y.c_j - |c_j|^2 / 2. A computed score is wrong by at most E = e C (r + 2 C): the sum begins with the norm,
wrong by at most d u C^2 / 2, and each of d additions rounds a number of at most C^2 / 2 + |y| C, in any order of
them. As |y - c_j|^2 = |y|^2 - 2 s_j, it takes a if for all others |y - c_j|^2 > |y - c_a|^2 + 4 E. Squared distances
are computed here as sums of squares, with a relative error of at most e. So a is beyond doubt against j where the
computed ones obey D_j > (1 + 4 e) D_a + 5 E =: reach, and against a whole group where its bound, squared, does. The
bounds are rounded down, the movements up. (TINY stands for underflow, and an overflow fails every comparison, that is,
it leaves a doubt.)

Where a doubt is left, the whole tile is decided by the very same scores as in the plain kernel: near-ties are rare.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from daskmix.block import Array
from daskmix.kernels import Assigned, Bounds, Frame
from daskmix.kernels.assigning import (
    TILE,
    filled_up,
    gather,
    in_frame,
    is_full,
    keep_farthest,
    label_rows,
    move,
    nothing_to_do,
    side_by_side,
)
from daskmix.kernels.jit import jit
from daskmix.kernels.registers import CENTRES, LANES, block_rows, in_all_lanes, per_line, prefetch
from daskmix.kernels.tiles import edges_of, frozen, repeated, weights_of

__all__ = ["assign"]

TOGETHER = 4  # rows that are measured at once
GROUP = 16  # centres: a cache line of float32, and as many as there are lanes on newer processors
TINY = 1e-30  # more than what underflow takes from a sum of squares of float32
RUNNING = 0.05  # of the distance to the nearest centre: while centres move farther, bounds cost more than they spare
# Of so many rows bounds must spare such a share of the distances still so many passes later, or they are not begun: to
# make them takes as long as a pass.
PROBE, ENOUGH, PASSES = 48, 0.8, 2
SLOWER = 0.7  # bounds that were refused are tried again when centres move by this share of what they moved then
LARGEST = 1e38  # a square that overflows is larger
ROUND_DOWN = np.float32(1 - 2.0**-21)  # takes in some roundings of float32


def _least_lane(builder: Any, values: Any) -> Any:
    for step in (8, 4, 2, 1):
        turned = ir.Constant(ir.VectorType(ir.IntType(32), GROUP), [(lane + step) % GROUP for lane in range(GROUP)])
        other = builder.shuffle_vector(values, values, turned)
        values = builder.select(builder.fcmp_ordered("<", other, values), other, values)
    return builder.extract_element(values, ir.IntType(32)(0))


@intrinsic
def _measure_four(
    typing: Any, y: Any, rows: Any, first: Any, d: Any, groups: Any, begin: Any, out: Any, least: Any
) -> Any:
    """Squared distances of four rows, rows[first:] of the flat y, to the centres of a group, at groups[begin:].

    They go to `out` (64,), the least of each row to `least` (4,). Four at once, so that no sum waits for another.
    """
    scalar = y.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(context.get_value_type(scalar), GROUP)
        in_bytes = {"align": scalar.bitwidth // 8}

        def address(i: int, offset: Any) -> Any:
            data = context.make_array(signature.args[i])(context, builder, arguments[i]).data
            return builder.gep(data, [offset])

        def whole(number: int) -> Any:
            return ir.Constant(d.type, number)

        _, _, first, d, _, begin, _, _ = arguments
        places = [builder.load(address(1, builder.add(first, whole(i)))) for i in range(TOGETHER)]
        starts = [builder.mul(place, d) for place in places]
        nothing = ir.Constant(vector, [0.0] * GROUP)
        totals = [cgutils.alloca_once_value(builder, nothing) for _ in starts]
        with cgutils.for_range(builder, d) as loop:
            place = builder.add(begin, builder.mul(loop.index, whole(GROUP)))
            centre = builder.load(builder.bitcast(address(4, place), vector.as_pointer()), **in_bytes)
            for start, total in zip(starts, totals, strict=True):
                value = builder.load(address(0, builder.add(start, loop.index)))
                away = builder.fsub(in_all_lanes(builder, value, GROUP), centre)
                square = builder.fmul(away, away, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), square, flags=("contract",)), total)
        for i, total in enumerate(totals):
            found = builder.load(total)
            builder.store(found, builder.bitcast(address(6, whole(i * GROUP)), vector.as_pointer()), **in_bytes)
            builder.store(_least_lane(builder, found), address(7, whole(i)))
        return context.get_dummy_value()

    return types.void(y, rows, types.intp, types.intp, groups, types.intp, out, least), emit


@jit
def _bound(squared, shrink):
    """A lower bound on a distance whose square was computed; an overflow says that it is at least so much."""
    return np.float32(np.sqrt(min(squared, type(squared)(LARGEST))) * shrink) * ROUND_DOWN


@intrinsic
def _two_least(typing: Any, squared: Any, at: Any, without: Any, least: Any) -> Any:
    """The two least of a group's numbers at squared[at:] but one, to `least` (2,); and where the first is."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = context.get_value_type(squared.dtype)
        vector, alignment = ir.VectorType(element, GROUP), squared.dtype.bitwidth // 8
        whole, bits = ir.IntType(64), ir.IntType(GROUP)
        places = ir.Constant(ir.VectorType(whole, GROUP), list(range(GROUP)))
        infinite = ir.Constant(vector, [float("inf")] * GROUP)

        def address(i: int, offset: Any) -> Any:
            return builder.gep(context.make_array(signature.args[i])(context, builder, arguments[i]).data, [offset])

        def but(values: Any, place: Any) -> Any:
            same = builder.icmp_signed("==", places, in_all_lanes(builder, place, GROUP))
            return builder.select(same, infinite, values)

        found = builder.load(builder.bitcast(address(0, arguments[1]), vector.as_pointer()), align=alignment)
        found = but(found, arguments[2])
        one = _least_lane(builder, found)
        equal = builder.bitcast(builder.fcmp_ordered("==", found, in_all_lanes(builder, one, GROUP)), bits)
        # Of those that are equal, the first: there is always one, for nothing here is NaN but by an overflow.
        which = builder.zext(builder.cttz(equal, ir.Constant(ir.IntType(1), 0)), whole)
        two = _least_lane(builder, but(found, which))
        builder.store(one, address(3, whole(0)))
        builder.store(two, address(3, whole(1)))
        return which

    return types.int64(squared, types.intp, types.int64, least), emit


@intrinsic
def _not_above(typing: Any, bounds: Any, limit: Any, at: Any) -> Any:
    """Which of sixteen bounds, at bounds[at:], are not above their limit: a bit for each."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def sixteen(i: int) -> Any:
            element = signature.args[i].dtype
            data = context.make_array(signature.args[i])(context, builder, arguments[i]).data
            vector = ir.VectorType(context.get_value_type(element), GROUP)
            address = builder.bitcast(builder.gep(data, [arguments[2]]), vector.as_pointer())
            return builder.load(address, align=element.bitwidth // 8)

        found, most = sixteen(0), sixteen(1)
        if found.type != most.type:
            found = builder.fpext(found, most.type)
        failing = builder.bitcast(builder.fcmp_unordered("<=", found, most), ir.IntType(GROUP))
        return builder.zext(failing, ir.IntType(64))

    return types.int64(bounds, limit, types.intp), emit


@intrinsic
def _lowest(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), emit


@jit
def _failing(before, moved, limit, after, rows):
    """Bounds of a group, before -> after, and the rows for which they say nothing."""
    n = len(before)
    for i in range(n):
        after[i] = (before[i] - moved) * ROUND_DOWN
    count, whole = 0, n // GROUP * GROUP
    for i in range(0, whole, GROUP):
        bits = _not_above(after, limit, i)
        while bits:
            rows[count] = i + _lowest(bits)
            bits &= bits - 1
            count += 1
    for i in range(whole, n):
        if not after[i] > limit[i]:
            rows[count] = i
            count += 1
    # Rows are measured a few at a time.
    rows[count : count + TOGETHER] = 0
    return count


@jit
def _limits(y, b, c, label, scales, best, noise, limit, ahead, at):
    """Squared distances to the centres of an earlier pass, and how far away all others are beyond doubt.

    Meanwhile the next tile, ahead[at:], is fetched.
    """
    d, widen, of_distance, reach = c.shape[1], scales[0], scales[2], scales[3]
    for i in range(b):
        # Where rows are shorter than a cache line, the processor's own way is as good.
        for f in range(0, d - per_line(ahead) + 1, per_line(ahead)):
            prefetch(ahead, at + i * d + f)
        squared = y.dtype.type(0)
        for f in range(d):
            away = y[i * d + f] - c[label[i], f]
            squared += away * away
        best[i] = squared
    for i in range(b):
        noise[i] = of_distance * (np.sqrt(best[i]) + reach) + y.dtype.type(TINY)
        limit[i] = np.sqrt(best[i] * widen + noise[i]) * widen


@jit
def _search(flat, b, d, k, groups, scales, moved, before, after, best, noise, limit, cluster, other, rows):
    """Labels of a tile from earlier ones, and how many groups of rows were measured; bounds, before -> after.

    `best` is the squared distance to the label, `other` the least to another centre that may be as near.
    """
    widen, shrink = scales[0], scales[1]
    squared = np.empty(TOGETHER * GROUP, flat.dtype)
    least, pair = np.empty(TOGETHER, flat.dtype), np.empty(2, flat.dtype)
    measured = 0
    for g in range(len(moved)):
        bounds = after[g, :b]
        count = _failing(before[g, :b], moved[g], limit, bounds, rows)
        measured += count
        for at in range(0, count, TOGETHER):
            _measure_four(flat, rows, at, d, groups, g * d * GROUP, squared, least)
            for m in range(min(TOGETHER, count - at)):
                i = rows[at + m]
                if least[m] > best[i] * widen + noise[i]:
                    bounds[i] = _bound(least[m], shrink)
                    continue
                which = g * GROUP + _two_least(squared, m * GROUP, cluster[i] - g * GROUP, pair)
                one, two = pair[0], pair[1]
                # The last group is filled up.
                if one < best[i] and which < k:
                    # What was the nearest so far is one of the others now.
                    left = cluster[i] // GROUP
                    other[i] = min(other[i], min(best[i], two))
                    if left == g:
                        two = min(two, best[i])
                    else:
                        after[left, i] = min(after[left, i], _bound(best[i], shrink))
                    best[i], cluster[i], one = one, which, two
                else:
                    other[i] = min(other[i], one)
                bounds[i] = _bound(one, shrink)
    return measured


@jit
def _assign(x, w, shift, scale, c, edges, scales, moved, known, label, before, far, mass, first, found, after):
    """As the plain kernel, from the labels and bounds of an earlier pass where they are known; both anew.

    Bounds of one tile stand for all: those `before` are not known yet, or those `after` not wanted.
    """
    n, d = x.shape
    k = c.shape[0]
    c_filled, (fours, half) = filled_up(c), side_by_side(c, edges, CENTRES)
    groups, _ = side_by_side(c, edges if known else edges[:1], GROUP)
    size = max(1, min(n, TILE))
    flat = x.reshape(n * d)
    shifts, all_scales, as_they_are = repeated(shift), repeated(scale), nothing_to_do(shift, scale)
    entered = np.zeros(TILE * d + LANES, x.dtype)
    columns = np.empty((d, block_rows(x)), x.dtype)
    best, other, own, noise, limit, distance = [np.empty(TILE, x.dtype) for _ in range(6)]
    cluster = np.empty((1, TILE), np.int32)
    rows = np.empty(size + TOGETHER, np.int64)
    few = np.zeros_like(c_filled)
    far_distance = np.full(far, -1.0)
    far_row = np.zeros(far, np.int64)
    far_cluster = np.zeros(far, np.int64)
    least = -1.0 if far else np.inf
    cost, measured = 0.0, 0
    for start in range(0, n, size):
        b = min(size, n - start)
        y = in_frame(flat, start * d, b * d, shifts, all_scales, as_they_are, entered)
        tile = start // size
        labels, bounds = found[start : start + b], after[min(tile, len(after) - 1)]
        doubt = not known
        if known:
            was = label[start : start + b]
            labels[:] = was
            other[:] = np.inf
            _limits(y, b, c, was, scales, best, noise, limit, flat, (start + size) * d)
            own[:] = best
            measured += _search(
                y, b, d, k, groups, scales, moved, before[min(tile, len(before) - 1)], bounds,
                best, noise, limit, labels, other, rows,
            )  # fmt: skip
            for i in range(b):
                if labels[i] != was[i]:
                    # Its group may have been passed over, by a bound that left it out.
                    group = was[i] // GROUP
                    bounds[group, i] = min(bounds[group, i], _bound(own[i], scales[1]))
                doubt |= not other[i] > best[i] * scales[0] + noise[i]
        if doubt:
            label_rows(y, b, fours, half, edges, limit.reshape(1, TILE), cluster, columns, flat, (start + size) * d)
            for i in range(b):
                if known and cluster[0, i] != labels[i]:
                    group = labels[i] // GROUP
                    bounds[group, i] = min(bounds[group, i], _bound(best[i], scales[1]))
                labels[i] = cluster[0, i]
        cost, farthest = gather(y, d, b, w, start, c_filled, labels, distance, cost, mass, few)
        if farthest > least:
            least = keep_farthest(distance, b, w, start, labels, 0, far_distance, far_row, far_cluster)
        if is_full(start + size, k):
            move(few, first)
    move(few, first)
    return cost, far_distance, far_row, far_cluster, measured


def _scales(c: Array) -> Array:
    """What `widen`, `shrink`, and the error of a score (times r, and beside r) are for these centres: (4,)."""
    error = (c.shape[1] + 8) * float(np.finfo(c.dtype).eps) / 2
    longest = float(np.sqrt((c.astype(np.float64) ** 2).sum(axis=1).max()))
    return np.array([1 + 5 * error, 1 - 5 * error, 5 * error * longest, 2 * longest], c.dtype)


@jit
def _movements(c, before):
    """How far a centre of each group has moved, at most: (groups,) float32. NaN where that overflows."""
    k, d = c.shape
    farthest = np.zeros(-(-k // GROUP), np.float32)
    for j in range(k):
        squared = 0.0
        for f in range(d):
            away = np.float64(c[j, f]) - np.float64(before[j, f])
            squared += away * away
        moved = np.float32(np.sqrt(squared) * (1 + 1e-6))
        if moved > farthest[j // GROUP] or np.isnan(moved):
            farthest[j // GROUP] = moved
    return farthest


def _are_of(bounds: Bounds, frame: Frame, c: Array, n: int) -> bool:
    """Whether bounds are of such rows and centres."""
    if bounds.centres.shape != c.shape or bounds.centres.dtype != c.dtype or len(bounds.label) != n:
        return False
    return bounds.frame == frame and n > 0


def _worth(x: Array, frame: Frame, c: Array, bounds: Bounds) -> bool:
    """Whether bounds would spare enough if centres went on to move as they just did: by some of the rows.

    Where clusters have many features and overlap, all centres are about as far, and bounds would only cost.
    """
    some = slice(None, None, -(-len(x) // PROBE))
    rows = np.ascontiguousarray(x[some])
    _, made, _ = _with(rows, None, frame, c, 0, replace(bounds, label=bounds.label[some]))
    own = np.sqrt(((frame.enter(rows) - c[made.label]) ** 2).sum(axis=1))
    return float(np.mean(made.lower[0] - PASSES * _movements(c, bounds.centres)[:, None] > own)) >= ENOUGH


def assign(
    x: Array, w: Array | None, frame: Frame, centres: Array, far: int, bounds: Bounds | None
) -> tuple[Assigned, Bounds, int]:
    """As the plain kernel, with the same bits; the bounds for the next pass; how many distances were not computed."""
    c = frozen(centres, x.dtype)
    if bounds is None or not _are_of(bounds, frame, c, len(x)):
        return _with(x, w, frame, c, far, None)
    refused, moved = bounds.refused, float(_movements(c, bounds.centres).max())
    useful = moved <= RUNNING * bounds.typical
    if useful and not len(bounds.lower):
        if moved > SLOWER * refused:
            useful = False
        elif not _worth(x, frame, c, bounds):
            useful, refused = False, moved
    found, made, spared = _with(x, w, frame, c, far, bounds if useful else None)
    return found, replace(made, refused=refused), spared


def _with(
    x: Array, w: Array | None, frame: Frame, c: Array, far: int, bounds: Bounds | None
) -> tuple[Assigned, Bounds, int]:
    """The same, with these bounds; where they have none yet, with the labels."""
    (n, d), k = x.shape, len(c)
    groups, size = -(-k // GROUP), max(1, min(n, TILE))
    tiles = -(-n // size)
    nothing = np.zeros((1, groups, size), np.float32)  # what is not known is not above anything
    edges = edges_of([k])
    label, before, after, moved = np.empty(0, np.int32), nothing, nothing.copy(), np.zeros(groups, np.float32)
    scales = np.empty(0, c.dtype)
    if bounds is not None:
        label, moved, scales = bounds.label, _movements(c, bounds.centres), _scales(c)
        before = bounds.lower if len(bounds.lower) else nothing
        after = np.empty((tiles, groups, size), np.float32)
    mass, first, found = np.zeros(k), np.zeros((k, d)), np.empty(n, np.int32)
    cost, *farthest, measured = _assign(
        frozen(x), None if w is None else weights_of(w), frozen(frame.shift, x.dtype), frozen(frame.scale, x.dtype),
        c, edges, scales, frozen(moved), bounds is not None, frozen(label), frozen(before), far, mass, first, found,
        after,
    )  # fmt: skip
    typical = float(np.sqrt(cost / max(mass.sum(), 1e-300)))
    spared = (n * groups - measured) * GROUP if bounds is not None else 0
    made = Bounds(frame, c, found, after[:0] if bounds is None else after, tiles * nothing.nbytes, typical)
    return Assigned(mass, first, cost, *farthest), made, spared
