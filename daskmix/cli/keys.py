"""The keys of a job file, each also an option of the command line: the only place where they are declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from daskmix.cli.kinds import (
    Choice,
    Counts,
    Flag,
    Kind,
    Listed,
    Number,
    NumberOr,
    Place,
    Several,
    Size,
    Text,
    Whole,
    Word,
)

# As in estimators/mixture_start.py, whose import takes longer than any help text may.
STRUCTURES = (
    "full", "tied", "diag", "spherical",
    "EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV",
)  # fmt: skip
MODELS = ("kmeans", "bisecting", "gmm", "bayesian")
SEARCHED = ("kmeans", "gmm")
MIXTURES = ("gmm", "bayesian")


@dataclass(frozen=True)
class Key:
    """One thing that may be said: a key of a job file, and an option."""

    name: str
    kind: Kind
    help: str
    to: str = ""  # the parameter that takes it, where that has another name
    option: str = ""  # on the command line, where it is not --name
    required: bool = False
    default: Any = None  # or those of each kind of model, where they differ
    by_default: str = ""  # in words, where the value says little
    models: tuple[str, ...] = MODELS  # that have it

    @property
    def parameter(self) -> str:
        return self.to or self.name

    @property
    def spelling(self) -> str:
        return self.option or "--" + self.name.replace("_", "-")

    @property
    def told(self) -> str:
        """What it is for, and what holds where nothing is said."""
        default = self._default()
        return self.help if not default else f"{self.help} By default {default}."

    def _default(self) -> str:
        if self.by_default or self.default is None or self.default is False:
            return self.by_default
        if not isinstance(self.default, Mapping):
            return _shown(self.default)
        having: dict[str, list[str]] = {}
        for model, value in self.default.items():
            having.setdefault(_shown(value), []).append(model)
        return " or ".join(f"{value} ({', '.join(models)})" for value, models in having.items())


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


STORE = Key("store", Place("INPUT"), "A path or URL of a Zarr store: the rows.", required=True)
VARIABLES = Key(
    "variables", Several(Text()), option="--variable", by_default="all variables",
    help="Variables of the store that are features, or hold features along the dims that are not sampled.",
)  # fmt: skip
SAMPLE_DIMS = Key(
    "sample_dims", Listed(Text()), help="Dims whose points are the rows, e.g. time, lat and lon.",
    by_default="those that all variables share, of a single one all but the last",
)  # fmt: skip
WEIGHTS = Key("weights", Text(), "A variable over some of the sampled dims: how often each row counts.")
MISSING = Key("missing", Choice(("raise", "drop", "em")), "What to do about rows with NaN.", default="raise")
ACCEPT = Key(
    "accept_missing_chunks", Flag(), default=False,
    help="Chunks that the store lacks are read as its fill value, as in stores that were written without empty chunks.",
)  # fmt: skip
INPUT = (STORE, VARIABLES, SAMPLE_DIMS, WEIGHTS, MISSING, ACCEPT)

HOW_LONG = (
    Key(
        "max_iter", Whole(1), "Most iterations.",
        default={"kmeans": 300, "bisecting": 300, "gmm": 100, "bayesian": 100},
    ),
    Key(
        "tol", Number(), "When the textbook's iteration stops; 0 goes on to a fixed point.",
        default={"kmeans": 1e-4, "bisecting": 1e-4, "gmm": 1e-3, "bayesian": 1e-5},
    ),
    Key("gap_tol", Number(), "When an accelerated fit stops.", default=1e-5, models=("kmeans", "gmm")),
    Key("sample_size", Whole(1), "Rows of the sample.", default="auto", by_default="at most 64 MiB"),
    Key(
        "max_passes", Whole(2), "Most reads of every chunk.", by_default="no limit",
        models=("kmeans", "gmm", "bayesian"),
    ),
    Key("reg_covar", NumberOr("auto"), "Smoothing of a mixture.", default="auto", models=MIXTURES),
    Key("random_state", Whole(0, 2**32 - 1), "Seed, to get the same model again.", by_default="drawn"),
)  # fmt: skip
COVARIANCE_TYPE = Key(
    "covariance_type", Choice((*STRUCTURES, "fixed")), default="full", models=MIXTURES,
    help="Shape of a mixture's covariances, or mclust's name of it. fixed is the covariance that is given. "
    "Of a Bayesian mixture full, tied, diag or spherical.",
)  # fmt: skip
MODEL = (
    Key(
        "kind", Choice(MODELS), option="--model", required=True,
        help="K-means, bisecting K-means, Gaussian mixture, or a Bayesian one, of which k is the most components.",
    ),
    Key("k", Whole(1), "Number of clusters or components.", option="-k", required=True),
    COVARIANCE_TYPE,
    Key(
        "covariance", Number(above=True), to="covariance_init", models=("gmm",),
        help="With fixed covariances: the variance of every feature in every component, which stays.",
    ),
    Key("equal_weights", Flag(), "All components of a mixture weigh the same.", default=False, models=("gmm",)),
    Key(
        "prior", Choice(("default",)), models=("gmm",),
        help="A prior of means and covariances: mclust's default, against components without a covariance.",
    ),
    Key(
        "algorithm", Choice(("em", "cem", "sem")), default="em", models=("gmm",),
        help="How a mixture shares rows out: by probability (em), each to the likeliest (cem), or drawn (sem).",
    ),
    Key(
        "temperature", Listed(Number()), default=1.0, models=("gmm",),
        help="Of the first iterations of a mixture; the last goes on. 8, 4, 2, 1 is deterministic annealing.",
    ),
    Key("noise", Flag(), "Rows of a mixture may belong to nothing: label -1.", default=False, models=("gmm",)),
    Key(
        "nu", NumberOr("estimate"), models=("gmm",),
        help="Components of a mixture are Student's t with so many degrees of freedom, so that outliers count less.",
    ),
    Key(
        "min_weight", Number(below=1), default=0.0, models=("gmm",),
        help="The least share of the rows that a component of a mixture may have; with on_collapse.",
    ),
    Key(
        "on_collapse", Choice(("keep", "restart", "drop", "raise")), default="keep", models=("gmm",),
        help="What becomes of a component with fewer rows, or without a covariance.",
    ),
    Key(
        "weight_concentration_prior", Number(above=True), by_default="1 / k", models=("bayesian",),
        help="Of a Bayesian mixture: the smaller, the fewer components have weight.",
    ),
    Key(
        "weight_concentration_prior_type", Choice(("dirichlet_process", "dirichlet_distribution")),
        default="dirichlet_process", models=("bayesian",),
        help="Of a Bayesian mixture: the first components take what they can (dirichlet_process), or all are alike.",
    ),
    Key(
        "bisecting_strategy", Choice(("biggest_inertia", "largest_cluster")), default="biggest_inertia",
        models=("bisecting",), help="Which cluster bisecting K-means splits next.",
    ),
    Key(
        "metric", Choice(("euclidean", "cosine")), default="euclidean", models=("kmeans",),
        help="Of K-means: cosine clusters directions.",
    ),
    Key(
        "init", Word(("auto", "k-means++", "random", "k-means||", "kmeans", "random_from_data")), default="auto",
        help="Where to start: auto, k-means++, random; k-means|| (kmeans); kmeans, random_from_data (mixtures).",
        models=("kmeans", "gmm", "bayesian"),
    ),
    Key(
        "n_init", Whole(1), "Number of starts, of which the best is kept.",
        default={"kmeans": "auto", "bisecting": 1, "gmm": 1, "bayesian": 1},
    ),
    *HOW_LONG,
    Key(
        "accelerate", Choice(("auto", "none")), default="auto", models=("kmeans", "gmm"),
        help="auto saves passes where there are more rows than the sample holds; none is the textbook's iteration.",
    ),
)  # fmt: skip


def _searched(key: Key) -> Key:
    """Where only some kinds of models can be."""
    default = key.default
    if isinstance(default, Mapping):
        default = {model: value for model, value in default.items() if model in SEARCHED}
    return replace(key, models=tuple(model for model in key.models if model in SEARCHED), default=default)


COVARIANCE_TYPES = Key(
    "covariance_type", Several(Choice(STRUCTURES)), default=("full", "diag", "tied"), models=("gmm",),
    help="Shapes of covariances to try, or mclust's names of them.",
)  # fmt: skip
SEARCH = (
    Key("kind", Choice(SEARCHED), "K-means or mixture.", option="--model", required=True, models=SEARCHED),
    Key("k", Counts(), "Numbers to try, as 2-12 or 2,4,8.", option="-k", required=True, models=SEARCHED),
    COVARIANCE_TYPES,
    Key("n_init", Whole(1), "Starts of each model.", default=3, models=SEARCHED),
    Key(
        "criterion", Choice(("bic", "aic", "icl", "calinski-harabasz", "davies-bouldin", "silhouette")),
        help="What to choose by: bic, aic, icl (gmm); calinski-harabasz, davies-bouldin, silhouette (kmeans).",
        default={"gmm": "bic", "kmeans": "calinski-harabasz"}, models=SEARCHED,
    ),
    *map(_searched, HOW_LONG),
)  # fmt: skip

PROBABILITIES = Key(
    "probabilities", Flag(), "Write each component's probability too (mixtures), beside the labels.", default=False,
    models=MIXTURES,
)  # fmt: skip
UNCERTAINTY = Key(
    "uncertainty", Flag(), "Write one minus the largest probability too (mixtures), beside the labels.", default=False,
    models=MIXTURES,
)  # fmt: skip
OVERWRITE = Key("overwrite", Flag(), "Replace output stores that exist.", default=False)
OUT = Key("model", Place("STORE"), "Where to write the model.", to="out", option="--out", required=True)
LABELS = Key("labels", Place("STORE"), "Where to write the label of each row.", to="labels_out", option="--labels-out")
OUTPUT = (OUT, LABELS, PROBABILITIES, UNCERTAINTY, OVERWRITE)

CHECKPOINT = (
    Key(
        "store", Place("STORE"), to="checkpoint", option="--checkpoint", required=True,
        help="Where the states of the fit are kept after each pass: the same command goes on from there.",
    ),
    Key(
        "every", Number(metavar="SECONDS"), to="checkpoint_every", option="--checkpoint-every", default=0.0,
        help="Least seconds between two of them; 0 for one after each pass.",
    ),
)  # fmt: skip

SCHEDULER = Key(
    "scheduler", Place("ADDRESS"), "A Dask scheduler that does the work, e.g. tcp://127.0.0.1:8786.",
    by_default="the threads of this process",
)  # fmt: skip
HOW_TO_RUN = (
    Key(
        "cache", Choice(("auto", "memory", "disk", "off")), default="auto",
        help="Where decoded chunks stay between passes: in memory while there is room, then in scratch (auto), in one "
        "of the two, or nowhere.",
    ),
    Key(
        "cache_limit", Size(), "Most that one process keeps, e.g. 2GiB.",
        by_default="30 % of its memory, half of the free disk",
    ),
    Key(
        "scratch", Place("DIR"), "A folder on a local disk for scratch, on a cluster on each worker.",
        by_default="the worker's local-directory, or Dask's temporary-directory",
    ),
    Key(
        "retries", Whole(0), default=3,
        help="How often a pass is submitted again that workers, the scheduler or the connection were lost in.",
    ),
    Key(
        "stall", Number(above=True, metavar="SECONDS"), default=600.0,
        help="How many seconds no part of a pass may be finished before what is seen is told.",
    ),
    # Nobody looks at a batch job, so that waiting is not the default here.
    Key(
        "on_stall", Choice(("wait", "raise")), default="raise",
        help="Whether to wait on then, or to end with exit code 75.",
    ),
    Key(
        "device", Choice(("cuda",)), by_default="where the rows are",
        help="Where the passes of a fit compute; cuda moves the rows to the GPU of the worker that reads them.",
    ),
)  # fmt: skip
RESOURCES = (SCHEDULER, *HOW_TO_RUN)
RUN = (ACCEPT, *CHECKPOINT, *HOW_TO_RUN)  # what `Run` has

TABLES: Mapping[str, tuple[Key, ...]] = {
    "input": INPUT,
    "model": MODEL,
    "search": SEARCH,
    "output": OUTPUT,
    "checkpoint": CHECKPOINT,
    "resources": RESOURCES,
}
# What Python's words are here: table, key and value.
PYTHON = {
    'missing="drop"': ("input", "missing", "drop"),
    "run=Run(scratch=...)": ("resources", "scratch", ""),
    "run=Run(accept_missing_chunks=True)": ("input", "accept_missing_chunks", ""),
    "Run(retries=...)": ("resources", "retries", ""),
    "Run(stall=...)": ("resources", "stall", ""),
    'Run(on_stall="raise")': ("resources", "on_stall", "raise"),
}


def as_options() -> dict[str, str]:
    """Python's words, and the options that mean the same."""
    return {word: f"{key.spelling} {value}".rstrip() for word, _, key, value in _python()}


def as_keys() -> dict[str, str]:
    """Python's words, and the keys of a job file that mean the same."""
    return {word: f"{table}.{key.name}" + (f' = "{value}"' if value else "") for word, table, key, value in _python()}


def _python() -> Iterator[tuple[str, str, Key, str]]:
    for word, (table, name, value) in PYTHON.items():
        yield word, table, next(key for key in TABLES[table] if key.name == name), value
