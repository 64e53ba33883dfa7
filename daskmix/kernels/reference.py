"""The kernels in NumPy, or in CuPy on arrays of its own: the definition of right.

Rows, and whatever there is one of for each, stay where they live. Sums come to the host, together, at the end.
"""

import numpy as np

from daskmix.arrays import Array, alongside, namespace, to_host
from daskmix.kernels import Assigned, Centred, Densities, Explained, Frame, Order, Product


def enter(x: Array, frame: Frame) -> Array:
    """Rows in the frame, in their own dtype: the shift is representable in it, the scale a power of two."""
    return (x - alongside(frame.shift.astype(x.dtype), x)) * alongside(frame.scale.astype(x.dtype), x)


def nearest(y: Array, centres: Array) -> tuple[Array, Array]:
    """Index of the nearest centre and |y - c|^2, each (n,), for rows in the frame."""
    c = alongside(centres.astype(y.dtype), y)
    # Choosing by |c|^2 - 2 y.c is fine; measuring that way would cancel.
    cluster = (y @ c.T - 0.5 * (c * c).sum(axis=1)).argmax(axis=1)
    return cluster, ((y - c[cluster]) ** 2).sum(axis=1).astype(np.float64)


def assign(x: Array, w: Array | None, frame: Frame, centres: Array, far: int) -> Assigned:
    xp = namespace(x)
    y = enter(x, frame)
    cluster, distance = nearest(y, centres)
    one_hot = (cluster[:, None] == xp.arange(len(centres))).astype(np.float64)
    if w is not None:
        one_hot *= w[:, None]
        far_rank = xp.where(w > 0, distance, -1.0)
    else:
        far_rank = distance
    rows = xp.argsort(-far_rank, kind="stable")[:far]
    sums = one_hot.sum(axis=0), one_hot.T @ y, (one_hot.sum(axis=1) * distance).sum()
    mass, first, cost = map(to_host, sums)
    far_distance, far_row, far_cluster = map(to_host, (far_rank[rows], rows, cluster[rows]))
    padding = far - len(far_row)
    return Assigned(
        mass=mass,
        first=first,
        cost=float(cost),
        far_distance=np.pad(far_distance, (0, padding), constant_values=-1.0),
        far_row=np.pad(far_row, (0, padding)),
        far_cluster=np.pad(far_cluster, (0, padding)),
    )


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


def explain(x: Array, w: Array | None, frame: Frame, densities: Densities) -> Explained:
    y = enter(x, frame)
    share, score, certainty = normalise(log_joint(y, densities).astype(np.float64))
    if w is not None:
        share, score, certainty = share * w[:, None], score * w, certainty * w
    means = densities.means if isinstance(densities, Centred) else None
    sums = *moments(y, share, densities.order, means), score.sum(), certainty.sum()
    mass, first, second, total, certain = map(to_host, sums)
    return Explained(mass, first, second, float(total), float(certain))


def distance(x: Array, frame: Frame, centres: Array) -> Array:
    """|x - c|^2 to the nearest centre, in the frame: (n,)."""
    return nearest(enter(x, frame), centres)[1]


def joint(x: Array, frame: Frame, densities: Densities) -> Array:
    """log p(x, k): (n, k)."""
    return log_joint(enter(x, frame), densities)
