"""Job files: TOML with the keys that `keys` declares, checked before anything else is done. Nothing in them is run."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from daskmix.cli.keys import TABLES, Key
from daskmix.cli.kinds import Place, Schema, Several
from daskmix.cli.options import run_of
from daskmix.cli.work import Fitting, Outputs, Searching, Source, Task
from daskmix.errors import InputError, bare_url, nearest

MOST_BYTES = 1 << 20
LEAST_HIDDEN = 4  # letters: what is shorter is no secret, and stands in many words
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
ABOUT = {
    "input": "What is read.",
    "model": "One model to fit; a job has this table or [search].",
    "search": "Many models that share passes, the best of which is written; a job has this table or [model].",
    "output": "What is written.",
    "checkpoint": "What makes a job that was cut off go on from where it was, and a job that is done be known as done.",
    "resources": "What does the work; none of these changes a bit of the result, but for device.",
}
NEEDED = ("input", "output")
ONE_OF = ("model", "search")
BESIDE = {"probabilities": "labels", "uncertainty": "labels"}  # of the output: what is written beside what
Table = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """What a job file asks for."""

    tables: Mapping[str, Table]  # the parameters in each
    hidden: tuple[tuple[str, str], ...]  # what came from the environment, and what is shown instead

    @property
    def scheduler(self) -> str | None:
        return self._of("resources").get("scheduler")

    def source(self) -> Source:
        given = self._of("input")
        return Source(**{name: value for name, value in given.items() if name != "missing"})

    def outputs(self, overwrite: bool) -> Outputs:
        given = dict(self._of("output"))
        model, labels = given.pop("out"), given.pop("labels_out", None)
        return Outputs(model, labels, **(given | ({"overwrite": True} if overwrite else {})))

    def task(self, told: Any) -> Task:
        read = self._of("input")
        run = run_of({**read, **self._of("checkpoint"), **self._of("resources")}, told)
        (name,) = (table for table in ONE_OF if table in self.tables)
        options = {key: value for key, value in self._of(name).items() if key not in ("kind", "k")}
        options |= {"missing": read["missing"]} if "missing" in read else {}
        kind, k = self._of(name)["kind"], self._of(name)["k"]
        return Fitting(kind, options, run, k) if name == "model" else Searching.of(kind, k, options, run)

    def _of(self, table: str) -> Table:
        return self.tables.get(table, {})


def read(path: str, environment: Mapping[str, str]) -> Job:
    """The job that a file describes.

    Raises
    ------
    InputError
        It cannot be read, or one of its keys or values is none that a job has; the message names it.
    """
    try:
        said = _tables(_parsed(path))
        places = {(table, key.name): value for table, key, value in _given(said) if isinstance(key.kind, Place)}
        expanded = {at: _expanded(".".join(at), value, environment) for at, value in places.items()}
        tables: dict[str, dict[str, Any]] = {table: {} for table in said}
        for table, key, value in _given(said):
            tables[table][key.parameter] = expanded.get((table, key.name), value)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Job(tables, _hidden([(expanded[at], written) for at, written in places.items()], environment))


def _parsed(path: str) -> Table:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"this job file cannot be read: {why}") from error
    if len(data) > MOST_BYTES:
        raise InputError(f"it has more than {MOST_BYTES:,} bytes, which no job needs")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is no TOML: {error}") from error


# --- what was said ----------------------------------------------------------------------------------------------------


def _tables(said: Table) -> dict[str, dict[str, Any]]:
    """The parameters of each table, every one checked by itself and beside the others."""
    for name, table in said.items():
        if name not in TABLES:
            near = nearest(name[:80], list(TABLES))
            hint = "" if near is None else f"; did you mean [{near}]?"
            raise InputError(f"{name} is no table of a job{hint}; there are {', '.join(TABLES)}")
        if not isinstance(table, dict):
            raise InputError(f"{name} must be a table, written as [{name}], and once")
    for name in NEEDED:
        if name not in said:
            raise InputError(f"[{name}] is missing. {ABOUT[name]}")
    if len(said.keys() & set(ONE_OF)) != 1:
        how = "are both there" if said.keys() & set(ONE_OF) else "are both missing"
        raise InputError(f"[model] and [search] {how}: a job fits one model, or searches for the best of many")
    checked = {name: _checked(name, table) for name, table in said.items()}
    _refuse_for_others(checked)
    for name, other in BESIDE.items():
        if name in checked["output"] and other not in checked["output"]:
            raise InputError(f"output.{name} is written beside output.{other}, which is missing")
    return checked


def _checked(table: str, said: Table) -> dict[str, Any]:
    """Its values, by the names of their keys."""
    keys = {key.name: key for key in TABLES[table]}
    for name, value in said.items():
        if name not in keys:
            raise _unknown(table, name)
        if not isinstance(keys[name].kind, Place):
            _refuse_variables(f"{table}.{name}", value)
    for name, key in keys.items():
        if key.required and name not in said:
            raise InputError(f"{table}.{name} is missing. {key.help}")
    return {name: keys[name].kind.read(f"{table}.{name}", value) for name, value in said.items()}


def _unknown(table: str, name: str) -> InputError:
    """The error for a key that there is not, with the one that was probably meant."""
    known = [key.name for key in TABLES[table]]
    elsewhere = [other for other, keys in TABLES.items() if name in (key.name for key in keys)]
    near = nearest(name[:80], known)
    meant = f"{elsewhere[0]}.{name}" if elsewhere else None if near is None else f"{table}.{near}"
    hint = "" if meant is None else f"; did you mean {meant}?"
    return InputError(f"{table}.{name} is no key of a job{hint}; [{table}] has {', '.join(known)}")


def _refuse_variables(name: str, value: Any) -> None:
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and "${" in text:
            raise InputError(
                f"{name} = {text!r} has a ${{, which stands for a variable of the environment only in paths, URLs and "
                "addresses; write the value itself"
            )


def _refuse_for_others(checked: Mapping[str, Table]) -> None:
    """Refuse what only other kinds of models have."""
    (of,) = checked.keys() & set(ONE_OF)
    kind = checked[of]["kind"]
    for table, key, _ in _given(checked):
        if kind not in key.models:
            kinds = " or ".join(f'"{model}"' for model in key.models if model in TABLES[of][0].models)
            raise InputError(f'{table}.{key.name} is for {of}.kind = {kinds}, not "{kind}"; leave it out')


def _given(checked: Mapping[str, Table]) -> Iterator[tuple[str, Key, Any]]:
    """What was said, key by key."""
    for table, said in checked.items():
        for key in TABLES[table]:
            if key.name in said:
                yield table, key, said[key.name]


# --- the environment --------------------------------------------------------------------------------------------------


def _expanded(name: str, written: str, environment: Mapping[str, str]) -> str:
    """A value with variables of the environment put in; none is ever shown."""
    if "${" in VARIABLE.sub("", written):
        raise InputError(f"{name} = {written!r} has a ${{ that names no variable; write it as ${{NAME}}")
    for variable in VARIABLE.findall(written):
        if not environment.get(variable):
            how = "empty" if variable in environment else "not set"
            raise InputError(f"{name} names ${{{variable}}}, which is {how} in the environment; set it for this job")
    value = VARIABLE.sub(lambda found: environment[found[1]], written)
    if not value.isprintable():
        raise InputError(f"{name} = {written!r} has characters that cannot be printed, once its variables are put in")
    return value


def _hidden(places: Sequence[tuple[str, str]], environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What to show instead of values that came from the environment, and of what other packages make of them."""
    shown: dict[str, str] = {}
    for value, written in places:
        for variable in VARIABLE.findall(written):
            secret = environment[variable]
            words = {form for word in _as_said(secret) for form in (word, quote(word), quote(word, safe=""))}
            shown |= {word: f"${{{variable}}}" for word in words if len(word) >= LEAST_HIDDEN}
        if value != written:
            shown |= {form: bare_url(written) for word in _as_said(value) for form in (word, bare_url(word))}
    return tuple(sorted(shown.items(), key=lambda pair: -len(pair[0])))  # of what lies in another, the longer one


def _as_said(value: str) -> tuple[str, str]:
    """As it is, and on one line of words."""
    return value, " ".join(value.split())


# --- what may be said -------------------------------------------------------------------------------------------------


def schema() -> str:
    """All that a job file may say, as a JSON schema."""
    described: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job of daskmix",
        "description": "What `daskmix run` takes, as TOML: rows to read, a model to fit or to search for, and outputs.",
        "type": "object",
        "properties": {name: _schema_of(name) for name in TABLES},
        "required": list(NEEDED),
        "oneOf": [{"required": [name]} for name in ONE_OF],
        "additionalProperties": False,
    }
    return json.dumps(described, indent=2)


def _schema_of(table: str) -> Schema:
    keys = TABLES[table]
    described: Schema = {
        "description": ABOUT[table],
        "type": "object",
        "properties": {key.name: _schema_of_key(key) for key in keys},
        "required": [key.name for key in keys if key.required],
        "additionalProperties": False,
    }
    if table in ONE_OF:
        described["allOf"] = [_only_for(model, keys) for model in keys[0].models]
    if table == "output":
        described["dependentRequired"] = {name: [other] for name, other in BESIDE.items()}
    return described


def _schema_of_key(key: Key) -> Schema:
    described: Schema = {"description": key.told, **key.kind.schema()}
    if isinstance(key.kind, Place):
        described["$comment"] = "${NAME} stands for a variable of the environment."
    if key.default is not None and not isinstance(key.default, Mapping) and not key.by_default:
        several = isinstance(key.kind, Several) and not isinstance(key.default, tuple)
        described["default"] = [key.default] if several else key.default
    return described


def _only_for(model: str, keys: Sequence[Key]) -> Schema:
    """The keys that this kind of model has not."""
    others = {key.name: False for key in keys if model not in key.models}
    return {"if": {"properties": {"kind": {"const": model}}, "required": ["kind"]}, "then": {"properties": others}}


def reference() -> str:
    """All keys as a page of Markdown."""
    return "\n\n".join(f"## [{name}]\n\n{ABOUT[name]}\n\n{_rows(keys)}" for name, keys in TABLES.items())


def _rows(keys: Sequence[Key]) -> str:
    rows = [("key", "value", "what for"), ("---", "---", "---")]
    for key in keys:
        about = key.told if not key.required else f"{key.told} It must be there."
        if isinstance(key.kind, Place):
            about += " `${NAME}` is allowed."
        if len(key.models) < 4:
            about += f" For {', '.join(key.models)}."
        rows.append((f"`{key.name}`", key.kind.words, about))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
