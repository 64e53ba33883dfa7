"""An algorithm asks a question per pass and is told the answer; its state is a value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Generic, TypeVar

from daskmix.block import Array
from daskmix.reduction import Reduction

S = TypeVar("S")
A = TypeVar("A")


class Outcome(Enum):
    """How far an algorithm has come."""

    running = "running"
    converged = "converged"
    exhausted = "exhausted"  # max_iter reached first
    failed = "failed"  # there is no next model


class Algorithm(ABC, Generic[S, A]):
    """State is a frozen value with an `outcome`, so a fit can be stopped, stored and resumed at any pass."""

    @abstractmethod
    def start(self, model: Any = None) -> S:
        """The state before the first pass, from a model where there is one."""

    @abstractmethod
    def ask(self, state: S) -> Reduction[A]:
        """The question of the next pass."""

    @abstractmethod
    def tell(self, state: S, answer: A) -> S:
        """The state after that pass."""

    def cut_off(self, state: S) -> S | None:
        """The state where a user has had enough: its model can be used, but was not measured; None without a model."""
        return None


class Iteration(Algorithm[S, A]):
    """An algorithm whose passes repeat one map, which never makes a model worse.

    It can be taken up at any model, so that others may propose where to go on. Models have `coordinates()` and
    `at(coordinates)`; states have a `model`, `outcome`, `n_iter` (at most `max_iter`) and `settled`: the outcome, once
    the model is final.
    """

    max_iter: Any

    @abstractmethod
    def value(self, state: S, answer: A) -> float:
        """How good the model is that this state asked about: what the map never lowers."""

    @abstractmethod
    def noise(self, state: S) -> float:
        """By how much rounding may change the value."""

    @abstractmethod
    def at(self, state: S, model: Any) -> S:
        """This state, about to ask about that model."""

    @abstractmethod
    def back(self, before: S, told: S, model: Any) -> S:
        """About to ask about that model, after a pass that counts but whose own model proved worse and is forgotten."""

    def lost(self, told: S) -> bool:
        """Whether the pass gave no image of the model that was asked about."""
        return told.outcome is Outcome.failed  # type: ignore[attr-defined, no-any-return]

    @abstractmethod
    def same_map(self, before: S, after: S) -> bool:
        """Whether what these two states ask can be compared."""

    @abstractmethod
    def in_metric(self, state: S, moves: Array) -> Array:
        """Moves of the model's coordinates (m, p) where the map is nearly symmetric: (m, p)."""

    @abstractmethod
    def gap(self, before: S, told: S, top: Any) -> float:
        """What is to be gained yet, to second order, from the states before and after a pass to a model at the top."""

    def own_step(self, state: S) -> Any:
        """The image of the model that was asked about."""
        return state.model  # type: ignore[attr-defined]

    def settle(self, state: S, outcome: Outcome) -> S:
        """This state, its model final and still to be measured."""
        return replace(state, settled=outcome)  # type: ignore[type-var]

    def discouraged(self, state: S) -> S:
        """This state, where its model proved worse than the one before."""
        return state


class Reports:
    """The state of an algorithm that drives another: what that one reports is reported."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


@dataclass(frozen=True)
class ChainState(Reports):
    """Which of two algorithms is running, and its state."""

    second: bool
    inner: Any

    @property
    def outcome(self) -> Outcome:
        outcome: Outcome = self.inner.outcome
        return outcome if self.second else Outcome.running


@dataclass(frozen=True)
class Chain(Algorithm[ChainState, Any]):
    """One algorithm, then another from the model that it ended with."""

    first: Algorithm[Any, Any]
    then: Algorithm[Any, Any]

    def start(self, model: Any = None) -> ChainState:
        return self._on(ChainState(False, self.first.start(model)))

    def ask(self, state: ChainState) -> Reduction[Any]:
        return (self.then if state.second else self.first).ask(state.inner)

    def tell(self, state: ChainState, answer: Any) -> ChainState:
        if state.second:
            return ChainState(True, self.then.tell(state.inner, answer))
        return self._on(ChainState(False, self.first.tell(state.inner, answer)))

    def cut_off(self, state: ChainState) -> ChainState | None:
        inner = self.then.cut_off(state.inner) if state.second else None
        return None if inner is None else ChainState(True, inner)

    def _on(self, state: ChainState) -> ChainState:
        if state.inner.outcome is Outcome.running:
            return state
        return ChainState(True, self.then.start(state.inner.model))


@dataclass(frozen=True)
class OnceState:
    outcome: Outcome = Outcome.running
    model: Any = None


@dataclass(frozen=True)
class Once(Algorithm[OnceState, Any]):
    """One question, one pass; the answer is the model."""

    question: Reduction[Any]

    def start(self, model: Any = None) -> OnceState:
        return OnceState()

    def ask(self, state: OnceState) -> Reduction[Any]:
        return self.question

    def tell(self, state: OnceState, answer: Any) -> OnceState:
        return OnceState(Outcome.converged, answer)
