"""Ctrl-C in a notebook: a kernel is interrupted in the middle of a fit, stops at once and has something to show."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from jupyter_client import KernelManager
from jupyter_client.blocking import BlockingKernelClient

from chaos.processes import ROOT

ON_CLUSTER = """
import dask, daskmix
from distributed import Client
dask.config.set(daskmix.cluster_config())
client = Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
"""
FIT = """
import numpy as np
from daskmix import GaussianMixture, Run
told = lambda record: print("pass", record["pass"], flush=True)
options = dict(max_iter=10_000, tol=0, accelerate="none", random_state=0)
model = GaussianMixture(4, run=Run(callbacks=(told,)), **options)
model.fit({store!r})
"""
LOOK = """
labels = np.asarray(model.predict({store!r}))
assert len(labels) == {rows} and set(labels) == {{0, 1, 2, 3}}
assert np.isfinite(model.means_).all() and np.isclose(model.weights_.sum(), 1)
assert not model.converged_ and len(model.history_) == model.n_passes_ >= 5
model.save({out!r})
"""


class Notebook:
    """A kernel, and cells run in it one after the other."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client

    def begin(self, code: str) -> str:
        return self.client.execute(code)

    def until(self, cell: str, seconds: float, printed: str | None = None) -> str:
        """What a cell said until it printed this, or until it was done; the error's name in brackets if it failed."""
        said, end = "", time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            said += content.get("text", "") + (
                f"[{content['ename']}] {content['evalue']}" if "ename" in content else ""
            )
            if content.get("execution_state") == "idle" or (printed is not None and printed in said):
                return said
        raise TimeoutError(said)

    def run(self, code: str, seconds: float = 100) -> str:
        return self.until(self.begin(code), seconds)


@pytest.fixture
def notebook(monkeypatch) -> Iterator[Notebook]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield Notebook(manager, client)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.limit(200)
@pytest.mark.parametrize("where", ["threads", "cluster"])
def test_an_interrupt_stops_a_fit_within_two_seconds_and_leaves_a_model_to_use(where, notebook, store, tmp_path):
    if where == "cluster":
        assert "[" not in notebook.run(ON_CLUSTER)
    cell = notebook.begin(FIT.format(store=store))
    notebook.until(cell, 100, printed="pass 5\n")
    began = time.monotonic()
    notebook.manager.interrupt_kernel()
    said = notebook.until(cell, 60)
    seconds = time.monotonic() - began
    assert "[KeyboardInterrupt]" in said
    assert seconds < 2
    looked = notebook.run(LOOK.format(store=store, rows=60 * 32768, out=str(tmp_path / "partial.zarr")))
    assert "[" not in looked, looked
