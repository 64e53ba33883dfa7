"""An algorithm asks a question per pass and is told the answer; its state is a value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

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


@dataclass(frozen=True)
class ChainState:
    """Which of two algorithms is running, and its state."""

    second: bool
    state: Any

    @property
    def outcome(self) -> Outcome:
        return self.state.outcome if self.second else Outcome.running

    @property
    def model(self) -> Any:
        return self.state.model

    def __getattr__(self, name: str) -> Any:
        # What the second algorithm reports is what the chain reports.
        if name.startswith("__") or name == "state":
            raise AttributeError(name)
        return getattr(self.state, name)


@dataclass(frozen=True)
class Chain(Algorithm[ChainState, Any]):
    """One algorithm, then another from the model that it ended with."""

    first: Algorithm[Any, Any]
    then: Algorithm[Any, Any]

    def start(self, model: Any = None) -> ChainState:
        return self._on(ChainState(False, self.first.start(model)))

    def ask(self, state: ChainState) -> Reduction[Any]:
        return (self.then if state.second else self.first).ask(state.state)

    def tell(self, state: ChainState, answer: Any) -> ChainState:
        if state.second:
            return ChainState(True, self.then.tell(state.state, answer))
        return self._on(ChainState(False, self.first.tell(state.state, answer)))

    def _on(self, state: ChainState) -> ChainState:
        if state.state.outcome is Outcome.running:
            return state
        return ChainState(True, self.then.start(state.state.model))


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
