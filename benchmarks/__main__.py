"""Measure, print each part as it is done, then what was required and what was reached; write it all as a page."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import anatomy, family, fits, grid, named, pruning, reads, restarts, scaling, statistics, stores
from benchmarks.cases import DIAG, FULL, KMEANS
from benchmarks.report import Section, headline, introduction
from benchmarks.settings import Settings

Part = Callable[[Settings], Section]

PARTS: dict[str, Part] = {
    "grid-kmeans": partial(grid.section, KMEANS),
    "named": named.section,
    "anatomy": anatomy.section,
    "restarts": restarts.section,
    "stores": stores.section,
    "scaling": scaling.section,
    "fits": fits.section,
    "pruning": pruning.section,
    "reads": reads.section,
    "family": family.section,
    "statistics-steps": statistics.steps,
    "statistics-gaps": statistics.gaps,
    "grid-full": partial(grid.section, FULL),
    "grid-diag": partial(grid.section, DIAG),
}

QUICK: dict[str, Any] = {"repeats": 1, "shrink": 100, "features": (3, 16), "clusters": (8, 16)}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=chosen,
        default=PARTS,
        metavar="PART,...",
        help=f"parts of {', '.join(PARTS)}; a beginning such as grid names all that begin so",
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write everything to this Markdown page, too")
    parser.add_argument("--threads", type=int, default=2, help="threads of each contender")
    parser.add_argument("--repeats", type=int, default=5, help="measurements, of which the median is shown")
    parser.add_argument("--features", type=numbers, metavar="D,...", help="of the grids, instead of all")
    parser.add_argument("--clusters", type=numbers, metavar="K,...", help="of the grids, instead of all")
    parser.add_argument("--quick", action="store_true", help="few rows, once: to see that everything runs")
    return parser.parse_args()


def numbers(given: str) -> tuple[int, ...]:
    """3,16 -> the numbers."""
    return tuple(int(number) for number in given.split(","))


def chosen(names: str) -> dict[str, Part]:
    """The parts that are named or begun by `names`."""
    found = {part: run for part, run in PARTS.items() if part.startswith(tuple(names.split(",")))}
    unknown = [name for name in names.split(",") if not any(part.startswith(name) for part in PARTS)]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part begins with {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return found


def main() -> None:
    given = options()
    size = dict(QUICK) if given.quick else {"repeats": given.repeats}
    size |= {name: own for name in ("features", "clusters") if (own := getattr(given, name)) is not None}
    settings = Settings(given.threads, **size)
    head = introduction(" ".join(["python -m benchmarks", *sys.argv[1:]]), settings)
    print(head, flush=True)
    sections: list[Section] = []
    for run in given.only.values():
        sections.append(run(settings))
        print(f"\n{sections[-1]}", flush=True)
        if given.write:  # after each part: the next may take long
            given.write.parent.mkdir(parents=True, exist_ok=True)
            given.write.write_text("\n\n".join(map(str, (head, headline(sections), *sections))) + "\n")
    print(f"\n{headline(sections)}")


if __name__ == "__main__":
    main()
