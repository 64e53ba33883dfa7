"""Pictures: axes in, axes out; matplotlib is imported when one is begun, and pyplot never.

What is drawn of rows is a histogram of all of them, made in one pass, or a sample drawn by their index; never all rows.
"""

from daskmix.plot.canvas import Axes, Figure, colours, grid
from daskmix.plot.clusters import profiles, silhouettes, sizes
from daskmix.plot.curves import convergence, selection
from daskmix.plot.images import photograph, segments, uncertainty
from daskmix.plot.looks import Look, look
from daskmix.plot.maps import label_map, uncertainty_map
from daskmix.plot.shapes import ellipses, marginal_densities, pairs

__all__ = [
    "Axes",
    "Figure",
    "Look",
    "colours",
    "convergence",
    "ellipses",
    "grid",
    "label_map",
    "look",
    "marginal_densities",
    "pairs",
    "photograph",
    "profiles",
    "segments",
    "selection",
    "silhouettes",
    "sizes",
    "uncertainty",
    "uncertainty_map",
]
