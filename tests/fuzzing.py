"""What users may pass, usable or not, as recipes that can be read and repeated; and what must come of it.

Within a bounded time a fit ends with a typed error, or with a right answer: `outcome` asks for it all and `check` holds
it against plain NumPy in extended precision.
"""

from __future__ import annotations

import faulthandler
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from hypothesis import strategies as st
from sklearn import cluster, mixture

from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans, plan, select
from daskmix.errors import CollapsedComponentError, DaskmixError

SECONDS = 30  # that one example may take
EXTENDED = np.longdouble  # whose range nothing here leaves
MODELS = {kind.__name__: kind for kind in (KMeans, BisectingKMeans, GaussianMixture, BayesianGaussianMixture)}


# --- rows -------------------------------------------------------------------------------------------------------------

NUMERIC = ("f8", "f4", "f2", "g", "?", "i1", "u1", "i2", "i8", "u8")
PATTERNS = ("blobs", "one value", "few rows", "a constant feature", "a line", "an outlier", "units", "denormal")
SPOILT = ("NaN", "inf", "-inf", "a row of NaN", "a column of NaN", "NaN alone", "mask")


@dataclass(frozen=True)
class Table:
    """Rows."""

    n: int
    d: int
    pattern: str = "blobs"
    unit: float = 1.0
    offset: float = 0.0
    dtype: str = "f8"
    spoilt: str = ""
    seed: int = 0

    def array(self) -> np.ndarray:
        """(n, d); what an integer type cannot hold is wrapped, what a floating type cannot is infinite."""
        rng = np.random.default_rng([self.seed, self.n, self.d])
        x = self._pattern(rng) * self.unit + self.offset if self.dtype in NUMERIC else self._pattern(rng)
        with np.errstate(all="ignore"):
            if self.dtype in ("O", "U", "S"):
                return x.astype(self.dtype)
            if self.dtype in ("M8[ns]", "m8[s]"):
                return (np.nan_to_num(x) * 1000).astype("i8").astype(self.dtype)
            if self.dtype == "V":
                return np.zeros(x.shape, dtype=[("a", "f8"), ("b", "i4")])
            x = x.astype(self.dtype) if np.dtype(self.dtype).kind in "fc" else np.nan_to_num(x * 9).astype(self.dtype)
        return self._spoil(x, rng)

    def _pattern(self, rng: np.random.Generator) -> np.ndarray:
        n, d = self.n, self.d
        x = rng.normal(size=(n, d)) + 6.0 * rng.integers(0, 3, n)[:, None]
        if self.pattern == "one value":
            x[:] = 1.5
        elif self.pattern == "few rows":
            x = x[rng.integers(0, 3, n) % max(1, n)] if n else x
        elif self.pattern == "a constant feature":
            x[:, :1] = 2.5
        elif self.pattern == "a line":
            x = x[:, :1] * np.arange(1, d + 1)
        elif self.pattern == "an outlier" and n:
            x[rng.integers(n)] *= 10.0 ** rng.integers(1, 30)
        elif self.pattern == "units":
            x = x * 10.0 ** rng.integers(-100, 100, d)
        elif self.pattern == "denormal":
            x = x * (1e-310 if self.dtype == "f8" else 1e-40)
        return x

    def _spoil(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if x.size == 0 or not self.spoilt:
            return x
        if self.spoilt == "mask":
            return np.ma.masked_array(x, rng.random(x.shape) < 0.2)
        if x.dtype.kind not in "fc":
            return x
        if self.spoilt == "NaN":
            x[rng.random(x.shape) < 0.2] = np.nan
        elif self.spoilt == "a row of NaN":
            x[rng.integers(len(x))] = np.nan
        elif self.spoilt == "a column of NaN":
            x[:, rng.integers(x.shape[1])] = np.nan
        elif self.spoilt == "NaN alone":
            x[:] = np.nan
        else:
            x[rng.integers(len(x)), rng.integers(x.shape[1])] = float(self.spoilt)
        return x


UNITS = (1e-3, 1e6, 1e-30, 1e30, 1e-150, 1e19, 1e25, 1e100, 1e150, 1e300)
OFFSETS = (1e3, -1e6, 1e12, 1e30, 1e200)
STRANGE = ("c8", "c16", "O", "U", "S", "V", "M8[ns]", "m8[s]")


@st.composite
def tables(draw: st.DrawFn, wild: frozenset[str]) -> Table:
    """Plain ones, but for what is wild."""

    def drawn(aspect: str, strange: st.SearchStrategy[Any], plain: st.SearchStrategy[Any]) -> Any:
        return draw(strange if aspect in wild else plain)

    return Table(
        n=drawn("size", st.integers(0, 5), st.integers(5, 60)),
        d=drawn("size", st.integers(0, 12), st.integers(1, 4)),
        pattern=drawn("pattern", st.sampled_from(PATTERNS), st.just("blobs")),
        unit=drawn("unit", st.sampled_from(UNITS), st.just(1.0)),
        offset=drawn("offset", st.sampled_from(OFFSETS), st.just(0.0)),
        dtype=drawn("dtype", st.sampled_from((*NUMERIC, *STRANGE)), st.sampled_from(("f8", "f8", "f4"))),
        spoilt=drawn("values", st.sampled_from(SPOILT), st.just("")),
        seed=draw(st.integers(0, 2**20)),
    )


# --- where rows come from ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """How rows are passed: as what, and cut where."""

    kind: str = "numpy"
    cuts: tuple[int, ...] = ()  # shares of the rows at which chunks begin, of 60; equal ones leave a chunk empty

    def chunks(self, n: int) -> tuple[int, ...]:
        edges = [0, *sorted(cut * n // 60 for cut in self.cuts), n]
        return tuple(b - a for a, b in pairwise(edges))

    def of(self, x: np.ndarray, folder: Path) -> Any:
        """These rows, so."""
        if np.ma.isMaskedArray(x) and self.kind not in MASKS:
            x = np.ma.filled(x.astype(np.result_type(x.dtype, np.float32)), np.nan)
        return SOURCES[self.kind](x, self.chunks(len(x)), folder)


def names(x: np.ndarray) -> list[str]:
    return [f"v{j}" for j in range(x.shape[1])]


def _dask(x: np.ndarray, chunks: tuple[int, ...]) -> da.Array:
    return da.from_array(x, chunks=(chunks, *((n,) for n in x.shape[1:])))


def _unknown(x: np.ndarray, chunks: tuple[int, ...], folder: Path) -> Any:
    # Not by a mask: where some chunks have no row, Dask cannot compute what that gives.
    parts = (dask.delayed(part, pure=False) for part in np.split(x, np.cumsum(chunks)[:-1]))
    shape = (np.nan, *x.shape[1:])
    return da.concatenate([da.from_delayed(part, shape, meta=x[:0]) for part in parts], allow_unknown_chunksizes=True)


def _frame(x: np.ndarray, chunks: tuple[int, ...], folder: Path) -> Any:
    return dd.from_pandas(_pandas(x, chunks, folder), npartitions=max(1, len(chunks)), sort=False)


def _pandas(x: np.ndarray, chunks: tuple[int, ...], folder: Path) -> pd.DataFrame:
    return pd.DataFrame(list(x) if x.dtype.kind == "V" else x, columns=names(x))


def _grid(x: np.ndarray) -> xr.DataArray:
    side = next((s for s in (4, 3, 2) if len(x) and len(x) % s == 0), 1)
    cells = x.reshape(side, len(x) // side, *x.shape[1:])
    return xr.DataArray(cells, dims=("a", "b", "f"), coords={"f": names(x)}, name="v")


def _dataset(x: np.ndarray, chunks: tuple[int, ...], folder: Path) -> xr.Dataset:
    return xr.Dataset({f"v{j}": ("row", x[:, j]) for j in range(x.shape[1])})


def _array_in(x: np.ndarray, chunks: tuple[int, ...], place: Any, version: int) -> zarr.Array:
    shape = tuple(max(1, n) for n in (chunks[0], *x.shape[1:]))
    how: Any = {"chunks": shape, "zarr_format": version, "overwrite": True}
    with zarr.config.set({"array.write_empty_chunks": True}):  # those that are not there are another test's
        array = zarr.create_array(place, shape=x.shape, dtype=x.dtype, **how)
        array[...] = x
    return array


def _path(version: int) -> Callable[..., Any]:
    def of(x: np.ndarray, chunks: tuple[int, ...], folder: Path) -> Path:
        _array_in(x, chunks, folder / f"{version}.zarr", version)
        return folder / f"{version}.zarr"

    return of


def _group(x: np.ndarray, chunks: tuple[int, ...], folder: Path) -> Path:
    place = folder / "group.zarr"
    _dataset(x, chunks, folder).to_zarr(place, mode="w", write_empty_chunks=True)
    return place


SOURCES: Mapping[str, Callable[[np.ndarray, tuple[int, ...], Path], Any]] = {
    "numpy": lambda x, chunks, folder: x,
    "list": lambda x, chunks, folder: x.tolist(),
    "Fortran": lambda x, chunks, folder: np.asfortranarray(x),
    "pandas": _pandas,
    "dask": lambda x, chunks, folder: _dask(x, chunks),
    "dask, cut across": lambda x, chunks, folder: _dask(x, chunks).rechunk({1: 1}) if x.size else _dask(x, chunks),
    "dask, unknown": _unknown,
    "dask frame": _frame,
    "xarray": lambda x, chunks, folder: _grid(x),
    "xarray, lazy": lambda x, chunks, folder: _grid(x).chunk(a=1, b=-1 if not len(x) else 2),
    "dataset": _dataset,
    "dataset, lazy": lambda x, chunks, folder: _dataset(x, chunks, folder).chunk(row=max(1, chunks[0])),
    "zarr": lambda x, chunks, folder: _array_in(x, chunks, zarr.storage.MemoryStore(), 3),
    "path 2": _path(2),
    "path 3": _path(3),
    "group": _group,
    # No table: refused, or meant otherwise.
    "one axis": lambda x, chunks, folder: x.ravel(),
    "one axis, dask": lambda x, chunks, folder: da.from_array(x.ravel(), chunks=-1),
    "three axes": lambda x, chunks, folder: x[None],
    "a number": lambda x, chunks, folder: 3.5,
    "nothing": lambda x, chunks, folder: None,
    "text": lambda x, chunks, folder: "no such place",
}
MASKS = ("numpy", "dask", "dask, unknown")  # keep what is masked
NO_TABLE = ("one axis", "one axis, dask", "three axes", "a number", "nothing", "text")
TABULAR = tuple(kind for kind in SOURCES if kind not in NO_TABLE)

CUTS = st.lists(st.integers(0, 60), max_size=4).map(tuple)
NO_TABLES = st.builds(Source, st.sampled_from(NO_TABLE), CUTS)
TABULARS = st.builds(Source, st.sampled_from(TABULAR), CUTS)


def values(answer: Any) -> np.ndarray:
    """What was answered for each row, of whatever type: (n,) or (n, width)."""
    if dask.is_dask_collection(answer):
        answer = answer.compute(scheduler="sync")
    found = np.asarray(answer)
    rows = answer.dims if isinstance(answer, xr.DataArray) else ()
    sampled = len([dim for dim in rows if dim in ("a", "b", "row")])
    return found.reshape(-1, *found.shape[sampled:]) if sampled else found


# --- weights ----------------------------------------------------------------------------------------------------------


def _weights(kind: str, n: int, rng: np.random.Generator) -> Any:
    some = rng.random(n) + 0.1
    made: dict[str, Callable[[], Any]] = {
        "": lambda: None,
        "some": lambda: some,
        "whole": lambda: rng.integers(0, 4, n),
        "yes or no": lambda: rng.random(n) < 0.7,
        "single": lambda: some.astype("f4"),
        "list": lambda: some.tolist(),
        "one": lambda: np.eye(1, n).ravel(),
        "huge": lambda: some * 1e300,
        "tiny": lambda: some * 1e-300,
        "apart": lambda: some * 10.0 ** rng.integers(-100, 100, n),
        "zeros": lambda: np.zeros(n),
        "below": lambda: some - 0.6,
        "NaN": lambda: np.where(rng.random(n) < 0.2, np.nan, some),
        "inf": lambda: np.where(rng.random(n) < 0.2, np.inf, some),
        "too many": lambda: np.ones(n + 1),
        "column": lambda: some[:, None],
        "number": lambda: 2.0,
        "text": lambda: np.full(n, "1"),
        "complex": lambda: some + 0j,
        "objects": lambda: np.full(n, {}, dtype=object),
        "dask": lambda: da.from_array(some, chunks=max(1, n // 2)),
        "masked": lambda: np.ma.masked_array(some, rng.random(n) < 0.2),
        "word": lambda: "balanced",
    }
    return made[kind]()


GOOD_WEIGHTS = ("some", "whole", "yes or no", "single", "list", "one", "huge", "tiny", "apart")
BAD_WEIGHTS = (
    "zeros", "below", "NaN", "inf", "too many", "column", "number", "text", "complex", "objects", "dask", "masked",
    "word",
)  # fmt: skip


# --- options ----------------------------------------------------------------------------------------------------------

ODD = (
    None, True, False, 0, 1, -1, 2, 1.5, -0.5, 1e300, float("nan"), float("inf"), "", "no", "auto", b"full", (), [], {},
    10**30, 1j, object, (1.0, 2.0), [[1.0], [2.0]], {"a": 1}, {"weights"}, np.float32(0.5), np.int8(1), np.array(3.0),
    np.ones(3), np.ones((2, 2)), np.zeros((0, 2)), np.array(["x"]), np.datetime64("2020", "s"),
)  # fmt: skip
COMMON = {
    "max_iter": (1, 2, 5, 20),
    "tol": (0, 1e-3, 1e30),
    "n_init": (1, 2),
    "sample_size": ("auto", 1, 5, 1000),
    "missing": ("raise", "drop", "em"),
    "random_state": (0, 1, None),
}
ITERATED = {
    "accelerate": ("auto", "none"),
    "gap_tol": (0.0, 1e-5, 0.5),
    "max_passes": (None, 4, 10),
    "warm_start": (False, True),
}
OPTIONS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "KMeans": {
        **COMMON,
        **ITERATED,
        "init": ("auto", "k-means++", "k-means||", "random"),
        "n_init": ("auto", 1, 3),
        "metric": ("euclidean", "euclidean", "cosine"),
    },
    "BisectingKMeans": {**COMMON, "bisecting_strategy": ("biggest_inertia", "largest_cluster")},
    "GaussianMixture": {
        **COMMON,
        **ITERATED,
        "covariance_type": (
            "full", "tied", "diag", "spherical", "EII", "EEI", "VEI", "EVI", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV",
        ),
        "reg_covar": ("auto", "auto", "auto", 0.0, 1e-6, 1.0, 1e100),
        "init_params": ("auto", "kmeans", "k-means++", "random", "random_from_data"),
        "weights_init": (None,),
        "means_init": (None,),
        "precisions_init": (None,),
        "covariance_init": (None,),
        "equal_weights": (False, True),
        "fixed": (None,),
        "noise": (False, False, True),
        "semi_supervised": (False,),
        "nu": (None, None, None, 3.0, "estimate", 1e-3, 1e6),
        "min_weight": (0.0, 0.0, 0.2),
        "on_collapse": ("keep", "restart", "drop", "raise"),
        "prior": (None, None, "default", {"shrinkage": 1.0}),
        "algorithm": ("em", "em", "em", "cem", "sem"),
        "temperature": (1.0, 1.0, 2.0, (4.0, 2.0, 1.0)),
    },
    "BayesianGaussianMixture": {
        **COMMON,
        "covariance_type": ("full", "tied", "diag", "spherical"),
        "reg_covar": ("auto", "auto", 0.0, 1e-6, 1.0),
        "init_params": ("auto", "kmeans", "k-means++", "random", "random_from_data"),
        "weight_concentration_prior_type": ("dirichlet_process", "dirichlet_distribution"),
        "weight_concentration_prior": (None, 1e-3, 1.0, 1e3),
        "mean_precision_prior": (None, 0.1, 10.0),
        "mean_prior": (None,),
        "degrees_of_freedom_prior": (None, 20.0),
        "covariance_prior": (None,),
        "warm_start": (False, True),
        "max_passes": (None, 4, 10),
    },
}  # fmt: skip


@st.composite
def options_of(draw: st.DrawFn, name: str, wild: frozenset[str]) -> tuple[tuple[str, Any], ...]:
    """Some parameters of a model with values of theirs; where that is wild, one with a value that may be none."""
    known = OPTIONS[name]
    chosen = draw(st.lists(st.sampled_from(sorted(known)), max_size=4 if "options" in wild else 1, unique=True))
    found = {option: draw(st.sampled_from(known[option])) for option in chosen}
    if "odd" in wild:
        first = "n_components" if "Mixture" in name else "n_clusters"
        found[draw(st.sampled_from([*sorted(known), first, "verbose", "run"]))] = draw(st.sampled_from(ODD))
    return tuple(found.items())


@dataclass(frozen=True)
class Case:
    """One example: rows, how they are passed, their weights, a model and what else it is asked about."""

    model: str
    k: int
    options: tuple[tuple[str, Any], ...]
    table: Table
    source: Source
    weights: str = ""
    again: Source = field(default_factory=Source)  # how the same rows are passed to questions
    start: bool = False  # at rows of the table
    by: str = "fit"  # "select" and "plan" fit, or tell of, the same model

    def estimator(self, x: np.ndarray) -> Any:
        first = "n_components" if "Mixture" in self.model else "n_clusters"
        chosen = {first: self.k, "random_state": 0, "max_iter": 20, **dict(self.options)}
        if self.start and len(x) >= self.k and self.model in ("KMeans", "GaussianMixture"):
            centres = np.asarray(np.ma.filled(x, 0) if np.ma.isMaskedArray(x) else x)[: self.k]
            chosen.setdefault("init" if self.model == "KMeans" else "means_init", centres)
        return MODELS[self.model](**chosen)


ASPECTS = (
    "size", "pattern", "unit", "offset", "dtype", "values", "shape", "weights", "bad weights", "k", "options", "odd",
)  # fmt: skip


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    """Not all at once: of what is wild in many ways only the first is ever told."""
    wild = draw(st.frozensets(st.sampled_from(ASPECTS), max_size=2))
    name = draw(st.sampled_from(sorted(MODELS)))
    weights = draw(st.sampled_from(GOOD_WEIGHTS)) if "weights" in wild else ""
    weights = draw(st.sampled_from(BAD_WEIGHTS)) if "bad weights" in wild else weights
    k = draw(st.sampled_from((1, 5, 12, 61))) if "k" in wild else draw(st.integers(1, 4))
    by = draw(st.sampled_from(("fit",) * 14 + ("select", "plan")))
    source = draw(NO_TABLES if "shape" in wild else TABULARS)
    options, table, again = draw(options_of(name, wild)), draw(tables(wild)), draw(TABULARS)
    if "values" in wild:
        options = (("missing", draw(st.sampled_from(("raise", "drop", "drop", "em", "em")))), *options)
    return Case(name, k, options, table, source, weights, again, draw(st.booleans()), by)


CASES = _cases()


# --- a bounded time, and a place for stores ---------------------------------------------------------------------------


@contextmanager
def within(seconds: float, case: Any) -> Iterator[None]:
    """An error that names the case when it takes longer; should even that not come through, all stacks and an end."""

    def ring(*_: Any) -> None:
        raise AssertionError(f"no end after {seconds:g} s of {case!r}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, began = signal.signal(signal.SIGALRM, ring), time.monotonic()
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:  # somebody else's clock goes on
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer - (time.monotonic() - began)))


@contextmanager
def folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="daskmix-fuzz-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def warm() -> None:
    """Compile what most examples need: it takes longer than an example may."""
    for dtype in ("f8", "f4"):
        x = Table(60, 3, dtype=dtype).array()
        for kind in MODELS.values():
            kind(2, random_state=0, max_iter=3).fit(x)
        for order in ("full", "tied", "diag", "spherical"):
            model = GaussianMixture(2, covariance_type=order, random_state=0, max_iter=3).fit(x)
            model.predict(x)
            for sorted_out in (x, np.where(np.eye(60, 3) > 0, np.nan, x).astype(x.dtype)):
                GaussianMixture(2, covariance_type=order, random_state=0, max_iter=3, missing="em").fit(sorted_out)


# --- the oracle -------------------------------------------------------------------------------------------------------


def attempt(what: Callable[[], Any], case: Case, name: str) -> Any:
    """What comes of it, which may be a typed error with a sentence; any other is a defect."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = what()
        except DaskmixError as error:
            found = error
    assert not isinstance(found, DaskmixError) or len(str(found)) > 20, (name, found)
    numeric = [w for w in told if issubclass(w.category, RuntimeWarning) and "explicit initial" not in str(w.message)]
    where = [f"{w.message} ({w.filename}:{w.lineno})" for w in numeric]
    assert not numeric, f"{name}: {where}"
    return found


def check(case: Case) -> str:
    """Hold a case against the truth; a word for what became of it."""
    with within(SECONDS, case), folder() as place:
        x = case.table.array()
        rng = np.random.default_rng(case.table.seed)
        try:
            given = case.source.of(x, place)
        except Exception as error:  # what cannot be built cannot be passed
            return f"no {type(error).__name__}"
        w = _weights(case.weights, len(x), rng)
        if case.by == "plan":
            attempt(lambda: plan(case.estimator(x), given, sample_weight=w), case, "plan")
            return "plan"
        if case.by == "select":
            return _selected(case, given, w)
        model = case.estimator(x)
        with dask.config.set(scheduler="threads"):
            found = attempt(lambda: model.fit(given, sample_weight=w), case, "fit")
            if isinstance(found, DaskmixError):
                assert not _must_fit(case, x), found
                return type(found).__name__
            _Fitted(case, model, given, w, x, place).check()
    return "fitted"


def _selected(case: Case, given: Any, w: Any) -> str:
    options = {name: value for name, value in case.options if name not in ("n_init", "covariance_type", "n_components")}
    options = {"random_state": 0, "max_iter": 5, **options}
    if "Mixture" in case.model:
        ask = {"n_components": (1, case.k), "covariance_type": dict(case.options).get("covariance_type", "full")}
    else:
        ask = {"n_clusters": (2, case.k + 1)}
    found = attempt(lambda: select(given, **ask, n_init=2, sample_weight=w, **options), case, "select")
    if isinstance(found, DaskmixError):
        return "select refused"
    assert not np.isnan(found.table_.score.max()) or "Mixture" in case.model
    return "select"


def _must_fit(case: Case, x: np.ndarray) -> bool:
    """Whether nothing is wrong with it."""
    options, table = dict(case.options), case.table
    usual = all(any(value is v for v in OPTIONS[case.model].get(name, ())) for name, value in case.options)
    small = 1e-60 < max(abs(table.unit), abs(table.offset)) < 1e60 and table.pattern not in ("units", "denormal")
    rows = table.dtype in NUMERIC and table.spoilt in ("",) and x.size > 0 and bool(np.isfinite(x).all())
    free = not {"max_passes", "metric", "noise", "nu", "prior", "on_collapse", "reg_covar", "min_weight"} & set(options)
    whole = case.weights == "" and len(x) >= case.k and case.source.kind in TABULAR
    return usual and small and rows and free and whole and not (case.start and "Mixture" in case.model)


@dataclass(frozen=True)
class _Fitted:
    """A model that a case led to, and the rows it is of."""

    case: Case
    model: Any
    given: Any
    w: Any
    x: np.ndarray
    place: Path

    # --- what the rows are, in extended precision ---

    @property
    def missing(self) -> str:
        return str(self.model.missing)

    def rows(self) -> np.ndarray:
        """(n, d), NaN where a value is missing."""
        x = self.x
        return np.ma.filled(x.astype(EXTENDED), np.nan) if np.ma.isMaskedArray(x) else x.astype(EXTENDED)

    def kept(self, x: np.ndarray) -> np.ndarray:
        """Which of these rows count: (n,)."""
        absent = np.isnan(x)
        return ~absent.all(axis=1) if self.missing == "em" else ~absent.any(axis=1)

    def weight(self) -> np.ndarray:
        """(n,)"""
        if self.w is None:
            return np.ones(len(self.x), EXTENDED)
        return np.maximum(np.asarray(self.w).astype(EXTENDED), 0)

    @property
    def eps(self) -> float:
        single = self.case.table.dtype in ("f4", "f2", "?", "i1", "u1", "i2")
        return float(np.finfo(np.float32 if single else np.float64).eps)

    # --- the laws ---

    def check(self) -> None:
        x = self.rows()
        assert not np.isinf(x).any(), "infinity was taken"
        assert self.missing != "raise" or not np.isnan(x).any(), "NaN was taken"
        self._parameters()
        if isinstance(self.model, KMeans | BisectingKMeans):
            self._clusters(x)
        elif self.case.model == "GaussianMixture":
            self._mixture(x)
        self._same_answers(x)
        self._questions()

    def _parameters(self) -> None:
        for name in ("cluster_centers_", "inertia_", "weights_", "means_", "covariances_", "precisions_cholesky_",
                     "precisions_", "lower_bound_", "nu_", "cluster_weights_"):  # fmt: skip
            found = getattr(self.model, name, None)
            assert found is None or np.isfinite(found).all(), (name, found)
        if hasattr(self.model, "weights_"):
            total = float(np.sum(self.model.weights_)) + getattr(self.model, "noise_weight_", 0.0)
            assert abs(total - 1) < 1e-9, total
            assert (self.model.weights_ >= 0).all()
        else:
            assert self.model.inertia_ >= 0
            total = self.weight()[self.kept(self._directed(self.rows()))].sum()
            np.testing.assert_allclose(np.sum(self.model.cluster_weights_), float(total), rtol=1e-9)

    def _directed(self, x: np.ndarray) -> np.ndarray:
        if getattr(self.model, "metric", "") != "cosine":
            return x
        with np.errstate(invalid="ignore"):
            return x / np.sqrt((x * x).sum(axis=1, keepdims=True))

    def _clusters(self, x: np.ndarray) -> None:
        x = self._directed(x)
        keep, centres = self.kept(x), self.model.cluster_centers_.astype(EXTENDED)
        x, w = x[keep], self.weight()[keep]
        away = np.where(np.isnan(x)[:, None], 0, x[:, None] - centres)
        squares = (away * away).sum(axis=2)
        labels = values(self.model.labels_)
        assert (labels[~keep] == -2).all() or np.isnan(labels[~keep].astype(float)).all()
        labels = labels[keep].astype(int)
        own = np.take_along_axis(squares, labels[:, None], 1)[:, 0]
        slack = self._slack(x, np.sqrt(own))
        if isinstance(self.model, KMeans):
            assert (own <= squares.min(axis=1) + slack).all(), "a label is not that of the nearest centre"
        brute = (w * own).sum()
        error = abs(EXTENDED(self.model.inertia_) - brute)
        assert error <= (w * slack).sum() + 1e-9 * brute + 1e-300, (self.model.inertia_, float(brute))

    def _slack(self, x: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """How far the squares of these distances to centres may be off: (n,)."""
        centres = self.model.cluster_centers_.astype(EXTENDED)
        # Rows in the frame are about the mean, and as large as they lie far from it.
        centre = np.nanmean(x, axis=0) if len(x) else 0
        far = np.nan_to_num(x - centre)
        reach = (far * far).sum(axis=1) + ((centres - centre) ** 2).sum(axis=1).max()
        # Centres that were rounded lie elsewhere, so much in each direction.
        ulps = np.spacing(np.abs(self.model.cluster_centers_)).astype(EXTENDED)
        off = np.sqrt((ulps * ulps).sum(axis=1).max())
        return 32 * self.eps * x.shape[1] * reach + off * (2 * distance + off)

    def joint(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log p(x, k), also of noise, and how far a computed one may be off: (n, k) and (n,)."""
        from scipy.special import gammaln

        m, (k, d) = self.model, self.model.means_.shape
        factors = m.precisions_cholesky_.astype(EXTENDED)
        shared = m._structure().order.value == "pooled"
        joint, rounded, reach = [], [], np.zeros(len(x), EXTENDED)
        middle = np.average(x, axis=0) if len(x) else 0
        for j in range(k):
            f = factors if shared else factors[j]
            f = np.eye(d, dtype=EXTENDED) * f if np.ndim(f) < 2 else f
            z = (x - m.means_[j].astype(EXTENDED)) @ f
            q, log_det = (z * z).sum(axis=1), np.log(np.diag(f)).sum()
            if hasattr(m, "nu_"):
                nu = EXTENDED(m.nu_[j])
                log = gammaln(float(nu + d) / 2) - gammaln(float(nu) / 2) - 0.5 * d * np.log(np.pi * nu)
                density = log + log_det - (nu + d) / 2 * np.log1p(q / nu)
            else:
                density = log_det - 0.5 * q - 0.5 * d * np.log(2 * np.pi)
            joint.append(density + np.log(np.maximum(m.weights_[j].astype(EXTENDED), 1e-307)))
            # Means that were rounded lie elsewhere, by so many standard deviations.
            off = np.spacing(np.abs(m.means_[j])).astype(EXTENDED) @ np.abs(f)
            rounded.append((np.abs(z) + off) @ off)
            own = np.abs(x - middle) + np.abs(m.means_[j] - middle)
            reach = np.maximum(reach, (own @ np.abs(f)).sum(axis=1) ** 2)
        if hasattr(m, "noise_weight_"):
            sides = m.noise_box_[1].astype(EXTENDED) - m.noise_box_[0]
            joint.append(np.full(len(x), np.log(EXTENDED(max(m.noise_weight_, 1e-307))) - np.log(sides).sum()))
            rounded.append(np.zeros(len(x), EXTENDED))
        single, logs = self.eps > 1e-10, np.stack(joint, axis=1)
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        off = (shares * np.stack(rounded, axis=1)).sum(axis=1) / shares.sum(axis=1)
        return logs, (4e-3 if single else 1e-7) + 4 * self.eps * d * reach + off

    def _mixture(self, x: np.ndarray) -> None:
        if np.isnan(x[self.kept(x)]).any():
            return  # tests/test_missing.py holds these to what is defined
        keep = self.kept(x)
        joint, slack = self.joint(x[keep])
        top = joint.max(axis=1)
        log = top + np.log(np.exp(joint - top[:, None]).sum(axis=1))
        w = self.weight()[keep]
        brute, off = (w * log).sum() / w.sum(), (w * slack).sum() / w.sum()
        size = 1e-6 if self.eps > 1e-10 else 1e-9
        error = abs(EXTENDED(self.model.lower_bound_) - brute)
        assert error <= off + size * abs(brute), (self.model.lower_bound_, float(brute), float(off))
        labels = values(self.model.predict(self.x))[keep].astype(int)
        labels = np.where(labels == -1, joint.shape[1] - 1, labels)
        own = np.take_along_axis(joint, labels[:, None], 1)[:, 0]
        assert (own >= top - 2 * slack - size * np.abs(top)).all(), "a label is not that of the likeliest component"

    def _same_answers(self, x: np.ndarray) -> None:
        """Of the same rows, however they are passed."""
        of_mixtures = ("predict", "predict_proba", "score_samples")
        for name in ("predict", "transform") if hasattr(self.model, "transform") else of_mixtures:
            ask = getattr(self.model, name)
            plain = attempt(lambda ask=ask: values(ask(self.x)), self.case, name)
            if self.case.table.dtype not in NUMERIC and isinstance(plain, DaskmixError):
                return  # scikit-learn takes words that are numbers from a frame, and not from an array
            assert not isinstance(plain, DaskmixError), plain
            keep = self.kept(self._directed(x))
            assert np.isfinite(plain[keep].astype(float)).all(), name
            if name == "predict_proba":
                np.testing.assert_allclose(plain[keep].sum(axis=1), 1, rtol=1e-6)
            if self.case.table.dtype not in NUMERIC:
                return  # scikit-learn's rules make numbers of what lies in memory only
            try:
                again = self.case.again.of(self.x, self.place)
            except Exception:  # as of long doubles in a store
                return
            found = attempt(lambda ask=ask, again=again: values(ask(again)), self.case, name)
            assert not isinstance(found, DaskmixError), (self.case.again, found)
            if plain.dtype.kind == "i":
                same = np.where(np.isnan(found.astype(float)), -2, found) == plain
                assert (same | ~self._decided(len(plain))).all(), (name, found[~same], plain[~same])
            else:
                size = 1e-3 if self.eps > 1e-10 else 1e-6
                near = {"rtol": size, "atol": size * _size(plain)}
                np.testing.assert_allclose(found.astype(float), plain.astype(float), **near)

    def _decided(self, n: int) -> np.ndarray:
        """Of which rows rounding cannot change the label: (n,)."""
        if isinstance(self.model, BisectingKMeans):
            return np.full(n, self.case.table.pattern == "blobs")
        clusters = isinstance(self.model, KMeans)
        found = values((self.model.transform if clusters else self.model.predict_proba)(self.x)).astype(float)
        best, next_best = np.sort(np.column_stack([found if clusters else -found, np.full(n, np.inf)]), axis=1)[:, :2].T
        near = (1e-3 if self.eps > 1e-10 else 1e-6) * (np.abs(next_best) if clusters else 1.0)
        if not clusters:
            return ~(next_best - best <= near)
        squares = next_best.astype(EXTENDED) ** 2 - best.astype(EXTENDED) ** 2
        return ~((next_best - best <= near) | (squares <= 2 * self._slack(self._directed(self.rows()), next_best)))

    def _questions(self) -> None:
        """Whatever else may be asked."""
        m, x, w = self.model, self.given, self.w
        for name, question in QUESTIONS.items():
            method = name.split()[0]
            if hasattr(m, method):
                found = attempt(lambda question=question: question(m, x, w), self.case, name)
                if isinstance(found, float) and name not in MAY_BE_UNKNOWN:
                    assert np.isfinite(found), (name, found)


def _size(a: np.ndarray) -> float:
    finite = np.abs(a[np.isfinite(a)].astype(float))
    return float(finite.max()) if finite.size else 0.0


MAY_BE_UNKNOWN: tuple[str, ...] = ()
QUESTIONS: Mapping[str, Callable[[Any, Any, Any], Any]] = {
    "score": lambda m, x, w: m.score(x, sample_weight=w),
    "score unweighted": lambda m, x, w: m.score(x),
    "uncertainty": lambda m, x, w: values(m.uncertainty(x)),
    "mahalanobis": lambda m, x, w: values(m.mahalanobis(x)),
    "impute": lambda m, x, w: values(m.impute(x)),
    "sample": lambda m, x, w: m.sample(3),
    "sample in chunks": lambda m, x, w: dask.compute(*m.sample(5, chunks=2)),
    "bic": lambda m, x, w: m.bic(),
    "bic of rows": lambda m, x, w: m.bic(x, w),
    "aic": lambda m, x, w: m.aic(x),
    "icl": lambda m, x, w: m.icl(x),
    "merge": lambda m, x, w: m.merge(x),
    "cluster_stats": lambda m, x, w: m.cluster_stats(x, sample_weight=w),
    "marginal": lambda m, x, w: m.marginal(0),
    "condition": lambda m, x, w: m.condition({0: 0.5}),
    "to_kmeans": lambda m, x, w: m.to_kmeans(),
    "to_mixture": lambda m, x, w: m.to_mixture(),
    "to_sklearn": lambda m, x, w: m.to_sklearn(),
    "to_xarray": lambda m, x, w: m.to_xarray(),
    "standard_errors": lambda m, x, w: m.standard_errors(x, w, n_replicates=2),
    "likelihood_ratio": lambda m, x, w: m.likelihood_ratio(x, w, n_replicates=1),
    "partial_fit": lambda m, x, w: m.partial_fit(x, sample_weight=w).score(x),
}


# --- against scikit-learn, from the same start ------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Rows, and as many of them as there are clusters or components to start at."""

    table: Table
    k: int
    kind: str  # "KMeans", or a mixture's type of covariances
    max_iter: int
    weighted: bool = False  # K-means alone: scikit-learn's mixtures know no weights


STARTS = st.builds(
    Start,
    table=st.builds(
        Table,
        n=st.integers(20, 80),
        d=st.integers(1, 4),
        unit=st.sampled_from((1.0, 1e-3, 1e6, 1e-30, 1e30)),
        offset=st.sampled_from((0.0, 0.0, 1e3)),
        seed=st.integers(0, 2**20),
    ),
    k=st.integers(1, 4),
    kind=st.sampled_from(("KMeans", "full", "tied", "diag", "spherical")),
    max_iter=st.integers(1, 12),
    weighted=st.booleans(),
)


def against_scikit_learn(start: Start) -> None:
    """As many iterations from the same start come at least as far as scikit-learn's."""
    with within(SECONDS, start), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = start.table.array()
        if not (x.std(axis=0) > 1e-12 * np.abs(x).max(axis=0)).all():
            return  # the offset has swallowed the rows
        (_clusters_like_peers if start.kind == "KMeans" else _mixture_like_peers)(start, x)


def _clusters_like_peers(start: Start, x: np.ndarray) -> None:
    w = np.random.default_rng(start.table.seed).random(len(x)) if start.weighted else None
    same = {"init": x[: start.k], "n_init": 1, "max_iter": start.max_iter, "tol": 0.0}
    ours, theirs = (kind(start.k, **same).fit(x, sample_weight=w) for kind in (KMeans, cluster.KMeans))
    assert ours.inertia_ <= theirs.inertia_ * (1 + 1e-6), (start, ours.inertia_, theirs.inertia_)


def _mixture_like_peers(start: Start, x: np.ndarray) -> None:
    k, d, variance = start.k, x.shape[1], float(x.var())
    shape = {"full": np.tile(np.eye(d), (k, 1, 1)), "tied": np.eye(d), "diag": np.ones((k, d)), "spherical": np.ones(k)}
    same = {
        "covariance_type": start.kind, "reg_covar": 0.0, "tol": 0.0, "max_iter": start.max_iter, "means_init": x[:k],
        "weights_init": np.full(k, 1 / k), "precisions_init": shape[start.kind] / variance,
    }  # fmt: skip
    try:
        ours = GaussianMixture(k, **same).fit(x)
    except CollapsedComponentError:
        return  # without smoothing few rows may have no covariance; scikit-learn then fails, or goes on with rounding
    # An offset costs scikit-learn's products digits: it is given rows without.
    plain = x - start.table.offset
    try:
        theirs = mixture.GaussianMixture(k, **same | {"means_init": plain[:k]}).fit(plain).score(plain)
    except ValueError:
        return
    assert ours.lower_bound_ >= theirs - 1e-6 * max(1.0, abs(theirs)), (start, ours.lower_bound_, theirs)
