"""The charts of the report as inline SVG: the same data give the same bytes.

Colours are Okabe and Ito's, told apart by every kind of colour vision; shape, hatching or a
label says the same again, so that a print in grey loses nothing. Every function returns "" when
there is nothing to draw.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

BLUE, ORANGE, GREEN, INK, GREY = "#0072B2", "#D55E00", "#007A5A", "#1d2733", "#6b7683"
# Marker and colour of a decision; any other word is drawn as a grey diamond.
DECISIONS = {"promoted": ("^", GREEN), "refused": ("X", ORANGE)}
# In SVG units. Narrow, so that the text is still legible when a phone shrinks the chart.
WIDTH = 440
LEAD = LinearSegmentedColormap.from_list("lead", [ORANGE, "#ffffff", BLUE])

Months = Sequence[Mapping[str, Any]]


def shade(lead: float) -> str:
    """Return a colour under dark text: orange at -1, white at 0, blue at 1."""
    return to_hex(LEAD(0.5 + 0.25 * max(-1.0, min(1.0, lead))))


def performance(months: Months, axis: str) -> str:
    """Draw the served champion against the first model, with what served and was decided."""
    x, sign = np.arange(len(months)), _column(months, "sign")
    served, first = _column(months, "served_metric"), _column(months, "first_metric")
    if np.isnan([served, first]).all():
        return ""
    rows = max(1, *(len(month["decisions"]) for month in months))
    words = sorted({d["decision"] for month in months for d in month["decisions"]})
    with _drawing("performance", 270 + 22 * rows) as (figure, svg):
        top, strip = figure.subplots(2, sharex=True, height_ratios=[210, 22 * (rows + 1)])
        keys = top.plot(x, served, "o-", color=BLUE, lw=2.4, label="Served champion", zorder=3)
        keys += top.plot(x, first, "s--", color=ORANGE, label="First model, never retrained")
        for part, colour in ((sign >= 0, BLUE), (sign <= 0, ORANGE)):
            top.fill_between(
                x, served, first, where=part, interpolate=True, color=colour, alpha=0.14, lw=0
            )
        top.set_ylabel(axis)
        top.locator_params(axis="y", nbins=5)
        top.grid(axis="y")
        top.tick_params(axis="x", length=0)
        _strip(strip, months, rows)
        for word in words:
            marker, colour = DECISIONS.get(word, ("D", GREY))
            keys.append(Line2D([], [], c=colour, marker=marker, ms=8, ls="", label=_short(word)))
        figure.legend(handles=keys, loc="outside upper left", ncols=2, columnspacing=1.2)
        return svg()


def _strip(axes: Axes, months: Months, rows: int) -> None:
    """Fill the strip below the lines: the serving version, then the decisions of each month."""
    names = []
    for version, group in groupby(enumerate(months), key=lambda pair: pair[1]["served"]):
        span = [index for index, _ in group]
        if version is not None:
            axes.barh(0, len(span), 0.8, span[0] - 0.5, color="#d3e5f2", edgecolor="white", lw=2)
            if len(span) * 15 >= len(months):
                middle = (span[0] + span[-1]) / 2
                axes.text(middle, 0, _short(f"v{version}"), ha="center", va="center")
    for index, month in enumerate(months):
        for row, decision in enumerate(month["decisions"], start=1):
            marker, colour = DECISIONS.get(decision["decision"], ("D", GREY))
            axes.plot(index - 0.22, row, marker, color=colour, ms=8)
            if len(months) <= 15:
                axes.text(index, row, _short(f"v{decision['version']}"), va="center")
        name, _, year = month["label"].partition(" ")
        new = not index or not months[index - 1]["label"].endswith(year)
        names.append(f"{name}\n{year if new else ''}")
    step = -(-len(months) // 13)
    axes.set(xlim=(-0.6, max(len(months), 6) - 0.4), ylim=(rows + 0.5, -0.5))
    axes.set_xticks(range(0, len(months), step), names[::step])
    axes.set_yticks([0, 1], ["serving", "decided"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def gain(months: Months, axis: str, signed: Callable[[float], str]) -> str:
    """Draw a bar a month: how much better the served champion was than the first model."""
    gains = _column(months, "gain")
    if np.isnan(gains).all():
        return ""
    with _drawing("gain", 60 + 24 * len(months)) as (figure, svg):
        axes = figure.subplots()
        for index, value in enumerate(gains):
            below, known = value < 0, not np.isnan(value)
            if known:
                colour, hatch = (ORANGE, "///") if below else (BLUE, "")
                axes.barh(index, value, 0.68, color=colour, hatch=hatch, edgecolor="white", lw=0)
            axes.annotate(
                signed(value) if known else "not compared",
                (value if known else 0, index),
                (-5 if below else 5, 0),
                textcoords="offset points",
                va="center",
                ha="right" if below else "left",
                color=INK if known else GREY,
            )
        low, high = min(np.nanmin(gains), 0), max(np.nanmax(gains), 0)
        room = 0.3 * (high - low or 1)  # for the labels at the ends of the bars
        axes.set(xlim=(low - room * (low < 0), high + room), ylim=(len(months) - 0.5, -0.5))
        axes.set_yticks(range(len(months)), [month["label"] for month in months])
        axes.tick_params(axis="y", length=0)
        axes.axvline(0, color=INK, lw=1)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x")
        axes.set_xlabel(f"Gain over the first model ({axis})")
        return svg()


def calibration(curves: Sequence[Mapping[str, Any]], unit: str, gap: Callable[[float], str]) -> str:
    """Draw a panel a version: what it predicted against what was observed, by bin."""
    if not curves:
        return ""
    columns = min(len(curves), 2 if len(curves) == 4 else 3)
    rows = -(-len(curves) // columns)
    ends = np.concatenate([curve["points"] for curve in curves])
    low, high = (ends.min() if unit else 0.0), ends.max()
    limits = (low, high + 0.06 * (high - low or 1))
    side = min(WIDTH / columns, 320)
    with _drawing("calibration", 40 + rows * side) as (figure, svg):
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, curve in zip(panels, curves, strict=False):
            axes.plot(limits, limits, "--", color=GREY, lw=1.2)
            axes.plot(*np.transpose(curve["points"]), "o-", color=BLUE, lw=1.8, ms=4.5)
            axes.set_title(f"v{_short(curve['version'])} · off by {gap(curve['gap'])}")
            axes.set(xlim=limits, ylim=limits, aspect="equal")
            axes.locator_params(nbins=3)
            axes.grid()
        for axes in panels[len(curves) - columns : rows * columns - columns]:
            axes.tick_params(labelbottom=True)
        for axes in panels[len(curves) :]:
            axes.set_visible(False)
        figure.supxlabel(f"Predicted {f'mean, {unit}' if unit else 'share'}")
        figure.supylabel(f"Observed {f'mean, {unit}' if unit else 'share'}")
        return svg()


def _column(months: Months, key: str) -> np.ndarray:
    return np.array([np.nan if m[key] is None else m[key] for m in months], dtype=float)


def _short(text: str) -> str:
    return text if len(text) <= 12 else f"{text[:11]}…"


@contextmanager
def _drawing(name: str, height: float) -> Iterator[tuple[Figure, Callable[[], str]]]:
    """Give a figure WIDTH wide and a function that returns it as SVG.

    The user's own matplotlib settings neither matter nor change.
    """
    style = Path(__file__).with_name("lifecycle.mplstyle")
    with matplotlib.style.context(["default", style, {"svg.hashsalt": name}]):
        figure, buffer = Figure(figsize=(WIDTH / 72, height / 72)), io.StringIO()

        def svg() -> str:
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
            text = buffer.getvalue()
            text = text[text.index("<svg") :]
            text = re.sub(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', r"<svg \1>", text, count=1)
            # Unique in one SVG, an id must be so among all charts of the page.
            return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)

        yield figure, svg
