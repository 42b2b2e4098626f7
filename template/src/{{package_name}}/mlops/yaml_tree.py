"""YAML whose values remember where they stand, and the mistakes found in it.

Used by bundle.py; knows nothing of Databricks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Where = tuple[str | int, ...]
"""The way to a value from the top, for example ("resources", "jobs", "x", "tasks", 0)."""


@dataclass(frozen=True)
class Problem:
    """A mistake in a file: where it stands (file relative to the root), what, and the fix."""

    file: str
    line: int
    message: str
    fix: str

    def __str__(self) -> str:
        """Give the line that is printed: an editor jumps to its `file:line`."""
        return f"{self.file}:{self.line}: {self.message}. Fix: {self.fix}."


class BundleError(Exception):
    """The bundle cannot be used; `problems` has at least one element."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep the problems in order, each once."""
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass
class Node:
    """A YAML value (dict of nodes, list of nodes or scalar) with its file and 1-based line."""

    value: Any
    file: Path
    line: int

    def fields(self) -> dict[str, Node]:
        """Give the fields of a map; nothing for any other value."""
        return self.value if isinstance(self.value, dict) else {}

    def get(self, *keys: str) -> Node | None:
        """Go down `keys`; None where there is no such field."""
        node: Node | None = self
        for key in keys:
            node = node.fields().get(key) if node else None
        return node


class Problems:
    """Collects mistakes, so that one look at a bundle finds them all."""

    def __init__(self, root: Path) -> None:
        """Write file names relative to `root`."""
        self.root = root
        self.found: list[Problem] = []

    def add(self, node: Node, message: str, fix: str) -> None:
        """Note a mistake at `node`."""
        self.found.append(Problem(relative(node.file, self.root), node.line, message, fix))

    def unknown_fields(self, node: Node | None, known: frozenset[str], what: str) -> None:
        """Note every field of `node` that is not among `known`, or that `node` is no map."""
        self.must_be(dict, node, what)
        for key, child in (node.fields() if node else {}).items():
            if key not in known:
                self.add(child, f"unknown field `{key}` in {what}", suggest(key, known))

    def must_be(self, kind: type, node: Node | None, what: str) -> None:
        """Note that `node` is not a map (dict) or list; empty is fine."""
        if node and node.value is not None and not isinstance(node.value, kind):
            name = "a map" if kind is dict else "a list"
            self.add(node, f"{what} must be {name}", f"write {name} here")

    def stop_if_any(self) -> None:
        """Raise BundleError if there is a mistake so far."""
        if self.found:
            raise BundleError(self.found)


def suggest(word: object, options: Iterable[object]) -> str:
    """Say what to write instead of `word`: the option most like it, or else all of them."""
    known = sorted(map(text, options))
    like = difflib.get_close_matches(text(word), known, n=1)
    if like:
        return f"write `{like[0]}` (did you mean that?)"
    return f"use one of: {', '.join(known)}" if known else "remove it: nothing is defined there"


def words(names: str) -> frozenset[str]:
    """Make a set of names out of one line."""
    return frozenset(names.split())


def text(value: object) -> str:
    """Write a scalar as Databricks passes it on: `true` and `false` in lower case, null empty."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def relative(file: Path, root: Path) -> str:
    """Name a file as seen from the project's root."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def dotted(where: Where) -> str:
    """Write a way as people do: `tasks[0].run_if`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where).lstrip(".")


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates as text, as the Databricks CLI does."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read(path: Path, problems: Problems) -> Node:
    """Parse one file; a field written twice is noted. Raises BundleError if it is not YAML."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        return _tree(root, path, loader, problems) if root else Node({}, path, 1)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or error
        place = Node(None, path, mark.line + 1 if mark else 1)
        problems.add(place, f"cannot be read: {reason}", "make it a UTF-8 file with valid YAML")
        raise BundleError(problems.found) from error


def _tree(node: yaml.Node, file: Path, loader: _Loader, problems: Problems) -> Node:
    place = Node(None, file, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        place.value = [_tree(item, file, loader, problems) for item in node.value]
    elif isinstance(node, yaml.MappingNode):
        names = [str(key.value) for key, _ in node.value]
        for index, (key, _) in enumerate(node.value):
            if names[index] != "<<" and names[index] in names[:index]:
                again = Node(None, file, key.start_mark.line + 1)
                problems.add(again, f"field `{names[index]}` is written twice", "keep one of them")
        loader.flatten_mapping(node)  # puts in what `<<` refers to
        place.value = {}
        for key, child in node.value:
            place.value[str(key.value)] = branch = _tree(child, file, loader, problems)
            branch.line = key.start_mark.line + 1  # where a reader looks for a field
    else:
        place.value = loader.construct_object(node)
    return place


def merge(base: Node, over: Node, keyed: dict[str, str], field: str = "") -> Node:
    """Lay `over` on `base`: maps by key, other values replaced, lists appended.

    `keyed` names the lists that are merged item by item, and the field that tells items apart.
    """
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        merged = dict(base.value)
        for key, child in over.value.items():
            merged[key] = merge(merged[key], child, keyed, key) if key in merged else child
        return Node(merged, base.file, base.line)
    if isinstance(base.value, list) and isinstance(over.value, list):
        identity = keyed.get(field, "")
        items = list(base.value)
        for extra in over.value:
            name = extra.get(identity)
            for index, item in enumerate(items):
                known = item.get(identity)
                if name and known and known.value == name.value:
                    items[index] = merge(item, extra, keyed)
                    break
            else:
                items.append(extra)
        return Node(items, base.file, base.line)
    return over


def plain(node: Node, where: Where, places: dict[Where, tuple[Path, int]]) -> Any:
    """Strip the places off the values and file them under the way to each value."""
    places[where] = (node.file, node.line)
    if isinstance(node.value, dict):
        return {key: plain(child, (*where, key), places) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child, (*where, i), places) for i, child in enumerate(node.value)]
    return node.value
