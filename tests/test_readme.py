"""What the README shows, runs."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from distributed import LocalCluster

from daskmix.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^daskmix (.*)", README, re.MULTILINE)


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
    assert len(BLOCKS) == 7


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_readme_runs(folder, monkeypatch, number):
    script = folder / f"block_{number}.py"
    script.write_text(BLOCKS[number])
    if "LocalCluster" in BLOCKS[number]:  # whose workers import the script
        ran = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        return
    monkeypatch.chdir(folder)
    runpy.run_path(str(script), run_name="__main__")


def test_the_commands_run_one_after_the_other(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(COMMANDS) == 7
    with LocalCluster(1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        for command in COMMANDS:
            there = command.replace("tcp://127.0.0.1:8786", cluster.scheduler_address)
            ran = CliRunner().invoke(main, shlex.split(there))
            assert ran.exit_code == 0, ran.output
