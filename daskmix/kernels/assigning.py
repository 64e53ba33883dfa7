"""Each row to its nearest centre: K-means, compiled."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from daskmix.block import Array
from daskmix.kernels import Assigned, Frame
from daskmix.kernels.jit import EXACT, jit
from daskmix.kernels.registers import CENTRES, LANES, block_rows, compete, gather_row, per_line
from daskmix.kernels.tiles import edges_of, enter, frozen, repeated, transpose, weights_of

# Rows of a tile, a whole number of blocks. It and the next one, which is fetched meanwhile, stay in the second-level
# cache.
TILE = 240
MANY = 64  # clusters: of more, each has few of the rows that are added to each other in their own dtype


@jit
def nothing_to_do(shift, scale):
    """Whether rows are in the frame as they come."""
    return not np.any(shift != 0) and np.all(scale == 1)


@jit
def in_frame(flat, begin, count, shifts, scales, as_they_are, out):
    """A tile in the frame, flat: a copy in `out`, or the rows where they lie if as many follow as are read beyond."""
    if as_they_are and begin + len(out) <= len(flat):
        return flat[begin : begin + len(out)]
    enter(flat, begin, count, shifts, scales, out)
    return out


@jit
def filled_up(c):
    """Centres (k, d) with zeros up to a whole number of vectors: a copy."""
    k, d = c.shape
    out = np.zeros((k, -(-d // LANES) * LANES), c.dtype)
    out[:, :d] = c
    return out


@partial(jit, fastmath=EXACT)
def side_by_side(c, edges, size):
    """The centres of each model in groups, the last filled up far away, and minus half the squares of their lengths.

    Both flat: (groups, d, size) and (groups, size). A copy takes less time than a lock of Python's, so each call makes
    its own.
    """
    groups, d = 0, c.shape[1]
    for m in range(len(edges) - 1):
        groups += -(-(edges[m + 1] - edges[m]) // size)
    laid = np.full((groups, d, size), np.finfo(c.dtype).max, c.dtype)
    half = np.full((groups, size), -np.inf, c.dtype)
    g = -1
    for m in range(len(edges) - 1):
        for j in range(edges[m], edges[m + 1]):
            i = (j - edges[m]) % size
            if i == 0:
                g += 1
            square = 0.0
            for f in range(d):
                laid[g, f, i] = c[j, f]
                square += c[j, f] * np.float64(c[j, f])
            half[g, i] = -square / 2
    return laid.reshape(groups * d * size), half.reshape(groups * size)


@jit
def move(few, first):
    """Sums of few rows, in their dtype, are added to those of all, in float64, and begin anew."""
    for j in range(first.shape[0]):
        for f in range(first.shape[1]):
            first[j, f] += few[j, f]
            few[j, f] = 0


@jit
def is_full(row, k):
    """Whether sums of few rows end before this one: of many clusters each has but few of them."""
    return row % (TILE * max(1, k // MANY)) == 0


@partial(jit, fastmath=EXACT)
def label_rows(y, b, groups, half, edges, best, cluster, columns, ahead, at):
    """The nearest centre of each model to b rows of a flat tile, of equals the first: cluster (models, rows).

    Meanwhile the next tile, ahead[at:], is fetched.
    """
    (d, block), models = columns.shape, len(cluster)
    best[:] = -np.inf
    for m in range(models):
        cluster[m] = edges[m]
    for row in range(0, b, block):
        transpose(y, row * d, columns)
        g, line, apart = 0, at + row * d, per_line(ahead)
        for m in range(models):
            for label in range(edges[m], edges[m + 1], CENTRES):
                compete(columns, d, groups, half, g, label, best[m], cluster[m], row, ahead, line, apart)
                g += 1
                line += d * apart
                if line > at + (row + block) * d:
                    line, apart = at + row * d, 0  # all are asked for


@partial(jit, fastmath=EXACT)
def gather(y, d, b, w, start, c, cluster, distance, cost, mass, few):
    """Each row to its cluster; how far it is, what all of them cost beside those before, and the largest distance."""
    k, stride = c.shape
    flat_c, flat_few = c.reshape(k * stride), few.reshape(k * stride)
    farthest = 0.0
    for i in range(b):
        j = cluster[i]
        weight = 1.0 if w is None else w[start + i]
        mass[j] += weight
        distance[i] = gather_row(y, i * d, d, y.dtype.type(weight), flat_c, flat_few, j * stride)
        cost += weight * distance[i]
        farthest = max(farthest, distance[i])
    return cost, farthest


@jit
def _next_to_give_way(distance, row):
    """Of the farthest rows the nearest, of equals the last."""
    slot = 0
    for m in range(1, len(distance)):
        later = distance[m] == distance[slot] and row[m] > row[slot]
        if distance[m] < distance[slot] or later:
            slot = m
    return slot


@jit
def keep_farthest(distance, b, w, start, cluster, u, far_distance, far_row, far_cluster):
    """Rows of a tile take the place of those kept so far that are nearer; the least distance that is kept."""
    slot = _next_to_give_way(far_distance, far_row)
    for i in range(b):
        if distance[i] > far_distance[slot] and (w is None or w[start + i] > 0):
            far_distance[slot], far_row[slot], far_cluster[slot] = distance[i], start + i, cluster[i] - u
            slot = _next_to_give_way(far_distance, far_row)
    return far_distance[slot]


@jit
def _assign(x, w, shift, scale, c, edges, mass, first, cost, far_edges, far_distance, far_row, far_cluster):
    """Model m has the centres edges[m] to edges[m + 1]. w is an array or None, which compiles to no weights."""
    n, d = x.shape
    size, models = TILE, len(cost)
    c_filled, (groups, half) = filled_up(c), side_by_side(c, edges, CENTRES)
    flat = x.reshape(n * d)
    shifts, scales, as_they_are = repeated(shift), repeated(scale), nothing_to_do(shift, scale)
    entered = np.zeros(size * d + LANES, x.dtype)
    columns = np.empty((d, block_rows(x)), x.dtype)
    best, distance = np.empty((models, size), x.dtype), np.empty(size, x.dtype)
    cluster = np.empty((models, size), np.int32)
    few = np.zeros_like(c_filled)
    least = np.where(far_edges[1:] > far_edges[:-1], -1.0, np.inf)
    for start in range(0, n, size):
        b = min(size, n - start)
        y = in_frame(flat, start * d, b * d, shifts, scales, as_they_are, entered)
        label_rows(y, b, groups, half, edges, best, cluster, columns, flat, (start + size) * d)
        for m in range(models):
            cost[m], farthest = gather(y, d, b, w, start, c_filled, cluster[m], distance, cost[m], mass, few)
            if farthest > least[m]:
                u, v = far_edges[m], far_edges[m + 1]
                least[m] = keep_farthest(
                    distance, b, w, start, cluster[m], edges[m], far_distance[u:v], far_row[u:v], far_cluster[u:v]
                )
            if is_full(start + size, edges[m + 1] - edges[m]):
                move(few[edges[m] : edges[m + 1]], first[edges[m] : edges[m + 1]])
    move(few, first)


def assign(x: Array, w: Array | None, frame: Frame, centres: Sequence[Array], far: Sequence[int]) -> list[Assigned]:
    c = frozen(np.concatenate(centres, dtype=x.dtype, casting="same_kind"))
    edges, far_edges = edges_of([len(own) for own in centres]), edges_of(far)
    mass, first, cost = np.zeros(len(c)), np.zeros(c.shape), np.zeros(len(centres))
    farthest = [np.full(sum(far), fill) for fill in (-1.0, 0, 0)]
    shift, scale = frozen(frame.shift, x.dtype), frozen(frame.scale, x.dtype)
    weights = None if w is None else weights_of(w)
    _assign(frozen(x), weights, shift, scale, c, edges, mass, first, cost, far_edges, *farthest)
    answers = []
    for u, v, a, b, spent in zip(edges, edges[1:], far_edges, far_edges[1:], cost.tolist(), strict=False):
        answers.append(Assigned(mass[u:v], first[u:v], spent, *(its[a:b] for its in farthest)))
    return answers


@partial(jit, fastmath=EXACT)
def _nearest_observed(x, i, shift, scale, columns, squares, y):
    """The nearest centre to a row by what is there of it, which is left in `y`; of equals the first."""
    d, k = columns.shape
    squares[:] = 0
    for f in range(d):
        y[f] = (x[i, f] - shift[f]) * scale[f]
        if not np.isnan(y[f]):
            for j in range(k):
                away = y[f] - columns[f, j]
                squares[j] += away * away
    nearest = 0
    for j in range(1, k):
        if squares[j] < squares[nearest]:
            nearest = j
    return nearest


@partial(jit, fastmath=EXACT)
def _assign_observed(x, w, shift, scale, columns, mass, first, absent, far_distance, far_row, far_cluster):
    """Centres lie in columns (d, k). w is an array or None."""
    (n, d), k = x.shape, columns.shape[1]
    y, squares = np.empty(d, x.dtype), np.empty(k, x.dtype)
    distance, cluster = np.empty(TILE, x.dtype), np.empty(TILE, np.int32)
    cost, least = 0.0, -1.0 if len(far_distance) else np.inf
    for start in range(0, n, TILE):
        b, farthest = min(TILE, n - start), 0.0
        for i in range(b):
            j = _nearest_observed(x, start + i, shift, scale, columns, squares, y)
            weight = 1.0 if w is None else w[start + i]
            mass[j] += weight
            for f in range(d):
                if np.isnan(y[f]):
                    absent[j, f] += weight
                else:
                    first[j, f] += weight * y[f]
            cluster[i], distance[i] = j, squares[j]
            cost += weight * distance[i]
            farthest = max(farthest, distance[i])
        if farthest > least:
            least = keep_farthest(distance, b, w, start, cluster, 0, far_distance, far_row, far_cluster)
    return cost


def assign_observed(x: Array, w: Array | None, frame: Frame, centres: Array, far: int) -> Assigned:
    mass, first, absent = np.zeros(len(centres)), np.zeros(centres.shape), np.zeros(centres.shape)
    farthest = [np.full(far, fill) for fill in (-1.0, 0, 0)]
    weights = None if w is None else weights_of(w)
    shift, scale, columns = (frozen(a, x.dtype) for a in (frame.shift, frame.scale, centres.T))
    cost = _assign_observed(frozen(x), weights, shift, scale, columns, mass, first, absent, *farthest)
    return Assigned(mass, first, cost, *farthest)._replace(absent=absent)
