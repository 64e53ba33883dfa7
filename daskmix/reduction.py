"""Questions whose answers can be merged: the only thing an engine needs to know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from daskmix.block import Block

if TYPE_CHECKING:
    from daskmix.kernels import Kernels

A = TypeVar("A")

FEW_BYTES = 64  # of a row, beside the row itself
FAN_IN = 8  # answers merged by one task; fixed, so that the tree follows from the number of answers alone


class Reduction(ABC, Generic[A]):
    """A question to all rows: merge(map(a), map(b)) == map(a followed by b); merge(zero(), a) == a."""

    @abstractmethod
    def zero(self) -> A:
        """The answer of no rows."""

    @abstractmethod
    def map(self, block: Block, ops: Kernels) -> A:
        """The answer of some rows."""

    def merge(self, a: A, b: A) -> A:
        """The answer of both, in this order."""
        return a + b  # type: ignore[operator]

    def row_bytes(self, ops: Kernels) -> int:
        """Working memory for one row, so that the engine can choose its tiles."""
        return FEW_BYTES


class Linear(Reduction[A]):
    """A question that meets features of the rows in a matrix product; those with equal features share a wider one."""

    @abstractmethod
    def features(self) -> Hashable | None:
        """What is made of a row before it meets the model; None where that is the model's own."""

    @classmethod
    @abstractmethod
    def map_all(cls, questions: Sequence[Self], block: Block, ops: Kernels) -> list[A]:
        """The answers of some rows to questions with equal features, or to one question."""

    @abstractmethod
    def own_bytes(self, ops: Kernels) -> int:
        """Of the working memory for one row, what each question needs for itself."""

    def map(self, block: Block, ops: Kernels) -> A:
        (answer,) = self.map_all([self], block, ops)
        return answer


class Remembers(Reduction[A]):
    """A question that is answered sooner with a memo of the last pass, and alike without.

    Memos are values, each under the name of the question that made it.
    """

    @abstractmethod
    def map_with(self, block: Block, ops: Kernels, memos: Mapping[str, Any]) -> tuple[A, dict[str, Any]]:
        """The answer of some rows, and the memos for the next pass over the same rows."""


class Sums:
    """A dataclass whose fields are added one by one."""

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Together(Remembers[tuple[Any, ...]]):
    """Several questions, one read; those with equal features, one product."""

    parts: tuple[Reduction[Any], ...]

    def zero(self) -> tuple[Any, ...]:
        return tuple(part.zero() for part in self.parts)

    def map(self, block: Block, ops: Kernels) -> tuple[Any, ...]:
        return self.map_with(block, ops, {})[0]

    def map_with(self, block: Block, ops: Kernels, memos: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        found: dict[int, Any] = {}
        made: dict[str, Any] = {}
        for group in self._groups():
            answers, its = _answers([self.parts[i] for i in group], block, ops, memos)
            found |= zip(group, answers, strict=True)
            made |= its
        return tuple(found[i] for i in range(len(self.parts))), made

    def merge(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(part.merge(x, y) for part, x, y in zip(self.parts, a, b, strict=True))

    def row_bytes(self, ops: Kernels) -> int:
        return max(_row_bytes([self.parts[i] for i in group], ops) for group in self._groups())

    def _groups(self) -> list[list[int]]:
        """Positions of parts that share a product; most stand alone."""
        groups: dict[Hashable, list[int]] = {}
        for i, part in enumerate(self.parts):
            features = part.features() if isinstance(part, Linear) else None
            groups.setdefault(i if features is None else (type(part), features), []).append(i)
        return list(groups.values())


def _answers(
    group: Sequence[Any], block: Block, ops: Kernels, memos: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The answers to questions that share a product, or to one question, which may leave memos."""
    if len(group) > 1:
        return type(group[0]).map_all(group, block, ops), {}
    (question,) = group
    if isinstance(question, Remembers):
        answer, made = question.map_with(block, ops, memos)
        return [answer], made
    return [question.map(block, ops)], {}


def _row_bytes(group: Sequence[Any], ops: Kernels) -> int:
    return group[0].row_bytes(ops) + sum(part.own_bytes(ops) for part in group[1:])


def merge_in_order(merge: Callable[[A, A], A], answers: Sequence[A]) -> A:
    """Left to right: one task of the merge tree."""
    total = answers[0]
    for answer in answers[1:]:
        total = merge(total, answer)
    return total


def merge_tree(merge: Callable[[Sequence[A]], A], answers: Sequence[A]) -> A:
    """Merge neighbours, FAN_IN at a time, until one is left; `merge` may build a task instead of doing the work."""
    top = merge_branches(merge, answers)
    return merge(top) if len(top) > 1 else top[0]


def merge_branches(merge: Callable[[Sequence[A]], A], answers: Sequence[A]) -> Sequence[A]:
    """The same until only the last merge is left to be done."""
    while len(answers) > FAN_IN:
        answers = [merge(answers[i : i + FAN_IN]) for i in range(0, len(answers), FAN_IN)]
    return answers
