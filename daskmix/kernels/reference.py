"""The kernels in NumPy, or in CuPy on arrays of its own: the definition of right.

Rows, and whatever there is one of for each, stay where they live. Sums come to the host, together, at the end.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from daskmix.arrays import Array, alongside, namespace, to_host
from daskmix.kernels import Assigned, Bounds, Centred, Densities, Explained, Frame, Order, Product

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


def features(y: Array, order: Order) -> Array:
    """phi(y): (n, p), the last column ones."""
    xp = namespace(y)
    n, d = y.shape
    ones = xp.ones((n, 1), dtype=y.dtype)
    if order is Order.diagonal:
        return xp.concatenate([y, y * y, ones], axis=1)
    if order is Order.full:
        rows, columns = xp.triu_indices(d)
        return xp.concatenate([y, y[:, rows] * y[:, columns], ones], axis=1)
    return xp.concatenate([y, (y * y).sum(axis=1, keepdims=True), ones], axis=1)


def log_joint(y: Array, densities: Densities) -> Array:
    """log p(y, k) for rows in the frame: (n, k)."""
    if isinstance(densities, Product):
        y = y.astype(densities.theta.dtype, copy=False)
        if densities.whiten is not None:
            y = y @ alongside(densities.whiten.astype(y.dtype), y)
        return features(y, densities.order) @ alongside(densities.theta, y).T
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
    joint = log_joint(y, densities)
    cuts = densities.cuts if isinstance(densities, Product) else ()
    edges = [0, *cuts, joint.shape[1]]
    sums = [_explained(y, w, joint[:, a:b], densities, pick) for a, b in pairwise(edges)]
    return [_explained_on_host(*map(to_host, own)) for own in sums]


def _explained(y: Array, w: Array | None, joint: Array, densities: Densities, pick: Array | None) -> tuple[Array, ...]:
    """The fields of `Explained` for one model, where the rows live."""
    share, score, certainty = normalise(joint.astype(np.float64))
    if pick is not None:
        share = _picked(share, alongside(pick, share))
    if w is not None:
        share, score, certainty = share * w[:, None], score * w, certainty * w
    means = densities.means if isinstance(densities, Centred) else None
    return *moments(y, share, densities.order, means), score.sum(), certainty.sum()


def _picked(share: Array, pick: Array) -> Array:
    """All of each row to one component."""
    xp = namespace(share)
    reached = xp.cumsum(share, axis=1) >= pick[:, None]
    reached[:, -1] = True  # also where rounding leaves less than 1
    one = xp.where(pick > 0, reached.argmax(axis=1), share.argmax(axis=1))
    return (one[:, None] == xp.arange(share.shape[1])).astype(np.float64)


def _explained_on_host(mass: Array, first: Array, second: Array, score: Array, certainty: Array) -> Explained:
    return Explained(mass, first, second, float(score), float(certainty))


def distance(x: Array, frame: Frame, centres: Array) -> Array:
    """|x - c|^2 to the nearest centre, in the frame: (n,)."""
    return nearest(enter(x, frame), centres)[1]


def joint(x: Array, frame: Frame, densities: Densities) -> Array:
    """log p(x, k): (n, k)."""
    return log_joint(enter(x, frame), densities)
