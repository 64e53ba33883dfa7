"""The demo: photographs segmented from a Zarr store, then a store that is larger than memory.

Run as a module, this file is the process whose memory is capped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
import zarr
from dask.utils import format_bytes

from daskmix import plot
from daskmix.block import Array
from daskmix.errors import DaskmixError, InputError
from daskmix.estimators import GaussianMixture, KMeans
from daskmix.hooks import Run
from daskmix.store import load, vacant, write_rows

Tell = Callable[[str], None]

PHOTOGRAPHS = ("china", "flower")
SEGMENTS = 6
PHOTO_CHUNKS = (107, 160, 3)  # 427 x 640 points: four chunks by four

LARGE = "larger-than-memory.zarr"
FEATURES = 16
CHUNK_ROWS = 131_072  # 8 MiB
THREADS = 2
SHARES = np.array([0.4, 0.3, 0.2, 0.1])  # of the rows, in each planted Gaussian

STORES = {
    "photographs.zarr": "the photographs: (y, x, channel), 16 chunks each",
    **{
        f"{name}-{what}.zarr": f"{holds} of {name}.jpg"
        for name in PHOTOGRAPHS
        for what, holds in {
            "kmeans": "K-means",
            "kmeans-labels": "cluster of each point",
            "mixture": "Gaussian mixture",
            "mixture-labels": "component and uncertainty of each point",
        }.items()
    },
    "large-kmeans.zarr": "K-means of the rows that were larger than memory",
    "large-kmeans-labels.zarr": "cluster of each of these rows",
    "large-mixture.zarr": "Gaussian mixture of these rows",
}


class DemoError(DaskmixError, RuntimeError):
    """The demo could not show what it promises."""


def run(out: Path, rows: int, cap: int, overwrite: bool, tell: Tell) -> None:
    """Both parts; `cap` is in bytes, `tell` is given each line.

    Raises
    ------
    StoreExistsError
        An earlier demo is in `out` and `overwrite` was not asked for.
    InputError
        The disk has no room for the large store.
    DemoError
        The large store could not be fitted under the cap.
    """
    began = time.perf_counter()
    for name in (*STORES, LARGE):
        vacant(out / name, overwrite)
    photographs = sample_photographs()
    out.mkdir(parents=True, exist_ok=True)
    _room_for(rows, out)
    segment_photographs(photographs, out, tell)
    fit_larger_than_memory(rows, cap, out, tell)
    tell(f"\nDone in {time.perf_counter() - began:.0f} s. {out}/ holds")
    for name, what in {"picture.png": "photographs, segments and uncertainty", **STORES}.items():
        tell(f"  {name:<28}{what}")


# --- photographs ------------------------------------------------------------------------------------------------------


def sample_photographs() -> xr.Dataset:
    """The two photographs that ship with scikit-learn: uint8 (y, x, channel)."""
    try:
        import matplotlib  # noqa: F401  an optional part, which brings Pillow along
        from sklearn.datasets import load_sample_image

        images = {name: load_sample_image(f"{name}.jpg") for name in PHOTOGRAPHS}
    except ImportError as error:
        raise DemoError(
            f"the demo reads photographs with Pillow and draws with matplotlib, but {error}; "
            "pip install 'daskmix[plot]'"
        ) from error
    channels = np.array(["red", "green", "blue"], dtype=object)
    return xr.Dataset({name: (("y", "x", "channel"), image) for name, image in images.items()}, {"channel": channels})


def segment_photographs(photographs: xr.Dataset, out: Path, tell: Tell) -> None:
    """Both models of both photographs, from the store and back to stores, and a picture of all."""
    path = out / "photographs.zarr"
    encoding = {name: {"chunks": PHOTO_CHUNKS} for name in PHOTOGRAPHS}
    photographs.to_zarr(path, mode="w", encoding=encoding, consolidated=False, zarr_format=3)
    tell(f"Two photographs of {photographs['china'].shape[0]} x {photographs['china'].shape[1]} points in {path}")
    for name in PHOTOGRAPHS:
        _segment(KMeans(SEGMENTS, random_state=0), path, name, out / f"{name}-kmeans", tell)
        _segment(GaussianMixture(SEGMENTS, random_state=0), path, name, out / f"{name}-mixture", tell)
    draw(photographs, out)


def _segment(model: Any, path: Path, name: str, to: Path, tell: Tell) -> None:
    """Fit one photograph; model and labels go to TO.zarr and TO-labels.zarr."""
    began = time.perf_counter()
    model.fit(path, variables=[name])
    model.save(f"{to}.zarr", overwrite=True)
    answers = {"label": model.predict(path, variables=[name])}
    if hasattr(model, "uncertainty"):
        answers["uncertainty"] = model.uncertainty(path, variables=[name])
    write_rows(xr.Dataset(answers), f"{to}-labels.zarr", overwrite=True)
    seconds = time.perf_counter() - began
    kind = type(model).__name__
    tell(f"  {name:<8}{kind:<17}k = {SEGMENTS}  {model.n_passes_:3d} passes  {seconds:5.1f} s with labels")


def draw(photographs: xr.Dataset, out: Path) -> None:
    """One row per photograph, from what the stores hold."""
    height, width, _ = photographs["china"].shape
    figure, axes = plot.grid(len(PHOTOGRAPHS), 4, aspect=width / height)
    for row, name in zip(axes, PHOTOGRAPHS, strict=True):
        clusters = xr.open_zarr(out / f"{name}-kmeans-labels.zarr", consolidated=False)["label"].values
        mixture = xr.open_zarr(out / f"{name}-mixture-labels.zarr", consolidated=False).load()
        kmeans, gaussians = load(out / f"{name}-kmeans.zarr"), load(out / f"{name}-mixture.zarr")
        plot.photograph(row[0], photographs[name].values, f"{name}.jpg")
        plot.segments(row[1], clusters, kmeans.cluster_centers_, f"K-means, k = {SEGMENTS}")
        plot.segments(row[2], mixture["label"].values, gaussians.means_, f"Gaussian mixture, k = {SEGMENTS}")
        plot.uncertainty(row[3], mixture["uncertainty"].values, "uncertainty of the mixture")
    figure.savefig(out / "picture.png")


# --- larger than memory -----------------------------------------------------------------------------------------------


def fit_larger_than_memory(rows: int, cap: int, out: Path, tell: Tell) -> None:
    """Write many rows, fit them in a process with little memory, and remove them."""
    path = out / LARGE
    try:
        began = time.perf_counter()
        write_large(path, rows)
        nbytes = rows * FEATURES * 4
        tell(
            f"\n{rows:,} rows of {FEATURES} float32 features in {path}: {format_bytes(nbytes)}, "
            f"written in {time.perf_counter() - began:.1f} s"
        )
        tell(f"The process that fits them may take {format_bytes(cap)}; the store is {nbytes / cap:.2g} times as large")
        report = fit_capped(path, cap, out)
    finally:
        shutil.rmtree(path, ignore_errors=True)
    for fit in report["fits"]:
        tell(
            f"  {fit['model']:<17}{rows:,} rows, {fit['passes']} passes, {format_bytes(fit['bytes'])} read "
            f"in {fit['seconds']:.1f} s"
        )
    tell(f"  labels written in {report['labels_seconds']:.1f} s")
    tell(f"  peak memory {format_bytes(report['peak'])} of {format_bytes(cap)}; {report['enforced']}")
    tell(f"  planted means found to within {_error_of_means(out):.2g}; the large store is removed")


def planted() -> tuple[Array, Array]:
    """Means (k, d) of the Gaussians that the rows come from, and factors (k, d, d) of their covariances."""
    rng = np.random.default_rng(0)
    means = 3.0 * rng.standard_normal((len(SHARES), FEATURES))
    factors = rng.standard_normal((len(SHARES), FEATURES, FEATURES)) / np.sqrt(FEATURES)
    return means.astype(np.float32), factors.astype(np.float32)


def write_large(path: Path, rows: int) -> None:
    """Rows of a few Gaussians, one chunk in memory per thread; stored as they are, for noise does not compress."""
    group = zarr.create_group(path, overwrite=True)
    array = group.create_array(
        "x",
        shape=(rows, FEATURES),
        chunks=(CHUNK_ROWS, FEATURES),
        dtype=np.float32,
        compressors=None,
        dimension_names=("row", "feature"),
    )

    def write(first: int) -> None:
        stop = min(first + CHUNK_ROWS, rows)
        array[first:stop] = _rows_of(first, stop - first)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(write, range(0, rows, CHUNK_ROWS)))


def _rows_of(first: int, rows: int) -> Array:
    """The chunk that begins at this row: (rows, d)."""
    means, factors = planted()
    rng = np.random.default_rng([1, first])
    drawn = [
        rng.standard_normal((n, FEATURES), dtype=np.float32) @ factor.T + mean
        for n, mean, factor in zip(rng.multinomial(rows, SHARES), means, factors, strict=True)
    ]
    return np.concatenate(drawn)


def _error_of_means(out: Path) -> float:
    """The largest distance from a planted mean to the nearest one that the mixture found."""
    means, _ = planted()
    apart = np.linalg.norm(means[:, None] - load(out / "large-mixture.zarr").means_, axis=2)
    return float(apart.min(axis=1).max())


def _room_for(rows: int, out: Path) -> None:
    needed, free = rows * FEATURES * 4, shutil.disk_usage(out).free
    if free < 1.2 * needed:
        raise InputError(
            f"{rows:,} rows take {format_bytes(needed)}, but the disk of {out} has {format_bytes(free)} left; ask for "
            "fewer by --rows, or choose another disk by --out"
        )


# --- the process whose memory is capped -------------------------------------------------------------------------------


def fit_capped(path: Path, cap: int, out: Path) -> Mapping[str, Any]:
    """Fit in a process of its own that gets no more memory than `cap` bytes; what it reports.

    Raises
    ------
    DemoError
        It failed, or took more where no kernel enforces the cap.
    """
    # One heap for all threads, which would otherwise each keep what another could use; BLAS has one thread in a task
    # anyway, and its buffers for more would only be reserved.
    thrift = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "daskmix.demo", str(path), str(out), str(cap)]
    ended = subprocess.run(command, env={**os.environ, **thrift}, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise DemoError(
            f"fitting {path} within {format_bytes(cap)} failed (exit status {ended.returncode}); see above, and raise "
            "--memory-cap: Python, Dask and numba alone take some 350 MiB"
        )
    report: dict[str, Any] = json.loads(ended.stdout)
    if report["peak"] > cap:
        raise DemoError(f"fitting {path} took {format_bytes(report['peak'])}, more than {format_bytes(cap)}")
    return report


def capped(path: Path, out: Path, cap: int) -> dict[str, Any]:
    """Cap this process, fit both models and write labels."""
    enforced = cap_memory(cap)
    told = Run(progress="terminal" if sys.stderr.isatty() else "log")
    kmeans = KMeans(len(SHARES), random_state=0, run=told)
    mixture = GaussianMixture(len(SHARES), random_state=0, run=told)
    threads = {"threading.max_workers": THREADS}  # each thread of Zarr would take its stack from the cap
    with dask.config.set(scheduler="threads", num_workers=THREADS), zarr.config.set(threads):
        fits = [_timed_fit(kmeans, path), _timed_fit(mixture, path)]
        began = time.perf_counter()
        write_rows(kmeans.predict(path, variables=["x"]), out / "large-kmeans-labels.zarr", overwrite=True)
        seconds = time.perf_counter() - began
    kmeans.save(out / "large-kmeans.zarr", overwrite=True)
    mixture.save(out / "large-mixture.zarr", overwrite=True)
    return {"enforced": enforced, "peak": peak_memory(), "fits": fits, "labels_seconds": seconds}


def _timed_fit(model: Any, path: Path) -> dict[str, Any]:
    began = time.perf_counter()
    model.fit(path, variables=["x"])
    seconds = time.perf_counter() - began
    return {"model": type(model).__name__, "passes": model.n_passes_, "bytes": model.bytes_read_, "seconds": seconds}


def cap_memory(cap: int) -> str:
    """Have the kernel refuse this process memory beyond `cap` bytes, where it can; what holds.

    RLIMIT_DATA counts all that a process may write to: heap, arrays, thread stacks. RLIMIT_AS would also count the
    address space that BLAS and the allocator reserve and never touch.
    """
    if sys.platform != "linux":
        return "measured afterwards: this system enforces no such cap"
    import resource  # not on every system

    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    return "the kernel gives no more (RLIMIT_DATA)"


def peak_memory() -> int:
    """The most bytes that this process had resident, libraries included."""
    if sys.platform == "linux":
        # Not ru_maxrss, which begins at what the parent had when it forked.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """STORE OUT CAP -> the report as JSON."""
    path, out, cap = sys.argv[1:]
    try:
        print(json.dumps(capped(Path(path), Path(out), int(cap))))
    except (MemoryError, DaskmixError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
