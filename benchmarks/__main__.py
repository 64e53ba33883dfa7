"""Print two tables: seconds per iteration, and reads per fit."""

import argparse

from benchmarks import iterations, reads
from benchmarks.iterations import Size
from benchmarks.report import machine


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows for K-means")
    parser.add_argument("--features", type=int, default=32, help="features for K-means")
    parser.add_argument("--chunks", type=int, default=40, help="chunks of rows")
    parser.add_argument("--iterations", type=int, default=20, help="iterations of K-means that are timed at a time")
    parser.add_argument("--em-rows", type=int, default=200_000, help="rows for the mixture")
    parser.add_argument("--em-features", type=int, default=16, help="features for the mixture")
    parser.add_argument("--em-iterations", type=int, default=5, help="iterations of EM that are timed at a time")
    parser.add_argument("--clusters", type=int, default=16, help="clusters and components")
    parser.add_argument("--repeats", type=int, default=5, help="measurements, of which the median is shown")
    parser.add_argument("--threads", type=int, default=2, help="threads of each contender")
    parser.add_argument(
        "--read-iterations", type=int, default=10, help="iterations of the fits whose reads are counted"
    )
    return parser.parse_args()


def main() -> None:
    given = options()
    kmeans = Size(given.rows, given.features, given.clusters, given.chunks, "float32", given.iterations)
    mixture = Size(given.em_rows, given.em_features, given.clusters, given.chunks, "float64", given.em_iterations)
    print(machine(given.threads), end="\n\n", flush=True)
    print(iterations.report(kmeans, mixture, given.repeats, given.threads), end="\n\n", flush=True)
    print(reads.report(given.clusters, given.read_iterations, given.chunks, given.threads))


if __name__ == "__main__":
    main()
