"""Arrays in, arrays out: distances, densities, responsibilities and the sums they give.

Two sets with one interface: `reference` (plain NumPy: the definition of right) and `compiled` (numba: no interpreter
lock, no array larger than a tile).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np

from daskmix.block import Array

LOG_2PI = float(np.log(2 * np.pi))
NEAR_ONE = 2.0**-10  # units: numbers of this size, or its inverse, neither overflow nor vanish when they are squared


@cache
def upper_triangle(d: int) -> tuple[Array, Array]:
    """Rows and columns of what is not below the diagonal: they are asked for with every chunk."""
    return np.triu_indices(d)


class Order(Enum):
    """Which second moments a covariance structure learns from, and how its densities are evaluated."""

    trace = "trace"  # x'x of each component: (k,)
    diagonal = "diagonal"  # x * x of each component: (k, d)
    full = "full"  # x x' of each component: (k, d, d)
    pooled = "pooled"  # x x' of all components together: (d, d)


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates that rows are computed on in: (x - shift) * scale.

    The shift keeps an offset from costing digits, the scale (powers of two, hence exact) a unit.
    """

    shift: Array  # (d,) representable in the dtype of the rows
    scale: Array  # (d,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self._bytes() == other._bytes()

    def __hash__(self) -> int:
        return hash(self._bytes())

    def _bytes(self) -> tuple[bytes, bytes]:
        return self.shift.tobytes(), self.scale.tobytes()

    def enter(self, x: Array) -> Array:
        """Rows or means -> the frame: (n, d)."""
        return (x - self.shift) * self.scale

    def leave(self, y: Array) -> Array:
        """The frame -> rows or means: (n, d)."""
        return y / self.scale + self.shift

    @staticmethod
    def of(mean: Array, spread: Array, dtype: np.dtype) -> "Frame":
        """About this mean, in units of the power of two nearest to this spread.

        Where the mean is within the spread no digits are at stake, and rows near zero in units near one stay as they
        are: they need not be copied.
        """
        spread = np.where((spread > 0) & np.isfinite(spread), spread, 1.0)
        scale = np.exp2(-np.round(np.log2(spread)))
        scale = np.where((scale > NEAR_ONE) & (scale < 1 / NEAR_ONE), 1.0, scale)
        shift = np.where(np.abs(mean) <= spread, 0.0, mean)
        return Frame(np.asarray(shift, dtype=dtype).astype(np.float64), scale)


@dataclass(frozen=True)
class Features:
    """What is made of a row before it meets a model. Models with equal features share them, and one wider product."""

    frame: Frame
    order: Order | None = None  # which products of coordinates; None: the coordinates alone
    dtype: str = ""  # of the product; "": that of the rows


@dataclass(frozen=True)
class Tails:
    """Those of Student's t, of k components: what is q, less than zero, of a Gaussian density becomes
    log p(x, k) = constant_k - (nu_k + d) / 2 * log(1 - 2 q / nu_k).

    A row then counts for the moments of a component u = (nu_k + d) / (nu_k - 2 q) times (Peel & McLachlan 2000).
    """

    nu: Array  # (k,) degrees of freedom
    constants: Array  # (k,)

    def rows(self, d: int) -> Array:
        """What kernels need in d features: -2 / nu, the constants, (nu + d) / 2 and 1 + d / nu; (4, k)."""
        return np.stack([-2.0 / self.nu, self.constants, 0.5 * (self.nu + d), 1.0 + d / self.nu])


@dataclass(frozen=True)
class Product:
    """Densities as one matrix product, log p(x, k) = phi(x) . theta_k: fast, exact while clusters are not far apart."""

    order: Order
    theta: Array  # (k, p) in the dtype of the product; of several models, under each other
    whiten: Array | None = None  # (d, d) for the pooled order: phi of x @ whiten
    cuts: tuple[int, ...] = ()  # rows of theta at which another model begins
    observed: bool = False  # of rows with gaps: phi has zero for what is missing, and before its one what is there
    tails: Tails | None = None  # of what the product gives; of one model alone

    @property
    def name(self) -> str:
        return f"product {self.theta.dtype}"

    def heated(self, temperature: float) -> "Product":
        """log p(x, k) / temperature."""
        return replace(self, theta=(self.theta / temperature).astype(self.theta.dtype))

    def beside(self, constant: float) -> "Product":
        """With a further component, whose log density is the same everywhere."""
        row = np.zeros((1, self.theta.shape[1]), self.theta.dtype)
        row[0, -1] = constant
        return replace(self, theta=np.concatenate([self.theta, row]))


@dataclass(frozen=True)
class Centred:
    """Densities about each mean, log p(x, k) = constant_k - |(x - mean_k) F_k|^2 / 2: safe, in float64."""

    order: Order
    means: Array  # (k, d)
    factors: Array  # F: (k,), (k, d), (k, d, d) or (d, d), F F' the precision
    constants: Array  # (k,)
    tails: Tails | None = None

    @property
    def name(self) -> str:
        return "centred"

    def heated(self, temperature: float) -> "Centred":
        """log p(x, k) / temperature."""
        return replace(self, factors=self.factors / temperature**0.5, constants=self.constants / temperature)

    def beside(self, constant: float) -> "Centred":
        """With a further component, whose log density is the same everywhere; where each has factors of its own."""
        means, factors = (np.concatenate([a, np.zeros_like(a[:1])]) for a in (self.means, self.factors))
        return replace(self, means=means, factors=factors, constants=np.append(self.constants, constant))


@dataclass(frozen=True)
class Observed:
    """Densities of what is there of rows with gaps: each is that of the marginal of its features; safe, in float64.

    What is missing counts with its expectation: moments are those of the rows completed, about the means.
    """

    order: Order
    means: Array  # (k, d)
    covariances: Array  # (k, d, d)
    log_weights: Array  # (k,)
    floor: Array  # (d,) smoothing, a part of the covariances
    log_scale: Array  # (d,) of the frame: densities are those of rows as they come
    temperature: float = 1.0

    @property
    def name(self) -> str:
        return "observed"

    def heated(self, temperature: float) -> "Observed":
        """log p(x, k) / temperature."""
        return replace(self, temperature=temperature)


Densities = Product | Centred | Observed


def joined(densities: Sequence[Densities]) -> list[Densities]:
    """Models with equal `Features` as one wider product, where they are products."""
    first, thetas = densities[0], [model.theta for model in densities if isinstance(model, Product)]
    if len(densities) == 1 or not isinstance(first, Product):
        return list(densities)
    return [replace(first, theta=np.concatenate(thetas), cuts=tuple(accumulate(map(len, thetas[:-1]))))]


class Assigned(NamedTuple):
    """Rows given to their nearest centre."""

    mass: Array  # (k,)
    first: Array  # (k, d) sum of w * x
    cost: float  # sum of w * |x - c|^2
    far_distance: Array  # (m,) |x - c|^2 of the rows farthest from their centre, in no order; -1 where none
    far_row: Array  # (m,) their position in the block
    far_cluster: Array  # (m,)
    absent: Array | float = 0.0  # (k, d) mass of the rows that lack the feature; 0 where none may


@dataclass(frozen=True)
class Bounds:
    """What is known of some rows for the centres of one pass; never needed, for it can be found anew."""

    frame: Frame
    centres: Array  # (k, d) in the dtype of the rows
    label: Array  # (n,) int32
    # (tiles, groups of centres, rows of a tile) float32: no distance to a centre but the label's is less; of no tiles
    # while centres move too far for it
    lower: Array
    room: int  # bytes that `lower` takes, or will
    typical: float  # distance of a row to its centre
    refused: float = np.inf  # how far a centre had moved when bounds were last tried and not worth it

    @property
    def nbytes(self) -> int:
        # What is to come counts from the start, so that bounds are not begun where there is no room for them.
        return int(self.centres.nbytes + self.label.nbytes) + self.room


class Explained(NamedTuple):
    """Rows shared out among components by their densities; moments about the origin, or about the means if Centred.

    Where densities have tails, a row counts u times for the moments, and once for the mass.
    """

    mass: Array  # (k,)
    first: Array  # (k, d)
    second: Array  # (k,), (k, d), (k, d, d) or (d, d)
    score: float  # sum of w * log p(x)
    certainty: float  # sum of w * log of the largest responsibility
    seen: Array | None = None  # (k, d) mass of the rows that have the feature, where those that lack it give nothing
    heft: Array | float = 0.0  # (k,) sum of u, what the moments are of; 0 where that is the mass
    tail: Array | float = 0.0  # (k,) sum of log u - u


class Kernels(Protocol):
    """What a reduction may ask of a set of kernels; x are rows as they come, the rest is in the frame."""

    in_tiles: bool  # whether `assign` and `explain` need memory for a few rows only, however many they are given

    def assign(
        self, x: Array, w: Array | None, frame: Frame, centres: Sequence[Array], far: Sequence[int]
    ) -> list[Assigned]:
        """To each model its answer, given its centres (k, d) and how many far rows it wants."""
        ...

    def assign_observed(self, x: Array, w: Array | None, frame: Frame, centres: Array, far: int) -> Assigned:
        """To one model the same of rows with gaps, by what is there of them."""
        ...

    def assign_again(
        self, x: Array, w: Array | None, frame: Frame, centres: Array, far: int, bounds: Bounds | None
    ) -> tuple[Assigned, Bounds | None, int]:
        """To one model the same, with what the next pass may be given, and how many distances were not computed."""
        ...

    def explain(
        self, x: Array, w: Array | None, frame: Frame, densities: Densities, pick: Array | None = None
    ) -> list[Explained]:
        """To each of the models in this product its answer.

        With a number for each row, `pick` (n,), it goes to one component as a whole: to the likeliest where that is 0,
        if it is above to the first at which the sum of responsibilities reaches it. Where it is -1 - j, the row is
        known to be of component j, and its density is that of both; where it is NaN, the row is shared out.
        """
        ...

    def distance(self, x: Array, frame: Frame, centres: Array) -> Array: ...

    def distance_observed(self, x: Array, frame: Frame, centres: Array) -> Array: ...

    def joint(self, x: Array, frame: Frame, densities: Densities) -> Array: ...

    def complete(self, x: Array, frame: Frame, densities: Observed) -> Array:
        """Rows with what is expected of values that are missing, given those that are there: (n, d)."""
        ...
