"""Files that somebody spoiled, or made to do harm, and a process of little memory that opens them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from random import Random

import numpy as np
from zarr.storage import MemoryStore

from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans, Run, load
from daskmix.errors import DaskmixError
from daskmix.store import COMMON, STATE

MEMORY = 3 << 30  # bytes of address space
PATIENCE = 30.0  # seconds

rng = np.random.default_rng(0)
X = np.concatenate([rng.normal(m, 1, (30, 2)) for m in (-4, 4)])
MADE = {
    "KMeans": lambda: KMeans(2, random_state=0, max_iter=2),
    "centres given": lambda: KMeans(2, init=X[:2], missing="em", max_iter=2),
    "bisecting": lambda: BisectingKMeans(3, random_state=0),
    "full": lambda: GaussianMixture(2, random_state=0, max_iter=2),
    "noise, Student's t": lambda: GaussianMixture(2, covariance_type="VVI", noise=True, random_state=0, max_iter=2),
    "bayesian": lambda: BayesianGaussianMixture(2, covariance_type="tied", random_state=0, max_iter=2),
}

# Opens what it is told to, and says what came of it.
VICTIM = """
import resource, sys, threading, warnings
warnings.simplefilter("ignore")
import numpy as np
from click.testing import CliRunner
import daskmix
from daskmix import checkpoint, load, Run, KMeans
from daskmix.cli import main
from daskmix.snapshots import unpacked
from pathlib import Path
from random import Random

X = np.zeros((8, 2)) + np.arange(8)[:, None]
load(sys.argv[1]).predict(X)
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))

def model(path):
    found = CliRunner().invoke(main, ["inspect", path])
    if found.exit_code not in (0, 2):
        raise found.exception.__context__ or found.exception
    fitted = load(path)
    for use in (fitted.predict, fitted.score, fitted.score_samples if hasattr(fitted, "means_") else fitted.transform):
        use(X)
    repr(fitted), fitted.to_xarray()

def going_on(path):
    KMeans(2, random_state=0, run=Run(checkpoint=path)).fit(X)

def state(path):
    unpacked(Path(path).read_bytes())

def predict(path):
    found = CliRunner().invoke(main, ["predict", sys.argv[1], path, "--out", path + ".labels", "--overwrite"])
    if found.exit_code not in (0, 2):
        raise found.exception.__context__ or found.exception

print("ready", flush=True)
for line in sys.stdin:
    what, path = line.rstrip("\\n").split(" ", 1)
    try:
        globals()[what](path)
        print("fine", flush=True)
    except daskmix.errors.DaskmixError as error:
        print("typed", type(error).__name__, repr(str(error))[:200], flush=True)
    except BaseException as error:
        import traceback
        print("UNTYPED", repr(traceback.format_exc()[-2000:]), flush=True)
"""


class Victim:
    """A process with little memory, which opens hostile files."""

    def __init__(self, whole: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(whole), str(MEMORY)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._answer(120.0) == "ready"

    def opens(self, what: str, path: Path) -> str:
        """What it said of it."""
        self.process.stdin.write(f"{what} {path}\n")
        return self._answer(PATIENCE)

    def _answer(self, patience: float) -> str:
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        assert ready, f"nothing was said for {patience} s"
        said = self.process.stdout.readline().rstrip("\n")
        assert said, f"the process died: {self.process.wait(5)}"
        return said

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def whole_models(folder: Path) -> dict[str, dict[str, bytes]]:
    """The files of a model of each kind; of each also without its checksum, as older versions wrote them."""
    found = {}
    for name, make in MADE.items():
        path = folder / "whole.zarr"
        make().fit(X).save(path, overwrite=True)
        found[name] = files_of(path)
        found[f"{name}, older"] = unsigned(found[name])
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def unsigned(files: dict[str, bytes]) -> dict[str, bytes]:
    told = json.loads(files["zarr.json"])
    del told["attributes"]["daskmix"]["sha256"]
    return {**files, "zarr.json": json.dumps(told).encode()}


def write(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


class _Killed(BaseException):
    pass


FEW = np.zeros((8, 2)) + np.arange(8)[:, None]


def begun_checkpoint(folder: Path, model: KMeans | None = None, rows: np.ndarray = FEW) -> dict[str, bytes]:
    """The files of a fit that was cut off in its third pass; of the one that `going_on` goes on with, by default."""

    def die(record):
        if record["pass"] == 3:
            raise _Killed

    try:
        (model or KMeans(2, random_state=0)).set_params(run=Run(checkpoint=folder, callbacks=(die,))).fit(rows)
    except _Killed:
        return files_of(folder)
    raise AssertionError("the fit was done before it could be cut off")


def forged(files: dict[str, bytes], chance: Random) -> dict[str, bytes]:
    """The same checkpoint, of which a state or a commit was changed, and all checksums with it."""
    files, last = dict(files), max(name for name in files if name.startswith("commits/"))
    told = json.loads(files[last])
    if chance.random() < 0.5:
        _otherwise(told, chance)
    else:
        stage = chance.choice(told["stages"])
        data = files[stage["key"]]
        begin = data.index(b"\n") + 1 + 8
        size = int.from_bytes(data[begin - 8 : begin], "little")
        header, numbers = json.loads(data[begin : begin + size]), data[begin + size + -(begin + size) % 64 :]
        _otherwise(header, chance)
        if chance.random() < 0.2:
            numbers = bytes(chance.randrange(256) for _ in numbers)
        header = json.dumps(header).encode()
        data = data[: begin - 8] + len(header).to_bytes(8, "little") + header
        data += bytes(-len(data) % 64) + numbers
        files[stage["key"]] = data
        stage.update(nbytes=len(data), sha256=sha256(data).hexdigest())
    told.pop("sha256", None)
    return {**files, last: signed(told)}


def signed(told):
    """A commit with the checksum that belongs to it."""
    told = {"sha256": sha256(_canonical(told)).hexdigest(), **told}
    return _canonical(told)


def _canonical(told):
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


# --- what is done to files --------------------------------------------------------------------------------------------

VALUES = (
    None, True, False, 0, 1, 2, 3, -1, 7, 2**31, 2**40, 2**63, 2**70, 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "x", "__import__", "__class__", "../../etc/passwd", "/etc/passwd", "\x1b[2J", "\ud800", "x" * 100_000, [], {}, [[]],
    [2**40], [2**40, 2], [0, 0], [1, 2], [-1, 2], ["a", "b"], {"name": "pickle"}, "float32", "int64", "complex128",
    "string", "|O", "pickle", "numcodecs.pickle", {"id": "pickle"}, "BisectingKMeans", "GaussianMixture", "KMeans",
    "Estimator", "os", "spherical", "tied", "dirichlet_distribution", "cosine", "em",
)  # fmt: skip
NAMES = ("x", "__class__", "run", "random_state", "means_", "_labels")


def spoiled(files: dict[str, bytes], chance: Random) -> dict[str, bytes]:
    """The same files, but for one or two things."""
    for _ in range(chance.randint(1, 2)):
        files = chance.choice([a_bit, cut, other_bytes, gone, elsewhere] + [told_otherwise] * 10)(files, chance)
        if not files:
            break
    return files


def a_bit(files, chance):
    name = chance.choice(sorted(files))
    data = bytearray(files[name])
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return {**files, name: bytes(data)}


def cut(files, chance):
    name = chance.choice(sorted(files))
    return {**files, name: files[name][: chance.randint(0, len(files[name]))]}


def other_bytes(files, chance):
    data = bytes(chance.randrange(256) for _ in range(chance.randint(0, 40)))
    levels = deep(chance.choice([10, 400, 900, 3000, 100_000])).encode()
    return {**files, chance.choice(sorted(files)): chance.choice([data, levels])}


def gone(files, chance):
    name = chance.choice(sorted(files))
    return {other: data for other, data in files.items() if other != name}


def elsewhere(files, chance):
    """An array under the name of another."""
    folders = sorted({name.split("/")[0] for name in files if "/" in name})
    if not folders:
        return files
    names = [*folders, "fitted.evil", "params.n_clusters", "params.run", "evil", "fitted.__class__", "params.__class__"]
    source, target = chance.choice(folders), chance.choice(names)
    moved = {name.replace(source, target, 1): data for name, data in files.items() if name.startswith(f"{source}/")}
    return {name: data for name, data in files.items() if not name.startswith(f"{target}/")} | moved


def told_otherwise(files, chance):
    """A value in the metadata of a group or an array is another one, is gone, or is under another name."""
    told, name = None, chance.choice(sorted(name for name in files if name.endswith(".json")) or [""])
    try:
        told = json.loads(files[name])
        places = list(_places(told))
    except (KeyError, ValueError, RecursionError):
        return files
    if not places:
        return files
    _otherwise(told, chance)
    return {**files, name: json.dumps(told).encode()}


def _otherwise(told, chance):
    holder, key = chance.choice(list(_places(told)))
    way = chance.randrange(10)
    if way == 0:
        holder.pop(key)
    elif way == 1 and isinstance(holder, dict):
        holder[chance.choice(NAMES)] = holder.pop(key)
    elif way == 2:
        holder[key] = json.loads(deep(chance.choice([3, 100, 400])))
    else:
        holder[key] = chance.choice(VALUES)


def _places(told):
    """Where a value stands in JSON: in what, and under which key."""
    if isinstance(told, dict | list):
        for key, value in list(told.items() if isinstance(told, dict) else enumerate(told)):
            yield told, key
            yield from _places(value)


# --- what becomes of a model whose bits are flipped ------------------------------------------------------------------


def state_of(model):
    names = [name for name in (*STATE[type(model).__name__], *COMMON) if hasattr(model, name)]
    told = {name: getattr(model, name) for name in names} | model.get_params()
    del told["random_state"]  # which stays behind
    plain = {n: v for n, v in told.items() if not isinstance(v, np.ndarray) or v.dtype == object}
    arrays = {n: (v.dtype, v.shape, v.tobytes()) for n, v in told.items() if n not in plain}
    return arrays | {n: repr(list(v) if isinstance(v, np.ndarray | tuple) else v) for n, v in plain.items()}


def small_model():
    """Its files, as a mapping of zarr's own store in memory, and the model."""
    model, kept = KMeans(2, random_state=0, max_iter=1).fit(X), {}
    model.save(MemoryStore(kept))
    return model, kept


def flips(kept, bits_of):
    """Every byte of every file with a bit that is another: the file, and the store."""
    for name, whole in dict(kept).items():
        data = whole.to_bytes()
        for at in range(len(data)):
            for bit in bits_of(at):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                yield name, {**kept, name: type(whole).from_bytes(bytes(changed))}


def survivors(model, kept, bits_of):
    """How many flips there were, and those that gave another model without a word."""
    right, tried, wrong, seen = state_of(model), 0, [], 0
    for name, changed in flips(kept, bits_of):
        tried += 1
        try:
            found = load(MemoryStore(changed))
        except DaskmixError:
            seen += 1
            continue
        if type(found) is not type(model) or state_of(found) != right:
            wrong.append(name)
    return tried, seen, wrong
