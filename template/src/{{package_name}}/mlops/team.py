"""The team's code that this process serves; the machinery gets it here and nowhere else.

The first model's code is the package itself. A further model has a package inside that one, by its
name. A process serves one of them: the one that `--problem` names on its command line, as in the
jobs of a further model, else the one in MLOPS_PROBLEM, else the first.
"""

from __future__ import annotations

import hashlib
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
    named = [value for option, sign, value in words if sign and option == "--problem"]
    return named[-1] if named else os.environ.get("MLOPS_PROBLEM", "")


NAME = _asked()
os.environ["MLOPS_PROBLEM"] = NAME  # a process that is started from here serves the same


def models() -> list[str]:
    """Names of the further models, those that have a package of their own."""
    inside = Path(__file__).parent.parent
    return sorted(path.parent.name for path in inside.glob("*/problem.py"))


def module(name: str, model: str = NAME) -> ModuleType:
    """One of the team's modules: `problem`, `sources`, `model` or `checks`.

    Raises:
        LookupError: there is no such model.
    """
    if model and model not in models():
        raise LookupError(
            f"There is no model {model!r} beside the first. Fix: --problem is one of "
            f"{', '.join(models()) or 'none: make add-model NAME=' + model}."
        )
    return import_module(".".join(filter(None, (PACKAGE, model, name))))


def own(name: str, model: str = NAME) -> str:
    """What a model alone has under the name, such as a table or a job."""
    return f"{model}_{name}" if model else name


PROBLEM: Problem = module("problem").PROBLEM
FOLDER = Path(str(module("problem").__file__)).parent


def code_digest() -> str:
    """Digest of the team's code that shapes a model: problem, features and model."""
    files = [FOLDER / "problem.py", FOLDER / "model.py", *sorted(FOLDER.glob("features/*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
