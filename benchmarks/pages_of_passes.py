"""The words and the figure of the page about passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.problems import Problem, photograph
from benchmarks.traces import em, faster, optimum, trace, with_sample
from daskmix.algorithms.acceleration import Accelerated

FIGURE = "passes.svg"

HOW = """\
Out of core a fit costs passes over the data times the price of a pass. This page is about the number of passes: how
daskmix saves them, and how many are left. It was written by `{command}`, in one run.

## How it works

**Pass 0** reads every chunk once. It counts the rows, finds their mean, spread and limits, and draws a uniform
sample of rows over *all* chunks (`sample_size`), keyed by the index of the row, so that the chunking does not
matter. Rows from some chunks only would not do: stores are in the order of time, or of latitude.

**The race.** Ten starts, by turns from K-means and from rows drawn at random, are solved on the sample, on growing
parts of it: the best three go on with more rows, then the best. An optimum of n_s rows is p / (2 n_s) below that of
all rows, in the mean, where p is the number of parameters; so most of the way costs no pass. How far the race goes
follows from the number of rows and parameters alone, so that the sample takes a small share of the time, and the same
bits come out everywhere.

**The passes.** From there EM (or Lloyd's iteration) goes on, accelerated. Each pass gives the model's likelihood
and its image, the next model of EM. From the last three moves and their images the *saddle-free Anderson
accelerator* guesses where they lead to: a secant model of the Hessian in the space of the moves, in coordinates
(log weights, means, log-Cholesky factors) and a metric (the Fisher information of rows whose component is known) in
which EM's rate of convergence is symmetric. Eigenvalues count by their size, because the plateaus of EM are saddles
that it is leaving, and a step is capped. A guess that proves worse is dropped and the image taken, which cannot be
worse: a pass is lost, nothing else.

**Local steps.** Where the sample holds enough rows, each pass of a mixture is followed by some steps of EM on the
sample, whose statistics are corrected by those of all rows (a control variate): the first step is EM's own, and the
fixed points are those of all rows.

**The end.** Half the Newton decrement estimates what is left to gain (`gap_estimate_`). When it, and the last gain,
stay below `gap_tol` twice in a row, one more pass measures the model that is returned. `tol` keeps scikit-learn's
meaning in the textbook's iteration, which is what small data, explicit starts and `accelerate="none"` get.

![Gap against passes](passes.svg)

*The colours of china.jpg, the photograph of the demo (273,280 pixels), six components: how far the mean
log-likelihood is from its optimum after each pass. EM and the accelerated EM from the same raw start, local steps
from a sample of 20,000 pixels, for which pass 0 is counted.*"""


def figure(to: Path, settings: Any) -> None:
    """Gap against passes, drawn."""
    from matplotlib.figure import Figure

    problem = Problem("china", "full", 6, photograph, 10**9)
    x = problem.data(settings.rows(273_280))
    start = problem.start(x, 0)
    plain, top = optimum(problem, x, start)
    fast = faster(em(x.shape[1]), x, start, top, 1e-9)
    local, some = with_sample(x, settings.rows(20_000), 28, 0)
    solved = trace(Accelerated(em(x.shape[1], 600), 1e-10), some, problem.start(some, 0), lambda values: False).model
    _, local_top = optimum(problem, x, solved)
    sampled = faster(local, x, solved, local_top, 1e-9)
    drawn = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = drawn.subplots()
    lines = (
        ("EM", plain.values, top, 1),
        ("accelerated", fast.values, top, 1),
        ("sample and local steps", sampled.values, local_top, 2),
    )
    for name, values, optimum_, first in lines:
        gaps = np.maximum(optimum_ - np.maximum.accumulate(values), 1e-9)
        axes.semilogy(np.arange(first, first + len(gaps)), gaps, marker=".", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("passes")
    axes.set_ylabel("gap of the mean log-likelihood")
    axes.grid(alpha=0.3)
    axes.legend()
    drawn.savefig(to)
