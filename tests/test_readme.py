"""What the README shows, runs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parent.parent / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    field = rng.standard_normal((2, 8, 20, 30)) + 5 * rng.integers(0, 3, (8, 20, 30))
    field[:, 0, :3] = np.nan
    dims = ("time", "lat", "lon")
    ds = xr.Dataset({"u": (dims, field[0]), "v": (dims, field[1])}, coords={"lat": np.linspace(-80, 80, 20)})
    ds.chunk(time=2).to_zarr(place / "field.zarr", consolidated=False)
    return place


def test_there_is_a_block_for_each_kind_of_user():
    assert len(BLOCKS) == 5


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_readme_runs(folder, number):
    script = folder / f"block_{number}.py"
    script.write_text(BLOCKS[number])
    ran = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
