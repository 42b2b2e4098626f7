"""The team's code that this process serves; the machinery gets it here and nowhere else.

The first model's code is the package itself. A further model has a package inside that one, by its
name. A process serves one of them: the one that `--problem` names on its command line, as in the
jobs of a further model, else the one in MLOPS_PROBLEM, else the first.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .declarations import Problem

PACKAGE = __package__.split(".")[0]


def _asked() -> str:
    """The name of the model to serve; empty for the first."""
    words = [word.partition("=") for word in sys.argv[1:]]
    named = [value for option, _, value in words if option == "--problem"]
    return named[-1] if named else os.environ.get("MLOPS_PROBLEM", "")


NAME = _asked()


def module(name: str) -> ModuleType:
    """One of the team's modules: `problem`, `sources`, `model` or `checks`."""
    return import_module(".".join(filter(None, (PACKAGE, NAME, name))))


def own(name: str) -> str:
    """What this model alone has under the name, such as a table or a job."""
    return f"{NAME}_{name}" if NAME else name


PROBLEM: Problem = module("problem").PROBLEM
FOLDER = Path(str(module("problem").__file__)).parent
