"""What commands do, whoever asked for it: their options, or a job file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from daskmix.cli.options import given
from daskmix.cli.places import apart, begun, connected, free, opened
from daskmix.cli.text import facts, print_facts, print_table

Rows = Mapping[str, Any]  # as `fit`, `select` and `plan` take them: X, its weights, its sampled dims


@dataclass(frozen=True)
class Source:
    """What is read."""

    store: str
    variables: Sequence[str] = ()
    sample_dims: Sequence[str] | None = None
    weights: str | None = None
    accept_missing_chunks: bool = False

    def opened(self) -> Rows:
        """The rows and their weights, of which only metadata are read."""
        X, weight = opened(self.store, self.variables, self.weights, self.accept_missing_chunks)
        return {"X": X, "sample_weight": weight, "sample_dims": self.sample_dims}


@dataclass(frozen=True)
class Outputs:
    """What is written."""

    model: str
    labels: str | None = None
    probabilities: bool = False
    uncertainty: bool = False
    overwrite: bool = False

    def check(self, source: Source, checkpoint: str | None) -> None:
        """Refuse what cannot be written, before any work is done and lost."""
        apart([self.model, self.labels], [source.store, checkpoint])
        if not begun(checkpoint):
            free([self.model, self.labels], self.overwrite)

    def write(self, model: Any, rows: Rows) -> None:
        """Model, and labels; but for what is there and was made of the same."""
        from daskmix.store import finished, save_model, write_values

        of = model._made_of
        if not finished(self.model, of):
            save_model(model, self.model, overwrite=self.overwrite, of=of)
        if self.labels is None:
            return
        asked = questions(self.probabilities, self.uncertainty)
        of = None if of is None else of.asked(tuple(asked))  # without a checkpoint nobody knows
        if not finished(self.labels, of):
            labels = answers(model, rows["X"], rows["sample_dims"], asked)
            write_values(labels, self.labels, overwrite=self.overwrite, of=of)

    def facts(self) -> dict[str, str]:
        """What was written, and where."""
        return {"model written": self.model} | ({} if self.labels is None else {"labels written": self.labels})


@dataclass(frozen=True)
class Found:
    """The model that a task found, and what is said about it."""

    model: Any
    facts: Mapping[str, Any]
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None

    def print(self, outputs: Outputs) -> None:
        if self.table is not None:
            header, cells = self.table
            print_table(header, cells, most=len(cells))
            click.echo()
        print_facts({**self.facts, **outputs.facts()})


@dataclass(frozen=True)
class Task(ABC):
    """What makes a model of rows."""

    kind: str
    options: Mapping[str, Any]
    run: Any

    @abstractmethod
    def found(self, rows: Rows) -> Found:
        """The work itself."""

    @abstractmethod
    def planned(self, rows: Rows) -> tuple[Any, Mapping[str, str]]:
        """A plan, and what is to be said before it."""


@dataclass(frozen=True)
class Fitting(Task):
    """One model, fitted."""

    k: int

    def found(self, rows: Rows) -> Found:
        if self.run.progress in ("terminal", "log"):  # JSON says it of the first pass
            click.echo(f"memory    {self.planned(rows)[0].facts()['memory']}", err=True)
        model = estimator(self.kind, self.k, self.run, self.options).fit(**rows)
        return Found(model, facts(model))

    def planned(self, rows: Rows) -> tuple[Any, Mapping[str, str]]:
        from daskmix import plan

        return plan(estimator(self.kind, self.k, self.run, self.options), **rows), {}


@dataclass(frozen=True)
class Searching(Task):
    """The best of many models that share passes."""

    ks: Sequence[int]
    structures: Sequence[str] = ()
    n_init: int | None = None
    criterion: str | None = None

    @staticmethod
    def of(kind: str, ks: Sequence[int], options: Mapping[str, Any], run: Any) -> Searching:
        """Its own options told from those of the models."""
        models = dict(options)
        structures, n_init = models.pop("covariance_type", ()), models.pop("n_init", None)
        criterion = models.pop("criterion", None)
        return Searching(kind, models, run, ks, structures, n_init, criterion)

    def _tried(self) -> dict[str, Any]:
        """What `select` and `asked_for` take."""
        tried = {"n_clusters" if self.kind == "kmeans" else "n_components": self.ks, "criterion": self.criterion}
        return tried | given({"covariance_type": self.structures, "n_init": self.n_init})

    def found(self, rows: Rows) -> Found:
        from daskmix import select

        found = select(**rows, **self._tried(), run=self.run, **self.options)
        winners = found.table_.isel(init=0).to_dataframe().reset_index().drop(columns="init")
        cells = [[_shown(value) for value in row] for row in winners.to_numpy()]
        said = facts(found.best_) | {"chosen by": found.criterion}
        return Found(found.best_, said, (list(winners.columns), cells))

    def planned(self, rows: Rows) -> tuple[Any, Mapping[str, str]]:
        from daskmix import plan
        from daskmix.selection import asked_for

        asked = asked_for(**self._tried(), options=self.options)
        each = [{**self.options, "covariance_type": name} for name in asked.names] or [{**self.options}]
        plans = [plan(estimator(self.kind, max(asked.ks), self.run, options), **rows) for options in each]
        models = f"{len(asked.ks) * len(each)}, which share passes; what follows is of the largest"
        return max(plans, key=lambda planned: planned.answer_bytes), {"models": models}


def _shown(value: Any) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def carry_out(task: Task, source: Source, outputs: Outputs, scheduler: str | None) -> None:
    """Find the model, write it and its labels, and describe it."""
    outputs.check(source, task.run.checkpoint)
    rows = source.opened()
    with connected(scheduler):
        found = task.found(rows)
        outputs.write(found.model, rows)
    found.print(outputs)


def foretell(task: Task, source: Source, outputs: Outputs) -> None:
    """Check all that can be checked before the work, and say what it will cost; nothing is written."""
    outputs.check(source, task.run.checkpoint)
    planned, said = task.planned(source.opened())
    places = {"input": source.store, "model": outputs.model, "labels": outputs.labels or ""}
    print_facts({**places, "checkpoint": task.run.checkpoint or "", **said})
    print_plan(planned)


def print_plan(planned: Any) -> None:
    print_facts(planned.facts())
    for warning in planned.warnings:
        click.echo(f"Warning: {warning}", err=True)


def estimator(kind: str, k: int, run: Any, options: Mapping[str, Any]) -> Any:
    """The estimator that the options describe."""
    from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans

    given = dict(options)
    if kind in ("kmeans", "bisecting"):
        return (KMeans if kind == "kmeans" else BisectingKMeans)(k, run=run, **given)
    if "init" in given:
        given["init_params"] = given.pop("init")
    return (GaussianMixture if kind == "gmm" else BayesianGaussianMixture)(k, run=run, **given)


def questions(probabilities: bool, uncertainty: bool) -> dict[str, str]:
    """What a model is asked of each row: names of answers, and methods that give them."""
    asked = {"label": "predict"}
    asked |= {"probability": "predict_proba"} if probabilities else {}
    return asked | ({"uncertainty": "uncertainty"} if uncertainty else {})


def answers(model: Any, X: Any, sample_dims: Any, asked: Mapping[str, str]) -> Any:
    """One Dataset of all answers, which then share their reads."""
    import xarray as xr

    found = {name: getattr(model, method)(X, sample_dims=sample_dims) for name, method in asked.items()}
    rows = found["label"].ndim

    def named(values: Any) -> Any:
        if isinstance(values, xr.DataArray):
            return values
        dims = ["row"] if rows == 1 else [f"dim_{i}" for i in range(rows)]
        return xr.DataArray(values, dims=dims + ["component"] * (values.ndim - rows))

    return xr.Dataset({name: named(values) for name, values in found.items()})
