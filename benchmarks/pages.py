"""The page about scale: what was measured, whether the model holds, what it predicts and where that ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.costs import Costs, Job, Split, pass_seconds, workers_at_most
from benchmarks.report import Section, machine, paragraph, table
from daskmix.reduction import FAN_IN
from daskmix.rows import LARGE, MOST, SHARES, SMALL
from daskmix.sources.zarr import RUN

if TYPE_CHECKING:
    from benchmarks.simulate import Checked, Measured, Question

MIB, TB = 1 << 20, 1e12
SIZES = (1, 10, 100)  # TB
WORKERS = (10, 100, 1000)
CHUNK = 16 * MIB
WIRE = 8 / 10e9  # s per byte on a network of 10 Gbit/s
KEPT_BYTES = 1 / 5e9  # s per byte: rows that are kept are only looked at, at the speed of memory

FITTED = """\
Processor seconds of one core, which other loads on the machine hardly move; the two that are seconds on the
clock (a step, a byte that travels) are upper bounds where the machine was busy. Decoding reads a Zarr store
(zstd, chunks of 8 MiB, float32, in the page cache). The cluster is two worker processes; client and scheduler
are one process, as they are in a `LocalCluster`, so that what a task costs there is the sum of both."""

MANY = """\
A store of {chunks:,} chunks of 160 bytes that were never written, so that all read as the fill value: nothing
to decode, and what is left is what a chunk costs. The pass asks nothing, on the threaded scheduler. All
in processor seconds. Neighbours below {run} MiB together are read with one call to Zarr: with a call for each
they would cost the last line. Chunks that are kept are as many, each by itself."""

CHECKED = """\
Passes over {bundles} bundles without rows, on clusters of processes that share {cores} cores with the scheduler
(and with whatever else ran). The constants come from a cluster of two; the rest is predicted. An idle worker
takes {idle:.0%} of a core for itself. Processor seconds test the sums of the model: what was measured is {least:.1f}
to {most:.1f} times as much, and so may be what is predicted for the scheduler below. Seconds on the clock test it
only where the machine was left alone. The first pass sends the bundles and pins them; on two workers it cost
{first:.1f} times a later one, and it is not part of the model."""

PREDICTED = """\
Each worker has one thread and a core, the scheduler has its own, the network carries 10 Gbit/s to each machine
or what was measured here, whichever is slower. Chunks of 16 MiB, bundles by the rule. Decoded in each pass, as
where nothing is kept; the last column is a pass whose rows are all in the workers' memory. `wait` is for the
scheduler. All in seconds but the passes. The store must deliver what the workers decode: {wanted:.0f} GB/s of
rows for 1000 of them. No network and no disk of a store is in this table."""

BREAKS = """\
With so many workers the scheduler is as busy as they are; more of them only wait. A bundle is 8/7 of a task,
with its share of the merges, so that this number grows with the bundle and with the work on a byte, and does
not depend on the size of the data. At {schedule:.2f} ms a task the scheduler hands out {rate:,.0f} tasks in a
second."""

TASKS = """\
A bundle is clamp(total / {shares}, {small} MiB, max({large} MiB, total / {most:,})), and {fan_in} answers are
merged by a task. Below {low:.0f} GiB a pass has fewer tasks than {shares}, so that more workers than that are of no
use; above {high:.0f} GiB the number of tasks grows with the data, and so does the scheduler's share, up to {most:,}
bundles at {from_:.1f} TB. From there on bundles grow in their place; the last columns show what it would be with
bundles of {large} MiB for ever. It costs no memory, since a task holds one chunk at a time; it costs a longer last
round: at {most:,} bundles on 1000 workers the busiest has 66 where the mean is 65.5. What a lost worker repeats grows
with it, to 1.5 GB of rows at 100 TB."""

FANS = """\
A full mixture of d=128, k=64, whose answers have {answer:.1f} MB, over 10 TB on 1000 workers, by the number of
answers that a task merges. A small one makes more tasks, a large one makes the last merges longer; from
{fan_in} to 32 it matters little. The rows are kept here, so that little else is in the table. The number of
bytes on the network hardly depends on it: every answer travels about once. The model, as large as an answer,
goes to each worker once; all ask the worker that holds it, so that the last waits for all others: a tree of
copies would take 10 rounds in place of 999."""

MEMORY = """\
The program that fits holds a record of {part:.0f} bytes for every chunk and, with the scheduler beside it,
about {task:.1f} kB for every task at the height of the first pass; a bundle sends {pickled:.0f} bytes for each
chunk and {alone:.1f} kB for itself. Chunks below {run} MiB share a record, with as many neighbours as make that.
Even so small chunks break the client before anything else: rechunk a store of 100 TB to chunks of tens of MiB.
Places that are computed from the grid, not stored, would lift this; they are not built."""

SUMMARY = """\
- **Decoding is the price of a pass**, {decode_share:.0%} of it for K-means over 10 TB on 100 workers. Rows that
  are kept are worth more than any rule below.
- **First the scheduler**: with bundles of {large} MiB, K-means (d=32, k=16) keeps at most {kmeans:,.0f} workers
  busy where it decodes, {kept:,.0f} where rows are kept. The full mixture (d=16, k=16) keeps {full:,.0f} busy.
- **At 100 TB and 1000 workers** a pass is {tasks:,} tasks, {handing:,.0f} s of scheduling; if bundles did not grow
  with the data, {more_tasks:,} tasks and {longer:,.0f} s.
- **Large models on many workers** (k d^2 above a million numbers): the model goes out from one worker,
  {spread:.1f} s to 1000 workers, and the M-step on one thread takes {solve:.2f} s.
- **Small chunks**: {call:.2f} ms for each call to Zarr, on one core; {read:.2f} ms a chunk where they are so small
  that a call reads many; {kept_chunk:.3f} ms where it is kept."""


def scaling(m: Measured) -> str:
    """The page."""
    head = (
        "# Scale\n\n"
        + paragraph(
            "Written by `make bench-scaling`, in one run on a machine that others may have used at the same time: "
            "ratios count, not seconds. A pass is modelled in `benchmarks/costs.py`: the busiest of all processes sets "
            "the pace, then come the way of the model to the workers, the last merges and the M-step."
        )
        + f"\n\n{paragraph(machine(1))}"
    )
    parts = (fitted, many, checked, predicted, breaks, bundles, fans, memory)
    return "\n\n".join([head, f"## What follows\n\n{summary(m)}", *(str(part(m)) for part in parts)])


def summary(m: Measured) -> str:
    """What the tables say."""
    kmeans, full, large = m.questions
    wire = on_wire(m)
    split = pass_seconds(wire, kmeans.of(10 * TB, CHUNK), 100)
    now, without = kmeans.of(100 * TB, CHUNK), kmeans.of(100 * TB, CHUNK, LARGE)
    return SUMMARY.format(
        decode_share=split.decode / split.seconds,
        large=LARGE // MIB,
        kmeans=workers_at_most(wire, without),
        kept=workers_at_most(kept(m), without),
        full=workers_at_most(wire, full.of(100 * TB, CHUNK, LARGE)),
        tasks=now.tasks,
        handing=now.tasks * wire.schedule,
        more_tasks=without.tasks,
        longer=without.tasks * wire.schedule,
        spread=pass_seconds(wire, large.of(TB, CHUNK), 1000).spread,
        solve=large.solve,
        call=1e3 * m.many.call,
        read=1e3 * m.many.read,
        kept_chunk=1e3 * m.many.kept,
    )


def on_wire(m: Measured) -> Costs:
    """The constants with a network in place of loopback."""
    return replace(m.costs, travel=max(m.costs.travel, WIRE))


def kept(m: Measured) -> Costs:
    """Where all rows are kept in memory: nothing is decoded."""
    return replace(on_wire(m), decode=KEPT_BYTES, chunk=m.many.kept)


def fitted(m: Measured) -> Section:
    """The constants."""
    c = m.costs
    lines = [
        ["decode", _rate(c.decode)],
        *([f"compute: {q}", _rate(q.compute)] for q in m.questions),
        *([f"solve (M-step and all that a pass does once): {q}", f"{1e3 * q.solve:.1f} ms"] for q in m.questions),
        *([f"answer, and model: {q}", f"{q.answer / 1e3:,.1f} kB"] for q in m.questions),
        ["chunk, or some small ones, read", f"{1e3 * c.chunk:.3f} ms"],
        ["chunk, kept", f"{1e3 * m.many.kept:.4f} ms"],
        ["task, on its worker", f"{1e3 * c.task:.2f} ms"],
        ["task, client and scheduler", f"{1e3 * c.schedule:.2f} ms"],
        ["merge", _rate(c.merge)],
        ["travel, by loopback", _rate(c.travel)],
        ["step from a task to the next on another worker", f"{1e3 * c.step:.1f} ms"],
    ]
    return Section("The constants", FITTED, table(["constant", "measured"], lines))


def _rate(seconds: float) -> str:
    """Seconds per byte as bytes per second."""
    return f"{1e-6 / seconds:,.0f} MB/s" if seconds else "too fast to tell"


def many(m: Measured) -> Section:
    """Very many chunks."""
    s = m.many
    lines = [
        ["rows: where each chunk is", f"{s.rows_seconds:.2f} s", "2 s for all three"],
        [f"{s.bundles} bundles", f"{s.bundles_seconds:.3f} s", ""],
        [f"the graph of a pass: {s.tasks} tasks", f"{s.graph_seconds:.4f} s", ""],
        ["a pass, chunks read", f"{1e3 * s.read:.3f} ms per chunk", "0.5 ms"],
        ["a pass, chunks kept", f"{1e3 * s.kept:.4f} ms per chunk", "0.5 ms"],
        ["memory, from the second pass to the fifth", f"{s.grown / MIB:+.1f} MiB", "flat"],
        ["reading each chunk with a call of its own", f"{1e3 * s.call:.3f} ms per chunk", ""],
    ]
    text = MANY.format(chunks=s.chunks, run=RUN // MIB)
    return Section(f"A store of {s.chunks:,} chunks", text, table(["what", "measured", "aim"], lines))


def checked(m: Measured) -> Section:
    """Many processes with nothing to do."""
    head = ["workers", "processor s, predicted", "measured", "s, predicted", "measured", "first pass, s"]
    off = [_used(c) / c.processor for c in m.checked]
    text = CHECKED.format(
        bundles=m.bundles, cores=m.cores, idle=m.cluster.idle, first=m.cluster.first, least=min(off), most=max(off)
    )
    return Section("A cluster with nothing to do", text, table(head, map(_check, m.checked)))


def _used(c: Checked) -> float:
    """Processor seconds of all processes."""
    return c.later.schedule + c.later.workers


def _check(c: Checked) -> list[str]:
    seconds = (c.processor, _used(c), c.predicted.seconds, c.later.wall, c.first.wall)
    return [str(c.workers), *(f"{s:.2f}" for s in seconds)]


def predicted(m: Measured) -> Section:
    """Passes over 1, 10 and 100 TB."""
    head = ["TB, workers", "tasks", "decode", "compute", "read, tasks, merges", "wait", "spread, tail, solve", "a pass",
            "passes / h", "kept"]  # fmt: skip
    blocks = (f"{q}:\n\n{table(head, _predictions(m, q))}" for q in m.questions)
    text = PREDICTED.format(wanted=1000 / m.costs.decode / 1e9)
    return Section("What it predicts", text, "\n\n".join(blocks))


def _predictions(m: Measured, q: Question) -> Iterable[list[str]]:
    for size in SIZES:
        for workers in WORKERS:
            job = q.of(size * TB, CHUNK)
            split = pass_seconds(on_wire(m), job, workers)
            again = pass_seconds(kept(m), job, workers).seconds
            yield [f"{size}, {workers}", f"{job.tasks:,}", *_shown(split), f"{3600 / split.seconds:,.1f}",
                   f"{again:,.1f}"]  # fmt: skip


def _shown(s: Split) -> list[str]:
    overhead, once = s.read + s.tasks + s.merge, s.spread + s.tail + s.solve
    return [f"{x:,.1f}" for x in (s.decode, s.compute, overhead, s.wait, once, s.seconds)]


def breaks(m: Measured) -> Section:
    """How many workers a scheduler can keep busy."""
    head = ["bundle, MiB", *(f"{q}, {how}" for q in m.questions for how in ("decoded", "kept"))]
    lines = []
    for bundle in (8, 32, 128, 512, 2048):
        jobs = (q.of(100 * TB, min(CHUNK, bundle * MIB), bundle * MIB) for q in m.questions)
        limits = (workers_at_most(c, job) for job in jobs for c in (on_wire(m), kept(m)))
        lines.append([str(bundle), *(f"{limit:,.0f}" for limit in limits)])
    schedule = m.costs.schedule
    text = BREAKS.format(schedule=1e3 * schedule, rate=1 / schedule)
    return Section("Workers that one scheduler keeps busy", text, table(head, lines))


def bundles(m: Measured) -> Section:
    """The rule, and what it would be if bundles did not grow for ever."""
    q, lines = m.questions[0], []
    for size in (0.001, 0.01, 0.1, 1, 10, 100):
        now = q.of(size * TB, min(CHUNK, SMALL))
        cells = (
            (j.tasks, j.tasks * m.costs.schedule, _seconds(m, j), _kept_seconds(m, j))
            for j in (now, replace(now, bundle=min(now.bundle, LARGE)))
        )
        row = (f"{n:,}" if isinstance(n, int) else f"{n:,.1f}" for cell in cells for n in cell)
        lines.append([f"{size:g}", f"{now.bundle / MIB:,.0f}", *row])
    what = ("tasks", "scheduling, s", "a pass on 1000 workers, s", "kept, s")
    head = ["TB", "bundle, MiB", *what, *(f"{name}, {LARGE // MIB} MiB at most" for name in what)]
    text = TASKS.format(shares=SHARES, small=SMALL // MIB, large=LARGE // MIB, fan_in=FAN_IN, most=MOST,
                        low=SHARES * SMALL / 2**30, high=SHARES * LARGE / 2**30, from_=MOST * LARGE / TB)  # fmt: skip
    return Section("What the rule of bundles does", text, table(head, lines))


def _seconds(m: Measured, job: Job) -> float:
    return pass_seconds(on_wire(m), job, 1000).seconds


def _kept_seconds(m: Measured, job: Job) -> float:
    return pass_seconds(kept(m), job, 1000).seconds


def fans(m: Measured) -> Section:
    """The merge tree, where answers are large."""
    large, lines = m.questions[-1], []
    for fan_in in (2, 4, 8, 16, 32, 128):
        job = replace(large.of(10 * TB, CHUNK), fan_in=fan_in)
        s = pass_seconds(kept(m), job, 1000)
        gigabytes = (job.sent + 1000 * job.model) / 1e9
        seconds = (f"{x:,.2f}" for x in (s.merge + s.tasks, s.wait, s.tail, s.spread, s.seconds))
        lines.append([str(fan_in), f"{job.tasks:,}", f"{len(job.levels)}", f"{gigabytes:,.0f}", *seconds])
    head = ["fan-in", "tasks", "levels", "GB on the network", "merges and tasks, s", "wait, s", "tail, s", "spread, s",
            "a pass, s"]  # fmt: skip
    return Section("What the fan-in does", FANS.format(answer=large.answer / 1e6, fan_in=FAN_IN), table(head, lines))


def memory(m: Measured) -> Section:
    """What the driver holds."""
    q, lines = m.questions[0], []
    for size in SIZES:
        for chunk in (1, 16, 128):
            job = q.of(size * TB, chunk * MIB)
            parts, tasks = job.chunks * m.chunk.memory, job.tasks * m.cluster.memory
            lines.append([f"{size}, {chunk}", f"{job.chunks:,}", f"{parts / 1e9:,.2f}", f"{job.tasks:,}",
                          f"{tasks / 1e9:,.2f}"])  # fmt: skip
    text = MEMORY.format(part=m.chunk.memory, task=m.cluster.memory / 1e3, pickled=m.chunk.pickled, run=RUN // MIB,
                         alone=m.chunk.alone / 1e3)  # fmt: skip
    return Section(
        "Memory of client and scheduler",
        text,
        table(["TB, MiB a chunk", "chunks", "records, GB", "tasks", "graph and scheduler, GB"], lines),
    )
