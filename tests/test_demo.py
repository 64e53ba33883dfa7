"""The demo, with fewer rows, and the pictures it draws."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from matplotlib.image import imread

import daskmix
from daskmix import demo, plot
from daskmix.cli import main
from daskmix.store import store_state

ROWS = 300_000
EXAMPLE = Path(__file__).parent.parent / "examples" / "larger_than_memory.py"


def run(out, *options):
    return CliRunner().invoke(main, ["demo", "--out", str(out), "--rows", str(ROWS), *options])


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder of a demo, and what it said."""
    out = tmp_path_factory.mktemp("demo") / "output"
    result = run(out)
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_the_demo_leaves_what_it_lists_and_nothing_else(shown):
    out, said = shown
    listed = said[said.index("holds") :].splitlines()[1:]
    assert {line.split()[0] for line in listed} == {place.name for place in out.iterdir()}


def test_every_store_is_complete(shown):
    out, _ = shown
    written = [place for place in out.glob("*.zarr") if place.name != "photographs.zarr"]
    assert all(store_state(place)["complete"] for place in written)


def test_the_photographs_are_those_of_scikit_learn(shown):
    from sklearn.datasets import load_sample_image

    out, _ = shown
    for name in demo.PHOTOGRAPHS:
        stored = zarr.open_array(out / "photographs.zarr" / name, mode="r")
        assert stored.chunks == (107, 160, 3)
        assert np.array_equal(stored[...], load_sample_image(f"{name}.jpg"))


@pytest.mark.parametrize("name", demo.PHOTOGRAPHS)
@pytest.mark.parametrize("kind", ["kmeans", "mixture"])
def test_labels_are_those_of_the_saved_model_and_lie_in_the_chunks_of_the_photograph(shown, name, kind):
    out, _ = shown
    model = daskmix.load(out / f"{name}-{kind}.zarr")
    assert list(model.feature_names_in_) == ["red", "green", "blue"]
    labels = zarr.open_array(out / f"{name}-{kind}-labels.zarr" / "label", mode="r")
    assert labels.chunks == (107, 160)
    image = xr.open_zarr(out / "photographs.zarr", consolidated=False)[name].load()
    assert np.array_equal(labels[...], model.predict(image))


def test_uncertainty_is_stored_beside_the_labels(shown):
    out, _ = shown
    for name in demo.PHOTOGRAPHS:
        stored = xr.open_zarr(out / f"{name}-mixture-labels.zarr", consolidated=False)
        assert stored.uncertainty.dims == ("y", "x")
        assert 0 <= stored.uncertainty.min() < 0.01
        assert 0.4 < stored.uncertainty.max() <= 1 - 1 / demo.SEGMENTS


def test_the_picture_shows_a_row_for_each_photograph(shown):
    out, _ = shown
    picture = imread(out / "picture.png")
    height, width = picture.shape[:2]
    assert width > 2 * height > 1000
    panels = [picture[rows, : width // 5] for rows in (slice(height // 2), slice(height // 2, None))]
    assert all(panel[..., :3].std() > 0.1 for panel in panels)


def test_the_large_store_is_fitted_under_a_cap_and_removed(shown):
    out, said = shown
    assert not (out / demo.LARGE).exists()
    assert f"{ROWS:,} rows, " in said
    assert " passes, " in said
    peak = float(said.split("peak memory ")[1].split()[0])
    assert 100 < peak < 640
    if sys.platform == "linux":
        assert "the kernel gives no more (RLIMIT_DATA)" in said


def test_the_planted_gaussians_are_found(shown):
    out, _ = shown
    mixture, means = daskmix.load(out / "large-mixture.zarr"), demo.planted()[0]
    apart = np.linalg.norm(means[:, None] - mixture.means_, axis=2)
    # The standard error of a mean of 30 000 rows of total variance 16 is 0.02.
    assert apart.min(axis=1).max() < 0.1
    assert np.allclose(mixture.weights_[apart.argmin(axis=1)], demo.SHARES, atol=0.005)
    labels = zarr.open_array(out / "large-kmeans-labels.zarr" / "label", mode="r")
    assert labels.shape == (ROWS,)
    assert np.allclose(np.sort(np.bincount(labels[...]) / ROWS), np.sort(demo.SHARES), atol=0.005)


def test_a_second_demo_is_refused_before_any_work_unless_asked_to_overwrite(shown, monkeypatch):
    out, _ = shown
    monkeypatch.setattr(demo, "segment_photographs", lambda *_: pytest.fail("work was done"))
    result = run(out)
    assert result.exit_code == 2
    assert "exists; pass another path, or overwrite (--overwrite)" in result.stderr


def test_overwrite_replaces_stores_and_leaves_other_files(shown, monkeypatch):
    out, _ = shown
    (out / "notes.txt").write_text("mine")
    monkeypatch.setattr(demo, "fit_larger_than_memory", lambda *_: None)
    result = run(out, "--overwrite")
    assert result.exit_code == 0, result.output
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()


def test_a_disk_without_room_is_told_before_any_work(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1 << 20))
    result = run(tmp_path / "out")
    assert result.exit_code == 2
    assert "ask for fewer by --rows" in result.stderr
    assert not list((tmp_path / "out").iterdir())


def test_too_small_a_cap_fails_aloud_and_leaves_no_large_store(tmp_path, capfd):
    with pytest.raises(demo.DemoError, match="raise --memory-cap"):
        demo.fit_larger_than_memory(10_000, 100 << 20, tmp_path, lambda line: None)
    assert not (tmp_path / demo.LARGE).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts arrays by RLIMIT_DATA")
def test_beyond_the_cap_the_kernel_gives_no_memory():
    code = (
        "import numpy as np; from daskmix.demo import cap_memory, peak_memory\n"
        "cap_memory(512 << 20); np.ones(2 << 20); print(peak_memory()); np.ones(64 << 20)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MemoryError" in ran.stderr
    assert 16 << 20 < int(ran.stdout) < 512 << 20


def test_the_same_rows_are_written_each_time(tmp_path):
    rows = demo.CHUNK_ROWS + 1000
    demo.write_large(tmp_path / "a.zarr", rows)
    demo.write_large(tmp_path / "b.zarr", rows)
    a, b = (zarr.open_array(tmp_path / name / "x", mode="r")[...] for name in ("a.zarr", "b.zarr"))
    assert a.shape == (rows, demo.FEATURES)
    assert np.array_equal(a, b)
    assert not np.array_equal(a[:1000], a[-1000:])


def test_segments_are_painted_in_their_colours_and_what_has_no_label_is_blank():
    _, axes = plot.grid(1, 1)
    labels = np.array([[0, 1], [np.nan, -2]])
    assert plot.segments(axes[0, 0], labels, np.array([[10.4, 0, 255], [300, -5, 7.6]]), "title") is axes[0, 0]
    painted = axes[0, 0].images[0].get_array()
    assert painted.tolist() == [[[10, 0, 255], [255, 0, 8]], [[255, 255, 255]] * 2]
    assert axes[0, 0].get_title() == "title"


def test_drawing_needs_no_display_and_touches_no_current_figure():
    code = "import sys; from daskmix import plot; plot.grid(1, 1); print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_the_example_fits_a_store_that_is_there(tmp_path):
    demo.write_large(tmp_path / "mine.zarr", 100_000)
    ran = subprocess.run([sys.executable, EXAMPLE, "mine.zarr", "x"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert len(daskmix.load(tmp_path / "model.zarr").weights_) == 3
    assert zarr.open_array(tmp_path / "labels.zarr" / "label", mode="r").shape == (100_000,)


def test_the_example_makes_a_store_of_three_groups(tmp_path):
    code = f"import runpy; runpy.run_path({str(EXAMPLE)!r})['make']('rows.zarr', rows=20_000, features=2)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    x = zarr.open_array(tmp_path / "rows.zarr" / "x", mode="r")[...]
    shares = np.bincount(np.rint(x.mean(axis=1) / 4).clip(0, 2).astype(int)) / len(x)
    assert np.allclose(shares, [0.5, 0.3, 0.2], atol=0.02)
