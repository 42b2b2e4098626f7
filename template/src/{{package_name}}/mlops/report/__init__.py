"""The lifecycle in pictures: one HTML file that needs nothing else, and a table for the terminal.

`data` is the content of `reports/lifecycle.json` everywhere.
"""

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from rich.table import Table
from rich.text import Text

from . import charts

NO_VALUE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def write_report(data: Mapping[str, Any], path: Path) -> Path:
    """Write the report of `data` to `path`, all of it or nothing, and return `path`.

    The same data give the same bytes. Raises KeyError for data without months or summary.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("lifecycle.html.j2").render(_view(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(html, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def month_table(data: Mapping[str, Any]) -> Table:
    """Build the table by month for a terminal of 80 columns, with the verdict below it."""

    def cell(text: str, style: str = "") -> Text:
        """Plain text, without the dashes that a terminal may not be able to encode."""
        return Text(text.replace(MINUS, "-").replace(NO_VALUE, "-"), style)

    view = _view(data)
    table = Table(title=Text(str(data["project"])), caption=Text(view["headline"]))
    table.add_column("Month", no_wrap=True)
    table.add_column("Served")
    for heading in (view["metric"], "First model", "Gain", "Drifted"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Decisions")
    for month in view["months"]:
        table.add_row(
            cell(month["label"]),
            cell(f"v{month['served']}" if month["served"] else NO_VALUE),
            cell(view["value"](month["served_metric"])),
            cell(view["value"](month["first_metric"])),
            cell(view["signed"](month["gain"]), {1: "green", -1: "red"}.get(month["sign"], "")),
            cell(f"{len(month['drifted'])} of {len(month['drift'])}"),
            cell("\n".join(f"v{d['version']} {d['decision']}" for d in month["decisions"])),
        )
    return table


def _view(data: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the template shows: numbers finite or None, months labelled, words chosen."""
    months = [_month(month) for month in data["months"]]
    classification, first = data["task"] == "classification", str(data["first_version"])
    unit, digits = ("", 3) if classification else (str(data.get("unit", "minutes")), 2)
    metric = str(data["metric"]).replace("_", " ").upper()
    peaks: dict[str, float] = {}
    for month in months:
        for name, psi in month["drift"].items():
            peaks[name] = max(psi or 0.0, peaks.get(name, 0.0))
    versions = {version for month in months for version in month["performance"]}

    def lead(month: Mapping[str, Any], version: str) -> float:
        """How much better than the first model a version was, positive for either metric."""
        value = month["performance"].get(version)
        base = month["performance"].get(first, month["first_metric"])
        if value is None or base is None:
            return 0.0
        return float(value - base if data["higher_is_better"] else base - value)

    def slice_lead(month: Mapping[str, Any], number: float) -> float:
        """How much better than on all rows; 1 at a tenth of it."""
        base = month["served_metric"]
        if not base:
            return 0.0
        apart = number - base if data["higher_is_better"] else base - number
        return float(10 * apart / base)

    largest = max((abs(lead(m, v)) for m in months for v in versions), default=0.0) or 1.0
    view = {
        **data,
        "months": months,
        "metric": metric,
        "unit": unit,
        "axis": f"{metric} in {unit}" if unit else metric,
        "first_version": first,
        "features": sorted(peaks, key=lambda name: (-peaks[name], name)),
        "thresholds": sorted({m["drift_threshold"] for m in months if m["drift_threshold"]}),
        "versions": sorted(versions, key=lambda v: (not v.isdigit(), len(v), v)),
        "calibration": _calibration(data.get("calibration") or ()),
        "quarantined": data.get("quarantined") or {},
        "value": lambda number: _format(number, digits),
        "signed": lambda number: _format(number, digits, sign="+"),
        "evidence": _evidence,
        "charts": charts,
        "lead_shade": lambda month, version: charts.shade(lead(month, version) / largest),
        "slice_shade": lambda month, number: charts.shade(slice_lead(month, number)),
        # Full colour at four times the threshold.
        "drift_shade": lambda psi, limit: charts.shade(-psi / (4 * limit) if limit else 0.0),
    }
    view["slices"] = sorted({name for month in months for name in month["slices"]})
    view["next"] = _next(months)
    view["headline"], view["sentences"] = _verdict(view)
    return view


def _month(month: Mapping[str, Any]) -> dict[str, Any]:
    """One month with numbers finite or None, versions as text and a label such as Apr 2013."""
    gain, served = _finite(month.get("gain")), month.get("served_version")
    return {
        **month,
        "label": _label(month["month"]),
        "served": None if served is None else str(served),
        "served_metric": _finite(month.get("served_metric")),
        "first_metric": _finite(month.get("first_version_metric")),
        "gain": gain,
        "sign": None if gain is None else (gain > 0) - (gain < 0),
        "drift": {name: _finite(psi) for name, psi in (month.get("drift") or {}).items()},
        "drift_threshold": _finite(month.get("drift_threshold")),
        "limits": month.get("limits") or {},
        "sudden": month.get("sudden") or [],
        "moved": month.get("moved") or [],
        "quality": month.get("quality") or [],
        "intervals": {
            str(version): None if None in ends else (_finite(ends[0]), _finite(ends[1]))
            for version, ends in (month.get("intervals") or {}).items()
        },
        "slices": {
            row["slice"]: {key: _finite(row[key]) for key in ("value", "low", "high")}
            for row in month.get("slices") or ()
        },
        "drifted": month.get("drifted_features") or [],
        "decisions": month.get("decisions") or [],
        "performance": {
            str(version): _finite(metric)
            for version, metric in (month.get("performance") or {}).items()
        },
    }


def _verdict(view: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The headline and the sentences below it, in plain words with the real figures."""
    summary, months, sentences = view["summary"], view["months"], []
    compared, headline = summary["months_compared"], "Nothing to compare yet"
    if compared:
        headline = f"Retraining paid in {summary['months_better']} of {_count(compared, 'month')}"
    if (mean := _finite(summary.get("mean_gain"))) is not None:
        size = f"{view['value'](abs(mean))} {view['unit']}".strip()
        sentences.append(
            f"On average the {view['metric']} of the served champion was {size} "
            f"{'worse' if mean < 0 else 'better'} than that of the first model, never retrained."
        )
    worse = {m["label"]: view["signed"](m["gain"]) for m in months if m["sign"] == -1}
    for month in summary.get("months_worse") or ():
        worse.setdefault(_label(month), "worse")
    even = [month for month in months if month["sign"] == 0]
    same = [m["label"] for m in even if m["served"] == view["first_version"]]
    equal = [m["label"] for m in even if m["served"] != view["first_version"]]
    if worse:
        named = _list([f"{label} ({gain})" for label, gain in worse.items()])
        sentences.append(f"Retraining did not pay in {named}: the first model was better.")
    elif compared:
        sentences.append("In no month was the first model better.")
    if equal:
        sentences.append(f"Retraining made no difference in {_list(equal)}.")
    if same:
        sentences.append(f"In {_list(same)} the first model itself served.")
    counts = [_count(summary[key], key[:-1]) for key in ("trainings", "promotions", "refusals")]
    sentences.append(f"In all: {_list(counts)}.")
    return headline, sentences


def _next(months: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What to do about the latest month that was watched: what is the matter, and the step."""
    last = next((month for month in reversed(months) if month["drift"] or month["quality"]), None)
    if last is None:
        return []
    steps = []
    for row in last["quality"][:8]:
        where = row["subject"] if row["column"] == "all" else f"{row['subject']}.{row['column']}"
        steps.append((f"{where}: {row['metric']}, {row['reason']}", "Repair what feeds it"))
    if last["sudden"]:
        names = _list(sorted(last["sudden"]))
        steps.append((f"All at once other than the month before: {names}", "Check their sources"))
    if "label" in last["moved"]:
        steps.append(("The label is distributed differently", "Check how labels are made"))
    if last["decayed"] and not last["decisions"]:
        steps.append(("Performance has decayed, and no version was trained", "Train one"))
    refused = [d for d in last["decisions"] if d["decision"] == "refused"]
    if refused:
        names = _list([f"v{d['version']}" for d in refused])
        steps.append((f"{names} refused", "Read the evidence below; the champion goes on"))
    return steps or [("Nothing is out of its limits", "Nothing")]


def _calibration(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Points of each version's calibration and their mean distance, weighted by rows."""
    curves = []
    for entry in entries:
        bins = [(_finite(b["predicted"]), _finite(b["observed"]), b["rows"]) for b in entry["bins"]]
        known = [(p, o, rows) for p, o, rows in bins if p is not None and o is not None]
        if weight := sum(rows for _, _, rows in known):
            gap = sum(abs(p - o) * rows for p, o, rows in known) / weight
            points = [(p, o) for p, o, _ in known]
            curves.append({"version": str(entry["version"]), "points": points, "gap": gap})
    return curves


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _format(number: float | None, digits: int, *, sign: str = "") -> str:
    if number is None:
        return NO_VALUE
    return f"{number:{sign if number else ''}.{digits}f}".replace("-", MINUS)


def _evidence(value: Any) -> str:
    """The value of a check, or a count, whatever its type."""
    if value is None or isinstance(value, bool | str):
        return NO_VALUE if value is None else str(value)
    if not math.isfinite(value):
        return NO_VALUE
    return (f"{value:,}" if isinstance(value, int) else f"{value:.4g}").replace("-", MINUS)


def _label(month: str) -> str:
    year, _, number = str(month).partition("-")
    known = number.isdigit() and 1 <= int(number) <= 12
    return f"{MONTHS[int(number) - 1]} {year}" if known else str(month)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _list(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
