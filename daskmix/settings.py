"""Dask's settings for clusters that work for hours, while machines come and go."""

from __future__ import annotations

from typing import Any

# Of processes that a nanny has started; one that serves the user's own must hear him.
DEAF = (
    "import multiprocessing, signal, threading; "
    "multiprocessing.parent_process() and threading.current_thread() is threading.main_thread() "
    "and signal.signal(signal.SIGINT, signal.SIG_IGN)"
)


def cluster_config() -> dict[str, Any]:
    """Settings of Dask for long jobs, to be set before a cluster is made.

    A fit survives without them too: a pass whose answer is lost is submitted again. With them less is lost. They are
    read by scheduler, workers and client where each starts; for those of other machines write them to a file of
    `~/.config/dask`, or into the environment (`DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=30`).

    Returns
    -------
    dict of str to value
        - `allowed-failures` is 30: a worker that is taken away counts as a failure of every task it held, and with 3,
          the default, that of a few spot nodes fails a task (`KilledWorker`). A chunk that does kill its workers, by
          its size, is still told, after as many.
        - `no-workers-timeout` is off: tasks wait for workers, and the fit tells who is missing (`Run(stall=...)`).
        - `worker-ttl` is 3 minutes instead of 5: what hangs is given up, and its work done elsewhere. Passes do not
          keep a worker from saying that it lives.
        - `timeouts.tcp` is 3 minutes instead of 30 s: connections outlive a link that is cut for a minute. After them
          workers would leave, and the client would give up all it had asked for.
        - `timeouts.connect` is 60 s instead of 30: as long the client tries to reach a scheduler that is started again.
          `Client(address, timeout=900)` tries longer; for workers it would also be the time that they wait for one that
          is no more.
        - `memory.pause` is off: a worker that pauses and cannot free its memory waits for ever, as when its disk is
          full. It is ended at 95 % (`memory.terminate`), and its nanny starts another.
        - `worker.preload`: workers that have a nanny take no notice of Ctrl-C. Jupyter's reaches those of a
          `LocalCluster` too, which end then and are not started again.

    Examples
    --------
    >>> import dask, daskmix
    >>> from distributed import Client, LocalCluster
    >>> with dask.config.set(daskmix.cluster_config()):
    ...     with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
    ...         with Client(cluster) as client:  # fits go here
    ...             cluster.scheduler.allowed_failures
    30
    """
    return {
        "distributed.scheduler.allowed-failures": 30,
        "distributed.scheduler.no-workers-timeout": None,
        "distributed.scheduler.worker-ttl": "3 minutes",
        "distributed.comm.timeouts.tcp": "3 minutes",
        "distributed.comm.timeouts.connect": "60s",
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
        "distributed.worker.preload": [DEAF],
    }
