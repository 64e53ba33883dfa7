"""How a run is made: threads, repeats, and how large."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What all parts of a run have in common."""

    threads: int  # of each contender
    repeats: int  # measurements, of which the median is shown
    shrink: int = 1  # rows are divided by this, to try a run out
    features: tuple[int, ...] = (3, 16, 32, 50, 128)  # of the grid
    clusters: tuple[int, ...] = (8, 16, 64, 256)  # of the grid

    def rows(self, full: int) -> int:
        """How many rows to take where a whole run takes so many."""
        return full // self.shrink
