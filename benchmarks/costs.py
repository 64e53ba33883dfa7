"""What a pass costs, in closed form and without I/O; `benchmarks.simulate` measures the constants and checks it."""

from dataclasses import astuple, dataclass
from math import ceil

from daskmix.reduction import FAN_IN


@dataclass(frozen=True)
class Costs:
    """What machines take for each thing that a pass does; seconds are those of one core."""

    decode: float  # s per byte of rows
    chunk: float  # s per chunk, whatever its size
    task: float  # s per task in the process that does it
    schedule: float  # s per task in the one process that hands them out
    merge: float  # s per byte of an answer that is added to another
    travel: float  # s per byte from one process to another
    step: float  # s from the end of a task to the end of an empty one that waited for it elsewhere


@dataclass(frozen=True)
class Job:
    """What is asked of which rows, and how it is cut."""

    nbytes: float  # of all rows
    chunk: float  # bytes of a chunk
    bundle: float  # bytes that one task reads
    compute: float  # s per byte
    answer: float  # bytes
    model: float  # bytes, for each worker
    solve: float  # s from the last answer to the next question
    fan_in: int = FAN_IN

    @property
    def chunks(self) -> int:
        return ceil(self.nbytes / self.chunk)

    @property
    def bundles(self) -> int:
        return ceil(self.nbytes / max(self.bundle, self.chunk))

    @property
    def levels(self) -> tuple[int, ...]:
        """How many tasks there are at each level of the merge tree."""
        sizes = [self.bundles]
        while sizes[-1] > 1:
            sizes.append(ceil(sizes[-1] / self.fan_in))
        return tuple(sizes[1:])

    @property
    def tasks(self) -> int:
        return 1 + self.bundles + sum(self.levels)  # the first is the question

    @property
    def sent(self) -> float:
        """Bytes of answers that are merged, nearly all of them elsewhere than they were made."""
        return self.answer * (self.bundles + sum(self.levels) - 1)


@dataclass(frozen=True)
class Split:
    """Where the seconds of a pass go; they add up."""

    decode: float
    read: float  # what each chunk costs, however small
    compute: float
    tasks: float
    merge: float  # of answers while others are still being computed
    wait: float  # for the scheduler, or for a core
    spread: float  # of the model to all workers
    tail: float  # from the last answer of a bundle to that of the pass
    solve: float

    @property
    def seconds(self) -> float:
        return sum(astuple(self))


def pass_seconds(costs: Costs, job: Job, workers: int, cores: float | None = None) -> Split:
    """One pass on so many workers of one thread; without `cores`, each has one, and the scheduler too.

    No process does more than one second of work in a second, nor does a core: a pass takes as long as the busiest of
    them, and what can only come before or after.
    """
    cores = workers + 1 if cores is None else cores
    # The busiest worker has a whole number of bundles, all of them full, its part of the merges, and the question.
    bundles, merges = ceil(job.bundles / workers), ceil(sum(job.levels) / workers)
    nbytes = min(job.nbytes, bundles * max(job.bundle, job.chunk))
    sent = min(job.sent, job.answer * (bundles + merges))
    decode = nbytes * costs.decode
    read = ceil(nbytes / job.chunk) * costs.chunk
    compute = nbytes * job.compute
    tasks = (1 + bundles + merges) * costs.task
    merge = sent * (costs.merge + costs.travel)
    working = decode + read + compute + tasks + merge
    handing_out = job.tasks * costs.schedule
    all_workers = (
        job.nbytes * (costs.decode + job.compute)
        + job.chunks * costs.chunk
        + job.tasks * costs.task
        + job.sent * (costs.merge + costs.travel)
    )
    wait = max(working, handing_out, (all_workers + handing_out) / cores) - working
    # Every worker asks the one that was given the model.
    spread = (workers - 1) * job.model * costs.travel
    tail = len(job.levels) * (costs.step + (job.fan_in - 1) * job.answer * (costs.merge + costs.travel))
    return Split(decode, read, compute, tasks, merge, wait, spread, tail, job.solve)


def workers_at_most(costs: Costs, job: Job) -> float:
    """With so many workers the scheduler is as busy as they are; more of them only wait."""
    alone = pass_seconds(costs, job, 1)
    return (alone.decode + alone.read + alone.compute + alone.tasks + alone.merge) / (job.tasks * costs.schedule)
