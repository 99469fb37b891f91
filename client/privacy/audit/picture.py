"""The inversion as one figure, for people who do not read gradients."""

from io import BytesIO
from pathlib import Path

from client.privacy.audit.inversion import Inversion, similarity
from rainhill.adapter import Array
from rainhill.files import write_whole

NAME = "inversion.png"
INK, MUTED, PAPER = "#16202a", "#5b6874", "#ffffff"
DPI = 160


def draw(found: Inversion, folder: Path) -> Path:
    """Writes `inversion.png` into the folder, which is made where it is not there."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = (
        ("The film at the hospital", "a drawing, of nobody", found.original, MUTED),
        ("Recovered without protection", _told(found.original, found.unprotected), found.unprotected, "#c0392b"),
        ("Recovered with protection", _told(found.original, found.protected), found.protected, "#0072b2"),
    )
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(10.0, 4.95), facecolor=PAPER, dpi=DPI)
        FigureCanvasAgg(figure)
        figure.text(0.03, 0.935, "What one patient's update gives away", color=INK, fontsize=16, weight="bold", va="center")
        grid = figure.add_gridspec(1, 3, left=0.03, right=0.97, top=0.76, bottom=0.17, wspace=0.06)
        for place, (title, under, picture, colour) in enumerate(panels):
            axes = figure.add_subplot(grid[place])
            axes.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            axes.set_axis_off()
            axes.text(0, 1.095, title, transform=axes.transAxes, color=INK, fontsize=11.5, weight="bold", va="center")
            axes.text(0, 1.035, under, transform=axes.transAxes, color=colour, fontsize=10, va="center")
        figure.text(0.03, 0.075, _caption(found), color=MUTED, fontsize=9, va="center", linespacing=1.5)
        drawn = BytesIO()
        figure.savefig(drawn, metadata={"Software": None})
    write_whole(folder / NAME, drawn.getvalue())
    return folder / NAME


def _told(original: Array, recovered: Array) -> str:
    return f"cosine similarity {similarity(original, recovered):.2f}".replace("-", "−")


def _caption(found: Inversion) -> str:
    return (
        "The worst case, on a small network: one patient, one film, one step. Whoever knows the network searches for the film whose\n"
        "gradient was sent. Right: the best of three such searches where the update was clipped and noised as for epsilon 8 at a hospital\n"
        f"of 2,000 patients (sigma = {found.noise_multiplier:.2f}). A picture is no proof; what protects is the guarantee."
    )
