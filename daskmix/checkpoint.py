"""States of a fit, committed between its passes, so that the same fit can go on where it was cut off.

A commit is one small manifest under a number of its own, which is only ever created, and the objects that it names,
which were written before it and are never changed: whatever is cut off, the last commit is whole.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import uuid4

from daskmix.errors import CheckpointError, CheckpointTakenError, CheckpointWarning, DamagedError
from daskmix.passes import Tally
from daskmix.snapshots import packed, unpacked
from daskmix.vault import Vault

SCHEMA = 1
COMMITS, STATES = "commits/", "states/"
STATE = re.compile(r"states/[0-9a-f]{32}", re.ASCII)
OURS = re.compile(rf"commits/\d{{8}}|{STATE.pattern}|(commits|states)/[0-9a-f]{{32}}\.part", re.ASCII)
KEPT = 2  # commits: where the last one is damaged, the fit goes on from the one before
SHOWN = 4  # differences

Identity = Mapping[str, Mapping[str, Any]]  # what a fit's result depends on, by section; JSON


@dataclass(frozen=True)
class Standing:
    """How far the passes of a stage have come, and what was recorded of the fit until then."""

    states: tuple[Any, ...]
    history: tuple[Mapping[str, Any], ...]  # a record for each pass
    sample_read: Tally  # since the last pass
    sampling_seconds: float

    def told(self) -> tuple[Any, ...]:
        """The same as plain values, and those that algorithms have."""
        return self.states, self.history, self.sample_read, self.sampling_seconds


@dataclass(frozen=True)
class Named:
    """An object, and how to tell that it is whole."""

    what: str  # the stage that it is of
    key: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Commit:
    """What a manifest says."""

    number: int
    identity: Identity
    seed: int  # that the fit began with
    stages: tuple[Named, ...]  # those that are done, and the one that is under way

    def described(self) -> str:
        return f"stage {self.stages[-1].what!r}" if self.stages else "the beginning"

    def encoded(self) -> bytes:
        told = {"daskmix": "checkpoint", "schema": SCHEMA, **asdict(self)}
        return _canonical({"sha256": _sha256(_canonical(told)), **told})

    @staticmethod
    def decoded(data: bytes) -> Commit:
        """Raises DamagedError where these are not the bytes of one."""
        try:
            told = json.loads(data)
            sha256 = told.pop("sha256")
            if _canonical({"sha256": sha256, **told}) != data or _sha256(_canonical(told)) != sha256:
                raise DamagedError("its checksum is another")
            if told.pop("daskmix") != "checkpoint":
                raise DamagedError("it is no commit of daskmix")
            if told.pop("schema") > SCHEMA:
                raise CheckpointError("it was written by a newer daskmix; upgrade daskmix to go on from it")
            stages = tuple(Named(**stage) for stage in told.pop("stages"))
            return Commit(stages=stages, **told).checked()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise DamagedError(f"it cannot be read: {type(error).__name__}: {error}") from error

    def checked(self) -> Commit:
        """The same. What it names is read and deleted, so that no other object may be named.

        Raises
        ------
        DamagedError
        """
        whole = all(type(n) is int and n >= 0 for n in (self.number, self.seed, *(s.nbytes for s in self.stages)))
        named = all(isinstance(s.what, str) and isinstance(s.sha256, str) for s in self.stages)
        mapped = isinstance(self.identity, dict) and all(isinstance(v, dict) for v in self.identity.values())
        if not (whole and named and mapped):
            raise DamagedError("it is no commit of daskmix")
        foreign = [s.key for s in self.stages if not (isinstance(s.key, str) and STATE.fullmatch(s.key))]
        if foreign:
            raise DamagedError(f"it names {foreign[0]!r}, which is no state of a checkpoint")
        return self


def _canonical(told: Any) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Provenance:
    """What a store was made from, so that the same can be told: rows, model and options."""

    digest: str
    seed: int | None = None  # that was drawn; None where any will do

    def is_of(self, mark: Mapping[str, Any]) -> bool:
        """Whether a store with this mark is."""
        return mark.get("of") == self.digest and self.seed in (None, mark.get("seed"))

    def asked(self, names: Sequence[str]) -> Provenance:
        """Of what a model of this says of the rows that it was fitted to; labels alone are known by the fit."""
        if tuple(names) == ("label",):
            return self
        return Provenance(hashlib.sha256("\n".join((self.digest, *names)).encode()).hexdigest(), self.seed)


class Checkpoint:
    """Where a fit's states go, and where they come from when the fit is started again."""

    def __init__(self, vault: Vault, every: float = 0.0) -> None:
        self.vault = vault
        self.every = every  # seconds between commits within a stage
        self._number = -1  # of the last commit
        self._kept: list[Commit] = []  # that are still there, the last one last
        self._found: list[Standing] = []  # of each stage that was begun before
        self._stage = -1  # that is under way
        self._due: dict[int, tuple[str, Standing]] = {}  # what no commit has, by stage
        self._committed = 0.0  # when that was
        self._failed = False  # whether the last attempt did

    @property
    def last(self) -> int:
        """The number of the last commit."""
        return self._number

    def open(self, identity: Identity, seed: int) -> int:
        """Take up what is stored here, or begin with this seed; the seed that the fit began with.

        Raises
        ------
        CheckpointError
            What is here is of another fit, is no checkpoint, or is damaged altogether.
        OSError
            It cannot be reached, or nothing can be written here.
        """
        identity = json.loads(json.dumps(identity))  # as it is read again
        keys = set(self.vault.list())
        if not all(OURS.fullmatch(key) for key in keys):
            raise CheckpointError(
                f"{self.vault} holds something else than a checkpoint, which is never replaced; choose another place"
            )
        manifests = sorted(key for key in keys if key.startswith(COMMITS) and not key.endswith(".part"))
        if manifests:
            self._take_up(manifests, identity)
            self._sweep(keys)
        else:
            self._commit(Commit(0, identity, seed, ()))
        return self._kept[-1].seed

    def _take_up(self, manifests: Sequence[str], identity: Identity) -> None:
        """The last commit that is whole, and its states; and those before it, as far as they are kept."""
        whole: list[Commit] = []
        for manifest in reversed(manifests):
            try:
                commit = Commit.decoded(self._get(manifest))
                if _manifest(commit.number) != manifest:
                    raise DamagedError(f"it is commit {commit.number}")
                if not whole:
                    self._found = [_standing(named, self._get(named.key)) for named in commit.stages]
                whole.insert(0, commit)
            except DamagedError as error:
                if not whole:
                    warnings.warn(
                        f"{manifest} of the checkpoint at {self.vault} is damaged, and not used: {error}",
                        CheckpointWarning,
                        stacklevel=5,
                    )
        if not whole:
            raise DamagedError(f"no commit of the checkpoint at {self.vault} is whole; delete it, to begin anew")
        refuse_another(whole[-1].identity, identity, str(self.vault))
        self._kept = whole[-KEPT:]
        self._number = int(manifests[-1].removeprefix(COMMITS))  # also where that one is damaged

    def _get(self, key: str) -> bytes:
        try:
            return self.vault.get(key)
        except FileNotFoundError:
            raise DamagedError(f"{key} is not there") from None

    def _sweep(self, keys: Iterable[str]) -> None:
        """Delete what a process left behind that was killed."""
        used = {_manifest(commit.number) for commit in self._kept}
        used |= {named.key for commit in self._kept for named in commit.stages}
        self.vault.delete([key for key in keys if key not in used])

    def begin(self) -> Standing | None:
        """The next stage begins: how far it had come, if it was begun before."""
        self._stage += 1
        return self._found[self._stage] if self._stage < len(self._found) else None

    def note(self, what: str, standing: Standing, ends: bool) -> None:
        """Commit how far this stage has come, if it is time to, or the stage ends.

        Raises
        ------
        CheckpointTakenError
            Another process commits to the same place.
        """
        self._due[self._stage] = what, standing
        if not ends and time.monotonic() - self._committed < self.every:
            return
        try:
            last, written = self._kept[-1], [self._written(*self._due[stage]) for stage in sorted(self._due)]
            stages = (*last.stages[: min(self._due)], *written)
            self._commit(replace(last, number=self._number + 1, stages=stages))
            self._due, self._failed = {}, False
        except CheckpointTakenError:
            raise
        except OSError as error:
            # The fit is worth more than its checkpoint, and a disk may be emptied meanwhile.
            if not self._failed:
                warnings.warn(
                    f"the checkpoint at {self.vault} could not be written: {error}; the fit goes on, and the last "
                    f"commit there is of {self._kept[-1].described()}",
                    CheckpointWarning,
                    stacklevel=4,
                )
            self._failed = True

    def _written(self, what: str, standing: Standing) -> Named:
        data, key = packed(standing.told()), f"{STATES}{uuid4().hex}"
        self.vault.put(key, data)
        return Named(what, key, len(data), _sha256(data))

    def _commit(self, commit: Commit) -> None:
        try:
            self.vault.create(_manifest(commit.number), commit.encoded())
        except FileExistsError:
            raise CheckpointTakenError(
                f"another process has committed to the checkpoint at {self.vault}; end one of the two, and start the "
                "other again"
            ) from None
        self._number, self._committed = commit.number, time.monotonic()
        self._kept.append(commit)
        self._forget()

    def _forget(self) -> None:
        """Delete all but the last commits, each before what it names."""
        while len(self._kept) > KEPT:
            old = self._kept.pop(0)
            used = {named.key for commit in self._kept for named in commit.stages}
            self.vault.delete([_manifest(old.number)])
            self.vault.delete([named.key for named in old.stages if named.key not in used])


def _manifest(number: int) -> str:
    return f"{COMMITS}{number:08d}"


def _standing(named: Named, data: bytes) -> Standing:
    if len(data) != named.nbytes or _sha256(data) != named.sha256:
        raise DamagedError(f"{named.key} has {len(data)} bytes of {named.nbytes}, or others than were written")
    told = unpacked(data)
    kinds = (tuple, tuple, Tally, float)
    if not isinstance(told, tuple) or len(told) != len(kinds) or not all(map(isinstance, told, kinds)):
        raise DamagedError(f"{named.key} is no state of a fit")
    standing = Standing(*told)
    if not all(isinstance(r, Mapping) and isinstance(r.get("decoded"), int) for r in standing.history):
        raise DamagedError(f"{named.key} has no history of passes")
    return standing


def refuse_another(stored: Identity, now: Identity, where: str) -> None:
    """Raise where two fits are not the same.

    Raises
    ------
    CheckpointError
        With what differs.
    """
    differs = [
        f"{section} {name} is {_shown(now.get(section, {}).get(name))}, was {_shown(stored.get(section, {}).get(name))}"
        for section in {**stored, **now}
        for name in {**stored.get(section, {}), **now.get(section, {})}
        if now.get(section, {}).get(name) != stored.get(section, {}).get(name)
    ]
    if differs:
        more = f", and {len(differs) - SHOWN} more" if len(differs) > SHOWN else ""
        raise CheckpointError(
            f"the checkpoint at {where} is of another fit: {'; '.join(differs[:SHOWN])}{more}; run the command "
            "that began it, or choose another checkpoint"
        )


def _shown(value: Any) -> str:
    return "not given" if value is None else textwrap.shorten(str(value), 80)
