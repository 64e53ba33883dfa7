"""Centres, and the pass that teaches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskmix.arrays import namespace, to_host
from daskmix.block import Array, Block, with_room
from daskmix.kernels import Assigned, Features, Frame, Kernels
from daskmix.kernels.reference import enter, squares_observed
from daskmix.reduction import FEW_BYTES, Linear, Reduction, Remembers, Sums

ROUNDING = 1e-12  # of a mass


@dataclass(frozen=True)
class Centroids:
    """k centres, in the coordinates of a frame."""

    centres: Array  # (k, d)

    @property
    def k(self) -> int:
        return len(self.centres)

    def coordinates(self) -> Array:
        """(k d,)"""
        return self.centres.ravel()

    def at(self, coordinates: Array) -> Centroids:
        """Centres with these coordinates."""
        return Centroids(coordinates.reshape(self.centres.shape))

    def learn(self, sums: Assignment) -> Centroids:
        """Every centre at the mean of its rows, of each feature at that of those that have it; else where it is."""
        seen = sums.seen
        has_rows = seen > ROUNDING * sums.mass[:, None]
        return Centroids(np.where(has_rows, sums.first / np.where(has_rows, seen, 1.0), self.centres))


@dataclass(frozen=True)
class Farthest:
    """The rows that lie farthest from their centre, farthest first."""

    limit: int
    distance: Array  # (m,) |x - c|^2
    index: Array  # (m,) global index
    cluster: Array  # (m,)
    weight: Array  # (m,)
    x: Array  # (m, d) in the frame

    @staticmethod
    def none(limit: int, d: int) -> Farthest:
        whole = np.empty(0, dtype=np.int64)
        return Farthest(limit, np.empty(0), whole, whole, np.empty(0), np.empty((0, d)))

    @staticmethod
    def of(limit: int, distance: Array, index: Array, cluster: Array, weight: Array, x: Array) -> Farthest:
        """Those of these rows, in any order; of equals the first ones."""
        first = np.lexsort((index, -distance))[:limit]
        return Farthest(limit, distance[first], index[first], cluster[first], weight[first], x[first])

    def __add__(self, other: Farthest) -> Farthest:
        if not len(other.distance):
            return self
        both = (
            np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("distance", "index", "cluster", "weight", "x")
        )
        return Farthest.of(self.limit, *both)


@dataclass(frozen=True)
class Assignment(Sums):
    """What one pass learns about each of k clusters."""

    mass: Array  # (k,)
    first: Array  # (k, d) sum of w * x
    cost: float  # sum of w * |x - c|^2
    farthest: Farthest
    spared: int = 0  # distances that were not computed
    absent: Array | float = 0.0  # (k, d) mass of the rows that lack the feature; 0 where none may

    @property
    def seen(self) -> Array:
        """Mass of the rows that have the feature: (k, d), or (k, 1) where all have all."""
        return np.maximum(self.mass[:, None] - self.absent, 0.0)

    def relocated(self) -> tuple[Assignment, tuple[int, ...]]:
        """Each empty cluster is given one of the farthest rows, which leaves its own; and which clusters those are.

        The rule is scikit-learn's (`_relocate_empty_clusters_dense`).
        """
        rows = [i for i in range(len(self.farthest.distance)) if self.farthest.distance[i] > 0]
        moves = list(zip(np.flatnonzero(self.mass == 0), rows, strict=False))
        if not moves:
            return self, ()
        mass, first, absent, far = self.mass.copy(), self.first.copy(), self.absent + 0 * self.first, self.farthest
        seen = mass.sum() - absent.sum(axis=0)
        overall = first.sum(axis=0) / np.where(seen > 0, seen, 1.0)
        for empty, row in moves:
            from_cluster, weight, lacking = far.cluster[row], far.weight[row], np.isnan(far.x[row])
            first[from_cluster] -= weight * np.where(lacking, 0.0, far.x[row])
            mass[from_cluster] -= weight
            absent[from_cluster] -= weight * lacking
            # Where it was it found no rows: a feature that the row lacks is that of all rows.
            first[empty], mass[empty], absent[empty] = weight * np.where(lacking, overall, far.x[row]), weight, 0.0
        return replace(self, mass=mass, first=first, absent=absent), tuple(int(empty) for empty, _ in moves)


@dataclass(frozen=True)
class Separation(Sums):
    """How far rows are from their own centre, and from the next."""

    mass: Array  # (k,)
    distance: Array  # (k,) sum of w * |x - own centre|
    silhouette: float  # sum of w * (b - a) / b: a to the own centre, b to the nearest of the others


@dataclass(frozen=True)
class Separate(Reduction[Separation]):
    """Distances of each row to the two nearest of at least two centres.

    The silhouette is the simplified one, of centres instead of rows (Hruschka, de Castro & Campello 2004).
    """

    centroids: Centroids
    frame: Frame

    def zero(self) -> Separation:
        nothing = np.zeros(self.centroids.k)
        return Separation(nothing, nothing, 0.0)

    def map(self, block: Block, ops: Kernels) -> Separation:
        xp = namespace(block.x)
        squares = squares_observed(enter(block.x, self.frame), self.centroids.centres)
        two = xp.sqrt(xp.partition(squares, 1, axis=1)[:, :2])
        own = (squares.argmin(axis=1)[:, None] == xp.arange(self.centroids.k)).astype(np.float64)
        own *= block.weights()[:, None]
        ratio = (two[:, 1] - two[:, 0]) / xp.where(two[:, 1] > 0, two[:, 1], 1.0)
        mass, distance, silhouette = own.sum(axis=0), two[:, 0] @ own, own.sum(axis=1) @ ratio
        return Separation(to_host(mass), to_host(distance), float(to_host(silhouette)))

    def row_bytes(self, ops: Kernels) -> int:
        return 8 * (4 * self.centroids.k + 3 * self.centroids.centres.shape[1])


@dataclass(frozen=True)
class Assign(Linear[Assignment], Remembers[Assignment]):
    """Give each row to its nearest centre."""

    centroids: Centroids
    frame: Frame
    relocatable: int = 0  # how many of the farthest rows to keep
    memo: str = ""  # the name of what is remembered from pass to pass; "" for a question that is asked once

    def zero(self) -> Assignment:
        k, d = self.centroids.centres.shape
        return Assignment(np.zeros(k), np.zeros((k, d)), 0.0, Farthest.none(self.relocatable, d))

    def features(self) -> Features | None:
        # With a memo it stands alone, so that to lose the memo changes no bit.
        return None if self.memo else Features(self.frame)

    @classmethod
    def map_all(cls, questions: Sequence[Assign], block: Block, ops: Kernels) -> list[Assignment]:
        frame, centres = questions[0].frame, [question.centroids.centres for question in questions]
        far = [question.relocatable for question in questions]

        def ask(x: Array) -> list[Assigned]:
            if block.gaps:
                each = zip(centres, far, strict=True)
                return [ops.assign_observed(x, block.w, frame, c, m) for c, m in each]
            return ops.assign(x, block.w, frame, centres, far)

        found = with_room(ask, lambda answers: all(np.isfinite(own.cost) for own in answers), block.x)
        return [question._answer(block, own) for question, own in zip(questions, found, strict=True)]

    def map(self, block: Block, ops: Kernels) -> Assignment:
        return self.map_with(block, ops, {})[0]

    def map_with(self, block: Block, ops: Kernels, memos: Mapping[str, Any]) -> tuple[Assignment, dict[str, Any]]:
        if not self.memo or block.gaps:
            return super().map(block, ops), {}
        found, memo, spared = ops.assign_again(
            block.x, block.w, self.frame, self.centroids.centres, self.relocatable, memos.get(self.memo)
        )
        if not np.isfinite(found.cost):
            return super().map(block, ops), {}
        answer = replace(self._answer(block, found), spared=spared)
        return answer, {} if memo is None else {self.memo: memo}

    def _answer(self, block: Block, found: Assigned) -> Assignment:
        kept = found.far_distance >= 0
        rows = found.far_row[kept]
        x, w, _ = block.pick(rows)
        farthest = Farthest.of(
            self.relocatable,
            found.far_distance[kept],
            block.index_of(rows),
            found.far_cluster[kept],
            w,
            self.frame.enter(x.astype(np.float64)),
        )
        return Assignment(found.mass, found.first, found.cost, farthest, absent=found.absent)

    def own_bytes(self, ops: Kernels) -> int:
        return 0 if ops.in_tiles else 8 * self.centroids.k

    def row_bytes(self, ops: Kernels) -> int:
        return FEW_BYTES if ops.in_tiles else self.own_bytes(ops) + 8 * self.centroids.centres.shape[1]
