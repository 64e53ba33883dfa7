"""Spark's K-means and mixture, on threads of this machine."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.cases import Case
from benchmarks.peers import PeerMissingError, peer

SETTINGS = {
    "spark.driver.memory": "8g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


@dataclass(frozen=True)
class SparkFit:
    """What the timing asks of an estimator."""

    n_iter_: int


class Spark:
    """A session on so many threads, begun when first asked for; `folder` is for the rows on their way to it."""

    def __init__(self, threads: int, folder: Path) -> None:
        self.threads = threads
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: type[BaseException] | BaseException | TracebackType | None) -> None:
        if "session" in self.__dict__:
            self.session.stop()

    @cached_property
    def session(self) -> Any:
        """The session.

        Raises
        ------
        PeerMissingError
            pyspark cannot be imported, or finds no Java to run on.
        """
        builder = peer("pyspark.sql", "SparkSession").builder.master(f"local[{self.threads}]")
        try:
            session = builder.config(map=SETTINGS).getOrCreate()
        except peer("pyspark.errors", "PySparkRuntimeError") as error:
            raise PeerMissingError(f"does not start: {error}") from error
        session.sparkContext.setLogLevel("ERROR")
        return session

    def rows(self, x: np.ndarray, name: str) -> Any:
        """The rows as a DataFrame of vectors, read from Parquet: its fits read it once and keep it as they see fit."""
        path = self.folder / name
        session = self.session
        if not path.exists():
            path.mkdir()
            for number, some in enumerate(np.array_split(x, self.threads)):
                _write(some, path / f"{number}.parquet")
        to_vector = peer("pyspark.ml.functions", "array_to_vector")
        return session.read.parquet(str(path)).select(to_vector("x").alias("features"))

    def fit(self, case: Case, x: np.ndarray, iterations: int) -> SparkFit:
        """So many iterations from rows drawn by Spark: its interface takes no explicit start."""
        rows = self.rows(x, str(case))
        options = {"k": case.k, "maxIter": iterations, "tol": 0.0, "seed": 0}
        if case.method.covariance_type:
            model = peer("pyspark.ml.clustering", "GaussianMixture")(**options).fit(rows)
        else:
            model = peer("pyspark.ml.clustering", "KMeans")(initMode="random", **options).fit(rows)
        return SparkFit(model.summary.numIter)


def _write(x: np.ndarray, path: Path) -> None:
    arrow, write_table = peer("pyarrow", "array"), peer("pyarrow.parquet", "write_table")
    offsets = np.arange(0, x.size + 1, x.shape[1], dtype=np.int32)
    lists = peer("pyarrow", "ListArray").from_arrays(offsets, arrow(x.reshape(-1)))
    write_table(peer("pyarrow", "table")({"x": lists}), path)


def own_threads(_: int) -> AbstractContextManager[None]:
    """A session has had its threads from the start."""
    return nullcontext()
