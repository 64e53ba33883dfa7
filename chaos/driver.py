"""What the faults hit: three models fitted to a store in one command, which writes the bits of what it found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

# Of a record of a pass, what must not depend on what went wrong meanwhile.
TOLD = ("pass", "what", "measure", "objective", "live", "path", "rows", "chunks", "bytes")
LEARNT = (
    "cluster_centers_", "cluster_weights_", "inertia_", "weights_", "means_", "covariances_", "precisions_cholesky_",
    "lower_bound_", "n_iter_", "n_passes_", "converged_",
)  # fmt: skip


def models(iterations: int, run: Mapping[str, Any], checkpoint: str | None) -> dict[str, Any]:
    """The three, none of which ends before its last iteration."""
    from daskmix import GaussianMixture, KMeans, Run

    def options(name: str) -> dict[str, Any]:
        kept = {} if checkpoint is None else {"checkpoint": f"{checkpoint}/{name}"}
        told = Run(progress=False, callbacks=(lambda record: print(name, record["pass"], flush=True),), **run, **kept)
        return {"max_iter": iterations, "tol": 0, "accelerate": "none", "random_state": 0, "run": told}

    return {
        "kmeans": KMeans(4, **options("kmeans")),
        "full": GaussianMixture(4, n_init=2, **options("full")),
        "diag": GaussianMixture(4, covariance_type="diag", n_init=2, **options("diag")),
    }


def bits(model: Any, labels: Any) -> dict[str, str]:
    """A digest for each thing that was found."""
    import numpy as np

    found = {name: np.asarray(getattr(model, name)) for name in LEARNT if hasattr(model, name)}
    if labels is not None:
        found["labels"] = np.asarray(labels)
    digests = {name: f"{a.dtype} {a.shape} {sha256(a.tobytes()).hexdigest()}" for name, a in found.items()}
    told = [[_exact(record[name]) for name in TOLD] for record in model.history_]
    return digests | {"history": json.dumps(told)}


def _exact(value: Any) -> Any:
    return value.hex() if isinstance(value, float) else value


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("result", type=Path)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--scheduler", help="address of a cluster; the threads of this process by default")
    parser.add_argument("--local-cluster", type=int, metavar="WORKERS")
    parser.add_argument("--checkpoint")
    parser.add_argument("--until", type=Path, metavar="FILE", help="fit all three again until there is this file")
    parser.add_argument("--without-labels", action="store_true")
    parser.add_argument("--run", type=json.loads, default={}, metavar="JSON", help="other fields of Run")
    return parser.parse_args(given)


def cluster(asked: argparse.Namespace) -> Any:
    from distributed import Client, LocalCluster

    if asked.scheduler:
        return Client(asked.scheduler)
    if asked.local_cluster:
        workers = LocalCluster(n_workers=asked.local_cluster, threads_per_worker=1, dashboard_address="127.0.0.1:0")
        return Client(workers)
    return nullcontext()


def main() -> None:
    asked = arguments()
    rounds: list[Any] = []
    with cluster(asked):
        while not rounds or (asked.until is not None and not asked.until.exists()):
            found = {}
            for name, model in models(asked.iterations, asked.run, asked.checkpoint).items():
                model.fit(asked.store)
                found[name] = bits(model, None if asked.without_labels else model.predict(asked.store))
            rounds.append(found)
    asked.result.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()
