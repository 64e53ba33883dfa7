"""Fit a mixture to a Zarr store of any size, and write the component of each row.

    python larger_than_memory.py                        makes a store of 1 GiB and fits it
    python larger_than_memory.py ocean.zarr temp salt   fits these variables of a store of yours

One pass over the store holds a few chunks at a time, so memory depends on the chunks and not on the store.
"""

import sys
from pathlib import Path

import dask.array as da
import xarray as xr

import daskmix


def make(path, rows=1 << 24, features=16):
    """Three groups of rows; Dask draws and writes chunk by chunk, 8 MiB each."""
    rng = da.random.default_rng(0)
    chunks = 1 << 17
    noise = rng.standard_normal((rows, features), chunks=(chunks, features), dtype="float32")
    group = rng.choice(3, size=(rows, 1), p=[0.5, 0.3, 0.2], chunks=(chunks, 1)).astype("float32")
    table = xr.Dataset({"x": (("row", "feature"), noise + 4 * group)})
    table.to_zarr(path, encoding={"x": {"compressors": None}}, consolidated=False)


def main(path="rows.zarr", *variables):
    if not Path(path).exists():
        make(path)
    # Lines tell each pass: rows, seconds, and the likelihood so far.
    model = daskmix.GaussianMixture(3, random_state=0, run=daskmix.Run(progress="log"))
    model.fit(path, variables=variables or ["x"])
    print(f"weights {model.weights_.round(4)} after {model.n_passes_} passes, {model.bytes_read_ / 2**30:.1f} GiB read")
    print(f"BIC {model.bic():.6g}")

    model.save("model.zarr", overwrite=True)
    again = daskmix.load("model.zarr")
    labels = again.predict(path, variables=variables or ["x"])  # lazy: nothing is read yet
    daskmix.write_rows(labels, "labels.zarr", overwrite=True)  # chunk by chunk, chunked like the rows
    print("model.zarr and labels.zarr are written")


if __name__ == "__main__":
    main(*sys.argv[1:])
