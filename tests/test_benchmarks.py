"""The benchmarks run, and show every contender."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TINY = {
    "rows": 4000, "features": 4, "chunks": 4, "iterations": 4, "em-rows": 2000, "em-features": 3, "em-iterations": 3,
    "clusters": 4, "repeats": 1, "read-iterations": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def printed() -> dict[str, list[str]]:
    """The cells of each row, by its first one."""
    command = [sys.executable, "-m", "benchmarks", *(f"--{name}={value}" for name, value in TINY.items())]
    root = Path(__file__).parents[1]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    cut = (re.split(r"(?<!\\)\|", line)[1:-1] for line in run.stdout.splitlines() if line.startswith("| "))
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in cut}


@pytest.mark.parametrize(
    "contender",
    [
        "K-means, daskmix",
        "K-means, scikit-learn",
        "K-means, dask-ml",
        "Gaussian mixture, full, daskmix",
        "Gaussian mixture, full, scikit-learn",
    ],
)
def test_every_contender_is_timed_or_says_why_not(printed, contender):
    _, ms, ratio = printed[contender]
    if "cannot be imported" not in ms:
        assert re.fullmatch(r"-?\d+\.\d", ms)
        assert re.fullmatch(r"-?\d+\.\d\d", ratio)


def test_daskmix_is_the_unit_of_the_ratios(printed):
    assert printed["K-means, daskmix"][-1] == printed["Gaussian mixture, full, daskmix"][-1] == "1.00"


def test_a_fit_reads_every_chunk_once_per_iteration_and_twice_more(printed):
    assert printed["daskmix KMeans"] == ["5", "7"]
    assert printed["daskmix GaussianMixture"] == ["5", "7"]


def test_seeding_over_all_rows_reads_every_chunk_alike(printed):
    iterations, reads = printed['daskmix KMeans, init="k-means\\|\\|"']
    assert iterations == "5"
    assert int(reads) > 7


def test_the_reads_of_dask_ml_are_counted_or_it_says_why_not(printed):
    iterations, reads = printed['dask-ml KMeans, init="k-means\\|\\|"']
    assert iterations == "5" or "cannot be imported" in reads
