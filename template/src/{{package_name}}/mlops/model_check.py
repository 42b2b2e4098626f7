"""Find mistakes between the models of a project: names that two of them claim.

Models share a source or a feature table by importing it from one another. Two declarations of one
name would be merged into one table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .declarations import FeatureTable, Problem, Source
from .tables import EVIDENCE
from .team import models, module


def check_models() -> list[str]:
    """Each mistake between the models of this project, with its fix."""
    names = ("", *models())
    return find_clashes(
        {name: module("problem", name).PROBLEM for name in names},
        {name: module("sources", name).SOURCES for name in names},
    )


def find_clashes(
    problems: Mapping[str, Problem], sources: Mapping[str, tuple[Source, ...]]
) -> list[str]:
    """Each name that is claimed twice; both map a model (empty: the first) to its own."""
    found = dict.fromkeys([*_models(problems), *_tables(problems, sources), *_types(problems)])
    return list(found)


def _file(model: str, name: str) -> str:
    return f"{model}/{name}" if model else name


def _models(problems: Mapping[str, Problem]) -> Iterator[str]:
    known: dict[str, str] = {}
    for model, problem in problems.items():
        if problem.name in known:
            yield (
                f"{_file(model, 'problem.py')}: PROBLEM is called `{problem.name}`, as "
                f"in {known[problem.name]}. Fix: give it another name."
            )
        known[problem.name] = _file(model, "problem.py")


def _tables(
    problems: Mapping[str, Problem], sources: Mapping[str, tuple[Source, ...]]
) -> Iterator[str]:
    taken: dict[str, tuple[object, str]] = {}
    for table in EVIDENCE:
        taken[table.name] = (table, "the evidence tables")
    for model in problems:
        name = f"{model}_observations" if model else "observations"
        taken[name] = (name, "the observations")
    for model, problem in problems.items():
        declared: tuple[Source | FeatureTable, ...] = (*sources[model], *problem.feature_tables)
        for thing in declared:
            source = isinstance(thing, Source)
            where = _file(model, "sources.py" if source else "features/")
            other, place = taken.setdefault(thing.name, (thing, where))
            if other is not thing:
                yield (
                    f"{where}: the table `{thing.name}` is also one of {place}. Fix: give it "
                    "another name, or import the other one to share it."
                )


def _types(problems: Mapping[str, Problem]) -> Iterator[str]:
    """Predictions of all models are in one table, with the features as columns."""
    known: dict[str, tuple[str, str]] = {}
    for model, problem in problems.items():
        where = _file(model, "problem.py")
        for column in problem.known_features:
            kind, first = known.setdefault(column.name, (column.type, where))
            if kind != column.type:
                yield (
                    f"{where}: the feature `{column.name}` is {column.type}, and {kind} in "
                    f"{first}. Fix: give one of them another name; both are columns of predictions."
                )
