"""What users have: Dask arrays, xarray objects and Zarr stores, as rows."""
