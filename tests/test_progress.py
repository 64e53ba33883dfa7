"""How far a fit is: every face tells the same, changes no bit, costs next to nothing, and never stops a fit."""

import io
import json
import os
import re
import subprocess
import sys
import time
import warnings
import xml.etree.ElementTree as ET
from contextlib import nullcontext
from pathlib import Path

import dask
import dask.array as da
import nbformat
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client, LocalCluster
from jupyter_client import KernelManager
from nbclient import NotebookClient

from daskmix import GaussianMixture, KMeans, Run, progress, select
from daskmix.cli import main
from daskmix.engines.cluster import Seen
from daskmix.engines.local import Local
from daskmix.errors import ProgressWarning
from daskmix.passes import Going
from daskmix.progress import Progress
from daskmix.progress.card import as_html, as_text, sparkline
from daskmix.progress.faces import EventLog, Face, Json, Log, Notebook, Terminal, plain
from daskmix.progress.view import DONE, FAILED, INTERRUPTED, View, facts, time_in_words

ROOT = Path(__file__).parent.parent
CHUNKS, ROWS, D = 12, 500, 3
FIELDS = {
    "event", "time", "fit", "pass", "what", "measure", "objective", "gap", "live", "path", "pruned", "seconds",
    "chunks", "rows", "bytes", "decoded", "refused", "sample_rows", "sample_seconds", "workers", "workers_lost",
    "repeats", "commit",
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch):
    monkeypatch.setattr("daskmix.rows.SMALL", ROWS * D * 8)
    monkeypatch.setattr("daskmix.sources.zarr.RUN", 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("progress") / "x.zarr")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((CHUNKS * ROWS, D)) + 4 * rng.integers(0, 3, (CHUNKS * ROWS, 1))
    zarr.create_array(path, shape=x.shape, chunks=(ROWS, D), dtype=float)[:] = x
    return path


class Witness(Face):
    """Remembers what it is told."""

    def __init__(self):
        self.shown, self.records, self.ends = [], [], []

    def show(self, view):
        self.shown.append(view)

    def passed(self, view, record):
        self.records.append(record)

    def ended(self, view):
        self.ends.append(view)


class Broken(Face):
    """Cannot show anything."""

    def __init__(self, where):
        self.where, self.closed = where, 0

    def fail(self, *told):
        raise RuntimeError("no such screen at s3://user:secret@bucket/x")

    def __getattribute__(self, name):
        if name in ("show", "passed", "ended") and name == self.where:
            return self.fail
        return super().__getattribute__(name)

    def close(self):
        self.closed += 1


class Handle:
    """What `display` gives."""

    def __init__(self, card):
        self.cards = [card]

    def update(self, card):
        self.cards.append(card)


@pytest.fixture
def shown_by(monkeypatch):
    """Fits are shown by these faces alone."""

    def use(*told):
        monkeypatch.setattr("daskmix.hooks.faces_for", lambda *choice: list(told))

    return use


@pytest.fixture
def often(monkeypatch):
    """Faces are shown all that moves."""
    monkeypatch.setattr(progress, "OFTEN", 0.0)
    monkeypatch.setattr(progress, "SHARE", 1e9)


@pytest.fixture
def displayed(monkeypatch):
    """This process as a notebook: the handles of what it displays."""
    handles = []

    def display(card, display_id):
        assert display_id is True
        handles.append(Handle(card))
        return handles[-1]

    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    return handles


def bits(model):
    return [getattr(model, name).tobytes() for name in ("means_", "covariances_", "weights_")] + [model.lower_bound_]


def mixture(**options):
    return GaussianMixture(3, random_state=0, max_iter=8, **options)


def view_of(*steps, **more):
    """A view after passes with these objectives and gaps."""
    view = View("KMeans", **more)
    for i, (objective, gap) in enumerate(steps, 1):
        record = {"measure": "inertia", "objective": objective, "gap": gap, "pass": i, "what": "lloyd"}
        view = view.passed(record | {"bytes": 8 << 20, "live": 2, "seconds": 0.5}, commit=i)
    return view


def card(view):
    """The card as a tree; it must be well-formed."""
    return ET.fromstring(as_html(view))


def words(tree):
    return " ".join("".join(tree.itertext()).split())


# --- every face tells each pass once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log", "terminal", "json"])
def test_every_pass_is_one_line(name, store, capsys):
    told = []
    model = mixture(run=Run(progress=name, callbacks=(told.append,))).fit(store)
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if '"end"' not in line]
    assert said.out == ""
    assert told == model.history_
    assert len(lines) == model.n_passes_ > 3
    for number, line in enumerate(lines, 1):
        assert f'"pass": {number},' in line if name == "json" else line.startswith(f"pass {number:3d}  ")


def test_a_card_has_each_pass_once_and_stays(store, displayed, often):
    model = mixture(run=Run(progress="html")).fit(store)
    (handle,) = displayed
    views = [card.view for card in handle.cards]
    assert [view.passes for view in views] == sorted(view.passes for view in views)
    assert {view.passes for view in views} == set(range(model.n_passes_ + 1))
    assert [step.objective for step in views[-1].trail] == [record["objective"] for record in model.history_]
    assert views[-1].outcome == DONE
    assert f"done after {model.n_passes_} passes" in words(card(views[-1]))


def test_each_face_is_told_of_each_pass_and_of_the_end_once(store, shown_by):
    witness = Witness()
    shown_by(witness)
    model = mixture().fit(store)
    assert witness.records == model.history_
    assert [view.outcome for view in witness.ends] == [DONE]


def test_models_that_share_passes_are_one_fit(store, shown_by):
    witness = Witness()
    shown_by(witness)
    found = select(store, n_components=[1, 2], covariance_type="diag", n_init=1, random_state=0, max_iter=4)
    assert witness.records == found.history_
    assert len(witness.ends) == 1


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_lines_of_json_hold_what_is_documented(store, tmp_path, capsys):
    model = mixture(run=Run(progress="json", checkpoint=str(tmp_path / "c"))).fit(store)
    *passes, end = map(json.loads, capsys.readouterr().err.splitlines())
    assert all(set(told) >= FIELDS for told in passes)
    assert set(passes[0]) - FIELDS == {"task_bytes", "worker_bytes", "fingerprint"}
    for told, record in zip(passes, model.history_, strict=True):
        assert {name: told[name] for name in record} == plain(record)
        assert told["commit"] > 0
        assert told["workers"] is None
    assert (end["event"], end["outcome"], end["passes"], end["fit"]) == (
        "end",
        "done",
        model.n_passes_,
        "GaussianMixture",
    )
    assert all(name in Run.__doc__ for name in FIELDS)


def test_what_json_cannot_say_is_null():
    odd = {"a": np.nan, "b": (np.inf, np.float32(0.5)), "c": np.int64(3), 4: None}
    assert json.loads(json.dumps(plain(odd), allow_nan=False)) == {"a": None, "b": [None, 0.5], "c": 3, "4": None}


def test_the_command_line_tells_as_it_is_told(store, tmp_path):
    fit = ["fit", store, "--model", "kmeans", "-k", "2", "--random-state", "0", "--out"]
    for choice in ("json", "log", "auto", "none"):
        result = CliRunner().invoke(main, [*fit, str(tmp_path / choice), "--progress", choice])
        lines = result.stderr.splitlines()
        assert result.exit_code == 0
        if choice == "json":
            assert [json.loads(line)["event"] for line in lines] == ["pass"] * (len(lines) - 1) + ["end"]
        else:
            assert any(line.startswith("pass ") for line in lines) == (choice != "none")
    quiet = CliRunner().invoke(main, [*fit, str(tmp_path / "quiet"), "--progress", "json", "--quiet"])
    assert quiet.stderr == ""


# --- the card ---------------------------------------------------------------------------------------------------------


def test_a_card_escapes_what_it_is_told():
    evil = '<script>alert("1")</script>&'
    view = View(evil, outcome=FAILED, why=evil, what=evil, commit=3, place=evil, going=Going(1, 2))
    for made in (view, View(evil, what=evil, going=None)):
        html = as_html(made)
        assert "<script" not in html
        assert evil in words(ET.fromstring(html))


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(going=Going(0, 0)),
        View(
            going=Going(3, 9, workers=2, lost=1, repeats=1),
            pass_began=1.0,
            now=4.0,
            nbytes=9_000_000,
            workers=2,
            lost=1,
        ),
        view_of((3.0, None), (2.0, 0.5), (1.5, -1e-9), (1.5, 0.0)),
        view_of((np.inf, np.nan), (None, None)),
        view_of((1.0, 1.0), (1.0, 1.0), outcome=INTERRUPTED),
    ],
    ids=["new", "empty", "cluster", "course", "unknown", "flat"],
)
def test_a_card_is_well_formed_and_needs_nothing(view):
    tree, html = card(view), as_html(view)
    assert {element.tag for element in tree.iter()} <= {"div", "span", "strong", "svg", "title", "polyline"}
    assert not re.search(r"https?:|url\(|javascript|\bon\w+=|<style|\bid=", html)
    assert tree.get("role") == "group"
    assert tree.get("aria-label").startswith(view.title)
    assert all(element.get("role") == "img" and element.get("aria-label") for element in tree.iter("svg"))
    # Colours of the text, or grey that lets it through: legible on light and on dark.
    assert not re.search(r"#[0-9a-fA-F]{3}|\b(black|white)\b", html)
    assert "nan" not in html
    assert as_text(view).startswith(view.title)


def test_a_card_says_how_far_the_pass_is():
    view = View(
        "KMeans", what="lloyd", going=Going(3, 9, workers=2), pass_began=1.0, now=4.0, nbytes=9_000_000, workers=2
    )
    (bar,) = [element for element in card(view).iter() if element.get("role") == "progressbar"]
    assert [bar.get(f"aria-value{name}") for name in ("min", "now", "max")] == ["0", "3", "9"]
    assert facts(view)["parts"] == "3 of 9"
    assert facts(view)["speed"] == "1 MB/s"
    assert facts(view)["pass done in"] == "0:06"


def test_curves_are_of_passes_that_measure_the_same():
    told = {"objective": 7.0, "gap": None, "bytes": 1, "live": 1, "seconds": 1.0}
    view = View().passed({**told, "measure": "cost", "pass": 1, "what": "seeding"}, None)
    for i, gap in enumerate((0.1, 0.0, np.nan), 2):
        view = view.passed(
            {**told, "measure": "inertia", "objective": 9.0 - i, "gap": gap, "pass": i, "what": "x"}, None
        )
    assert view.course() == ([7.0, 6.0, 5.0], [0.1])
    assert "from 7 to 5" in sparkline(view.course()[0], "inertia")


def test_a_fit_of_any_length_has_a_small_card():
    view = view_of(*[(1 / i, 1 / i) for i in range(1, 3000)])
    assert len(as_html(view)) < 20_000
    assert "done" not in as_text(view)


@pytest.mark.parametrize(("seconds", "said"), [(None, ""), (0.2, "0:01"), (61, "1:01"), (3723, "1:02:03")])
def test_times_are_told_as_clocks_do(seconds, said):
    assert time_in_words(seconds) == said


# --- how it ended -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "outcome"), [(KeyboardInterrupt(), INTERRUPTED), (ValueError("no <luck>"), FAILED), (None, DONE)]
)
def test_the_last_thing_shown_is_how_it_ended(store, displayed, raised, outcome):
    def call(record):
        if raised is not None and record["pass"] == 3:
            raise raised

    with nullcontext() if raised is None else pytest.raises(type(raised)):
        mixture(run=Run(progress="html", callbacks=(call,))).fit(store)
    last = displayed[0].cards[-1]
    assert last.view.outcome == outcome
    assert outcome in words(ET.fromstring(last._repr_mimebundle_()["text/html"]))
    assert last._repr_mimebundle_()["text/plain"].startswith(f"GaussianMixture, {outcome} after ")
    assert ("no <luck>" in words(card(last.view))) == (outcome == FAILED)


# --- nothing depends on it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True], ids=["", "warnings are errors"])
@pytest.mark.parametrize("where", ["show", "passed", "ended"])
def test_a_face_that_raises_is_switched_off_and_the_bits_are_the_same(where, strict, store, shown_by, often):
    quiet = bits(mixture().fit(store))
    broken, witness = Broken(where), Witness()
    shown_by(broken, witness)
    with warnings.catch_warnings(record=not strict) as caught:
        warnings.simplefilter("error" if strict else "always", ProgressWarning)
        model = mixture().fit(store)
    assert bits(model) == quiet
    assert witness.records == model.history_
    assert (broken.closed, len(witness.ends)) == (1, 1)
    if not strict:
        (told,) = [w.message for w in caught if issubclass(w.category, ProgressWarning)]
        assert "Broken failed (RuntimeError: no such screen at s3://bucket/x)" in str(told)


@pytest.mark.parametrize("name", ["html", "terminal", "json", "log", False])
def test_no_choice_changes_a_bit(name, store, displayed, often, capsys):
    assert bits(mixture(run=Run(progress=name), verbose=1).fit(store)) == bits(mixture().fit(store))


def test_a_closed_stderr_is_no_matter(store, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    with pytest.warns(ProgressWarning, match="Json failed"):
        mixture(run=Run(progress="json")).fit(store)


class Slow(Face):
    """Takes its time."""

    def __init__(self, seconds):
        self.now, self.seconds, self.spent = 0.0, seconds, 0.0

    def show(self, view):
        self.now += self.seconds
        self.spent += self.seconds


@pytest.mark.parametrize("seconds", [1e-5, 2e-3, 0.3])
def test_what_is_shown_takes_a_hundredth_of_the_time_at_most(seconds):
    slow = Slow(seconds)
    told = Progress([slow], clock=lambda: slow.now)
    told.stage("em", 0)  # the first is free
    first = slow.spent
    for _ in range(20):
        for done in range(501):
            slow.now += 0.02
            told.going(Going(done, 500))
        told.stage("em", 0)
    assert slow.spent - first <= 0.01 * slow.now + seconds
    assert slow.spent > 2 * seconds


def test_what_faces_need_is_imported_where_they_are_shown():
    code = "import sys, daskmix.hooks; print([m for m in ('rich', 'IPython', 'distributed') if m in sys.modules])"
    before = "import sys, dask.array, daskmix.sources.zarr, daskmix.engines.dask; print('distributed' in sys.modules)"
    ran = [
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True) for c in (code, before)
    ]
    assert not {"rich", "IPython"} & set(re.findall(r"\w+", ran[0].stdout))
    assert ("distributed" in ran[0].stdout) <= ("True" in ran[1].stdout)


# --- what engines tell ------------------------------------------------------------------------------------------------


def parts_of(witness):
    """The parts done of each pass, as they were shown."""
    found = {}
    for view in witness.shown:
        if view.going is not None:
            found.setdefault(view.passes, []).append(view.going)
    return found


@pytest.mark.parametrize("where", ["threads", "synchronous", "memory", "local"])
def test_parts_go_from_none_to_all(where, store, shown_by, often, monkeypatch):
    witness = Witness()
    shown_by(witness)
    if where == "local":
        monkeypatch.setattr("daskmix.fitting.engine_for", lambda rows, *a: Local(onlooker=a[-1] if a else print))
        monkeypatch.setattr("daskmix.fitting.Fit.on_sample", lambda self, *a: pytest.fail("no sample is asked for"))
        model = KMeans(2, init=np.array([[0.0] * D, [4.0] * D]), n_init=1, random_state=0, max_iter=3)
    else:
        model = mixture()
    with dask.config.set(scheduler=where if where in ("threads", "synchronous") else None):
        model.fit(zarr.open_array(store)[:] if where == "memory" else store)
    parts = parts_of(witness)
    assert len(parts) == model.n_passes_
    for seen in parts.values():
        total = seen[0].total
        assert {going.total for going in seen} == {total}
        assert [going.done for going in seen[: total + 1]] == list(range(total + 1))
        assert seen[-1].done == total
        assert seen[-1].workers is None


def test_fits_beside_each_other_are_told_apart(store):
    """Dask tells callbacks of the tasks of all threads."""
    seen = []
    other = da.ones((40, 2), chunks=(4, 2))

    class Nosy(Face):
        def passed(self, view, record):
            seen.append(view)
            other.sum().compute()

    told = Progress([Nosy()])
    from daskmix.engines.dask import counted

    with counted({("daskmix-read-a", 0): 1}, 1, told.going):
        KMeans(2, random_state=0, max_iter=2).fit(store)
        other.sum().compute()
        assert told.view.going == Going(0, 1)
    assert told.view.going == Going(1, 1)


@pytest.fixture(scope="module")
def cluster():
    with (
        LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_what_a_cluster_lost_is_counted_through_all_passes():
    told = []
    seen = Seen(told.append)
    seen.begin(8, frozenset("ab"))
    seen.look(5, frozenset("ab"))
    seen.look(0, frozenset("ac"))  # what is done and merged is forgotten; b died, and c came for it
    seen.again()
    seen.begin(8, frozenset("c"))
    seen.end()
    seen.begin(8, frozenset("cd"))
    assert [(t.done, t.workers, t.lost, t.repeats) for t in told] == [
        (0, 2, 0, 0), (5, 2, 0, 0), (5, 2, 1, 0), (0, 1, 2, 1), (8, 1, 2, 1), (0, 2, 2, 1),
    ]  # fmt: skip
    assert facts(View(lost=2, repeats=1))["workers lost"] == "2"


def slowly(block):
    time.sleep(0.1)
    return block


def test_parts_on_a_cluster_go_from_none_to_all_and_passes_are_events(store, cluster, shown_by, often, monkeypatch):
    monkeypatch.setattr("daskmix.engines.patience.LOOKS", 600)  # one every tenth of a second
    witness = Witness()
    shown_by(EventLog(), witness)
    x = da.from_zarr(store).map_blocks(slowly)
    model = mixture(run=Run(cache="off", stall=60)).fit(x)
    parts = parts_of(witness)
    for seen in parts.values():
        done = [going.done for going in seen]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, seen[0].total)
        assert {going.workers for going in seen} == {2}
    assert any(0 < going.done < going.total for going in parts[0])
    events = [told for _, told in cluster.get_events("daskmix")]
    assert [told["pass"] for told in events] == [record["pass"] for record in model.history_]
    assert all(set(told) >= FIELDS and told["workers"] == 2 for told in events)


def test_events_need_no_face_and_hold_no_credentials(store, cluster, tmp_path):
    before = len(cluster.get_events("daskmix"))
    run = Run(progress=False, checkpoint=str(tmp_path / "c"))
    model = mixture(run=run).fit(store)
    events = [told for _, told in cluster.get_events("daskmix")][before:]
    assert len(events) == model.n_passes_
    assert str(tmp_path) not in json.dumps(events)


def test_rows_in_memory_are_no_event(store, cluster):
    before = len(cluster.get_events("daskmix"))
    mixture().fit(zarr.open_array(store)[:])
    assert len(cluster.get_events("daskmix")) == before


# --- what is chosen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "verbose", "notebook", "in_memory", "kinds"),
    [
        ("auto", False, False, False, []),
        ("auto", True, False, False, [Log]),
        ("auto", False, True, False, [Notebook]),
        ("auto", False, True, True, []),
        ("auto", True, True, True, [Notebook]),
        ("html", False, True, True, [Notebook]),
        ("html", False, False, False, [Log]),
        ("terminal", False, False, False, [Terminal]),
        ("json", False, True, False, [Json]),
        (False, True, True, False, []),
    ],
)
def test_auto_is_what_is_there(choice, verbose, notebook, in_memory, kinds, monkeypatch):
    monkeypatch.setattr(progress, "in_notebook", lambda: notebook)
    chosen = progress.faces_for(choice, verbose, in_memory)
    assert [type(face) for face in chosen] == [EventLog, *kinds]


def test_a_notebook_that_did_not_ask_shows_long_fits_only():
    quick = Notebook(delay=1.0)
    quick.show(View(now=0.9))
    quick.ended(View(now=0.9, outcome=DONE))
    assert quick._handle is None


# --- a terminal -------------------------------------------------------------------------------------------------------


def test_on_a_terminal_lines_stay_and_the_last_state_too(monkeypatch, capsys):
    from rich.console import Console

    monkeypatch.setenv("TERM", "xterm")
    terminal, said, own = Terminal(), io.StringIO(), sys.stderr
    terminal.console = Console(file=said, force_terminal=True, width=120, color_system=None, soft_wrap=True)
    view = View("KMeans", what="lloyd", going=Going(1, 4))
    record = {"measure": "inertia", "objective": 2.0, "gap": None, "pass": 1, "what": "lloyd", "rows": 8}
    record |= {"bytes": 8, "live": 1, "seconds": 1.0}
    terminal.show(view)
    terminal.passed(view, record)
    terminal.ended(view.passed(record, None))
    assert "parts 1 of 4" in said.getvalue()
    assert said.getvalue().count("8 rows in") == 1
    assert "KMeans, running" in said.getvalue().splitlines()[-2]
    assert sys.stderr is own
    assert facts(view)["pass"] == "1, lloyd"


# --- a real kernel ----------------------------------------------------------------------------------------------------

CELL = """
import time
import numpy as np
import dask.array as da
import daskmix.rows
daskmix.rows.SMALL = 4000
slow = lambda block: (time.sleep(0.05), block)[1]
x = da.from_array(np.random.default_rng(0).standard_normal((4000, 2)), chunks=(250, 2)).map_blocks(slow, dtype=float)
model = daskmix.KMeans(2, random_state=0, max_iter=4{more}, run=daskmix.Run(cache="off")).fit(x)
"""


def outputs(client, code):
    """The display messages of one cell."""
    cell, found = client.execute(code), []
    while True:
        message = client.get_iopub_msg(timeout=100)
        if message["parent_header"].get("msg_id") != cell:
            continue
        kind, content = message["msg_type"], message["content"]
        assert kind != "error", content
        if kind in ("display_data", "update_display_data", "stream"):
            found.append((kind, content))
        if content.get("execution_state") == "idle":
            return found


@pytest.fixture(scope="module")
def kernel():
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env={**os.environ, "PYTHONPATH": str(ROOT)})
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("more", [", verbose=1", ""], ids=["verbose", "long"])
def test_a_kernel_displays_one_output_that_is_updated_in_place(kernel, more):
    found = outputs(kernel, CELL.format(more=more))
    assert [kind for kind, _ in found] == ["display_data"] + ["update_display_data"] * (len(found) - 1)
    assert len({content["transient"]["display_id"] for _, content in found}) == 1
    assert len(found) > 3
    assert "KMeans, running" in found[0][1]["data"]["text/plain"]
    last = found[-1][1]["data"]
    assert words(ET.fromstring(last["text/html"])).startswith("✓ KMeans, done after ")
    parts = [re.search(r"parts (\d+) of 16", content["data"]["text/plain"]) for _, content in found]
    assert any(part and 0 < int(part[1]) < 16 for part in parts)


def test_a_kernel_shows_nothing_of_short_fits_unless_it_is_asked(kernel):
    assert not outputs(kernel, "daskmix.KMeans(2, random_state=0, max_iter=4).fit(np.asarray(x[:500]))")


def test_a_saved_notebook_keeps_the_last_state(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.format(more=", verbose=1"))])
    NotebookClient(book, timeout=100, kernel_name="python3").execute()
    (output,) = book.cells[0].outputs
    assert "done after" in output["data"]["text/html"]
