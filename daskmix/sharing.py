"""How rows are shared out among components: the E-step, and moments of rows whose shares are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from daskmix.arrays import alongside, namespace, to_host
from daskmix.block import Array, Block, with_room
from daskmix.kernels import Densities, Explained, Features, Frame, Kernels, Order, Product, joined
from daskmix.kernels.reference import enter, moments
from daskmix.mixture import Mixture
from daskmix.moments import Moments, Origin, about, on_diagonal
from daskmix.reduction import FEW_BYTES, Linear, Reduction
from daskmix.sampling import uniform


@dataclass(frozen=True)
class Sharing:
    """How rows are shared out among components, given log p(x, k)."""

    temperature: float = 1.0  # responsibilities are those of log p(x, k) / temperature
    hard: bool = False  # each row to its likeliest component alone
    seed: int | None = None  # each row to one component alone, drawn by the responsibilities

    def pick(self, block: Block) -> Array | None:
        """What decides to which one component each row goes, as kernels take it; None where all are shared out."""
        xp, pick = namespace(block.x), None
        if self.hard:
            pick = xp.zeros(len(block.x))
        elif self.seed is not None:
            pick = uniform(self.seed, block.index)
        if block.known is None:
            return pick
        return xp.where(block.known >= 0, -1.0 - block.known, np.nan if pick is None else pick)

    def again(self, times: int) -> Sharing:
        """The same with other draws."""
        return self if self.seed is None else replace(self, seed=self.seed + times)


SOFT = Sharing()


@dataclass(frozen=True)
class Explain(Linear[Moments]):
    """Share each row out among the components that explain it (E-step).

    The score is what the M-step on these shares never lowers: the log-likelihood; at a temperature T the free energy
    T sum log sum exp(log p(x, k) / T) (Ueda & Nakano 1998); of rows given to the likeliest component the log-likelihood
    of both (Celeux & Govaert 1992).
    """

    mixture: Mixture
    frame: Frame
    path: str  # "float32" | "float64": the product in this type; "centred"
    floor: Array  # (d,) smoothing of the squared features, in the frame
    sharing: Sharing = SOFT

    # All chunks that a process computes on share the question.
    @cached_property
    def _densities(self) -> Densities:
        return self._heated(self.mixture.densities(self.path, self.floor, float(np.log(self.frame.scale).sum())))

    @cached_property
    def _densities_observed(self) -> Densities:
        return self._heated(self.mixture.densities_observed(self.path, self.floor, np.log(self.frame.scale)))

    def _heated(self, densities: Densities) -> Densities:
        temperature = self.sharing.temperature
        return densities if temperature == 1.0 else densities.heated(temperature)

    def _origin(self) -> Origin:
        return Origin(self.mixture.means if self.path == "centred" else None)

    def zero(self) -> Moments:
        k, d = self.mixture.shape
        nothing = _no_moments(k, d, self.mixture.structure.order, self._origin())
        return replace(nothing, mass=np.zeros(len(self.mixture.weights)))

    def features(self) -> Features | None:
        # Centred rows, and those whitened by a shared covariance, are each mixture's own.
        own = self.path == "centred" or self.mixture.order is Order.pooled
        # What tails make of the product is, too.
        own = own or self.mixture.nu is not None
        # Each row to one component: which one is each mixture's own, too.
        own = own or self.sharing.hard or self.sharing.seed is not None
        return None if own else Features(self.frame, self.mixture.order, self.path)

    @classmethod
    def map_all(cls, questions: Sequence[Explain], block: Block, ops: Kernels) -> list[Moments]:
        frame, pick = questions[0].frame, questions[0].sharing.pick(block)

        def ask(x: Array) -> list[Moments]:
            fitting = [question._for(x.dtype) for question in questions]
            asked = [question._densities_observed if block.gaps else question._densities for question in fitting]
            found = [own for model in joined(asked) for own in ops.explain(x, block.w, frame, model, pick)]
            each = zip(fitting, found, asked, strict=True)
            return [question._told(own, isinstance(model, Product)) for question, own, model in each]

        return with_room(ask, lambda answers: all(np.isfinite(own.score) for own in answers), block.x)

    def _for(self, dtype: np.dtype) -> Explain:
        """The same question to rows of this type: in double precision there are no products in single."""
        return replace(self, path="float64") if self.path == "float32" and dtype == np.float64 else self

    def _told(self, found: Explained, by_product: bool) -> Moments:
        score = self.sharing.temperature * found.score + (found.certainty if self.sharing.hard else 0.0)
        mass, first, second, *_ = self.mixture.completed(found, self.floor)
        if self.mixture.family.noise is not None:
            first, second = first[:-1], second[:-1]
            if self.mixture.order is not self.mixture.structure.order:
                second = second.sum(axis=0)
        origin = Origin(None if by_product else self.mixture.means)
        tail = self.mixture.tail(found)
        sums = Moments(mass, first, second, score, found.certainty, origin, found.heft, tail)
        # Rows with gaps may go another way than those without.
        same = by_product == (self.path != "centred")
        return sums if same else about(self.mixture.structure.order, sums, self._origin())

    def own_bytes(self, ops: Kernels) -> int:
        return 0 if ops.in_tiles else (16 if self.mixture.nu is None else 40) * self.mixture.shape[0]

    def row_bytes(self, ops: Kernels) -> int:
        if ops.in_tiles:
            return FEW_BYTES
        d = self.mixture.shape[1]
        return self.own_bytes(ops) + 8 * (d + (d * (d + 1) // 2 if self.mixture.order is Order.full else d))


def _no_moments(k: int, d: int, order: Order, origin: Origin) -> Moments:
    shape = {Order.trace: (k,), Order.diagonal: (k, d), Order.full: (k, d, d), Order.pooled: (d, d)}[order]
    return Moments(np.zeros(k), np.zeros((k, d)), np.zeros(shape), 0.0, 0.0, origin)


@dataclass(frozen=True)
class Learn(Reduction[Moments]):
    """Moments of rows whose shares are given: the last k columns of each row, or one column of labels."""

    k: int
    order: Order
    frame: Frame
    labelled: bool
    # (d,) in the frame, for values that are missing: the first E-step will know better
    mean: Array
    variance: Array

    def zero(self) -> Moments:
        return _no_moments(self.k, len(self.frame.shift), self.order, Origin())

    def map(self, block: Block, ops: Kernels) -> Moments:
        d = len(self.frame.shift)
        y, share = enter(block.x[:, :d], self.frame), block.x[:, d:].astype(np.float64)
        absent = namespace(y).isnan(y) if block.gaps else None
        if absent is not None:
            y = namespace(y).where(absent, alongside(self.mean.astype(y.dtype), y), y)
        if self.labelled:
            share = (share == namespace(share).arange(self.k)).astype(np.float64)
        if absent is not None:
            share = namespace(share).where(absent.all(axis=1)[:, None] | namespace(share).isnan(share), 0.0, share)
        if block.w is not None:
            share *= block.w[:, None]
        mass, first, second = map(to_host, moments(y, share, self.order))
        if absent is not None:
            lacking = to_host(share.T @ absent.astype(np.float64))
            second = second + on_diagonal(lacking * self.variance, self.order)
        return Moments(mass, first, second, 0.0, 0.0, origin=Origin())

    def row_bytes(self, ops: Kernels) -> int:
        return 8 * (3 * len(self.frame.shift) + 2 * self.k)
