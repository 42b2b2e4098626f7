"""Check schedules of jobs: Quartz cron expressions, and time zones."""

from __future__ import annotations

import re
from difflib import get_close_matches
from zoneinfo import available_timezones

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


def timezone_fix(zone: str) -> str | None:
    """Say what to write for a time zone that there is not; None if there is, or nobody knows."""
    zones = available_timezones()  # empty on a machine without the database
    if not zones or zone in zones:
        return None
    near = get_close_matches(zone, sorted(zones), 1)
    return f"write `{near[0]}` (did you mean that?)" if near else "write UTC, or a name like it"
