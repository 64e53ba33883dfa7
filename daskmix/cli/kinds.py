"""What a value may be: of an option, where it comes as text, and of a key of a job file, where it comes as TOML."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import click

from daskmix.errors import InputError, not_one_of

SEEN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "an array", dict: "a table"}
Schema = dict[str, Any]
NO_VARIABLE: Schema = {"not": {"pattern": r"\$\{"}}  # of the environment


class Kind(ABC):
    """What values of an option or key may be."""

    words: str

    @abstractmethod
    def schema(self) -> Schema:
        """The same as a JSON schema."""

    @abstractmethod
    def read(self, name: str, value: Any) -> Any:
        """The parameter that a value of TOML stands for.

        Raises
        ------
        InputError
            It is none.
        """

    @abstractmethod
    def option(self) -> dict[str, Any]:
        """What makes an option of click read the same."""

    def unfit(self, name: str, value: Any) -> InputError:
        """The error for a value that is none of these."""
        seen = SEEN.get(type(value), "a date or time")
        shown = shorten(repr(value), 60)
        return InputError(f"{name} = {shown} is {seen}; it must be {self.words}")


@dataclass(frozen=True)
class Text(Kind):
    """Any text, such as a name."""

    words = "text"
    metavar: str = "NAME"

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1, **NO_VARIABLE}

    def read(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise self.unfit(name, value)
        return value

    def option(self) -> dict[str, Any]:
        return {"metavar": self.metavar}


class Place(Text):
    """A path, a URL or an address, in which ${NAME} stands for a variable of the environment."""

    words = "text: a path, a URL or an address"

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1, "pattern": r"^([^$]|\$(?!\{)|\$\{[A-Za-z_][A-Za-z0-9_]*\})*$"}

    def read(self, name: str, value: Any) -> str:
        if isinstance(value, str) and not value.isprintable():
            raise InputError(f"{name} has characters that cannot be printed; leave them out")
        return super().read(name, value)


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words."""

    allowed: Sequence[str]

    @property
    def words(self) -> str:  # type: ignore[override]
        return "one of " + ", ".join(map(repr, self.allowed))

    def schema(self) -> Schema:
        return {"enum": list(self.allowed)}

    def read(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.unfit(name, value)
        if value not in self.allowed:
            raise not_one_of(name, value, self.allowed)
        return value

    def option(self) -> dict[str, Any]:
        return {"type": click.Choice(self.allowed)}


class Word(Choice):
    """One of some words, each for some kinds of models: those of an option the estimator knows."""

    def option(self) -> dict[str, Any]:
        return {"metavar": "NAME"}


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number."""

    least: int
    most: int | None = None

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"a whole number, at least {self.least}" + ("" if self.most is None else f" and at most {self.most}")

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.least} | ({} if self.most is None else {"maximum": self.most})

    def read(self, name: str, value: Any) -> int:
        if type(value) is not int or value < self.least or (self.most is not None and value > self.most):
            raise self.unfit(name, value)
        return value

    def option(self) -> dict[str, Any]:
        return {"type": click.IntRange(self.least, self.most)}


@dataclass(frozen=True)
class Number(Kind):
    """A number that is not negative; above 0, and below `below`, where that is asked for."""

    above: bool = False
    below: float | None = None
    metavar: str | None = None

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"a number {'above' if self.above else 'of at least'} 0" + (
            "" if self.below is None else f" and below {self.below:g}"
        )

    def schema(self) -> Schema:
        upper = {} if self.below is None else {"exclusiveMaximum": self.below}
        return {"type": "number", "exclusiveMinimum" if self.above else "minimum": 0} | upper

    def read(self, name: str, value: Any) -> float:
        number = _finite(value)
        if number is None or number < 0 or (self.above and number == 0) or not number < (self.below or math.inf):
            raise self.unfit(name, value)
        return number

    def option(self) -> dict[str, Any]:
        within = click.FloatRange(0, self.below, min_open=self.above, max_open=self.below is not None)
        return {"type": within} | ({} if self.metavar is None else {"metavar": self.metavar})


def _finite(value: Any) -> float | None:
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class NumberOr(Kind):
    """A number, or this word."""

    word: str

    @property
    def words(self) -> str:  # type: ignore[override]
        return f'"{self.word}" or a number'

    def schema(self) -> Schema:
        return {"anyOf": [{"const": self.word}, {"type": "number"}]}

    def read(self, name: str, value: Any) -> str | float:
        number = value if value == self.word else _finite(value)
        if number is None:
            raise self.unfit(name, value)
        return number

    def option(self) -> dict[str, Any]:
        def read(text: str) -> str | float:
            try:
                return text if text == self.word else float(text)
            except ValueError:
                raise ValueError(f"is neither {self.word} nor a number") from None

        return {"callback": _callback(read), "metavar": f"{self.word}|FLOAT"}


class Flag(Kind):
    """Yes or no."""

    words = "true or false"

    def schema(self) -> Schema:
        return {"type": "boolean"}

    def read(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.unfit(name, value)
        return value

    def option(self) -> dict[str, Any]:
        return {"is_flag": True, "default": None}


@dataclass(frozen=True)
class Several(Kind):
    """At least one of a kind; an option that is repeated."""

    of: Kind

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"an array of at least one, each {self.of.words}"

    def schema(self) -> Schema:
        return {"type": "array", "items": self.of.schema(), "minItems": 1}

    def read(self, name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise self.unfit(name, value)
        return tuple(self.of.read(f"{name}[{i}]", each) for i, each in enumerate(value))

    def option(self) -> dict[str, Any]:
        return {"multiple": True, **self.of.option()}


class Listed(Several):
    """At least one of a kind; an option that has all of them, between commas."""

    def option(self) -> dict[str, Any]:
        numbers = isinstance(self.of, Number)
        return {"callback": _callback(_floats if numbers else _names), "metavar": "T,T,..." if numbers else "DIM,DIM"}


class Counts(Kind):
    """Whole numbers above 0: 2-12, or some of them."""

    words = 'whole numbers above 0, as "2-12" or [2, 4, 8]'

    def schema(self) -> Schema:
        some: Schema = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
        return {"anyOf": [some, {"type": "string", "pattern": r"^\s*\d+\s*(-\s*\d+\s*)?(,\s*\d+\s*(-\s*\d+\s*)?)*$"}]}

    def read(self, name: str, value: Any) -> list[int]:
        try:
            found = _counts(value) if isinstance(value, str) else [*value]
        except (ValueError, TypeError):
            raise self.unfit(name, value) from None
        if not found or not all(type(n) is int and n > 0 for n in found):
            raise self.unfit(name, value)
        return sorted(set(found))

    def option(self) -> dict[str, Any]:
        return {"callback": _callback(_counts), "metavar": "FROM-TO"}


class Size(Kind):
    """A number of bytes."""

    words = 'a size, as "500MB" or "2GiB", or a whole number of bytes'

    def schema(self) -> Schema:
        sizes: Schema = {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([kMGTPkmgtp]i?)?[Bb]?\s*$"}
        return {"anyOf": [{"type": "integer", "minimum": 0}, sizes]}

    def read(self, name: str, value: Any) -> int:
        try:
            found = _bytes(value) if isinstance(value, str) else value
        except (ValueError, OverflowError):
            raise self.unfit(name, value) from None
        if type(found) is not int or found < 0:
            raise self.unfit(name, value)
        return found

    def option(self) -> dict[str, Any]:
        return {"callback": _callback(_bytes), "metavar": "SIZE"}


def _callback(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """One that reads text, and says what is wrong with it."""

    def called(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} {error}", ctx, param) from None

    return called


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError("has an empty name; write them as in time,lat,lon")
    return names


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("must be numbers, as in 8,4,2,1") from None


MOST_COUNTS = 10_000  # of "2-1000000000" no list is made


def _counts(text: str) -> list[int]:
    found: set[int] = set()
    try:
        for piece in text.split(","):
            first, _, last = piece.partition("-")
            span = range(int(first), int(last or first) + 1)
            found |= set(span[: MOST_COUNTS + 1])
    except ValueError:
        raise ValueError("names no numbers; write them as in 2-12 or 2,4,8") from None
    if not found or min(found) < 1:
        raise ValueError("names no number above 0; write them as in 2-12 or 2,4,8")
    if len(found) > MOST_COUNTS:
        raise ValueError(f"names more than {MOST_COUNTS:,} numbers; write them as in 2-12 or 2,4,8")
    return sorted(found)


def _bytes(text: str) -> int:
    from dask.utils import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError:
        raise ValueError("is no size; write it as in 500MB or 2GiB") from None
