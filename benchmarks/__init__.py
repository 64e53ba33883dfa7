"""Ratios to scikit-learn and dask-ml, measured in one run: `python -m benchmarks`."""
