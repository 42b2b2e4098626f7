"""The plots of the model card: what a version gains, where, and whether its answers can be trusted.

They are drawn for people: when a version awaits approval, and by the command `card`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .datasets import labelled
from .evaluation.candidate import MIN_ROWS, Candidate, load_candidate
from .evaluation.comparison import compare
from .metrics import score
from .platform import Platform
from .registry import Registry
from .team import PROBLEM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTS_FILE = "model_card.png"
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8a94a0"
MOST_SLICES = 12


def load(platform: Platform, registry: Registry, version: str) -> Candidate:
    """The version and its champion, with their answers on the rows that the checks use.

    Raises:
        LookupError: there is no such row.
    """
    as_of, since = (
        datetime.fromisoformat(registry.tag(version, tag)) for tag in ("as_of", "trained_until")
    )
    frame = labelled(platform, since, as_of, as_of)
    if frame.empty:
        raise LookupError(f"There is no labelled row between {since:%Y-%m-%d} and {as_of:%Y-%m-%d}")
    return load_candidate(registry, version, frame)


def log_plots(platform: Platform, registry: Registry, version: str) -> str:
    """Draw the plots into the run that trained the version; return the artifact's address."""
    run_id = registry.get(version).run_id
    if not run_id:
        raise LookupError(f"Version {version} of {registry.model} names no run to draw into.")
    registry.client.log_figure(run_id, draw(load(platform, registry, version)), PLOTS_FILE)
    return f"runs:/{run_id}/{PLOTS_FILE}"


def draw(candidate: Candidate) -> Figure:
    """Gain by slice with its interval, metric by slice, calibration."""
    import matplotlib.style
    from matplotlib.figure import Figure

    style = Path(__file__).with_name("report") / "lifecycle.mplstyle"
    with matplotlib.style.context(["default", style, {"font.size": 10}]):
        slices = _slices(candidate)
        figure = Figure(figsize=(12, max(3.6, 1.2 + 0.28 * len(slices))), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _gains(left, candidate, slices)
        _metrics(middle, candidate, slices)
        _calibration(right, candidate)
        against = f", against champion {candidate.champion}" if candidate.champion else ""
        figure.suptitle(
            f"Version {candidate.version}{against}, on {len(candidate.data.label):,} later rows"
        )
        return figure


def _slices(candidate: Candidate) -> dict[str, pd.Index]:
    """All rows, then the slices of the gate that have enough rows and both classes."""
    data, found = candidate.data, {"all rows": candidate.data.label.index}
    for feature in PROBLEM.gate.slices:
        for value, rows in data.features.groupby(feature).groups.items():
            classes = data.label[rows].nunique() if PROBLEM.task == "classification" else 2
            if len(rows) >= PROBLEM.gate.min_slice_rows and classes >= 2:
                found[f"{feature} {value}"] = rows
    largest = sorted(found, key=lambda name: -len(found[name]))[: MOST_SLICES + 1]
    return {name: rows for name, rows in found.items() if name in largest}


def _gains(axes: Axes, candidate: Candidate, slices: dict[str, pd.Index]) -> None:
    """A line a slice: between the bounds of the gain, with the stated confidence on each side."""
    data, theirs, confidence = candidate.data, candidate.data.champion, PROBLEM.gate.confidence
    axes.set_title(f"Gain in {PROBLEM.metric}, {confidence:.0%} bounds")
    if theirs is None or len(theirs) < MIN_ROWS:
        words = "no champion that has\nnot seen these rows"
        axes.text(0.5, 0.5, words, ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    for place, rows in enumerate(slices.values()):
        known = rows.intersection(theirs.index)
        label = data.label[known]
        if len(known) < 2 or (PROBLEM.task == "classification" and label.nunique() < 2):
            continue
        truth, ours, other = (
            np.asarray(part, dtype=float) for part in (label, data.prediction[known], theirs[known])
        )
        found = compare(truth, ours, other, PROBLEM.task, confidence)
        colour = ORANGE if found.high < 0 else BLUE if found.low > 0 else GREY
        axes.plot([found.low, found.high], [place, place], color=colour, lw=3)
        axes.plot(found.gain, place, "o", color=colour, ms=7)
    axes.axvline(0, color="#1d2733", lw=1)
    _name(axes, slices)


def _metrics(axes: Axes, candidate: Candidate, slices: dict[str, pd.Index]) -> None:
    """A dot a slice and version."""
    data = candidate.data
    looks = [(data.prediction, "o", BLUE, f"version {candidate.version}")]
    if data.champion is not None:
        looks.append((data.champion, "s", ORANGE, f"champion {candidate.champion}"))
    for answer, marker, colour, name in looks:
        values = []
        for rows in slices.values():
            known = rows.intersection(answer.index)
            few = len(known) < 2 or data.label[known].nunique() < 2
            values.append(np.nan if few else score(data.label[known], answer[known]))
        axes.plot(values, range(len(values)), marker, color=colour, ms=7, label=name, alpha=0.85)
    axes.set_title(f"{PROBLEM.metric} by slice")
    _name(axes, slices)
    axes.legend(loc="best")


def _name(axes: Axes, slices: dict[str, pd.Index]) -> None:
    names = [f"{name} ({len(rows):,})" for name, rows in slices.items()]
    axes.set_yticks(range(len(slices)), names)
    axes.set_ylim(len(slices) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x")


def _calibration(axes: Axes, candidate: Candidate) -> None:
    """Mean prediction against mean label, by tenth of the predictions."""
    data, ends = candidate.data, []
    looks = [(data.prediction, "o-", BLUE)]
    if data.champion is not None and len(data.champion) >= MIN_ROWS:
        looks.append((data.champion, "s--", ORANGE))
    for answer, look, colour in looks:
        tenth = pd.qcut(answer.rank(method="first"), 10, labels=False)
        means = pd.DataFrame({"p": answer, "y": data.label[answer.index]}).groupby(tenth).mean()
        axes.plot(means["p"], means["y"], look, color=colour)
        ends += [*means["p"], *means["y"]]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=GREY, lw=1)
    axes.set(title="Calibration, by tenth", xlabel="Mean prediction", ylabel="Mean label")
    axes.grid()
