"""`daskmix inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from daskmix.cli.options import debug
from daskmix.cli.text import COLUMNS_SHOWN, facts, print_facts, print_table, size
from daskmix.errors import BadChunkError, IncompleteStoreError, SchemaError

UNTOLD = ("run", "random_state", "verbose", "warm_start")  # of a model's parameters


@click.command()
@click.argument("path")
@debug
def inspect(path: str) -> None:
    """Describe a model, labels or any other Zarr store.

    Of a store that is no model, only the metadata is read. What daskmix began to write and never finished is described,
    and then refused: the exit code is 2.

    \b
    Examples:
      daskmix inspect model.zarr     parameters, centres, inertia or BIC, passes, versions
      daskmix inspect labels.zarr    dims, chunks and types, and whether all labels were written
      daskmix inspect ocean.zarr     the same of any store
    """
    from daskmix.store import STATE, load

    kind, complete = _mark(path)
    if kind in STATE and complete:
        model = load(path)
        print_facts({"store": path} | facts(model) | _origin(model))
        click.echo()
        print_table(*_parameters(model))
        return
    interrupted = "" if complete else f"writing was interrupted{_how_far(path, kind)}; write it again"
    _print_store(path, kind, interrupted)
    if interrupted:
        raise IncompleteStoreError(f"{path} is not complete: {interrupted}")


def _mark(path: str) -> tuple[str, bool]:
    """What daskmix wrote at this path, and whether it is complete; "" for other stores."""
    from daskmix.store import store_state

    try:
        state = store_state(path)
    except SchemaError:  # a bare array
        state = {}
    return str(state.get("kind", "")), bool(state.get("complete", True))


def _origin(model: Any) -> dict[str, Any]:
    """What a model was asked for, and by which versions it was fitted."""
    params = {name: v for name, v in model.get_params(deep=False).items() if name not in UNTOLD}
    seen = model.history_[0].get("fingerprint", {}) if model.history_ else {}
    packages = ("daskmix", "numpy", "scipy", "numba")
    return {
        "parameters": ", ".join(f"{name}={value}" for name, value in params.items() if value is not None),
        "fitted by": ", ".join(f"{name} {seen[name]}" for name in packages if name in seen),
        "processor": ", ".join(str(seen[name]) for name in ("processor", "blas") if seen.get(name)),
    }


def _parameters(model: Any) -> tuple[list[str], list[list[str]]]:
    """Share of the rows and centre of each cluster or component, as a table."""
    mixture = hasattr(model, "means_")
    centres = model.means_ if mixture else model.cluster_centers_
    shares = model.weights_ if mixture else model.cluster_weights_ / model.cluster_weights_.sum()
    d = centres.shape[1]
    names, units = getattr(model, "feature_names_in_", range(d)), getattr(model, "feature_units_", None) or [None] * d
    features = [f"{name} [{u}]" if u else str(name) for name, u in zip(names, units, strict=True)][:COLUMNS_SHOWN]
    more = ["..."] if d > COLUMNS_SHOWN else []
    header = ["component" if mixture else "cluster", "weight", *features, *more]
    cells = [
        [str(j), f"{share:.4f}", *(f"{value:.6g}" for value in centre[:COLUMNS_SHOWN]), *more]
        for j, (share, centre) in enumerate(zip(shares, centres, strict=True))
    ]
    return header, cells


def _how_far(path: str, kind: str) -> str:
    """How much of labels or probabilities was written; of a model that is not known."""
    from daskmix.store import ROWS, how_far

    return f", {how_far(path)}" if kind == ROWS else ""


def _print_store(path: str, kind: str, interrupted: str) -> None:
    """Every array of a store, from its metadata."""
    import zarr

    node = zarr.open(path, mode="r")
    try:
        arrays = [(node.name or "/", node)] if isinstance(node, zarr.Array) else sorted(_arrays(node))
        cells = [_array_cells(name, array) for name, array in arrays]
    except Exception as error:  # whatever the words of a file lead to
        raise BadChunkError(f"{path}: its arrays cannot be read: {type(error).__name__}: {error}") from error
    ours = {"": "not written by daskmix", "rows": "labels of daskmix"}.get(kind, f"a {kind} of daskmix")
    state = {} if not kind else {"complete": f"no: {interrupted}" if interrupted else "yes"}
    total = sum(array.nbytes for _, array in arrays)
    print_facts({"store": f"{path}, Zarr v{node.metadata.zarr_format}", "kind": ours} | state | {"size": size(total)})
    click.echo()
    header = ["variable", "dims", "shape", "chunks", "shards", "dtype", "bytes"]
    print_table(header, cells)


def _arrays(group: Any) -> Iterator[tuple[str, Any]]:
    import zarr

    for name, member in group.members(max_depth=None):
        if isinstance(member, zarr.Array):
            yield name, member


def _array_cells(name: str, array: Any) -> list[str]:
    dims = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ["-"]
    return [
        name,
        ",".join(map(str, dims)),
        _times(array.shape),
        _times(array.chunks),
        "-" if array.shards is None else _times(array.shards),
        str(array.dtype),
        f"{array.nbytes:,}",
    ]


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
