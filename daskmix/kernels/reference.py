"""The kernels in NumPy, or in CuPy on arrays of its own: the definition of right.

Rows, and whatever there is one of for each, stay where they live. Sums come to the host, together, at the end.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from daskmix.arrays import Array, alongside, namespace, to_host
from daskmix.kernels import Assigned, Bounds, Centred, Densities, Explained, Frame, Observed, Order, Product, Tails
from daskmix.kernels.gaps import Pattern, ordered, patterns

in_tiles = False


def enter(x: Array, frame: Frame) -> Array:
    """Rows in the frame, in their own dtype: the shift is representable in it, the scale a power of two."""
    return (x - alongside(frame.shift.astype(x.dtype), x)) * alongside(frame.scale.astype(x.dtype), x)


def nearest(y: Array, centres: Array) -> tuple[Array, Array]:
    """Index of the nearest centre and |y - c|^2, each (n,), for rows in the frame."""
    return nearest_of_each(y, [centres])[0]


def nearest_of_each(y: Array, centres: Sequence[Array]) -> list[tuple[Array, Array]]:
    """The same for each of several models, by one product."""
    c = alongside(np.concatenate(centres).astype(y.dtype), y)
    # Choosing by |c|^2 - 2 y.c is fine; measuring that way would cancel.
    scores = y @ c.T - 0.5 * (c * c).sum(axis=1)
    found = []
    for own in _segments([len(model) for model in centres]):
        cluster = scores[:, own].argmax(axis=1)
        found.append((cluster, ((y - c[own][cluster]) ** 2).sum(axis=1).astype(np.float64)))
    return found


def _segments(sizes: Sequence[int]) -> list[slice]:
    """Where each of several models stands among all their rows."""
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def assign(x: Array, w: Array | None, frame: Frame, centres: Sequence[Array], far: Sequence[int]) -> list[Assigned]:
    y = enter(x, frame)
    models = zip(nearest_of_each(y, centres), centres, far, strict=True)
    sums = [_assigned(y, w, *found, len(c), m) for found, c, m in models]
    return [_assigned_on_host(*map(to_host, own), far=m) for own, m in zip(sums, far, strict=True)]


def nearest_observed(y: Array, centres: Array) -> tuple[Array, Array]:
    """Index of the nearest centre and |y - c|^2 by what is there of a row, each (n,)."""
    squares = squares_observed(y, centres)
    return squares.argmin(axis=1), squares.min(axis=1)


def squares_observed(y: Array, centres: Array) -> Array:
    """|y - c|^2 by what is there: (n, k), in float64."""
    xp, c = namespace(y), alongside(centres, y)
    there, y, out = ~xp.isnan(y), y.astype(np.float64), xp.empty((len(y), len(c)))
    for j in range(len(c)):
        out[:, j] = (xp.where(there, y - c[j], 0.0) ** 2).sum(axis=1)
    return out


def assign_observed(x: Array, w: Array | None, frame: Frame, centres: Array, far: int) -> Assigned:
    y, k = enter(x, frame), len(centres)
    xp = namespace(y)
    absent = xp.isnan(y)
    cluster, distance = nearest_observed(y, centres)
    found = _assigned(xp.where(absent, y.dtype.type(0), y), w, cluster, distance, k, far)
    share = (cluster[:, None] == xp.arange(k)).astype(np.float64)
    share = share if w is None else share * w[:, None]
    lacking = share.T @ absent.astype(np.float64)
    return _assigned_on_host(*map(to_host, found), far=far)._replace(absent=to_host(lacking))


def _assigned(y: Array, w: Array | None, cluster: Array, distance: Array, k: int, far: int) -> tuple[Array, ...]:
    """The fields of `Assigned`, where the rows live and without padding."""
    xp = namespace(y)
    one_hot = (cluster[:, None] == xp.arange(k)).astype(np.float64)
    if w is not None:
        one_hot *= w[:, None]
        far_rank = xp.where(w > 0, distance, -1.0)
    else:
        far_rank = distance
    rows = xp.argsort(-far_rank, kind="stable")[:far]
    cost = (one_hot.sum(axis=1) * distance).sum()
    return one_hot.sum(axis=0), one_hot.T @ y, cost, far_rank[rows], rows, cluster[rows]


def _assigned_on_host(
    mass: Array, first: Array, cost: Array, far_distance: Array, far_row: Array, far_cluster: Array, *, far: int
) -> Assigned:
    padding = far - len(far_row)
    return Assigned(
        mass=mass,
        first=first,
        cost=float(cost),
        far_distance=np.pad(far_distance, (0, padding), constant_values=-1.0),
        far_row=np.pad(far_row, (0, padding)),
        far_cluster=np.pad(far_cluster, (0, padding)),
    )


def assign_again(
    x: Array, w: Array | None, frame: Frame, centres: Array, far: int, bounds: Bounds | None
) -> tuple[Assigned, Bounds | None, int]:
    """The same, with the bounds for the next pass, and how many distances the last ones spared: none here."""
    (found,) = assign(x, w, frame, [centres], [far])
    return found, None, 0


def features(y: Array, order: Order, observed: bool = False) -> Array:
    """phi(y): (n, p), the last column ones; before it, where rows have gaps, what is there."""
    xp = namespace(y)
    n, d = y.shape
    ones = xp.ones((n, 1), dtype=y.dtype)
    if observed:
        there = ~xp.isnan(y)
        ones = xp.concatenate([there.astype(y.dtype), ones], axis=1)
        y = xp.where(there, y, y.dtype.type(0))
    if order is Order.diagonal:
        return xp.concatenate([y, y * y, ones], axis=1)
    if order is Order.full:
        rows, columns = xp.triu_indices(d)
        return xp.concatenate([y, y[:, rows] * y[:, columns], ones], axis=1)
    return xp.concatenate([y, (y * y).sum(axis=1, keepdims=True), ones], axis=1)


def log_joint(y: Array, densities: Densities) -> Array:
    """log p(y, k) for rows in the frame: (n, k)."""
    joint, tails = _before_tails(y, densities), tails_of(densities)
    return joint if tails is None else _with_tails(joint, tails, y.shape[1])[0]


def tails_of(densities: Densities) -> Tails | None:
    return None if isinstance(densities, Observed) else densities.tails


def _with_tails(joint: Array, tails: Tails, d: int) -> tuple[Array, Array]:
    """log p(y, k) and log u, what a row counts for the moments of a component: (n, k)."""
    xp, rows = namespace(joint), alongside(tails.rows(d), joint)
    # Rounding may leave more than nothing.
    log = xp.log1p(xp.maximum(joint.astype(np.float64) * rows[0], 0.0))
    return rows[1] - rows[2] * log, xp.log(rows[3]) - log


def _before_tails(y: Array, densities: Densities) -> Array:
    if isinstance(densities, Product):
        y = y.astype(densities.theta.dtype, copy=False)
        if densities.whiten is not None:
            y = y @ alongside(densities.whiten.astype(y.dtype), y)
        return features(y, densities.order, densities.observed) @ alongside(densities.theta, y).T
    if isinstance(densities, Observed):
        return _log_joint_observed(y.astype(np.float64, copy=False), densities)
    squared = _squared_mahalanobis(y.astype(np.float64, copy=False), densities)
    return alongside(densities.constants, y) - 0.5 * squared


def _squared_mahalanobis(y: Array, densities: Centred) -> Array:
    n, k = len(y), len(densities.means)
    means, factors = alongside(densities.means, y), alongside(densities.factors, y)
    out = namespace(y).empty((n, k))
    for j in range(k):
        z = y - means[j]
        if densities.order is Order.full:
            z = z @ factors[j]
        elif densities.order is Order.pooled:
            z = z @ factors
        else:
            z = z * factors[j]
        out[:, j] = (z * z).sum(axis=1)
    return out


def _log_joint_observed(y: Array, densities: Observed) -> Array:
    out = namespace(y).empty((len(y), len(densities.means)))
    for rows, pattern, j, squared in _squared_observed(y, densities):
        out[rows, j] = float(pattern.constants[j]) - 0.5 * squared
    return out / densities.temperature


def _squared_observed(y: Array, densities: Observed) -> Iterator[tuple[Array, Pattern, int, Array]]:
    """The squared Mahalanobis distance of what is there of some rows to each mean in turn."""
    for rows, pattern in patterns(y, densities):
        rows, factors = alongside(rows, y), alongside(pattern.factors, y)
        for j, z in enumerate(_away(y, rows, pattern.seen, densities)):
            white = z @ factors[j]
            yield rows, pattern, j, (white * white).sum(axis=1)


def mahalanobis(x: Array, frame: Frame, densities: Centred | Observed) -> Array:
    """The Mahalanobis distance of each row to each mean, by what is there of it: (n, k)."""
    y = enter(x, frame).astype(np.float64, copy=False)
    if isinstance(densities, Centred):
        return namespace(y).sqrt(_squared_mahalanobis(y, densities))
    out = namespace(y).empty((len(y), len(densities.means)))
    for rows, _, j, squared in _squared_observed(y, densities):
        out[rows, j] = namespace(y).sqrt(squared)
    return out


def _away(y: Array, rows: Array, seen: Array, densities: Observed) -> Iterator[Array]:
    """What is there of some rows, from each mean in turn: (len(rows), o)."""
    own, means = y[rows][:, alongside(seen, y)], alongside(densities.means[:, seen], y)
    return (own - means[j] for j in range(len(densities.means)))


def _moments_observed(y: Array, share: Array, densities: Observed) -> tuple[Array, Array, Array]:
    """Moments of the rows completed with what is to be expected, about the means."""
    xp, (k, d) = namespace(y), densities.means.shape
    y = y.astype(np.float64, copy=False)
    first, second = np.zeros((k, d)), np.zeros((k, d, d))
    for rows, pattern in patterns(y, densities):
        rows = alongside(rows, y)
        own = share[rows]
        zs = enumerate(_away(y, rows, pattern.seen, densities))
        sums = [xp.concatenate([own[:, j] @ z, ((z * own[:, j, None]).T @ z).ravel()]) for j, z in zs]
        o, found = len(pattern.seen), to_host(xp.concatenate(sums)).reshape(k, -1)
        completed = pattern.completed(to_host(own.sum(axis=0)), found[:, :o], found[:, o:].reshape(k, o, o))
        first, second = first + completed[0], second + completed[1]
    return to_host(share.sum(axis=0)), first, ordered(second, densities.order)


def complete(x: Array, frame: Frame, densities: Observed) -> Array:
    y = enter(x, frame).astype(np.float64)
    share, out = normalise(log_joint(y, densities))[0], namespace(y).zeros(y.shape)
    for rows, pattern in patterns(y, densities):
        rows = alongside(rows, y)
        carry, means = alongside(pattern.carry, y), alongside(densities.means, y)
        for j, z in enumerate(_away(y, rows, pattern.seen, densities)):
            out[rows] += share[rows, j][:, None] * (means[j] + z @ carry[j].T)
    scale, shift = (alongside(part, y) for part in (frame.scale, frame.shift))
    return namespace(x).where(namespace(x).isnan(x), out / scale + shift, x)


def normalise(joint: Array) -> tuple[Array, Array, Array]:
    """log p(x, k) -> responsibilities (n, k), log p(x) and log of the largest responsibility (n,)."""
    xp = namespace(joint)
    top = joint.max(axis=1)
    share = xp.exp(joint - top[:, None])
    total = share.sum(axis=1)
    share /= total[:, None]
    log_total = xp.log(total)
    return share, top + log_total, -log_total


def moments(y: Array, share: Array, order: Order, means: Array | None = None) -> tuple[Array, Array, Array]:
    """Mass (k,), first (k, d) and second moments of rows shared out (n, k), about the origin or about the means."""
    xp = namespace(y)
    share, y = share.astype(np.float64, copy=False), y.astype(np.float64, copy=False)
    (_, k), d = share.shape, y.shape[1]
    mass = share.sum(axis=0)
    if means is None and order is Order.pooled:
        return mass, share.T @ y, (y * share.sum(axis=1)[:, None]).T @ y
    origin = None if means is None else alongside(means, y)
    first = xp.empty((k, d))
    second = xp.empty({Order.trace: (k,), Order.diagonal: (k, d)}.get(order, (k, d, d)))
    for j in range(k):
        z = y if origin is None else y - origin[j]
        first[j] = share[:, j] @ z
        if order is Order.diagonal:
            second[j] = share[:, j] @ (z * z)
        elif order is Order.trace:
            second[j] = share[:, j] @ (z * z).sum(axis=1)
        else:
            second[j] = (z * share[:, j, None]).T @ z
    return mass, first, second.sum(axis=0) if order is Order.pooled else second


def explain(
    x: Array, w: Array | None, frame: Frame, densities: Densities, pick: Array | None = None
) -> list[Explained]:
    y = enter(x, frame)
    joint, tails = _before_tails(y, densities), tails_of(densities)
    if tails is not None:
        joint, log_u = _with_tails(joint, tails, y.shape[1])
        *own, heft, tail = map(to_host, _explained_with_tails(y, w, joint, log_u, densities, pick))
        return [_explained_on_host(*own)._replace(heft=heft, tail=tail)]
    cuts = densities.cuts if isinstance(densities, Product) else ()
    edges = [0, *cuts, joint.shape[1]]
    sums = [_explained(y, w, joint[:, a:b], densities, pick) for a, b in pairwise(edges)]
    return [_explained_on_host(*map(to_host, own)) for own in sums]


def _shares(w: Array | None, joint: Array, pick: Array | None) -> tuple[Array, Array, Array]:
    """Weighted responsibilities (n, k), score and certainty."""
    joint = joint.astype(np.float64)
    if pick is not None:
        pick = alongside(pick, joint)
        joint = _of_known(joint, pick)
    share, score, certainty = normalise(joint)
    if pick is not None:
        share = _picked(share, pick)
    if w is not None:
        share, score, certainty = share * w[:, None], score * w, certainty * w
    return share, score.sum(), certainty.sum()


def _explained(y: Array, w: Array | None, joint: Array, densities: Densities, pick: Array | None) -> tuple[Array, ...]:
    """The fields of `Explained` for one model, where the rows live."""
    share, *totals = _shares(w, joint, pick)
    if isinstance(densities, Observed):
        return *_moments_observed(y, share, densities), *totals
    if isinstance(densities, Product) and densities.observed:
        there = ~namespace(y).isnan(y)
        y = namespace(y).where(there, y, y.dtype.type(0))
        return *moments(y, share, densities.order), *totals, share.T @ there.astype(np.float64)
    means = densities.means if isinstance(densities, Centred) else None
    return *moments(y, share, densities.order, means), *totals


def _explained_with_tails(
    y: Array, w: Array | None, joint: Array, log_u: Array, densities: Densities, pick: Array | None
) -> tuple[Array, ...]:
    """The same with tails, and what is there of u."""
    share, *totals = _shares(w, joint, pick)
    u = namespace(y).exp(log_u)
    means = densities.means if isinstance(densities, Centred) else None
    heft, first, second = moments(y, share * u, densities.order, means)
    return share.sum(axis=0), first, second, *totals, heft, (share * (log_u - u)).sum(axis=0)


def _of_known(joint: Array, pick: Array) -> Array:
    """Of rows whose component is known, the others have no density."""
    xp = namespace(joint)
    other = (pick < 0)[:, None] & (xp.arange(joint.shape[1]) != (-1.0 - pick)[:, None])
    return xp.where(other, -np.inf, joint)


def _picked(share: Array, pick: Array) -> Array:
    """All of each row to one component, but of those that have no pick."""
    xp = namespace(share)
    reached = xp.cumsum(share, axis=1) >= pick[:, None]
    reached[:, -1] = True  # also where rounding leaves less than 1
    one = xp.where(pick > 0, reached.argmax(axis=1), share.argmax(axis=1))
    whole = (one[:, None] == xp.arange(share.shape[1])).astype(np.float64)
    return xp.where((pick >= 0)[:, None], whole, share)


def _explained_on_host(
    mass: Array, first: Array, second: Array, score: Array, certainty: Array, seen: Array | None = None
) -> Explained:
    return Explained(mass, first, second, float(score), float(certainty), seen)


def distance(x: Array, frame: Frame, centres: Array) -> Array:
    """|x - c|^2 to the nearest centre, in the frame: (n,)."""
    return nearest(enter(x, frame), centres)[1]


def distance_observed(x: Array, frame: Frame, centres: Array) -> Array:
    """The same of rows with gaps, by what is there of them."""
    return nearest_observed(enter(x, frame), centres)[1]


def joint(x: Array, frame: Frame, densities: Densities) -> Array:
    """log p(x, k): (n, k)."""
    return log_joint(enter(x, frame), densities)
