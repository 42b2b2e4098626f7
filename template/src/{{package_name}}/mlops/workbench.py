"""What the notebooks share: where their tables are, evidence in memory, the look of plots."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import find_project
from .notebooks import parameter
from .platform import MissingTableError, Platform, connect
from .tables import Table
from .team import PROBLEM

if TYPE_CHECKING:
    import pandas as pd

# "C0" to "C3" of a plot: blue, orange, green, grey, told apart by every kind of colour vision.
_COLOURS = ["#0072B2", "#D55E00", "#007A5A", "#8a94a0"]


def open_platform(dbutils: Any, catalog: str, schema: str) -> Platform:
    """Connect to the tables of the widgets `catalog` and `schema`, which start with these values.

    Without `dbutils` there are no widgets: these values it is. On this machine the tables are
    those of the project around the working folder, since an editor starts a notebook beside its
    file.
    """
    here = Path.cwd()
    os.environ.setdefault("MLOPS_HOME", str((find_project(here) or here) / ".local"))
    return connect(parameter(dbutils, "catalog", catalog), parameter(dbutils, "schema", schema))


def evidence(platform: Platform, table: Table) -> pd.DataFrame:
    """An evidence table in memory, of this model alone.

    Until it is written it is empty, with a line that says what to do.
    """
    import pandas as pd

    try:
        rows = platform.frame(table.name)
    except MissingTableError as error:
        print(error)
        return pd.DataFrame(columns=[column.name for column in table.columns])
    if "model" not in rows:
        return rows
    # A deployment for trying puts a prefix before the model's own name.
    names = rows["model"].str.rpartition(".")[2]
    exact = names == PROBLEM.name
    return rows[exact if exact.any() else names.str.endswith("_" + PROBLEM.name)]


def use_style() -> None:
    """Draw as the report of the lifecycle does."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    report = Path(__file__).with_name("report") / "lifecycle.mplstyle"
    here = {"axes.prop_cycle": cycler(color=_COLOURS), "font.size": 10, "text.parse_math": True}
    plt.style.use(["default", report, here])
