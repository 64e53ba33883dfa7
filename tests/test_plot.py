"""Pictures: what they are made of obeys the laws, and they look as they did.

The reference pictures in tests/pictures/ are compared to a tolerance, for fonts and processors differ a little. To make
them again: `DASKMIX_PICTURES=write pytest tests/test_plot.py`, then look at each.
"""

import os
import subprocess
import sys
import threading
from itertools import combinations
from pathlib import Path

import dask.array as da
import matplotlib
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.testing.compare import compare_images
from scipy.stats import chi2
from test_laws import QUICK, rows, values

from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans, plot, select, testing
from daskmix.errors import FeatureError, InputError, MissingPackageError
from daskmix.histograms import CountBins
from daskmix.kernels import compiled, reference
from daskmix.plot import canvas, shapes

PICTURES = Path(__file__).parent / "pictures"
LARGEST = 30_000  # bytes of a reference
TOLERANCE = 5.0  # root mean square of 255, in which a shifted label is seen and a hinted one is not


def water(n=12_000, seed=0):
    """Temperature, salinity and oxygen of three water masses: rows (n, 3)."""
    rng = np.random.default_rng(seed)
    label = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    means = np.array([[4.0, 34.6, 210.0], [12.0, 35.4, 240.0], [19.0, 36.3, 205.0]])
    root = np.array([[1.6, 0, 0], [0.12, 0.15, 0], [-6.0, 4.0, 8.0]])
    return means[label] + rng.standard_normal((n, 3)) @ root.T * np.array([1.0, 1.4, 0.8])[label][:, None]


def cruise(n=12_000, chunk=4_000):
    """The same as a lazy Dataset, with units."""
    x = da.from_array(water(n), chunks=(chunk, 3))
    units = {"temp": "degC", "salt": "g/kg", "oxygen": "umol/kg"}
    return xr.Dataset({name: ("row", x[:, j], {"units": unit}) for j, (name, unit) in enumerate(units.items())})


@pytest.fixture(scope="module")
def mixture():
    return GaussianMixture(3, random_state=0).fit(cruise())


@pytest.fixture(scope="module")
def kmeans():
    x = water()
    return KMeans(3, random_state=0).fit(x / x.std(axis=0))


@pytest.fixture(scope="module")
def stray():
    """A mixture with noise, of two features."""
    rng = np.random.default_rng(1)
    x = np.concatenate([water(3_000)[:, :2], rng.uniform([-10, 30], [35, 40], (400, 2))])
    return GaussianMixture(3, noise=True, random_state=0).fit(x), x


@pytest.fixture(scope="module")
def chosen():
    return select(water(3_000), range(1, 6), ("full", "diag", "tied", "spherical", "EEE"), random_state=0)


# --- histograms -------------------------------------------------------------------------------------------------------


def bins_of(d, bins=7):
    # Some values are outside, some on an edge.
    return CountBins(tuple(range(d)), np.linspace(-40.0, 30.0 + np.arange(d), bins + 1, axis=1))


@pytest.mark.parametrize("ops", [reference, compiled])
@QUICK
@given(rows())
def test_histograms_may_be_cut_anywhere_and_merged_in_any_order(ops, cut_rows):
    block, at = cut_rows
    testing.check_reduction(bins_of(block.x.shape[1]), block, at, ops, rtol=0.0)


@QUICK
@given(st.data())
def test_whole_weights_are_repeats_in_a_histogram(data):
    n, d = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    x = data.draw(hnp.arrays(np.float64, (n, d), elements=values()))
    times = data.draw(hnp.arrays(np.int64, n, elements=st.integers(1, 3)))
    testing.check_weights_are_repeats(bins_of(d), x, times, reference)


@QUICK
@given(rows())
def test_histograms_are_numpys(cut_rows):
    block, _ = cut_rows
    x, w, question = block.x, block.weights(), bins_of(block.x.shape[1])
    found = question.map(block, reference)
    for j, edges in enumerate(question.edges):
        np.testing.assert_array_equal(found.single[j], np.histogram(x[:, j], edges, weights=w)[0])
    for own, (i, j) in zip(found.double, combinations(range(x.shape[1]), 2), strict=True):
        both = np.histogram2d(x[:, i], x[:, j], [question.edges[i], question.edges[j]], weights=w)[0]
        np.testing.assert_array_equal(own, both)
    assert found.mass == w.sum()


def test_of_a_row_with_gaps_a_histogram_counts_what_is_there():
    x = np.array([[0.0, np.nan], [1.0, 2.0], [np.nan, 3.0]])
    found = CountBins((0, 1), np.array([[0.0, 5.0], [0.0, 5.0]])).map(testing.block_of(x), reference)
    np.testing.assert_array_equal(found.single.ravel(), [2, 2])
    np.testing.assert_array_equal(found.seen, [2, 2])
    assert found.double.sum() == 1


# --- one look at the rows ---------------------------------------------------------------------------------------------


def counted_reads(x, chunk):
    """A Dask array, and how often each of its chunks was read so far."""
    reads, lock = {}, threading.Lock()

    def of_block(block, block_id=None):
        with lock:
            reads[block_id[0]] = reads.get(block_id[0], 0) + 1
        return block

    lazy = da.from_array(x, chunks=(chunk, x.shape[1])).map_blocks(of_block, dtype=x.dtype, meta=np.empty((0, 0)))
    return lazy, reads


def test_a_picture_of_a_mixture_reads_each_chunk_once(mixture):
    x, reads = counted_reads(water(), 3_000)
    model = GaussianMixture(3, random_state=0).fit(water())
    seen = plot.look(model, x)
    assert reads == dict.fromkeys(range(4), 1)
    assert seen.n_passes == 1
    plot.pairs(model, seen)
    plot.ellipses(model, seen, (2, 0), show="rows")
    assert reads == dict.fromkeys(range(4), 1)


def test_silhouettes_read_each_chunk_once(kmeans):
    x, reads = counted_reads(water() / water().std(axis=0), 3_000)
    plot.silhouettes(kmeans, x)
    assert reads == dict.fromkeys(range(4), 1)
    with pytest.raises(InputError, match="sample= says how to look"):
        plot.silhouettes(kmeans, plot.look(kmeans, x), sample=10)


def test_a_picture_of_kmeans_reads_each_chunk_twice_and_with_limits_once(kmeans):
    scaled = water() / water().std(axis=0)
    x, reads = counted_reads(scaled, 3_000)
    assert plot.look(kmeans, x).n_passes == 2
    assert reads == dict.fromkeys(range(4), 2)
    limits = {j: (scaled[:, j].min(), scaled[:, j].max()) for j in range(3)}
    seen = plot.look(kmeans, x, limits=limits)
    assert reads == dict.fromkeys(range(4), 3)
    assert seen.histograms.single.sum() == seen.histograms.seen.sum() == 3 * len(scaled)


def test_a_look_is_numpys_histogram_of_all_rows(mixture):
    seen = plot.look(mixture, cruise(), bins=25)
    x = water()
    for i, j in combinations(range(3), 2):
        right = np.histogram2d(x[:, i], x[:, j], [seen.edges[i], seen.edges[j]])[0]
        np.testing.assert_array_equal(seen.of_two(i, j), right)
        np.testing.assert_array_equal(seen.of_two(j, i), right.T)


def test_a_look_does_not_depend_on_the_chunks(mixture):
    one, other = (plot.look(mixture, cruise(chunk=chunk)) for chunk in (12_000, 1_700))
    testing.assert_same_answer(one.histograms, other.histograms, 0.0, 0.0)
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_weights_count_in_a_look_and_rows_that_weigh_nothing_are_not_drawn(mixture):
    weight = (np.arange(12_000) % 2).astype(float)
    seen = plot.look(mixture, cruise(), sample_weight=weight, sample=500)
    half = plot.look(mixture, cruise().isel(row=slice(1, None, 2)))
    testing.assert_same_answer(seen.histograms, half.histograms, 0.0, 0.0)
    drawn = {tuple(row) for row in seen.rows}
    assert len(seen.rows) == 500
    assert drawn <= {tuple(row) for row in water()[1::2]}


def test_what_is_outside_is_told(mixture):
    seen = plot.look(mixture, cruise(), ["temp"], limits={"temp": (0.0, 8.0)})
    outside = ((water()[:, 0] < 0) | (water()[:, 0] > 8)).mean()
    assert f"{100 * outside:.2g} % of values outside" in seen.told()
    assert "all 12,000 rows" in seen.told()
    assert "2,000 of 12,000 rows, drawn at random" in seen.told(points=True)


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_an_ellipse_has_the_axes_of_the_covariance():
    root = np.random.default_rng(0).standard_normal((2, 2))
    covariance = root @ root.T
    width, height, angle = shapes.ellipse(np.zeros(2), covariance, 0.9)
    turn = np.radians(angle)
    axis = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    again = axis.T @ np.diag([width**2, height**2]) @ axis / (4 * chi2.ppf(0.9, 2))
    np.testing.assert_allclose(again, covariance, rtol=1e-10)


@pytest.mark.parametrize("nu", [None, 3.0])
def test_an_ellipse_holds_its_share_of_the_component(nu):
    rng = np.random.default_rng(0)
    root = np.array([[2.0, 0.0], [1.0, 0.5]])
    z = rng.standard_normal((200_000, 2))
    z = z if nu is None else z / np.sqrt(rng.chisquare(nu, len(z)) / nu)[:, None]
    width, height, angle = shapes.ellipse(np.zeros(2), root @ root.T, 0.7, nu)
    inside = Ellipse((0, 0), width, height, angle=angle).contains_points(z @ root.T)
    assert inside.mean() == pytest.approx(0.7, abs=0.005)


def test_a_picture_has_an_ellipse_of_each_component_and_level_at_its_mean(mixture):
    axes = plot.ellipses(mixture, None, ["salt", "oxygen"], levels=(0.3, 0.6, 0.9))
    outlines = [p for p in axes.patches if isinstance(p, Ellipse)]
    assert len(outlines) == 2 * 3 * 3  # each with a rim
    assert {tuple(np.round(p.center, 9)) for p in outlines} == {tuple(np.round(m, 9)) for m in mixture.means_[:, 1:]}
    assert axes.get_xlabel() == "salt (g/kg)"
    assert axes.get_ylabel() == "oxygen (umol/kg)"


@pytest.mark.parametrize("which", ["mixture", "stray", "tails", "bayesian"])
def test_the_densities_of_one_feature_integrate_to_one(which, mixture, stray):
    model = {
        "mixture": lambda: mixture,
        "stray": lambda: stray[0],
        "tails": lambda: GaussianMixture(2, nu=3.0, random_state=0).fit(water(2_000)),
        "bayesian": lambda: BayesianGaussianMixture(4, random_state=0).fit(water(2_000)),
    }[which]()
    at = np.linspace(-3_000, 3_000, 2_000_001)
    each = plot.marginal_densities(model, 0, at)
    assert np.trapezoid(each.sum(axis=0), at) == pytest.approx(1.0, abs=1e-5)
    assert len(each) == len(model.weights_) + hasattr(model, "noise_weight_")


def test_the_histogram_on_the_diagonal_integrates_to_what_is_inside(mixture):
    seen = plot.look(mixture, cruise())
    for j in range(3):
        edges, density = seen.of_one(j)
        inside = ((water()[:, j] >= edges[0]) & (water()[:, j] <= edges[-1])).mean()
        assert (density * np.diff(edges)).sum() == pytest.approx(inside, rel=1e-12)


def test_the_silhouette_is_that_of_select(kmeans):
    x = water() / water().std(axis=0)
    axes = plot.silhouettes(kmeans, x, sample=12_000)
    (line,) = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    near = np.sort(kmeans.transform(x), axis=1)
    assert line.get_xdata()[0] == pytest.approx(((near[:, 1] - near[:, 0]) / near[:, 1]).mean(), rel=1e-9)


# --- colours ----------------------------------------------------------------------------------------------------------


def test_the_colour_of_a_label_depends_on_its_number_alone():
    assert plot.colours(40)[:7] == plot.colours(7)
    labels = np.array([[0.0, 2.0], [2.0, np.nan]])
    one, other = plot.label_map(labels), plot.label_map(labels + 3, k=9)
    for axes, shift in ((one, 0), (other, 3)):
        (mesh,) = axes.collections
        painted = mesh.cmap(mesh.norm(np.array([0, 2]) + shift))[:, :3]
        np.testing.assert_allclose(painted, np.array(plot.colours(9))[[shift, 2 + shift]], atol=1 / 255)


def test_thirty_labels_have_colours_of_their_own_and_none_is_the_grey_of_noise():
    shades = np.array(plot.colours(30))
    apart = np.abs(shades[:, None] - shades[None]).sum(axis=2) + 9 * np.eye(30)
    assert apart.min() > 0.1
    assert (shades.max(axis=1) - shades.min(axis=1)).min() > 0.1


# Machado, Oliveira & Fernandes (2009), severity 1: what is seen of linear RGB.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(linear):
    """CIE L*a*b* of linear sRGB (n, 3), under D65."""
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(np.maximum(xyz / np.array([0.9505, 1.0, 1.089]), 0.008856))
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("kind", BLIND)
def test_ten_labels_are_told_apart_by_the_colour_blind(kind):
    shades = np.array(plot.colours(10))
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    found = lab(np.clip(linear @ np.array(BLIND[kind]).T, 0, 1))
    apart = np.sqrt(((found[:, None] - found[None]) ** 2).sum(axis=2)) + 1e3 * np.eye(10)
    assert apart.min() > 8.0  # a just noticeable difference is about 2.3


# --- pictures ---------------------------------------------------------------------------------------------------------


def a_map():
    rng = np.random.default_rng(0)
    lat, lon = np.linspace(-60, 60, 25), np.linspace(0, 357, 60)
    label = np.digitize(np.abs(lat)[:, None] + 8 * np.sin(np.radians(3 * lon)), [15, 30, 45]).astype(float)
    label[rng.random(label.shape) < 0.02] = -1
    label[8:14, 10:22] = np.nan
    dims = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    return xr.DataArray(label, dims, ("lat", "lon"), attrs={"long_name": "component", "n_components": 4})


def casts():
    """A mixture of profiles: temperature at ten depths."""
    rng = np.random.default_rng(0)
    depth = np.array([5, 10, 20, 30, 50, 75, 100, 150, 200, 300])
    kinds = np.stack([4 + 20 * np.exp(-depth / 60), 4 + 6 * np.exp(-depth / 150), 1 + 0.01 * depth])
    away = np.cumsum(rng.standard_normal((3_000, 10)), axis=1) * 0.4
    x = kinds[rng.integers(0, 3, 3_000)] + away
    ds = xr.DataArray(x, {"depth": depth}, ("cast", "depth"), "temp", {"units": "degC"})
    return GaussianMixture(3, random_state=0).fit(ds), ds, depth


def labelled_profiles():
    model, ds, depth = casts()
    where = xr.DataArray(depth, dims="depth", name="depth", attrs={"units": "m"})
    return plot.profiles(model, model.cluster_stats(ds), along=where, names=["warm", "cold", "cool"])


DRAWN = {
    "pairs": lambda mixture, **_: mixture.plot(cruise()),
    "pairs-kmeans": lambda kmeans, **_: plot.pairs(kmeans, water() / water().std(axis=0), (0, 1)),
    "ellipses": lambda mixture, **_: plot.ellipses(mixture, cruise(), ("temp", "salt")),
    "ellipses-rows": lambda stray, **_: plot.ellipses(*stray, show="rows"),
    "convergence": lambda **_: plot.convergence(
        GaussianMixture(4, n_init=3, tol=1e-6, accelerate="none", random_state=0).fit(water(3_000))
    ),
    "selection": lambda chosen, **_: chosen.plot(),
    "sizes": lambda stray, **_: plot.sizes(stray[0], names=["Arctic", "Atlantic", "Gulf"]),
    "silhouettes": lambda kmeans, **_: plot.silhouettes(kmeans, water() / water().std(axis=0)),
    "label-map": lambda **_: plot.label_map(a_map(), names=["tropics", "subtropics", "westerlies", "polar"]),
    "uncertainty-map": lambda **_: plot.uncertainty_map(a_map().clip(0) / 8),
    "profiles": lambda **_: labelled_profiles(),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_looks_as_it_did(name, tmp_path, mixture, kmeans, stray, chosen):
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        axes = DRAWN[name](mixture=mixture, kmeans=kmeans, stray=stray, chosen=chosen)
        figure = np.ravel(axes)[0].figure
        figure.set_dpi(70)
        drawn = tmp_path / f"{name}.png"
        FigureCanvasAgg(figure).print_png(str(drawn), metadata={"Software": None}, pil_kwargs={"optimize": True})
    right = PICTURES / f"{name}.png"
    if os.environ.get("DASKMIX_PICTURES") == "write":
        from PIL import Image

        PICTURES.mkdir(exist_ok=True)
        # Few colours are enough to compare with, and small.
        Image.open(drawn).convert("RGB").quantize(64).save(right, optimize=True)
    assert right.stat().st_size < LARGEST
    assert compare_images(str(right), str(drawn), TOLERANCE) is None


# --- manners ----------------------------------------------------------------------------------------------------------


def test_no_picture_touches_pyplot():
    code = """
import sys
import numpy as np, xarray as xr
from daskmix import GaussianMixture, KMeans, plot, select
x = np.random.default_rng(0).standard_normal((300, 2))
model, kmeans = GaussianMixture(2, random_state=0).fit(x), KMeans(2, random_state=0).fit(x)
model.plot(x), plot.ellipses(model, x), plot.convergence(model), plot.sizes(model), plot.profiles(model)
plot.silhouettes(kmeans, x), select(x, (1, 2), random_state=0).plot()
plot.label_map(np.zeros((2, 3))), plot.uncertainty_map(np.zeros((2, 3)))
print("matplotlib.pyplot" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_without_matplotlib_a_picture_says_what_to_install():
    code = """
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.figure"] = None
from daskmix import KMeans, plot
from daskmix.errors import MissingPackageError
for draw in (plot.sizes, plot.pairs, lambda m: plot.label_map([[0, 1]]), lambda m: plot.ellipses(m, [[0, 1], [5, 4]])):
    try:
        draw(KMeans(2, random_state=0).fit([[0.0, 1.0], [5.0, 4.0]]))
    except MissingPackageError as error:
        print(isinstance(error, ImportError), 'pip install ".[plot]"' in str(error))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["True True"] * 4
    assert issubclass(MissingPackageError, ImportError)


def test_pictures_are_drawn_on_the_users_axes_whose_titles_stay(mixture, kmeans, chosen, stray):
    figure = Figure()
    panels = figure.subplots(3, 3)
    assert (mixture.plot(cruise(), axes=panels) == panels).all()
    figure = Figure()
    left, right, third, fourth = figure.subplots(1, 4)
    left.set_title("mine", loc="left")
    assert plot.ellipses(mixture, cruise(), axes=left) is left
    assert left.get_title(loc="left") == "mine"
    assert chosen.plot(right) is right
    assert plot.sizes(kmeans, axes=third) is third
    assert plot.label_map(a_map(), axes=fourth) is fourth
    pair = Figure().subplots(2)
    assert (plot.convergence(mixture, pair) == pair).all()


def test_the_parts_of_figures_are_labelled(mixture, chosen):
    axes = mixture.plot()
    assert [a.get_xlabel() for a in axes[2]] == ["temp (degC)", "salt (g/kg)", "oxygen (umol/kg)"]
    assert [a.get_ylabel() for a in axes[:, 0]] == ["density", "salt (g/kg)", "oxygen (umol/kg)"]
    upper, lower = plot.convergence(mixture)
    assert upper.get_ylabel() == "mean log-likelihood"
    assert lower.get_xlabel() == "pass over the rows"
    drawn = chosen.plot()
    assert drawn.get_ylabel() == "bic (smaller is better)"
    assert [t.get_text() for t in drawn.get_legend().get_texts()] == ["full", "diag", "tied", "spherical", "EEE"]
    (star,) = [c for c in drawn.collections if c.get_sizes().max(initial=0) > 200]
    assert star.get_offsets().data[0, 0] == chosen.best_.n_components


def test_of_each_start_the_objective_of_each_pass_is_known_and_the_gap_where_it_is_estimated():
    model = GaussianMixture(3, n_init=2, accelerate="none", tol=1e-6, random_state=0).fit(water(2_000))
    own = [record for record in model.history_ if record["measure"]]
    assert all(len(record["objectives"]) == len(record["gaps"]) == 2 for record in own)
    for record in own:
        assert max(o for o in record["objectives"] if o is not None) == record["objective"]
    assert model.gap_estimate_ in [gap for record in own for gap in record["gaps"]]
    upper, _ = plot.convergence(model)
    assert len(upper.get_lines()) == 2


def test_a_history_of_an_older_model_is_drawn_by_its_best_start():
    history = [{"pass": 1, "measure": "", "objective": None}]
    history += [{"pass": 2 + j, "measure": "inertia", "objective": 8.0 - j} for j in range(3)]
    upper, _ = plot.convergence(history)
    np.testing.assert_array_equal(upper.get_lines()[0].get_ydata(), [8, 7, 6])


def test_a_model_of_one_feature_and_one_component_is_drawn():
    model = GaussianMixture(1, random_state=0).fit(water(500)[:, :1])
    axes = model.plot(water(500)[:, :1])
    assert axes.shape == (1, 1)
    single = KMeans(1, random_state=0).fit(water(500)[:, :1])
    assert single.plot(water(500)[:, :1]).shape == (1, 1)
    plot.sizes(single)


def test_a_feature_that_is_constant_is_drawn():
    x = np.stack([water(500)[:, 0], np.full(500, 1e6)], axis=1)
    plot.pairs(KMeans(2, random_state=0).fit(x), x)


def test_rows_with_gaps_are_drawn_by_what_is_there():
    x = water(900)
    x[::7, 1] = np.nan
    model = GaussianMixture(2, missing="em", random_state=0).fit(x)
    seen = plot.look(model, x)
    assert seen.histograms.seen[1] == np.isfinite(x[:, 1]).sum()
    model.plot(seen, show="rows")
    clusters = KMeans(2, missing="em", random_state=0).fit(x)
    plot.silhouettes(clusters, x)


@pytest.mark.parametrize("kind", [BisectingKMeans, KMeans])
def test_every_kmeans_is_drawn(kind):
    model = kind(4, random_state=0).fit(water(1_000))
    plot.silhouettes(model, water(1_000))
    model.plot(water(1_000))
    plot.profiles(model)
    plot.sizes(model)


def test_directions_are_drawn_as_they_are_compared():
    model = KMeans(3, metric="cosine", random_state=0).fit(water(1_000))
    seen = plot.look(model, water(1_000))
    np.testing.assert_allclose(np.linalg.norm(seen.rows, axis=1), 1.0)


def test_names_that_end_in_numbers_are_levels():
    x = water(300)
    ds = xr.Dataset({f"temp_{level}": ("row", x[:, j]) for j, level in enumerate((5, 20.5, 100))})
    model = GaussianMixture(2, random_state=0).fit(ds)
    axes = plot.profiles(model)
    assert axes.get_xlabel() == "temp"
    assert axes.yaxis_inverted()
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [5, 20.5, 100])
    aside = plot.profiles(model, features=["temp_100", "temp_5"], along=[3, 1], down=False)
    assert not aside.yaxis_inverted()
    np.testing.assert_array_equal(aside.get_lines()[0].get_ydata(), [1, 3])
    other = model.cluster_stats(ds, xr.DataArray(x[:, 0] ** 2, dims="row", name="square"))
    plain = plot.profiles(model, other)
    assert [t.get_text() for t in plain.get_xticklabels()] == ["square"]


def test_a_map_has_coordinates_names_and_blanks():
    axes = plot.label_map(a_map(), names=["a", "b", "c", "d"])
    (mesh,) = axes.collections
    shown = mesh.get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), np.isnan(a_map().values))
    assert axes.get_xlabel() == "lon (degrees_east)"
    assert axes.get_ylim()[0] < axes.get_ylim()[1]
    bar = axes.figure.axes[1]
    assert [t.get_text() for t in bar.get_yticklabels()] == ["noise", "a", "b", "c", "d"]
    grey = mesh.cmap(mesh.norm(-1))
    np.testing.assert_allclose(grey[:3], matplotlib.colors.to_rgb(canvas.NOISE_GREY), atol=1 / 255)
    deep = a_map().rename(lat="depth")
    deep["depth"].attrs["positive"] = "down"
    assert plot.label_map(deep).yaxis_inverted()
    assert plot.label_map(np.full((2, 2), -2)).collections[0].get_array().mask.all()


def test_rows_of_an_image_go_down():
    bare = xr.DataArray(np.zeros((3, 4)), dims=("row", "column"))
    for axes in (plot.label_map(bare), plot.label_map(bare.values), plot.uncertainty_map(bare)):
        assert axes.yaxis_inverted()
    assert plot.label_map(bare).get_ylabel() == "row"


def test_the_band_of_a_component_with_tails_is_its_standard_deviation():
    model = GaussianMixture(1, nu=4.0, random_state=0).fit(water(500)[:, :2])
    (band,) = plot.profiles(model).collections
    reach = np.ptp(band.get_paths()[0].vertices[:, 1]) / 2
    assert reach >= np.sqrt(2 * model.covariances_[0].diagonal().max())


def test_of_a_large_map_every_nth_point_is_drawn():
    labels = xr.DataArray(da.zeros((4_001, 30), chunks=(1_000, 30), dtype=np.int32), dims=("y", "x"))
    axes = plot.label_map(labels)
    assert axes.collections[0].get_array().shape == (1_334, 30)
    assert axes.get_title(loc="left") == "points drawn: every 3rd along y"


REFUSED = {
    "not fitted": (lambda m, k: plot.pairs(GaussianMixture(2)), "not fitted"),
    "no model": (lambda m, k: plot.sizes(np.zeros(3)), "model of daskmix"),
    "no history": (lambda m, k: plot.convergence(KMeans(2)), "not fitted"),
    "nothing measured": (lambda m, k: plot.convergence([{"measure": "", "objective": None}]), "measured"),
    "splits": (lambda m, k: plot.convergence(BisectingKMeans(2, random_state=0).fit(water(50))), "splits under way"),
    "no such feature": (lambda m, k: plot.ellipses(m, None, ["temp", "depth"]), "depth.*temp, salt, oxygen"),
    "a feature twice": (lambda m, k: plot.pairs(m, None, ["temp", "temp"]), "once"),
    "no features": (lambda m, k: plot.pairs(m, None, []), "at least one"),
    "three for a plane": (lambda m, k: plot.ellipses(m, None, (0, 1, 2)), "two features"),
    "one feature": (lambda m, k: plot.ellipses(m.marginal("temp")), "pairs"),
    "levels": (lambda m, k: plot.ellipses(m, levels=(0.5, 1.0)), "between 0 and 1"),
    "show": (lambda m, k: plot.pairs(m, show="row"), "did you mean 'rows'"),
    "limits": (lambda m, k: plot.look(m, cruise(), limits={"temp": (3, 1)}), "lower first"),
    "bins": (lambda m, k: plot.look(m, cruise(), bins=0), "bins"),
    "sample": (lambda m, k: plot.look(m, cruise(), sample=10**9), "sample"),
    "axes": (lambda m, k: plot.pairs(m, axes=np.empty((2, 2))), "3, 3"),
    "axes of convergence": (lambda m, k: plot.convergence(m, axes=np.empty(3)), "two panels"),
    "other rows": (lambda m, k: plot.pairs(k, np.zeros((5, 2))), "features"),
    "flat rows": (lambda m, k: plot.pairs(k, np.zeros(5)), "2D"),
    "a look that saw less": (lambda m, k: plot.pairs(m, plot.look(m, cruise(), ["temp"]), ["salt"]), "look again"),
    "a look with options": (lambda m, k: plot.pairs(m, plot.look(m, cruise()), bins=3), "pass it to look"),
    "no weight": (lambda m, k: plot.look(m, cruise(), sample_weight=np.zeros(12_000)), "no row is left"),
    "silhouettes of a mixture": (lambda m, k: plot.silhouettes(m, cruise()), "to_kmeans"),
    "silhouettes of one": (lambda m, k: plot.silhouettes(KMeans(1).fit(water(50)), water(50)), "two clusters"),
    "densities of centres": (lambda m, k: plot.marginal_densities(k, 0, [0.0]), "to_mixture"),
    "names": (lambda m, k: plot.sizes(m, names=["a", "b"]), "3 names"),
    "labels of 1-d": (lambda m, k: plot.label_map(np.zeros(4)), "two dims"),
    "no labels": (lambda m, k: plot.label_map(np.full((2, 2), 0.5)), "whole numbers"),
    "label beyond k": (lambda m, k: plot.label_map(np.full((2, 2), 7), k=3), "label 7"),
    "no uncertainty": (lambda m, k: plot.uncertainty_map(np.full((2, 2), 7.0)), "between 0 and 1"),
    "along": (lambda m, k: plot.profiles(m, along=[1, 2]), "3 features"),
    "statistics": (lambda m, k: plot.profiles(m, xr.Dataset()), "cluster_stats"),
    "letters for labels": (lambda m, k: plot.label_map([["a", "b"]]), "labels must be numbers"),
    "letters for levels": (lambda m, k: plot.ellipses(m, levels=["a"]), "levels must be numbers"),
    "letters for depths": (lambda m, k: plot.profiles(m, along="abc"), "along must be numbers"),
    "a list of limits": (lambda m, k: plot.look(m, cruise(), limits=[1, 2]), "of which features"),
    "a number for names": (lambda m, k: plot.sizes(m, names=3), "3 names"),
    "a selection for its table": (lambda m, k: plot.selection(m, "bic"), "table_"),
    "no table": (lambda m, k: plot.selection(xr.Dataset(), "bic"), "table_"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_drawn_is_refused(why, mixture, kmeans):
    draw, told = REFUSED[why]
    with pytest.raises(InputError, match=told):
        draw(mixture, kmeans)


def test_features_are_refused_as_features_and_many_of_them():
    model = GaussianMixture(1, covariance_type="diag", random_state=0).fit(np.random.default_rng(0).random((60, 9)))
    with pytest.raises(FeatureError, match="0 to 8"):
        model.plot(features=[9])
    with pytest.raises(InputError, match="too many"):
        model.plot()
