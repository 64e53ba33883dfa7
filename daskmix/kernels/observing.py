"""Rows with gaps shared out among components by what is there of them, safely: compiled."""

import numpy as np

from daskmix.block import Array
from daskmix.kernels import LOG_2PI, Explained, Frame, Observed, Order
from daskmix.kernels.explaining import softmax
from daskmix.kernels.gaps import ordered, same_gaps
from daskmix.kernels.jit import jit
from daskmix.kernels.tiles import frozen, weights_of

TILE = 256  # rows


# --- features that do not depend on each other ------------------------------------------------------------------------


@jit
def _joint_independent(x, start, b, shift, scale, means, factors, there, log_weights, heat, y, joint):
    """log p(x, k) of a tile; `there` is what each feature adds where it is there. y is left in the frame."""
    k, d = means.shape
    for i in range(b):
        for f in range(d):
            y[i, f] = (x[start + i, f] - shift[f]) * scale[f]
    for j in range(k):
        for i in range(b):
            total = log_weights[j]
            for f in range(d):
                away = (y[i, f] - means[j, f]) * factors[j, f]
                total += 0.0 if np.isnan(away) else there[j, f] - 0.5 * away * away
            joint[j, i] = total * heat


@jit
def _explain_independent(
    x, w, pick, shift, scale, means, factors, there, log_weights, heat, mass, first, second, lacking
):
    (n, d), k = x.shape, len(means)
    y, joint, top, total = np.empty((TILE, d)), np.empty((k, TILE)), np.empty(TILE), np.empty(TILE)
    score, certainty = 0.0, 0.0
    for start in range(0, n, TILE):
        b = min(TILE, n - start)
        _joint_independent(x, start, b, shift, scale, means, factors, there, log_weights, heat, y, joint)
        s, c = softmax(joint, top, total, w, pick, start, b)
        score += s
        certainty += c
        for j in range(k):
            for i in range(b):
                share = joint[j, i]
                mass[j] += share
                for f in range(d):
                    away = y[i, f] - means[j, f]
                    absent = np.isnan(away)
                    away = 0.0 if absent else away
                    first[j, f] += share * away
                    second[j, f] += share * away * away
                    lacking[j, f] += share if absent else 0.0
    return score, certainty


@jit
def _joints_independent(x, shift, scale, means, factors, there, log_weights, heat, out):
    (n, d), k = x.shape, len(means)
    y, joint = np.empty((TILE, d)), np.empty((k, TILE))
    for start in range(0, n, TILE):
        b = min(TILE, n - start)
        _joint_independent(x, start, b, shift, scale, means, factors, there, log_weights, heat, y, joint)
        for i in range(b):
            for j in range(k):
                out[start + i, j] = joint[j, i]


def _independent(densities: Observed) -> tuple[Array, ...]:
    variances = np.diagonal(densities.covariances, axis1=1, axis2=2)
    there = densities.log_scale - 0.5 * (LOG_2PI + np.log(variances) + densities.floor / variances)
    return tuple(frozen(a) for a in (densities.means, 1.0 / np.sqrt(variances), there, densities.log_weights))


# --- features that do: rows with the same gaps are computed on together ---------------------------------------------


@jit
def _marginal(covariance, seen, floor, root):
    """The inverse of the Cholesky factor of what is there of a covariance; log of its determinant, less smoothing."""
    o, log_det, smoothed = len(seen), 0.0, 0.0
    for a in range(o):
        for b in range(a + 1):
            value = covariance[seen[a], seen[b]]
            for e in range(b):
                value -= root[a, e] * root[b, e]
            root[a, b] = np.sqrt(value) if a == b else value / root[b, b]
    for a in range(o):
        root[a, a] = 1.0 / root[a, a]
        log_det += np.log(root[a, a])
        for b in range(a):
            value = 0.0
            for e in range(b, a):
                value += root[a, e] * root[e, b]
            root[a, b] = -root[a, a] * value
        for b in range(a + 1):
            smoothed += root[a, b] * root[a, b] * floor[seen[b]]
    return log_det - 0.5 * smoothed


@jit
def _split(row, seen, lacking):
    """Which features of a row are there, and which are not; how many are."""
    o = 0
    for f in range(len(row)):
        if np.isnan(row[f]):
            lacking[f - o] = f
        else:
            seen[o] = f
            o += 1
    return o


@jit
def _marginals(densities, seen, roots, constants):
    """Of all components."""
    means, covariances, log_weights, floor, per_feature, _ = densities
    for j in range(len(means)):
        constants[j] = log_weights[j] + _marginal(covariances[j], seen, floor, roots[j])
        for f in seen:
            constants[j] += per_feature[f]


@jit
def _away(x, start, b, shift, scale, mean, seen, z):
    """What is there of a tile, from a mean, feature by feature."""
    for a in range(len(seen)):
        f = seen[a]
        for i in range(b):
            z[a, i] = (x[start + i, f] - shift[f]) * scale[f] - mean[f]


@jit
def _joint_same(x, start, b, shift, scale, densities, seen, roots, constants, z, white, joint):
    """log p(x, k) of a tile of rows with the same gaps."""
    means, heat = densities[0], densities[5]
    for j in range(len(means)):
        _away(x, start, b, shift, scale, means[j], seen, z)
        for i in range(b):
            joint[j, i] = constants[j]
        for a in range(len(seen)):
            for i in range(b):
                white[i] = 0.0
            for e in range(a + 1):
                for i in range(b):
                    white[i] += roots[j, a, e] * z[e, i]
            for i in range(b):
                joint[j, i] -= 0.5 * white[i] * white[i]
        for i in range(b):
            joint[j, i] *= heat


@jit
def _add_same(joint, j, b, z, o, white, first, second):
    """Sums of a tile: first (o,) and the lower half of second moments (o, o) about the mean; the mass."""
    mass = 0.0
    for i in range(b):
        mass += joint[j, i]
    for a in range(o):
        total = 0.0
        for i in range(b):
            white[i] = joint[j, i] * z[a, i]
            total += white[i]
        first[a] += total
        for e in range(a + 1):
            total = 0.0
            for i in range(b):
                total += white[i] * z[e, i]
            second[a, e] += total
    return mass


@jit
def _carry(covariance, seen, lacking, root, half, carry):
    """What is expected of what is lacking is carry @ z; carry = half @ root, half half' what z explains of it."""
    o = len(seen)
    for a in range(len(lacking)):
        for e in range(o):
            half[a, e] = 0.0
            for f in range(e + 1):
                half[a, e] += covariance[lacking[a], seen[f]] * root[e, f]
        for f in range(o):
            carry[a, f] = 0.0
            for e in range(f, o):
                carry[a, f] += half[a, e] * root[e, f]


@jit
def _add_completed(covariance, seen, lacking, floor, root, mass, first, second, half, carry, other, firsts, seconds):
    """Adds the moments of rows with the same gaps, completed, from sums of what is there; see `gaps.Pattern`."""
    o, m = len(seen), len(lacking)
    _carry(covariance, seen, lacking, root, half, carry)
    for a in range(o):
        firsts[seen[a]] += first[a]
        for e in range(a + 1):
            seconds[seen[a], seen[e]] += second[a, e]
            if e < a:
                seconds[seen[e], seen[a]] += second[a, e]
                second[e, a] = second[a, e]
        second[a, a] += mass * floor[seen[a]]
    for a in range(m):
        for e in range(o):
            firsts[lacking[a]] += carry[a, e] * first[e]
            other[e] = 0.0
            for f in range(o):
                other[e] += carry[a, f] * second[f, e]
            seconds[lacking[a], seen[e]] += other[e]
            seconds[seen[e], lacking[a]] += other[e]
        for c in range(m):
            left = covariance[lacking[a], lacking[c]] - (floor[lacking[a]] if a == c else 0.0)
            total = mass * left
            for e in range(o):
                total += other[e] * carry[c, e] - mass * half[a, e] * half[c, e]
            seconds[lacking[a], lacking[c]] += total


@jit
def _explain_same(x, edges, w, pick, shift, scale, densities, masses, firsts, seconds):
    """Rows with the same gaps are neighbours, and begin at `edges`."""
    means, covariances, _, floor, _, _ = densities
    k, d = means.shape
    roots, constants, joint = np.zeros((k, d, d)), np.empty(k), np.empty((k, TILE))
    z, white, top, total = np.empty((d, TILE)), np.empty(TILE), np.empty(TILE), np.empty(TILE)
    mass, first, second = np.empty(k), np.empty((k, d)), np.empty((k, d, d))
    half, carry, other = np.empty((d, d)), np.empty((d, d)), np.empty(d)
    features, lacks = np.empty(d, np.int64), np.empty(d, np.int64)
    score, certainty = 0.0, 0.0
    for g in range(len(edges) - 1):
        o = _split(x[edges[g]], features, lacks)
        seen, lacking = features[:o], lacks[: d - o]
        _marginals(densities, seen, roots, constants)
        mass[:] = 0.0
        first[:, :o] = 0.0
        second[:, :o, :o] = 0.0
        for start in range(edges[g], edges[g + 1], TILE):
            b = min(TILE, edges[g + 1] - start)
            _joint_same(x, start, b, shift, scale, densities, seen, roots, constants, z, white, joint)
            s, c = softmax(joint, top, total, w, pick, start, b)
            score += s
            certainty += c
            for j in range(k):
                _away(x, start, b, shift, scale, means[j], seen, z)
                mass[j] += _add_same(joint, j, b, z, o, white, first[j], second[j])
        for j in range(k):
            masses[j] += mass[j]
            _add_completed(
                covariances[j], seen, lacking, floor, roots[j], mass[j], first[j], second[j], half, carry, other,
                firsts[j], seconds[j],
            )  # fmt: skip
    return score, certainty


@jit
def _joints_same(x, edges, shift, scale, densities, out):
    k, d = densities[0].shape
    roots, constants, joint = np.zeros((k, d, d)), np.empty(k), np.empty((k, TILE))
    z, white = np.empty((d, TILE)), np.empty(TILE)
    features, lacks = np.empty(d, np.int64), np.empty(d, np.int64)
    for g in range(len(edges) - 1):
        seen = features[: _split(x[edges[g]], features, lacks)]
        _marginals(densities, seen, roots, constants)
        for start in range(edges[g], edges[g + 1], TILE):
            b = min(TILE, edges[g + 1] - start)
            _joint_same(x, start, b, shift, scale, densities, seen, roots, constants, z, white, joint)
            for i in range(b):
                for j in range(k):
                    out[start + i, j] = joint[j, i]


@jit
def _complete_same(x, edges, share, shift, scale, densities, out):
    """Adds what is expected of what is lacking to `out`, in the frame."""
    means, covariances, _, floor, _, _ = densities
    k, d = means.shape
    root, half, carry, z = np.zeros((d, d)), np.empty((d, d)), np.empty((d, d)), np.empty((d, TILE))
    features, lacks = np.empty(d, np.int64), np.empty(d, np.int64)
    for g in range(len(edges) - 1):
        o = _split(x[edges[g]], features, lacks)
        seen, lacking = features[:o], lacks[: d - o]
        for j in range(k):
            _marginal(covariances[j], seen, floor, root)
            _carry(covariances[j], seen, lacking, root, half, carry)
            for start in range(edges[g], edges[g + 1], TILE):
                b = min(TILE, edges[g + 1] - start)
                _away(x, start, b, shift, scale, means[j], seen, z)
                for a in range(d - o):
                    f = lacking[a]
                    for i in range(b):
                        expected = means[j, f]
                        for e in range(o):
                            expected += carry[a, e] * z[e, i]
                        out[start + i, f] += share[start + i, j] * expected


def _dependent(densities: Observed) -> tuple[Array | float, ...]:
    per_feature = densities.log_scale - 0.5 * LOG_2PI
    arrays = densities.means, densities.covariances, densities.log_weights, densities.floor, per_feature
    return *(frozen(a, np.float64) for a in arrays), 1.0 / densities.temperature


# --- what the others call -------------------------------------------------------------------------------------------


def explain(x: Array, w: Array | None, frame: Frame, densities: Observed, pick: Array | None = None) -> Explained:
    k, d = densities.means.shape
    shift, scale = frozen(frame.shift, np.float64), frozen(frame.scale, np.float64)
    mass, first = np.zeros(k), np.zeros((k, d))
    if densities.order in (Order.trace, Order.diagonal):
        second, lacking = np.zeros((2, k, d))
        model, heat = _independent(densities), 1.0 / densities.temperature
        score, certainty = _explain_independent(
            frozen(x), weights_of(w), weights_of(pick), shift, scale, *model, heat, mass, first, second, lacking
        )
        second += lacking * (np.diagonal(densities.covariances, axis1=1, axis2=2) - densities.floor)
        answer = second.sum(axis=1) if densities.order is Order.trace else second
        return Explained(mass, first, answer, score, certainty)
    order, edges, _ = same_gaps(x)
    weights, picks = (weights_of(None if a is None else a[order]) for a in (w, pick))
    second = np.zeros((k, d, d))
    score, certainty = _explain_same(
        frozen(x[order]), frozen(edges), weights, picks, shift, scale, _dependent(densities), mass, first, second
    )
    return Explained(mass, first, ordered(second, densities.order), score, certainty)


def joint(x: Array, frame: Frame, densities: Observed) -> Array:
    shift, scale = frozen(frame.shift, np.float64), frozen(frame.scale, np.float64)
    found = np.empty((len(x), len(densities.means)))
    if densities.order in (Order.trace, Order.diagonal):
        heat = 1.0 / densities.temperature
        _joints_independent(frozen(x), shift, scale, *_independent(densities), heat, found)
        return found
    order, edges, _ = same_gaps(x)
    _joints_same(frozen(x[order]), frozen(edges), shift, scale, _dependent(densities), found)
    out = np.empty_like(found)
    out[order] = found
    return out


def expected(x: Array, share: Array, frame: Frame, densities: Observed) -> Array:
    """What is expected of values that are missing, in the frame, by the shares of the components: (n, d)."""
    shift, scale = frozen(frame.shift, np.float64), frozen(frame.scale, np.float64)
    order, edges, _ = same_gaps(x)
    found = np.zeros(x.shape)
    _complete_same(frozen(x[order]), frozen(edges), frozen(share[order]), shift, scale, _dependent(densities), found)
    out = np.empty_like(found)
    out[order] = found
    return out
