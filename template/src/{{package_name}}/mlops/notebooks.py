"""Run a Databricks notebook (source format, or plain Python) on this machine."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from .yaml_tree import text


class NotebookError(Exception):
    """A notebook that cannot be run here; `fix` says what to do."""

    def __init__(self, message: str, fix: str) -> None:
        """Keep the fix apart from the message."""
        super().__init__(message)
        self.fix = fix


def parameter(dbutils: Any, name: str, default: str) -> str:
    """A notebook's parameter: its widget on Databricks or in a job, else the default."""
    if dbutils is None:
        return default
    dbutils.widgets.text(name, default)
    return str(dbutils.widgets.get(name))


def read_notebook(path: Path) -> str:
    """Give the source of a notebook. Raises NotebookError if it cannot be run here.

    `# MAGIC %md` cells are comments and stay; any other magic (`%sql`, `%pip`, `%run`) has no
    meaning outside of a notebook and is refused.
    """
    name = path.name
    if path.suffix != ".py":
        raise NotebookError(f"notebook `{name}` is not a .py file", "name its file, with .py")
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(sorted(p.name for p in path.parent.glob("*.py"))) or "none"
        fix = f"correct the path, relative to this file; notebooks there: {known}"
        raise NotebookError(f"there is no notebook `{name}` at that path", fix) from error
    markdown = False
    for number, line in enumerate(source.splitlines(), start=1):
        if line.startswith("# COMMAND ---"):
            markdown = False
        elif re.match(r"# MAGIC\s+%md", line):
            markdown = True
        elif (line.startswith("# MAGIC") and not markdown) or re.match(r"[%!]\w", line):
            message = f"notebook `{name}` line {number}: `{line.strip()}` cannot run here"
            raise NotebookError(message, "write it in Python; only `# MAGIC %md` cells may stay")
    return source


class _Exit(BaseException):
    """dbutils.notebook.exit was called; not an Exception, so that no handler swallows it."""


class _Strict:
    def __getattr__(self, name: str) -> NoReturn:
        raise NotImplementedError(
            f"dbutils: `{name}` is not available on this machine; widgets.text and get, "
            "jobs.taskValues.set and get and notebook.exit are"
        )


class _Widgets(_Strict):
    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def text(self, name: str, defaultValue: str, label: str | None = None) -> None:  # noqa: N803
        self._values.setdefault(name, str(defaultValue))

    def get(self, name: str) -> str:
        if name not in self._values:
            raise KeyError(f"no widget `{name}`: set it in base_parameters or with widgets.text")
        return self._values[name]


class _TaskValues(_Strict):
    def __init__(self, earlier: Mapping[str, Mapping[str, str]], own: dict[str, str]) -> None:
        self._earlier, self._own = earlier, own

    def set(self, key: str, value: Any) -> None:
        self._own[key] = value if isinstance(value, str) else json.dumps(value)

    def get(
        self,
        taskKey: str,  # noqa: N803
        key: str,
        default: Any = None,
        debugValue: Any = None,  # noqa: N803
    ) -> Any:
        values = self._earlier.get(taskKey, {})
        if key in values:
            try:
                return json.loads(values[key])
            except ValueError:
                return values[key]
        if default is None:
            raise ValueError(f"task `{taskKey}` has set no value `{key}`")
        return default


class _Notebook(_Strict):
    def exit(self, value: str = "") -> NoReturn:
        raise _Exit(value)


class _Jobs(_Strict):
    def __init__(self, task_values: _TaskValues) -> None:
        self.taskValues = task_values


class DbUtils(_Strict):
    """The part of dbutils that jobs need; any other part raises NotImplementedError."""

    def __init__(
        self, widgets: Mapping[str, str], earlier: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Take the widgets' values and the task values set so far, by task."""
        self.values: dict[str, str] = {}
        self.widgets = _Widgets(widgets)
        self.jobs = _Jobs(_TaskValues(earlier, self.values))
        self.notebook = _Notebook()


def run_notebook(
    path: Path,
    widgets: Mapping[str, str],
    platform: Any,
    earlier: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, str]:
    """Execute a notebook with `dbutils`, `spark` and `display`; give the task values it sets.

    `spark` is `platform.spark`. `display` prints, or shows a DataFrame. Raises NotebookError, and
    whatever the notebook raises.
    """
    code = compile(read_notebook(path), str(path), "exec")
    dbutils = DbUtils({key: text(value) for key, value in widgets.items()}, earlier or {})
    variables: dict[str, Any] = {
        "__name__": "__main__",
        "__file__": str(path),
        "dbutils": dbutils,
        "display": _display,
    }
    if hasattr(platform, "spark"):
        variables["spark"] = platform.spark
    with contextlib.suppress(_Exit):
        exec(code, variables)
    return dbutils.values


def _display(*shown: Any) -> None:
    for thing in shown:
        if hasattr(thing, "show") and not hasattr(thing, "savefig"):  # a figure needs a window
            thing.show()
        else:
            print(thing)
