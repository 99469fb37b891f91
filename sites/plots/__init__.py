"""The figures of a run, each as the bytes of a PNG: recovery, cross-site matrix, learning curves, sample films.

Colours are those of Okabe and Ito (2008), safe for colour-blind readers; every arm also has a marker of its own.
"""

from sites.plots._style import ARM_TITLES, ARMS, DARK, LIGHT, MANY, SIGNS, Film, Results
from sites.plots.comparison import draw_comparison
from sites.plots.cross_site import draw_cross_site
from sites.plots.curves import draw_curves
from sites.plots.films import draw_films
from sites.plots.recovery import draw_recovery

__all__ = [
    "ARMS",
    "ARM_TITLES",
    "DARK",
    "LIGHT",
    "MANY",
    "SIGNS",
    "Film",
    "Results",
    "draw_comparison",
    "draw_cross_site",
    "draw_curves",
    "draw_films",
    "draw_recovery",
]
