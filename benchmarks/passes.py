"""How many passes a fit takes, and what it reaches: count them, judge what is required, write the page.

`python -m benchmarks.passes --write docs/passes.md` takes about a quarter of an hour.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.pages_of_passes import FIGURE, HOW, figure
from benchmarks.problems import CRAWL, GENERATED, PIPELINE, RAW, Problem, clusters, photograph
from benchmarks.report import Requirement, Section, at_least, at_most, headline, machine, paragraph, progress, table
from benchmarks.traces import em, faster, optimum, trace, with_sample
from daskmix import GaussianMixture, KMeans, select
from daskmix.algorithms.acceleration import Accelerated
from daskmix.block import Array
from daskmix.family import Family
from daskmix.mixture import Mixture

T = TypeVar("T")

WORSE = 1e-4  # of the mean log-likelihood: another optimum


@dataclass(frozen=True)
class Settings:
    """How large a run is."""

    seeds: int
    shrink: int = 1  # rows are divided by this
    first: int | None = None  # so many of each list of sets

    def rows(self, full: int) -> int:
        return full // self.shrink

    def some(self, those: Sequence[T]) -> Sequence[T]:
        return those[: self.first]


QUICK = Settings(1, 10, 2)


def geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def raw_starts(settings: Settings) -> Section:
    """EM and the accelerated EM from the same raw starts, without a sample."""
    lines, speedups, worse, rejected, crawl = [], [], [], [], (np.nan, np.nan)
    for problem in settings.some(RAW):
        x = problem.data()
        plain, quick = [], []
        for seed in range(settings.seeds):
            model = problem.start(x, seed)
            slow, top = optimum(problem, x, model)
            fast = faster(em(x.shape[1]), x, model, top)
            plain.append([slow.until(gap, top) for gap in (1e-3, 1e-5, 1e-7)])
            quick.append([fast.until(gap, top) for gap in (1e-3, 1e-5, 1e-7)])
            worse.append(max(fast.values) < top - WORSE)
            rejected.append(fast.rejected)
        medians = [np.median(found, axis=0) for found in (plain, quick)]
        if problem is CRAWL:
            crawl = medians[0][1], medians[1][1]
        ratios = [a / b for a, b in zip(*medians, strict=True)]
        if np.isfinite(ratios).all():
            speedups.append(ratios)
        lines.append([str(problem), *("/".join(f"{v:.0f}" for v in m) for m in medians)])
        progress(" ".join(lines[-1]))
    means = [geometric([r[i] for r in speedups]) for i in range(3)]
    lines.append(["geometric mean of the ratios", "1/1/1", "/".join(f"{m:.2f}" for m in means)])
    required = (
        at_least("raw starts, passes to 1e-5, EM against accelerated", 3, means[1], "x fewer"),
        at_least("raw starts, passes to 1e-7, EM against accelerated", 4, means[2], "x fewer"),
        at_most(f"raw starts, {CRAWL}: passes to 1e-5, where EM takes {crawl[0]:.0f}", 60, crawl[1], ""),
        at_most("raw starts: runs that end in a worse optimum than EM's", 3, 100 * float(np.mean(worse)), "%"),
        at_most("raw starts: rejected passes per run, in the mean", 5, float(np.mean(rejected)), ""),
    )
    return Section("From raw starts, without a sample", RAW_TEXT, table(["set", "EM", "accelerated"], lines), required)


RAW_TEXT = """Passes that lead to a model whose mean log-likelihood is within 1e-3/1e-5/1e-7 of the optimum that EM
reaches from the same start (in 2000 passes at most, then polished); medians over the seeds. The pass that finds out is
not counted: a fit takes it, and those that make sure."""

SAMPLES = ((12_000, 2000, 9), (120_000, 20_000, 28), (400_000, 50_000, 56))


def from_samples(settings: Settings) -> Section:
    """The crawl from the optimum of a sample, with steps on the sample."""
    lines, required, worse = [], [], []
    for (total, size, steps), bound in zip(SAMPLES, (16, 4, 2), strict=True):
        total, size = settings.rows(total), settings.rows(size)
        x = CRAWL.data(total)
        found: list[list[float]] = []
        for seed in range(settings.seeds):
            local, some = with_sample(x, size, steps, seed)
            start = solved(some, CRAWL, seed)
            _, top = optimum(CRAWL, x, start)
            fast = faster(local, x, start, top)
            alone = faster(em(x.shape[1]), x, start, top)
            worse.append(max(fast.values) < top - WORSE)
            found.append([top - fast.values[0], alone.until(1e-5, top), fast.until(1e-5, top), fast.until(1e-7, top)])
        gap, alone, to5, to7 = np.median(found, axis=0)
        promised = Family(CRAWL.structure).n_parameters(CRAWL.k, x.shape[1]) / (2 * size)
        lines.append(
            [
                f"{total:,}",
                f"{size:,}",
                str(steps),
                f"{gap:.1e}",
                f"{promised:.1e}",
                f"{alone:.1f}",
                f"{to5:.1f}",
                f"{to7:.1f}",
            ]
        )
        progress(" ".join(lines[-1]))
        required.append(at_most(f"{CRAWL}, from a sample of {size:,}: passes to 1e-5", bound, to5, ""))
        required.append(
            at_most(f"{CRAWL}, from a sample of {size:,}: gap of the start against p / (2 n_s)", 2, gap / promised, "x")
        )
    required.append(at_most("from a sample: runs that end in a worse optimum", 6, 100 * float(np.mean(worse)), "%"))
    head = [
        "rows",
        "n_s",
        "steps",
        "gap of the start",
        "p / (2 n_s)",
        "accelerated, to 1e-5",
        "with local steps, to 1e-5",
        "to 1e-7",
    ]
    return Section("From the optimum of a sample", SAMPLE_TEXT, table(head, lines), tuple(required))


SAMPLE_TEXT = """The overlapping clusters again, from where the accelerated EM ends on the sample (the best of three
raw starts there). The gap of that start is what the sample's size promises. Steps are those on the sample after each
pass, sqrt(n_s) / 5 and up to sqrt(n_s) / 4, set by hand and all on the whole sample: a fit takes as many of its rows
and steps as cost a small part of a pass. The optimum is the one that EM reaches from the same start."""


def solved(some: Array, problem: Problem, seed: int) -> Mixture:
    """The best of three starts on a sample."""
    d = some.shape[1]
    ended = [
        trace(Accelerated(em(d, 1000), 1e-10), some, problem.start(some, 10 * seed + i), lambda values: False)
        for i in range(3)
    ]
    return max(ended, key=lambda t: t.values.max()).model


def pipelines(settings: Settings) -> Section:
    """Whole fits of mixtures, the seeding included."""
    lines: list[list[str]] = []
    passes: dict[float, list[float]] = {1e-4: [], 1e-6: []}
    excess: list[float] = []
    shares: list[float] = []
    for problem in settings.some(PIPELINE):
        x = problem.data(settings.rows(TOTAL))
        asked, size = sample_of(x)
        fits = {
            (order, tol): [
                fitted(GaussianMixture(
                    problem.k, covariance_type=problem.covariance, sample_size=asked, gap_tol=tol, reg_covar=1e-6,
                    random_state=seed, max_iter=300,
                ), rows)
                for seed in range(settings.seeds)
            ]
            for order, rows in in_both_orders(x)
            for tol in passes
        }  # fmt: skip
        best = max(fit.reached for group in fits.values() for fit in group)
        for (order, tol), group in fits.items():
            lost = [best - fit.reached for fit in group]
            median, share = medians(group)
            passes[tol].append(median)
            excess += lost
            shares += [share] if asked == "auto" else []
            lines.append([
                f"{problem}, {len(x):,} rows {order}", size, f"{tol:g}", f"{median:.1f}", f"{np.median(lost):.1e}",
                f"{np.mean(lost):.1e}", f"{share:.0%}",
            ])  # fmt: skip
            progress(" ".join(lines[-1]))
    required = (
        at_most("whole fits of mixtures at gap_tol 1e-4: passes", 8, geometric(passes[1e-4]), ""),
        at_most("whole fits of mixtures at gap_tol 1e-6: passes", 12, geometric(passes[1e-6]), ""),
        at_most("whole fits of mixtures: mean excess over the best", 1e-2, float(np.mean(excess)), ""),
        on_the_sample("whole fits of mixtures", shares),
    )
    head = ["mixture", "n_s", "gap_tol", "passes", "excess, median", "excess, mean", "of the time on the sample"]
    return Section("Whole fits of mixtures", PIPELINE_TEXT, table(head, lines), required)


TOTAL, ROWS_PER_SAMPLED, BY_ITSELF = 12_000_000, 6, 100_000
PIPELINE_TEXT = f"""`GaussianMixture.fit`, every read counted: the survey that draws the sample, the passes, and the
one that measures what came out. Excess is the mean log-likelihood below the best of all fits of the set. Rows stand in
the order of their component, or of the picture, and shuffled. The sample is that of `sample_size="auto"`, or, where
rows are few, a {ROWS_PER_SAMPLED}th of them, which is then asked for and so solved as a whole."""


def sample_of(x: Array) -> tuple[int | str, str]:
    """`sample_size`, and how many rows that are."""
    if len(x) >= ROWS_PER_SAMPLED * BY_ITSELF:
        return "auto", f"{BY_ITSELF:,}"
    size = len(x) // ROWS_PER_SAMPLED
    return size, f"{size:,}"


def in_both_orders(x: Array) -> list[tuple[str, Array]]:
    return [("in order", x), ("shuffled", np.random.default_rng(0).permutation(x))]


@dataclass(frozen=True)
class Fitted:
    """What became of a fit."""

    passes: int
    reached: float  # mean log-likelihood, or inertia
    share: float  # of its time on the sample


def fitted(estimator: Any, rows: Array) -> Fitted:
    began = time.perf_counter()
    fit = estimator.fit(rows)
    seconds = time.perf_counter() - began
    share = sum(record["sample_seconds"] for record in fit.history_) / seconds
    return Fitted(fit.n_passes_, fit.inertia_ if isinstance(fit, KMeans) else fit.lower_bound_, share)


def medians(fits: Sequence[Fitted]) -> tuple[float, float]:
    """Passes, and the share of the sample."""
    return float(np.median([fit.passes for fit in fits])), float(np.median([fit.share for fit in fits]))


def on_the_sample(what: str, shares: Sequence[float]) -> Requirement:
    most = 100 * max(shares, default=np.nan)
    return at_most(f'{what}, sample_size="auto": of the time on the sample, the set with most', 30, most, "%")


KM_SETS = (
    ("apart, k=20", clusters(2, 20, 10.0, 11), 20),
    ("overlap, k=10", clusters(4, 10, 1.5, 12), 10),
    (
        "uneven, k=12",
        clusters(3, 12, 4.0, 13, [0.3, 0.2, 0.1, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.015, 0.005]),
        12,
    ),
    ("anisotropic, k=8", clusters(2, 8, 4.0, 14, turned=True), 8),
    ("china, k=16", photograph, 16),
)


def kmeans_pipelines(settings: Settings) -> Section:
    """Whole fits of K-means, the seeding included."""
    lines: list[list[str]] = []
    passes: list[float] = []
    excess: list[float] = []
    shares: list[float] = []
    for name, make, k in settings.some(KM_SETS):
        x = make(settings.rows(TOTAL))
        asked, size = sample_of(x)
        seeds = range(settings.seeds)
        fits = {
            order: [fitted(KMeans(k, sample_size=asked, random_state=seed), rows) for seed in seeds]
            for order, rows in in_both_orders(x)
        }
        fits[TEXTBOOK] = [fitted(KMeans(k, accelerate="none", random_state=seed), x) for seed in seeds]
        best = min(fit.reached for group in fits.values() for fit in group)
        for order, group in fits.items():
            lost = [100 * (fit.reached / best - 1) for fit in group]
            median, share = medians(group)
            if order != TEXTBOOK:
                passes.append(median)
                excess += lost
                shares += [share] if asked == "auto" else []
            lines.append([
                f"{name}, {len(x):,} rows {order}", size, f"{median:.1f}", f"{np.mean(lost):.2f}", f"{share:.0%}",
            ])  # fmt: skip
            progress(" ".join(lines[-1]))
    required = (
        at_most("whole fits of K-means: passes", 10, geometric(passes), ""),
        at_most("whole fits of K-means: mean excess over the best", 0.7, float(np.mean(excess)), "%"),
        on_the_sample("whole fits of K-means", shares),
    )
    head = ["K-means", "n_s", "passes", "excess, %, mean", "of the time on the sample"]
    return Section("Whole fits of K-means", KM_TEXT, table(head, lines), required)


TEXTBOOK = "in order, textbook"
KM_TEXT = """`KMeans.fit` with all defaults but for the sample's size as above, every read counted; beside it the
textbook's fit of the same package, whose seeding is greedy k-means++ on a sample of up to 100,000 rows. Excess is the
inertia above the best of all fits of the set."""


def in_seconds(settings: Settings) -> Section:
    """A default fit against scikit-learn's, on the clock."""
    from sklearn.mixture import GaussianMixture as Peer

    n, d, k = settings.rows(200_000), 16, 16
    x = clusters(d, k, 0.6, 15)(n)
    runs: list[list[float]] = []
    for seed in range(min(3, settings.seeds)):
        line = []
        for make in (GaussianMixture, Peer):
            began = time.perf_counter()
            fit = make(k, random_state=seed).fit(x)
            line += [time.perf_counter() - began, fit.lower_bound_ if make is GaussianMixture else fit.score(x)]
        runs.append([line[0], line[2], line[1] - line[3]])
        progress(f"seconds {line}")
    own, theirs, better = np.median(runs, axis=0)
    lines = [[f"{own:.2f}", f"{theirs:.2f}", f"{own / theirs:.2f}", f"{better:+.2e}"]]
    required = (
        at_most(f"default fit, {n:,} x {d}, k={k}, against scikit-learn's", 0.3, own / theirs),
        at_least("its mean log-likelihood less scikit-learn's", 0, better, ""),
    )
    head = ["daskmix, s", "scikit-learn, s", "ratio", "mean log-likelihood less scikit-learn's"]
    return Section("In seconds", SECONDS_TEXT, table(head, lines), required)


SECONDS_TEXT = (
    """`GaussianMixture(16).fit(X)` of both packages, all defaults, on rows in memory; three seeds, by turns."""
)


NUMBERS, STARTS = range(2, 13), 5
TYPES = ("full", "tied", "diag", "spherical")


def selections(settings: Settings) -> Section:
    """220 models in shared passes, against all of them one by one."""
    lines, required = [], []
    size, numbers, types = settings.rows(2000), settings.some(NUMBERS), settings.some(TYPES)
    for problem in (GENERATED[4], GENERATED[6], GENERATED[5]):
        x = problem.data(settings.rows(SELECT_ROWS))
        found = select(x, numbers, types, n_init=STARTS, sample_size=size, gap_tol=1e-4, reg_covar=1e-6, random_state=0)
        one_by_one = {}
        for name in types:
            for k in numbers:
                fit = GaussianMixture(
                    k, covariance_type=name, n_init=STARTS, accelerate="none", tol=1e-6, max_iter=1000,
                    reg_covar=1e-6, random_state=0,
                ).fit(x)  # fmt: skip
                one_by_one[name, k] = (fit.bic(), sum(record["live"] for record in fit.history_[1:]))
            progress(f"{problem.name}: {name} one by one")
        (name, k), (bic, _) = min(one_by_one.items(), key=lambda item: item[1][0])
        alone = sum(passes for _, passes in one_by_one.values())
        best = found.best_
        shared = sum(record["live"] for record in found.history_)
        lines.append([
            f"{problem.name}, {len(x):,} rows", f"{name}, {k}", f"{best.covariance_type}, {best.n_components}",
            f"{best.bic() - bic:+.1f}", f"{alone:,}", str(found.n_passes_), f"{shared:,}",
        ])  # fmt: skip
        progress(" ".join(lines[-1]))
        required.append(at_most(f"selection of 220 models, {problem.name}: passes", 55, found.n_passes_, ""))
        required.append(
            at_most(
                f"selection of 220 models, {problem.name}: BIC above the exhaustive choice", SAME, best.bic() - bic, ""
            )
        )
    head = [
        "set", "chosen one by one", "chosen by select", "BIC less the exhaustive", "passes one by one",
        "passes of select", "models x passes",
    ]  # fmt: skip
    return Section("Selection", SELECT_TEXT, table(head, lines), tuple(required))


SELECT_ROWS, SAME = 24_000, 0.5
SELECT_TEXT = """`select` among 2 to 12 components, four structures and five starts of each, 220 models, by BIC; a
sample of 2,000 rows, on which the best start of each model also meets the next larger one with two components merged.
One by one, every start of every model goes through EM until it gains less than 1e-6. Where the choices differ, the one
of the lower BIC is the better."""

PARTS = {
    "raw": raw_starts,
    "samples": from_samples,
    "mixtures": pipelines,
    "kmeans": kmeans_pipelines,
    "seconds": in_seconds,
    "select": selections,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.passes", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,...", help=", ".join(PARTS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="few rows and seeds: to see that everything runs")
    given = parser.parse_args()
    settings = QUICK if given.quick else Settings(given.seeds)
    warnings.simplefilter("ignore", ConvergenceWarning)
    sections = []
    for name in given.only.split(","):
        sections.append(PARTS[name](settings))
        print(f"\n{sections[-1]}", flush=True)
    print(f"\n{headline(sections)}")
    if given.write:
        command = " ".join(["python -m benchmarks.passes", *sys.argv[1:]])
        page = [
            "# Passes",
            HOW.format(command=command),
            paragraph(machine(2)),
            str(headline(sections)),
            *map(str, sections),
        ]
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text("\n\n".join(page) + "\n")
        figure(given.write.with_name(FIGURE), settings)


if __name__ == "__main__":
    main()
