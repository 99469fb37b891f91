"""A few films of each site, side by side."""

import math
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from sites.plots._style import DPI, LIGHTBOX, WIDTH_IN, Film, drawn, shortened


@drawn
def draw_films(films: Mapping[str, Sequence[Film]], titles: Mapping[str, str]) -> Figure:
    """A lightbox: one column per site, or one film per site where there are many; the same in every theme."""
    shown = [(titles.get(name, name), list(sheet)) for name, sheet in films.items() if len(sheet)]
    many = len(shown) > 8
    columns = (min(len(shown), 10) if many else len(shown)) or 1
    bands = math.ceil(len(shown) / columns) if many else max((min(len(sheet), 4) for _, sheet in shown), default=1)
    gap_in, title_in, top_in = 0.07, 0.34 if many else 0.0, 0.3 if many else 0.82
    cell_in = min((WIDTH_IN - 0.5 - gap_in * (columns - 1)) / columns, 2.2)
    caption_in = 0.17 if any(film.caption for _, sheet in shown for film in sheet) and not many else 0.0
    height_in = top_in + bands * (cell_in + gap_in + title_in + caption_in) + 0.2
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor=LIGHTBOX)
    start_in = (WIDTH_IN - columns * cell_in - (columns - 1) * gap_in) / 2
    for index, (title, sheet) in enumerate(shown):
        for band, film in enumerate(sheet[: 1 if many else 4]):
            x_in = start_in + (index % columns) * (cell_in + gap_in)
            y_in = top_in + (index // columns if many else band) * (cell_in + gap_in + title_in + caption_in) + title_in
            axes = figure.add_axes((x_in / WIDTH_IN, 1 - (y_in + cell_in) / height_in, cell_in / WIDTH_IN, cell_in / height_in))
            axes.imshow(film.image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
            axes.set_axis_off()
            if caption_in:
                room = int(cell_in / 0.068)
                figure.text(
                    (x_in + cell_in / 2) / WIDTH_IN,
                    1 - (y_in + cell_in + 0.1) / height_in,
                    shortened(film.caption, room),
                    color="#aab4bd",
                    fontsize=8,
                    ha="center",
                    va="center",
                )
            if band == 0:
                width = max(int(cell_in / (0.085 if many else 0.092)), 6)
                words = "\n".join(textwrap.wrap(shortened(title, (2 if many else 3) * width), width)[: 2 if many else 3])
                figure.text(
                    (x_in + cell_in / 2) / WIDTH_IN,
                    1 - (y_in - 0.08) / height_in,
                    words,
                    color="#f2f5f7",
                    fontsize=7.5 if many else 9.5,
                    fontweight="bold",
                    ha="center",
                    va="bottom",
                    linespacing=1.05,
                )
    return figure
