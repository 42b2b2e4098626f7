"""Check Quartz cron expressions, the ones that schedules of jobs are written in."""

from __future__ import annotations

import re

from .yaml_tree import words

_MONTHS = words("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC")
_DAYS = words("SUN MON TUE WED THU FRI SAT")
_CRON = (
    ("second", 0, 59, frozenset[str](), ""),
    ("minute", 0, 59, frozenset[str](), ""),
    ("hour", 0, 23, frozenset[str](), ""),
    ("day of month", 1, 31, frozenset[str](), r"L|LW|L-\d+|\d+W"),
    ("month", 1, 12, _MONTHS, ""),
    ("day of week", 1, 7, _DAYS, r"L|\w+L|\w+#[1-5]"),
    ("year", 1970, 2099, frozenset[str](), ""),
)


def cron_mistake(expression: str) -> str | None:
    """Say what is wrong with a Quartz cron expression (6 or 7 fields); None if nothing is."""
    parts = expression.split()
    if len(parts) not in (6, 7):
        return f"{len(parts)} fields instead of 6 or 7"
    for part, (name, low, high, names, special) in zip(parts, _CRON, strict=False):
        for item in part.split(","):
            days = name.startswith("day")
            if (days and item == "?") or (special and re.fullmatch(special, item)):
                continue
            match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", item)
            for bound in match.groups()[:2] if match else ():
                known = bound is None or bound.upper() in names
                if not known and not (bound.isdigit() and low <= int(bound) <= high):
                    return f"{name} `{item}` is not within {low}-{high}"
            if not match or match[3] == "0":
                return f"{name} cannot be `{item}`"
    if (parts[3] == "?") == (parts[5] == "?"):
        return "exactly one of day of month and day of week must be `?`"
    return None
