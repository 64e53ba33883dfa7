"""The directions of import, and that importing is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import daskmix

HOUSE = Path(daskmix.__file__).parent

# Each module may import those that stand before it.
ORDER = [
    "errors", "arrays", "block", "reduction", "kernels", "kernels.gaps", "kernels.reference", "kernels.elementary",
    "kernels.jit", "kernels.registers", "kernels.tiles", "kernels.assigning", "kernels.pruned", "kernels.explaining",
    "kernels.observing", "kernels.compiled", "device", "sampling", "describing", "histograms", "covariance",
    "structures", "centroids", "directions", "moments", "given", "family", "mixture", "sharing", "derived",
    "variational", "criteria", "algorithms", "algorithms.base", "algorithms.seeding", "algorithms.lloyd",
    "algorithms.bisecting", "algorithms.em", "algorithms.stochastic", "algorithms.merging", "algorithms.resampling",
    "algorithms.variational", "algorithms.acceleration", "algorithms.racing", "algorithms.contrasting", "passes",
    "again", "snapshots", "rows", "codecs", "objects", "vault", "checkpoint", "sources", "sources.dask",
    "sources.labelled", "sources.chunks", "sources.zarr", "credentials", "engines", "engines.keep", "engines.local",
    "engines.patience", "engines.cluster", "engines.dask", "settings", "memory", "progress.view", "progress.card",
    "progress.faces", "progress", "hooks", "answers", "fitting", "race", "models", "regions", "store",
    "estimators.identity", "estimators.base", "estimators.others", "estimators.after", "estimators.cluster_base",
    "estimators.kmeans", "estimators.bisecting_kmeans", "estimators.mixture_held", "estimators.mixture_start",
    "estimators.mixture_prior", "estimators.mixture_checks", "estimators.mixture_base", "estimators.mixture_after",
    "estimators.gaussian_mixture", "estimators.bayesian_mixture", "estimators", "plot.canvas", "plot.looks",
    "plot.shapes", "plot.curves", "plot.clusters", "plot.maps", "plot.images", "plot", "selection", "planning", "demo",
    "cli.kinds", "cli.keys", "cli.text", "cli.failures", "cli.options", "cli.places", "cli.work", "cli.fit",
    "cli.select", "cli.plan", "cli.predict", "cli.inspect", "cli.demo", "cli.job", "cli.run", "cli", "cli.__main__",
    "testing",
]  # fmt: skip
ABOVE_ROWS = ORDER[: ORDER.index("rows")]
NOT_ABOVE_ROWS = {"dask", "distributed", "zarr", "xarray", "sklearn", "pandas", "matplotlib"}
PRIVATE_OF_OTHERS = {"dask", "distributed", "zarr", "xarray", "sklearn", "numba", "numpy", "scipy", "pandas"}


def modules():
    return list(_modules())


def _modules():
    for path in sorted(HOUSE.rglob("*.py")):
        name = ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield name, ast.parse(path.read_text())


def imports(tree, at_import_time):
    """Modules that are imported when the file is, or (of daskmix) anywhere in it."""
    typing_only = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    left_out = {id(n) for block in typing_only for n in ast.walk(block)}
    nodes = tree.body if at_import_time else ast.walk(tree)
    for node in nodes:
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_its_place():
    assert {name for name, _ in modules()} == set(ORDER)


@pytest.mark.parametrize(("name", "tree"), modules(), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_point_one_way(name, tree):
    own = [i.removeprefix("daskmix.") for i in imports(tree, at_import_time=True) if i.startswith("daskmix.")]
    later = [i for i in own if i in ORDER and ORDER.index(i) >= ORDER.index(name)]
    # The package of the kernels or estimators is made of its own parts.
    later = [i for i in later if not i.startswith(f"{name}.")]
    assert not later


@pytest.mark.parametrize(("name", "tree"), modules(), ids=lambda v: v if isinstance(v, str) else "")
def test_what_stands_above_rows_knows_no_dask(name, tree):
    if name in ABOVE_ROWS:
        assert not {i.split(".")[0] for i in imports(tree, at_import_time=False)} & NOT_ABOVE_ROWS


@pytest.mark.parametrize(("name", "tree"), modules(), ids=lambda v: v if isinstance(v, str) else "")
def test_nobody_uses_the_private_parts_of_others(name, tree):
    for module in imports(tree, at_import_time=False):
        first, *rest = module.split(".")
        if first in PRIVATE_OF_OTHERS:
            assert not any(part.startswith("_") for part in rest), module


def test_only_one_loop_runs_over_passes():
    callers = [name for name, tree in modules() if "engine.run(" in ast.unparse(tree)]
    assert callers == ["passes"]


def test_importing_daskmix_imports_nothing_heavy():
    code = "import sys, daskmix; print([m for m in ('numba', 'dask', 'sklearn', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
