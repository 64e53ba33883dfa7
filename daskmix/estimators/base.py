"""What both estimators share: reading what a user passes, answering in kind, and remembering the fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from types import MappingProxyType
from typing import Any, Self

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, estimator_html_repr
from sklearn.utils.validation import check_is_fitted, validate_data

from daskmix import answers, rows
from daskmix.again import reached
from daskmix.answers import RowFunction
from daskmix.block import Array, Missing, unmasked, working_dtype
from daskmix.checkpoint import Checkpoint
from daskmix.errors import (
    CheckpointError,
    DaskmixError,
    FeatureError,
    InputError,
    InputTypeError,
    UnitsError,
    VariableNotFoundError,
    not_one_of,
    whole,
)
from daskmix.estimators.identity import Identity, identity, provenance
from daskmix.fitting import Fit, sample_size
from daskmix.hooks import Run
from daskmix.memory import check_room, task_bytes, worker_bytes, workers_for
from daskmix.rows import Rows
from daskmix.sources.dask import is_dask_frame, rows_from_dask_array, rows_from_dask_frame
from daskmix.sources.labelled import Labelled, chosen, rows_from_labelled, take_apart
from daskmix.sources.zarr import (
    Stored,
    is_path,
    of_array,
    open_path,
    rows_from_stored_array,
    rows_from_stored_variables,
)
from daskmix.store import COMMON, refuse_incomplete, save_model, vacant, write_values
from daskmix.vault import vault

Source = Any  # what a user passes as X
WAYS_WITH_MISSING = ("raise", "drop", "em")
FLAGS = ("warm_start", "equal_weights", "noise", "semi_supervised")  # parameters that are True or False


class Estimator(BaseEstimator):
    """Base of the estimators; not for use on its own."""

    max_iter: int
    tol: float
    warm_start: bool
    accelerate: str
    gap_tol: float
    sample_size: int | str
    max_passes: int | None
    missing: str
    random_state: Any
    verbose: int
    run: Run | None
    gap_estimate_: float

    # --- what a user passes -------------------------------------------------------------------------------------------

    def _opened(self, X: Source, variables: str | Sequence[str] | None) -> Source:
        """Paths, URLs and Zarr arrays as the lazy objects that they name, whose chunks are there."""
        names = [variables] if isinstance(variables, str) else variables
        accept = isinstance(self.run, Run) and self.run.accept_missing_chunks
        if is_path(X):
            stored = open_path(X, names, accept)
            refuse_incomplete(X)
            return stored.checked()
        if names:
            if not isinstance(X, xr.Dataset):
                raise InputError("variables= names variables of a store or Dataset; X is neither")
            absent = [v for v in names if v not in X]
            if absent:
                raise VariableNotFoundError(f"X has no variable {absent[0]!r}; it has {', '.join(map(str, X))}")
            return chosen(X, names)
        if isinstance(X, zarr.Group):
            raise InputTypeError(
                "X is a Zarr group; pass its path, or xarray.open_zarr(...) of it, or one of its arrays"
            )
        return of_array(X, accept).checked() if isinstance(X, zarr.Array) else X

    def _rows(self, X: Source, weight: Any, sample_dims: Any, reset: bool) -> Rows:
        """Rows of anything that `_opened` returns, checked against the fit's features unless they are new."""
        return self._rows_as_they_come(X, weight, sample_dims, reset).prepared(self._prepare())

    def _rows_as_they_come(self, X: Source, weight: Any, sample_dims: Any, reset: bool) -> Rows:
        missing = Missing(self._option("missing", WAYS_WITH_MISSING))
        X = X.in_pieces(sample_dims) if isinstance(X, Stored) else X
        lazy = X.lazy if isinstance(X, Stored) else X
        if isinstance(lazy, xr.Dataset | xr.DataArray):
            parts = take_apart(lazy, sample_dims)
            if isinstance(X, Stored):
                found = rows_from_stored_variables(X, parts, weight, missing)
            else:
                found = rows_from_labelled(parts, weight, missing)
            return found.with_columns(self._features(parts.names, parts.units, reset))
        if sample_dims is not None:
            raise InputError(
                f"sample_dims={sample_dims!r} names dims of an xarray object, but X is a {type(lazy).__name__}"
            )
        if is_dask_frame(X):
            found = rows_from_dask_frame(X, weight, missing)
            return found.with_columns(self._features(tuple(map(str, X.columns)), None, reset))
        if isinstance(lazy, da.Array):
            found = (rows_from_stored_array if isinstance(X, Stored) else rows_from_dask_array)(X, weight, missing)
            self._count_features(found.d, reset)
            return found
        x = self._in_memory(X, reset)
        return rows.from_memory([x], 1, rows.memory_weights(weight, len(x)), missing)

    def _in_memory(self, X: Source, reset: bool) -> Array:
        """NumPy, pandas and lists by scikit-learn's rules; finiteness is checked where rows are read."""
        if dask.is_dask_collection(X):
            raise InputTypeError(f"X is a {type(X).__name__}; pass a Dask array, a Dask DataFrame or an xarray object")
        if hasattr(X, "columns") and len(X.columns) == 0:
            self._count_features(0, reset)  # scikit-learn stumbles over such a frame
        try:
            x = validate_data(self, unmasked(X), reset=reset, dtype="numeric", ensure_all_finite=False)
        except ValueError as error:
            kind = FeatureError if "feature" in str(error) and not reset else InputError
            raise kind(str(error)) from error
        except TypeError as error:
            raise InputTypeError(str(error)) from error
        working_dtype(x.dtype)
        if reset:
            self.__dict__.pop("feature_units_", None)  # scikit-learn knows of names only
        return x

    def _count_features(self, d: int, reset: bool) -> None:
        if d == 0:
            raise InputError("Found array with 0 feature(s): X has no features while a minimum of 1 is required")
        if reset:
            self.n_features_in_ = d
            for name in ("feature_names_in_", "feature_units_"):
                self.__dict__.pop(name, None)
        elif d != self.n_features_in_:
            raise FeatureError(
                f"X has {d} features, but {type(self).__name__} is expecting {self.n_features_in_} features as input"
            )

    def _features(
        self, names: tuple[str, ...], units: tuple[str | None, ...] | None, reset: bool
    ) -> tuple[int, ...] | None:
        """Match features by name; which column holds each feature of the model, None for as they come."""
        self._count_features(len(names), reset)
        if reset:
            if len(set(names)) == len(names):
                self.feature_names_in_ = np.asarray(names, dtype=object)
            if units is not None:
                self.feature_units_ = units
            return None
        fitted = getattr(self, "feature_names_in_", None)
        order: tuple[int, ...] | None = None
        if fitted is not None and tuple(fitted) != names:
            absent = [name for name in fitted if name not in names]
            if absent:
                raise FeatureError(
                    f"the model was fitted on feature {absent[0]!r}, but X has {', '.join(names[:8])}; add or rename it"
                )
            order = tuple(names.index(name) for name in fitted)
        known = getattr(self, "feature_units_", None)
        if known is not None and units is not None:
            given = units if order is None else tuple(units[j] for j in order)
            for name, was, now in zip(names if fitted is None else fitted, known, given, strict=True):
                if was is not None and now is not None and was != now:
                    raise UnitsError(f"feature {name!r} is in {now!r}, but the model was fitted in {was!r}; convert it")
        return order

    # --- answers in kind ----------------------------------------------------------------------------------------------

    def _answer(self, X: Source, function: RowFunction, sample_dims: Any, variables: Any) -> Any:
        """A value per row, in the type of X."""
        check_is_fitted(self)
        X = self._opened(X, variables)
        X = X.in_pieces(sample_dims).lazy if isinstance(X, Stored) else X
        if isinstance(X, xr.Dataset | xr.DataArray):
            parts: Labelled = take_apart(X, sample_dims)
            for variable in parts.variables:
                working_dtype(variable.dtype)
            columns = self._features(parts.names, parts.units, reset=False)
            return answers.of_labelled(_for_labelled(function, columns), parts)
        if is_dask_frame(X):
            columns = self._features(tuple(map(str, X.columns)), None, reset=False)
            return answers.of_dask_frame(replace(function, columns=columns), X)
        if isinstance(X, da.Array):
            if X.ndim < 2:
                raise InputError(f"Expected 2D array, got {X.ndim}D array instead: Reshape your data, e.g. X[:, None]")
            working_dtype(X.dtype)
            self._count_features(X.shape[-1], reset=False)
            return answers.of_dask_array(function, X)
        return answers.of_memory(function, self._in_memory(X, reset=False))

    def _function(
        self, name: str, of_rows: Callable[[Array, bool], Array], dtype: Any, fill: float = np.nan, **more: Any
    ) -> RowFunction:
        missing = Missing(self._option("missing", WAYS_WITH_MISSING))
        return RowFunction(
            name, of_rows, np.dtype(dtype), fill, missing, row_bytes=self._row_bytes(), prepare=self._prepare(), **more
        )

    def _prepare(self) -> Callable[[Array], Array] | None:
        """What is made of rows (n, d) before anything else, where it is something."""
        return None

    def _answer_bytes(self, k: int, d: int) -> int:
        """Of the statistics that a task sends back, of k clusters or components in d features."""
        return 8 * (k + k * d)

    def _row_bytes(self) -> int:
        """Working memory for the answer to one row."""
        raise NotImplementedError

    # --- options ------------------------------------------------------------------------------------------------------

    def _option(self, name: str, allowed: Sequence[str]) -> str:
        value = getattr(self, name)
        if not isinstance(value, str) or value not in allowed:
            raise not_one_of(name, value, allowed)
        return value

    def _whole(self, name: str, least: int, most: int | None = None) -> int:
        return whole(name, getattr(self, name), least, most)

    def _real(self, name: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < np.inf:
            raise InputError(f"{name}={value!r} must be a finite number, not negative")
        return float(value)

    def _check_patience(self) -> None:
        """Whether the parameters that say how long a fit may take can be used."""
        self._option("accelerate", ("auto", "none"))
        self._real("gap_tol")
        self._check_reads()

    def _check_reads(self) -> None:
        """Whether the parameters that all estimators have can be used; of the rest, those that are True or False."""
        for name in FLAGS:
            value = getattr(self, name, False)
            if not isinstance(value, bool | np.bool_):
                raise InputError(f"{name}={value!r} must be True or False")
        if isinstance(self.sample_size, str):
            self._option("sample_size", ("auto",))
        else:
            self._whole("sample_size", 1)
        if self.max_passes is not None:
            self._whole("max_passes", 2)  # one that looks, one that measures

    def _sample_rows(self, rows: Rows, k: int, parameters: int) -> int:
        return max(k, sample_size(rows, k, parameters) if isinstance(self.sample_size, str) else self.sample_size)

    def _left(self, fit: Fit, max_iter: int, other: int = 0) -> int:
        """Iterations that may still be taken, with so many other passes, and one to measure what came out."""
        if self.max_passes is None:
            return max_iter
        left = self.max_passes - len(fit.history) - other - 1
        if left < 0:
            raise InputError(
                f"max_passes={self.max_passes} is too few: such a fit takes at least {self.max_passes - left}"
            )
        return min(max_iter, left)

    def _least_gap(self) -> float:
        """The estimated gap at which an accelerated fit ends: tol=0 asks for a fixed point."""
        return 0.0 if self.tol == 0 else self.gap_tol

    def _warm(self) -> bool:
        """Whether the last fit's model is where the next one starts."""
        return bool(self.warm_start and self.__sklearn_is_fitted__())

    def _start_given(self) -> bool:
        """Whether the user says where to start."""
        raise NotImplementedError

    def _may_accelerate(self) -> bool:
        """Whether a fit goes beyond the textbook if there are more rows than the sample holds."""
        return self.accelerate == "auto" and self.max_iter > 1 and not self._start_given()

    def _gap_in_words(self, unit: str) -> str:
        return "is not known yet" if np.isnan(self.gap_estimate_) else f"is {self.gap_estimate_:.3g} {unit}"

    def _warn_unfinished(self, unit: str) -> None:
        warnings.warn(
            f"the passes were spent before the estimated gap had stayed below {self._least_gap()}: it "
            f"{self._gap_in_words(unit)}; raise max_iter, max_passes or {'tol' if self.tol == 0 else 'gap_tol'}",
            ConvergenceWarning,
            stacklevel=4,
        )

    def _draw_seed(self) -> int:
        return int(self._random_state().randint(np.iinfo(np.int32).max))

    def _random_state(self) -> np.random.RandomState:
        try:
            return check_random_state(self.random_state)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"random_state={self.random_state!r} is no seed ({error}); pass a whole number, a RandomState or None"
            ) from error

    def _begin(
        self,
        X: Source,
        weight: Any,
        sample_dims: Any,
        variables: Any,
        labels_to: Any = None,
        history: Sequence[dict[str, Any]] | None = None,
        y: Any = None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[Source, Fit]:
        """X, opened, and a fit to its rows; one that goes on with a model has a history, and its features.

        `y`, and `more` than the parameters, count where a checkpoint is to tell whether two fits are the same.
        """
        if self.run is not None and not isinstance(self.run, Run):
            raise InputError(f"run={self.run!r} must be a daskmix.Run, or None")
        if not isinstance(self.verbose, bool):
            self._whole("verbose", 0)
        opened = self._opened(X, variables)
        found = self._rows(opened, weight, sample_dims, reset=history is None)
        run, gaps = self.run or Run(), weight is not None or found.missing is not Missing.refuse
        known, progress = list(history or ()), run.shown(type(self).__name__, bool(self.verbose), found.in_memory)
        fit = Fit(
            found, tuple(run.callbacks), run.keep(), run.device, gaps, known, patience=run.patience(), progress=progress
        )
        fit.planned = self._planned(found, opened, sample_dims)
        if history is None:
            self.seed_ = self._draw_seed()
            if run.checkpoint is not None:
                same = identity(self, opened, weight, sample_dims, y, more)
                fit.checkpoint, self.seed_ = self._checkpoint(run, same)
                fit.made_of = provenance(same, self.seed_)
        if labels_to is not None:
            vacant(labels_to, of=fit.made_of)  # before any work is lost
        return opened, fit

    def _checkpoint(self, run: Run, same: Identity) -> tuple[Checkpoint, int]:
        """Where this very fit is kept, and the seed that it began with."""
        kept = Checkpoint(vault(run.checkpoint), float(run.checkpoint_every))
        try:
            return kept, reached(run.checkpoint, lambda: kept.open(same, self.seed_))
        except DaskmixError:
            raise
        except OSError as error:
            raise CheckpointError(
                f"nothing can be kept at {kept.vault}: {error}; mend that, or choose another place for the checkpoint"
            ) from error

    def _write_labels(self, fit: Fit, X: Source, sample_dims: Any, labels_to: Any) -> None:
        """Labels of the rows of the fit, where they are wanted in a store."""
        if labels_to is not None:
            labels = self.predict(X, sample_dims=sample_dims)  # type: ignore[attr-defined]
            write_values(labels, labels_to, of=fit.made_of)

    def _asking(self, rows: Rows) -> Fit:
        """One pass over rows that asks something else than a fit does."""
        return Fit(rows, patience=(self.run or Run()).patience())

    def _planned(self, found: Rows, opened: Source, sample_dims: Any) -> dict[str, int | None]:
        """What a task and a worker take at most; refused where a chunk fits into none."""
        task, workers = task_bytes(found, self._answer_bytes(self._check_options(), found.d)), workers_for(found)
        check_room(found, task, workers, partial(_rechunked, opened, sample_dims, found))
        return {
            "task_bytes": task,
            "worker_bytes": worker_bytes(found, task, workers.threads),
        }

    def _remember(self, fit: Fit) -> Self:
        self.history_ = fit.history
        self.n_passes_ = len(fit.history)
        self.bytes_read_ = fit.bytes_read
        self._made_of = fit.made_of
        fit.end()
        return self

    def _hand_over(self, other: Estimator) -> None:
        """What is known of the fit and of the features, but not its model."""
        for name in ("n_iter_", "converged_", "gap_estimate_", *COMMON):
            if hasattr(self, name):
                setattr(other, name, getattr(self, name))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        lazy = state.get("_fitted_on")
        state.pop("_made_of", None)
        if lazy is not None and lazy[0] is not None:
            if isinstance(lazy[0], np.ndarray):
                state["_labels"] = self.labels_  # type: ignore[attr-defined]
            state["_fitted_on"] = None  # rows never travel with a model
        return state

    def cluster_stats(
        self,
        X: Source,
        other: Any = None,
        sample_weight: Any = None,
        *,
        sample_dims: Any = None,
        variables: Any = None,
        quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
    ) -> xr.Dataset:
        """What other variables are like in each cluster: one pass over both.

        Parameters
        ----------
        X, sample_weight, sample_dims, variables
            As for `fit`; rows that have no label count nowhere.
        other : (n,) or (n, m), of the same rows as X and in its type, or in memory; None for the features as compared
            A Dataset or DataArray over the sampled dims, with xarray. Values may be missing.
        quantiles : sequence of float
            Shares of the weight.

        Returns
        -------
        xr.Dataset
            Over cluster and variable: the count of rows, and of the values that are there weight, mean, variance (of
            the rows, not an estimate), min, max and quantiles. These are of 10,000 rows of each cluster, drawn
            uniformly: exact where there are no more, else with a standard error of the rank of 0.5 % at most.

        Raises
        ------
        InputError, InputTypeError
            X and `other` are not the same rows in the same chunks, or not numbers.
        """
        from daskmix.estimators.after import cluster_stats  # which knows estimators

        return cluster_stats(self, X, other, sample_weight, sample_dims, variables, quantiles)

    def _label_function(self) -> tuple[Callable[[Array, bool], Array], int]:
        """The label of rows (n, d) that may have gaps, and how many labels there are."""
        raise NotImplementedError

    # --- stores and pictures ------------------------------------------------------------------------------------------

    def plot(self, X: Source = None, features: Any = None, **options: Any) -> Any:
        """The model over the rows of X, each feature and each pair of them; the matplotlib axes, (m, m).

        It is `daskmix.plot.pairs`, which says more and takes the options; other pictures are its neighbours there. One
        look at X: a pass that makes histograms of all rows.

        Parameters
        ----------
        X : as `fit` takes it, or None
            Without, the model alone.
        features : names or numbers
            Up to eight; all by default.

        Raises
        ------
        InputError, FeatureError
            The model is not fitted, X cannot be used, or there is no such feature.
        MissingPackageError
            matplotlib is not installed.
        """
        from daskmix.plot.shapes import pairs  # which knows estimators

        return pairs(self, X, features, **options)

    def save(self, path: Any, *, overwrite: bool = False) -> None:
        """Write the fitted model to a Zarr store, without pickle.

        `run` and `random_state` stay behind, and a start that is a model or a callable becomes "auto".

        Parameters
        ----------
        path : str, path or Zarr store
            Where to; `daskmix.load` reads it.
        overwrite : bool
            Replace what is there.

        Raises
        ------
        StoreExistsError
            There is something at `path` already.
        """
        check_is_fitted(self)
        save_model(self, path, overwrite=overwrite)

    def to_xarray(self) -> xr.Dataset:
        """The fitted parameters as a Dataset."""
        raise NotImplementedError

    def __sklearn_is_fitted__(self) -> bool:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        described = estimator_html_repr(self)
        if not hasattr(self, "n_passes_"):
            return described
        return f"{described}{self.to_xarray()._repr_html_()}"

    def _feature_coords(self) -> Mapping[str, Any]:
        names = getattr(self, "feature_names_in_", None)
        return {} if names is None else {"feature": [str(name) for name in names]}


def _rechunked(opened: Source, sample_dims: Any, found: Rows, nbytes: int) -> str:
    """Code that writes the same rows in chunks of about so many bytes."""
    largest = max(found.parts, key=lambda part: part.nbytes or 0)
    row = max(1, (largest.nbytes or 0) // max(1, largest.place.rows))
    shape, left = list(largest.place.shape), max(1, nbytes // row)
    for axis in reversed(range(len(shape))):
        shape[axis] = min(shape[axis], left)
        left = max(1, left // shape[axis])
    lazy = opened.lazy if isinstance(opened, Stored) else opened
    if isinstance(lazy, xr.Dataset | xr.DataArray):
        dims = take_apart(lazy, sample_dims).sample_dims
        sizes = ", ".join(f"{dim!r}: {n}" for dim, n in zip(dims, shape, strict=True))
        return f'xarray.open_zarr(path).chunk({{{sizes}}}).drop_encoding().to_zarr("smaller.zarr")'
    features = ", ".join(map(str, [*shape, *lazy.shape[len(shape) :]]))
    return f'dask.array.from_zarr(path).rechunk(({features})).to_zarr("smaller.zarr")'


def _for_labelled(function: RowFunction, columns: tuple[int, ...] | None) -> RowFunction:
    """In xarray, rows that were left out are NaN, so labels are floats where rows may be left out."""
    function = replace(function, columns=columns)
    if function.missing is not Missing.refuse and function.dtype.kind == "i":
        return replace(function, dtype=np.dtype(np.float32), fill=np.nan)
    return function
