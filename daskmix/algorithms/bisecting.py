"""Bisecting K-means: a tree of 2-means, whose splits share their passes (Steinbach, Karypis & Kumar 2000)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.algorithms.lloyd import Lloyd, LloydState
from daskmix.arrays import namespace
from daskmix.block import Array, Block
from daskmix.centroids import Assign, Assignment, Centroids
from daskmix.kernels import Frame, Kernels
from daskmix.kernels.reference import enter, nearest, nearest_observed
from daskmix.reduction import FEW_BYTES, Reduction

Path = tuple[int, ...]  # which child to take at each node, from the root on
Answers = tuple[tuple[Assignment, ...], ...]  # to each trial, and of that to each question


@dataclass(frozen=True)
class Node:
    """Rows around a centre, perhaps split in two: a row belongs to the child whose centre is nearer."""

    centre: Array  # (d,) in the frame
    mass: float
    cost: float  # sum of w |x - centre|^2
    children: tuple[Node, Node] | None = None
    whole: bool = False  # whether it was found that it cannot be split

    def at(self, path: Path) -> Node:
        """The node at the end of a path."""
        node = self
        for side in path:
            if node.children is None:
                raise ValueError(f"there is no node at {path}")
            node = node.children[side]
        return node

    def split(self, path: Path, children: tuple[Node, Node]) -> Node:
        """This tree with the leaf at the end of a path split."""
        return self._changed(path, children=children)

    def unsplit(self, path: Path) -> Node:
        """This tree where it is known that the leaf at the end of a path cannot be split."""
        return self._changed(path, whole=True)

    def _changed(self, path: Path, **changes: Any) -> Node:
        if not path:
            return replace(self, **changes)
        if self.children is None:
            raise ValueError(f"there is no node at {path}")
        pair = list(self.children)
        pair[path[0]] = pair[path[0]]._changed(path[1:], **changes)
        return replace(self, children=(pair[0], pair[1]))

    def pair(self) -> Array:
        """The centres of the children: (2, d)."""
        if self.children is None:
            raise ValueError("the node is not split")
        return np.stack([child.centre for child in self.children])


def grown(root: Node, k: int, merit: Callable[[Node], float]) -> tuple[list[Path], list[Path]]:
    """The leaves once k are there, the leaf of most merit split first; and those whose splits that takes, or may take.

    A leaf whose split is not known yet counts as one, and so may be followed by others that it would have come before:
    their splits are made beforehand, in the same passes, and kept for later.
    """
    leaves: list[Path] = [()]
    whole: list[Path] = []
    unknown: list[Path] = []
    while leaves and len(leaves) + len(whole) + 2 * len(unknown) < k:
        path = max(leaves, key=lambda path: merit(root.at(path)))
        node = root.at(path)
        leaves.remove(path)
        if node.whole or not merit(node) > 0:
            whole.append(path)
        elif node.children is None:
            unknown.append(path)
        else:
            leaves += [(*path, 0), (*path, 1)]
    return sorted(leaves + whole + unknown), unknown


@dataclass(frozen=True)
class Trial:
    """How a leaf might be split."""

    path: Path
    pair: Array  # (2, d) centres of the halves
    settled: bool  # whether these are final, and each half is to be measured

    def questions(self, frame: Frame) -> tuple[Assign, ...]:
        """A step of 2-means, or a look at each half."""
        groups = [self.pair[:1], self.pair[1:]] if self.settled else [self.pair]
        return tuple(Assign(Centroids(centres), frame) for centres in groups)


@dataclass(frozen=True)
class Split(Reduction[Answers]):
    """What the rows of some leaves of a tree teach about their splits."""

    root: Node
    frame: Frame
    trials: tuple[Trial, ...]

    def zero(self) -> Answers:
        return tuple(tuple(q.zero() for q in trial.questions(self.frame)) for trial in self.trials)

    def merge(self, a: Answers, b: Answers) -> Answers:
        return tuple(tuple(x + y for x, y in zip(own, other, strict=True)) for own, other in zip(a, b, strict=True))

    def map(self, block: Block, ops: Kernels) -> Answers:
        members = dict(self._members(block))
        return tuple(self._answers(trial, block, members[trial.path], ops) for trial in self.trials)

    def _answers(self, trial: Trial, block: Block, rows: Array, ops: Kernels) -> tuple[Assignment, ...]:
        groups = [rows]
        if trial.settled:
            side = _nearer(block, rows, self.frame, trial.pair)
            groups = [rows[side == 0], rows[side == 1]]
        return tuple(q.map(_some(block, g), ops) for q, g in zip(trial.questions(self.frame), groups, strict=True))

    def row_bytes(self, ops: Kernels) -> int:
        return FEW_BYTES + 24 * len(self.root.centre)

    def _members(self, block: Block) -> Iterator[tuple[Path, Array]]:
        """The rows of each leaf that is asked about, by their position in the block."""
        asked = {trial.path for trial in self.trials}
        todo: list[tuple[Path, Node, Array]] = [((), self.root, namespace(block.x).arange(len(block.x)))]
        while todo:
            path, node, rows = todo.pop()
            if path in asked:
                yield path, rows
            elif node.children is not None and any(other[: len(path)] == path for other in asked):
                side = _nearer(block, rows, self.frame, node.pair())
                todo += [((*path, s), node.children[s], rows[side == s]) for s in (0, 1)]


def _some(block: Block, rows: Array) -> Block:
    return replace(block, x=block.x[rows], w=None if block.w is None else block.w[rows], missing=0)


def _nearer(block: Block, rows: Array, frame: Frame, pair: Array) -> Array:
    return (nearest_observed if block.gaps else nearest)(enter(block.x[rows], frame), pair)[0]


@dataclass(frozen=True)
class BisectingState:
    root: Node
    active: Mapping[Path, LloydState]
    outcome: Outcome = Outcome.running
    n_iter: int = 0  # the most that a split took

    @property
    def objective(self) -> float:
        return float(np.sum([state.cost for state in self.active.values()]))


@dataclass(frozen=True)
class Bisecting(Algorithm[BisectingState, Answers]):
    """Split the cluster of most merit by 2-means until there are k.

    Splits do not depend on each other, so those that may be needed are made at the same time, and the tree is that of
    one after the other.
    """

    lloyd: Lloyd
    k: int
    merit: Callable[[Node], float]
    begin: Callable[[Node, Path], Array]  # where the split of a leaf starts: (2, d)

    def start(self, model: Node | None = None) -> BisectingState:
        if model is None:
            raise ValueError("bisecting K-means starts from the cluster of all rows")
        return self._went_on(BisectingState(model, {}))

    def ask(self, state: BisectingState) -> Reduction[Answers]:
        trials = (Trial(path, own.model.centres, own.settled is not None) for path, own in state.active.items())
        return Split(state.root, self.lloyd.frame, tuple(trials))

    def tell(self, state: BisectingState, answer: Answers) -> BisectingState:
        root, active, most = state.root, {}, state.n_iter
        for (path, own), found in zip(state.active.items(), answer, strict=True):
            if not own.settled:
                active[path] = _final(self.lloyd.tell(own, found[0]))
                continue
            one, other = (_node(c, half) for c, half in zip(own.model.centres, found, strict=True))
            # A half without rows is none.
            root = root.split(path, (one, other)) if min(one.mass, other.mass) > 0 else root.unsplit(path)
            most = max(most, own.n_iter)
        return self._went_on(BisectingState(root, active, n_iter=most))

    def cut_off(self, state: BisectingState) -> BisectingState | None:
        return replace(state, outcome=Outcome.exhausted)  # a smaller tree, all of whose leaves were measured

    def _went_on(self, state: BisectingState) -> BisectingState:
        """With the splits begun that are needed now."""
        _, unknown = grown(state.root, self.k, self.merit)
        new = [path for path in unknown if path not in state.active]
        begun = {path: _final(self.lloyd.start(Centroids(self.begin(state.root, path)))) for path in new}
        active = {**state.active, **begun}
        return replace(state, active=active, outcome=Outcome.running if active else Outcome.converged)


def _final(state: LloydState) -> LloydState:
    """A step that moved nothing has still to measure both halves."""
    if state.outcome is Outcome.running:
        return state
    return replace(state, outcome=Outcome.running, settled=state.settled or state.outcome)


def _node(centre: Array, found: Assignment) -> Node:
    return Node(centre, float(found.mass.sum()), float(found.cost))


def flat(root: Node, leaves: list[Path]) -> tuple[Array, Array]:
    """Inner nodes from the root on: centres of both children (m, 2, d), and where each leads: a node, or -1 - the leaf.

    Nodes stand behind those that lead to them.
    """
    inner = sorted({path[:n] for path in leaves for n in range(len(path))}, key=lambda path: (len(path), path))
    number = {path: i for i, path in enumerate(inner)} | {path: -1 - j for j, path in enumerate(leaves)}
    pairs = np.array([root.at(path).pair() for path in inner]).reshape(len(inner), 2, len(root.centre))
    leads = np.array([[number[(*path, s)] for s in (0, 1)] for path in inner], dtype=np.int64).reshape(-1, 2)
    return pairs, leads
