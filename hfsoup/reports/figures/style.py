"""How every picture looks: two themes, colours that the colour-blind can tell apart, the same bytes every time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfsoup.utils.text import one_line, shorten_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hfsoup.provenance.result import BakeResult

Paint = Callable[["Figure", "Theme"], None]
DPI = 150


@dataclass(frozen=True)
class Theme:
    """Ground, ink and colours; the colours are those of Okabe and Ito, lighter on a dark ground."""

    dark: bool
    ground: str
    ink: str
    faint: str
    grid: str
    blue: str
    orange: str
    green: str
    red: str


LIGHT = Theme(False, "#ffffff", "#1f2328", "#59636e", "#d1d9e0", "#0072b2", "#b87700", "#007a5a", "#c44e00")
DARK = Theme(True, "#0d1117", "#e6edf3", "#9198a1", "#30363d", "#56b4e9", "#f0b429", "#2fc99a", "#ff8552")
THEMES = (LIGHT, DARK)


def render_png(paint: Paint, theme: Theme, title: str) -> bytes:
    """A picture as PNG; no date, no version, no setting of the user's in it."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font lacks shows boxes, which is no reason to talk.
        warnings.simplefilter("ignore", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(theme))
        figure = Figure(figsize=(7.2, 4.6), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure, theme)
        figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold")
        held = io.BytesIO()
        figure.savefig(held, format="png", metadata={"Software": None})
    return held.getvalue()


def _settings(theme: Theme) -> Any:
    colours = {"figure": theme.ground, "axes": theme.ground, "savefig": theme.ground}
    inks = ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    return {
        **{f"{name}.facecolor": colour for name, colour in colours.items()},
        **dict.fromkeys(inks, theme.ink),
        "axes.edgecolor": theme.faint,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "grid.color": theme.grid,
        "legend.facecolor": theme.ground,
        "legend.edgecolor": theme.grid,
        "legend.fontsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.labelsize": 10.5,
        "font.family": ["DejaVu Sans"],
        # Names are names, whatever dollar signs they hold.
        "text.parse_math": False,
    }


def name_ingredient(soup: BakeResult, i: int, longest: int = 28) -> str:
    """An ingredient's name, of a local folder the last part only; its end where it is long."""
    text = one_line(shorten_names([(each.id, each.source.revision) for each in soup.family.ingredients])[i])
    return text if len(text) <= longest else f"…{text[-longest + 1 :]}"


def format_axis(soup: BakeResult, axis: Any) -> None:
    """Numbers on an axis as the card writes them: per cent of hfsoup's own metrics, others as they are."""
    from matplotlib.ticker import PercentFormatter

    from hfsoup.data.tasks import METRICS

    if soup.metric in METRICS:
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def name_metric(soup: BakeResult, longest: int = 40) -> str:
    """The metric's name."""
    return one_line(soup.metric, longest)
