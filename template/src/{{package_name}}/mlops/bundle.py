"""Read databricks.yml and its includes for one target, as the Databricks CLI does, without a CLI.

Every value keeps the file and the line it was written at, so that whoever finds a mistake later
can name the place. Mistakes are collected and raised together.

What only a workspace knows (`${workspace.current_user.userName}`, `${resources.clusters.x.id}`,
variables with a `lookup`) stays in the text as it was written; running a job with such a value
on this machine is refused by the runner, not here.
"""

from __future__ import annotations

import re
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .yaml_tree import (
    BundleError,
    Node,
    Problem,
    Problems,
    Where,
    merge,
    plain,
    read,
    relative,
    suggest,
    text,
    words,
)

__all__ = [
    "Bundle",
    "BundleError",
    "Problem",
    "Where",
    "find_project",
    "job_id_of",
    "load",
    "suggest",
    "text",
]

PAUSE_STATUSES = ("PAUSED", "UNPAUSED")
TRIGGERS = ("schedule", "trigger", "continuous")
_TARGET_PARTS = words(
    "artifacts bundle permissions presets resources run_as sync variables workspace"
)
_TOP = _TARGET_PARTS | words("experimental include python scripts targets")
_TARGET = _TARGET_PARTS | words("cluster_id compute_id default git mode")
_PARTS = {
    "bundle": words("cluster_id compute_id databricks_cli_version deployment engine git name uuid"),
    "presets": words(
        "artifacts_dynamic_version jobs_max_concurrent_runs name_prefix pipelines_development "
        "source_linked_deployment tags trigger_pause_status"
    ),
    "run_as": words("group_name service_principal_name user_name"),
    "workspace": words(
        "account_id artifact_path auth_type azure_client_id azure_environment azure_login_app_id "
        "azure_tenant_id azure_use_msi azure_workspace_resource_id client_id "
        "experimental_is_unified_host file_path google_service_account host profile "
        "resource_path root_path state_path workspace_id"
    ),
}
_ARTIFACT = words("build dynamic_version executable files path type")
_GIT = words("branch origin_url")
_PERMISSION = words("group_name level service_principal_name user_name")
_SETTINGS = ("artifacts", "permissions", "presets", "run_as")
_VARIABLE = words("default description lookup type")
_RESOURCES = words(
    "alerts apps catalogs cluster_policies clusters dashboards database_catalogs "
    "database_instances experiments external_locations features genie_spaces instance_pools "
    "job_runs jobs model_serving_endpoints model_services models pipelines postgres_branches "
    "postgres_catalogs postgres_databases postgres_endpoints postgres_projects postgres_roles "
    "postgres_synced_tables quality_monitors registered_models schemas secret_scopes secrets "
    "sql_warehouses synced_database_tables vector_search_endpoints vector_search_indexes "
    "volumes"
)
# Lists that the CLI merges item by item, by this field; it appends to all others.
_KEYED = {
    "tasks": "task_key",
    "parameters": "name",
    "environments": "environment_key",
    "job_clusters": "job_cluster_key",
}
_RUN_HERE = ("jobs", "pipelines")
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
# Known on a workspace only, unless it is written in the bundle.
_LATER = re.compile(
    r"bundle\.(git\.(branch|commit|origin_url)|uuid|environment)|resources\.[^.]+\.[^.]+\.(id|url|full_name)"
    r"|workspace\.(current_user\..+|(root|file|artifact|state|resource)_path|host|profile)"
)


@dataclass(frozen=True)
class Bundle:
    """A bundle for one target: merged, with its references resolved.

    `resources` maps type -> key -> definition, in plain dicts, lists and scalars; `settings` holds
    the other parts (workspace, presets, permissions, run_as, artifacts) and the target's mode.
    `places` maps the way to each of their values to its file and line. `unresolved` holds the
    resources as they are written.
    """

    root: Path
    name: str
    target: str
    resources: dict[str, dict[str, Any]]
    places: Mapping[Where, tuple[Path, int]]
    settings: dict[str, Any] = field(default_factory=dict)
    unresolved: dict[str, Any] = field(default_factory=dict)

    def written(self, where: Where) -> str:
        """Give a value of a resource as the file has it, references and all."""
        value: Any = {"resources": self.unresolved}
        for step in where:
            value = value.get(step) if isinstance(value, dict) else None
        return text(value)

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """Job definitions by resource key."""
        return self.resources.get("jobs", {})

    def place(self, where: Where) -> tuple[Path, int]:
        """Find the file and line of a value, or of the nearest thing around it that has one."""
        while where not in self.places:
            where = where[:-1]
        return self.places[where]

    def problem(self, where: Where, message: str, fix: str) -> Problem:
        """Describe a mistake at `where`."""
        file, line = self.place(where)
        return Problem(relative(file, self.root), line, message, fix)

    def job_key(self, job_id: object) -> str | None:
        """Map what `${resources.jobs.<key>.id}` resolved to back to its key."""
        return next((key for key in self.jobs if job_id_of(key) == str(job_id)), None)

    @property
    def pipelines(self) -> dict[str, dict[str, Any]]:
        """Pipeline definitions by resource key."""
        return self.resources.get("pipelines", {})

    def pipeline_key(self, pipeline_id: object) -> str | None:
        """Map what `${resources.pipelines.<key>.id}` resolved to back to its key."""
        return next((key for key in self.pipelines if job_id_of(key) == str(pipeline_id)), None)


def job_id_of(key: str) -> str:
    """Give the id of a job or pipeline on this machine: stable, and unlike one of a workspace."""
    return str(900_000_000_000_000 + zlib.crc32(key.encode()))


def find_project(here: Path) -> Path | None:
    """The folder of databricks.yml: this one or the nearest above it; None where there is none."""
    places = (here, *here.parents)
    return next((place for place in places if (place / "databricks.yml").is_file()), None)


def load(
    root: Path, target: str | None = None, overrides: Mapping[str, str] | None = None
) -> Bundle:
    """Read the bundle in folder `root` for `target` (default: the one with `default: true`).

    `overrides` sets variables, as `--var` of the CLI does. Raises BundleError with every mistake
    that was found: its file, line, field and fix.
    """
    problems = Problems(root)
    tree = _read_all(root, problems)
    name, chosen = _choose_target(problems, tree, target)
    variables = _variables(problems, tree, name, chosen, overrides or {})
    for key in _TARGET_PARTS - {"variables"}:
        if override := chosen.get(key):
            base = tree.get(key)
            tree.value[key] = merge(base, override, _KEYED) if base else override
    problems.unknown_fields(tree.get("resources"), _RESOURCES, "resources")
    for kind, found in (tree.get("resources") or _empty(tree)).fields().items():
        problems.must_be(dict, found, f"resources.{kind}")
    bundle = tree.get("bundle") or _empty(tree)
    _check_parts(problems, tree, chosen)
    if not bundle.get("name"):
        problems.add(bundle, "the bundle has no name", "set bundle.name")
    problems.stop_if_any()
    target_name = Node(name, chosen.file, chosen.line)
    bundle.value = {"git": _git(root, bundle), **bundle.fields(), "target": target_name}
    scope = {
        "bundle": bundle,
        "var": variables,
        "workspace": tree.get("workspace") or _empty(tree),
        "resources": tree.get("resources") or _empty(tree),
    }
    resolver = _Resolver(Node(scope, tree.file, 1), problems)
    resolved = {part: resolver.resolve(node) for part, node in scope.items()}
    rest = {part: tree.get(part) or _empty(tree) for part in _SETTINGS}
    settings = {part: resolver.resolve(node) for part, node in rest.items()}
    settings["workspace"] = resolved["workspace"]
    settings["mode"] = chosen.get("mode") or Node("", chosen.file, chosen.line)
    resolver.resolve(chosen.get("git") or _empty(tree))
    _apply_pause_status(problems, chosen, settings["presets"], resolved["resources"].get("jobs"))
    problems.stop_if_any()
    places: dict[Where, tuple[Path, int]] = {
        (): (tree.file, 1),
        ("target",): (chosen.file, chosen.line),
    }
    resources = plain(resolved["resources"], ("resources",), places)
    by_kind = {kind: dict(found or {}) for kind, found in (resources or {}).items()}
    others = {part: plain(node, (part,), places) for part, node in settings.items()}
    bundle_name = text(resolved["bundle"].value["name"].value)
    unresolved = plain(scope["resources"], ("resources",), {})
    return Bundle(root, bundle_name, name, by_kind, places, others, unresolved or {})


def _git(root: Path, near: Node) -> Node:
    """What `${bundle.git.*}` says of the folder: its commit and branch, else `unknown`."""
    asked = {"commit": ["HEAD"], "branch": ["--abbrev-ref", "HEAD"]}
    found = {}
    for name, arguments in asked.items():
        command = ["git", "-C", str(root), "rev-parse", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = Node(done.stdout.strip(), near.file, near.line)
        except (OSError, subprocess.CalledProcessError):
            found[name] = Node("unknown", near.file, near.line)
    return Node(found, near.file, near.line)


def _empty(near: Node) -> Node:
    return Node({}, near.file, near.line)


def _read_all(root: Path, problems: Problems) -> Node:
    """Read databricks.yml and lay what it includes on it."""
    tree = read(root / "databricks.yml", problems)
    problems.unknown_fields(tree, _TOP, "the bundle")
    patterns = tree.get("include")
    problems.must_be(list, patterns, "include")
    defined: dict[str, tuple[str, Node]] = {}
    _no_key_twice(problems, tree, defined)
    for pattern in patterns.value if patterns and isinstance(patterns.value, list) else []:
        files = sorted(root.glob(str(pattern.value)))
        if not files:
            message = f"include `{pattern.value}` matches no file"
            problems.add(pattern, message, "correct the pattern or remove it")
        for file in files:
            part = read(file, problems)
            problems.unknown_fields(part, _TOP, "the bundle")
            _no_key_twice(problems, part, defined)
            tree = merge(tree, part, _KEYED)
    return tree


def _check_parts(problems: Problems, tree: Node, chosen: Node) -> None:
    """Find fields that the CLI does not know, and those without a value."""
    for part, known in _PARTS.items():
        problems.unknown_fields(tree.get(part), known, part)
    for git in (tree.get("bundle", "git"), chosen.get("git")):
        problems.unknown_fields(git, _GIT, "git")
    for name, artifact in (tree.get("artifacts") or _empty(tree)).fields().items():
        problems.unknown_fields(artifact, _ARTIFACT, f"artifact `{name}`")
    permissions = tree.get("permissions")
    problems.must_be(list, permissions, "permissions")
    if permissions and isinstance(permissions.value, list):
        for permission in permissions.value:
            problems.unknown_fields(permission, _PERMISSION, "a permission")
    for part in (*_SETTINGS, "variables", "workspace"):
        _no_empty_field(problems, tree.get(part))
    for resources in (tree.get("resources") or _empty(tree)).fields().values():
        for resource in resources.fields().values():
            _no_empty_field(problems, resource)


def _no_empty_field(problems: Problems, node: Node | None) -> None:
    for key, child in (node.fields() if node else {}).items():
        if child.value is None:
            problems.add(child, f"field `{key}` has no value", "write one, or remove the field")
        _no_empty_field(problems, child)
    for item in node.value if node and isinstance(node.value, list) else []:
        _no_empty_field(problems, item)


def _no_key_twice(problems: Problems, part: Node, defined: dict[str, tuple[str, Node]]) -> None:
    """A key names one resource of the bundle, whatever its kind; `defined` are those so far."""
    for kind, resources in (part.get("resources") or _empty(part)).fields().items():
        for key, node in resources.fields().items():
            if key in defined:
                name, first = defined[key]
                other = f"{relative(first.file, problems.root)}:{first.line}"
                message = f"resources.{kind}.{key}: {name} is already defined at {other}"
                problems.add(node, message, "rename one of the two: keys are unique across kinds")
            defined.setdefault(key, (f"resources.{kind}.{key}", node))


def _choose_target(problems: Problems, tree: Node, wanted: str | None) -> tuple[str, Node]:
    targets = tree.get("targets") or _empty(tree)
    problems.must_be(dict, targets, "targets")
    for name, node in targets.fields().items():
        problems.unknown_fields(node, _TARGET, f"target `{name}`")
        mode = node.get("mode")
        if mode and mode.value not in ("development", "production"):
            fix = suggest(text(mode.value), ("development", "production"))
            problems.add(mode, f"unknown mode `{mode.value}` of target `{name}`", fix)
    if wanted is None:
        names = list(targets.fields())
        defaults = [n for n in names if (flag := targets.get(n, "default")) and flag.value]
        if len(defaults or names) != 1:
            message = f"{len(defaults)} targets are the default one"
            problems.add(targets, message, "set `default: true` in one target")
            raise BundleError(problems.found)
        (wanted,) = defaults or names
    chosen = targets.get(wanted)
    if chosen is None:
        problems.add(targets, f"unknown target `{wanted}`", suggest(wanted, targets.fields()))
        raise BundleError(problems.found)
    return wanted, chosen


def _variables(
    problems: Problems, tree: Node, target: str, chosen: Node, overrides: Mapping[str, str]
) -> Node:
    """Give each declared variable its value: override, then target, then default."""
    declared = tree.get("variables") or _empty(tree)
    problems.must_be(dict, declared, "variables")
    problems.must_be(dict, chosen.get("variables"), "variables")
    in_target = (chosen.get("variables") or _empty(tree)).fields()
    for name in [*in_target, *overrides]:
        if not declared.get(name):
            message = f"variable `{name}` is not declared under `variables`"
            fix = suggest(name, declared.fields())
            problems.add(in_target.get(name, declared), message, fix)
    values: dict[str, Node] = {}
    for name, node in declared.fields().items():
        problems.unknown_fields(node, _VARIABLE, f"variable `{name}`")
        here = in_target.get(name)
        fields = set(here.fields()) if here else set()
        if here and fields <= _VARIABLE and fields & {"default", "lookup"}:
            node, here = here, None  # the target declares it anew
        if name in overrides:
            values[name] = Node(overrides[name], node.file, node.line)
        elif value := here or node.get("default"):
            values[name] = value
        elif lookup := node.get("lookup"):
            values[name] = Node({"lookup": lookup}, node.file, node.line)
        else:
            fix = f"give it a default, or set targets.{target}.variables.{name}"
            problems.add(node, f"variable `{name}` has no value in target `{target}`", fix)
    return Node(values, declared.file, declared.line)


@dataclass(frozen=True)
class _Resolver:
    """Replaces `${...}`; `scope` holds what the first name of a reference may be."""

    scope: Node
    problems: Problems

    def resolve(self, node: Node, stack: tuple[str, ...] = ()) -> Node:
        """Replace every reference below a node; places stay those of the text."""
        value = node.value
        if isinstance(value, dict):
            value = {key: self.resolve(child, stack) for key, child in value.items()}
        elif isinstance(value, list):
            value = [self.resolve(child, stack) for child in value]
        elif isinstance(value, str):
            if whole := _REFERENCE.fullmatch(value):  # the value itself, with its type
                found = self._look_up(whole[1], node, stack)
                return Node(found.value if found else value, node.file, node.line)
            if "${" in _REFERENCE.sub("", value):
                self.problems.add(node, f"`{value}` opens a reference and ends none", "add `}`")
            value = _REFERENCE.sub(lambda match: self._part(match, node, stack), value)
        return Node(value, node.file, node.line)

    def _part(self, match: re.Match[str], node: Node, stack: tuple[str, ...]) -> str:
        found = self._look_up(match[1], node, stack)
        if found and isinstance(found.value, dict | list):
            self.problems.add(node, f"`{match[0]}` is not a scalar", "use it as the whole value")
        return text(found.value) if found else match[0]

    def _look_up(self, name: str, node: Node, stack: tuple[str, ...]) -> Node | None:
        """Resolve one reference; None if it stays as written or its mistake was noted."""
        if name in stack:
            way = " -> ".join((*stack[stack.index(name) :], name))
            self.problems.add(node, f"`${{{name}}}` refers to itself: {way}", "break the circle")
            return None
        parts = re.sub(r"\[(\d+)\]", r".\1", name).split(".")
        if _LATER.fullmatch(name) and not self.scope.get(*parts):
            if parts[0] == "resources" and parts[1] in _RUN_HERE and self.scope.get(*parts[:3]):
                is_id = parts[3] == "id"
                return Node(job_id_of(parts[2]), node.file, node.line) if is_id else None
            if parts[0] != "resources" or self.scope.get(*parts[:3]):
                return None
        at = self.scope
        for done, part in enumerate(parts):
            if isinstance(at.value, str):  # what is referred to is itself a reference
                at = self.resolve(at, (*stack, name))
            items = dict(enumerate(at.value)) if isinstance(at.value, list) else {}
            below = at.get(part) or (items.get(int(part)) if part.isdigit() else None)
            if below is None:
                message = f"undefined reference `${{{name}}}`: no `{part}` in "
                message += ".".join(parts[:done]) or "the bundle"
                self.problems.add(node, message, suggest(part, at.fields()))
                return None
            at = below
        if parts[0] == "var" and set(at.fields()) == {"lookup"}:
            return None
        return self.resolve(at, (*stack, name))


def _apply_pause_status(problems: Problems, chosen: Node, presets: Node, jobs: Node | None) -> None:
    """Pause as the CLI does: a preset (in development: PAUSED) fills in an absent pause_status.

    It never changes a pause_status that is written in the job.
    """
    mode, preset = chosen.get("mode"), presets.get("trigger_pause_status")
    allowed = ("PAUSED",) if mode and mode.value == "development" else PAUSE_STATUSES
    if preset and preset.value not in allowed:
        message = f"presets.trigger_pause_status cannot be `{preset.value}` in this target"
        problems.add(preset, message, f"use {' or '.join(allowed)}")
    status = preset.value if preset else allowed[0] if len(allowed) == 1 else None
    for job in (jobs.fields() if jobs else {}).values():
        for trigger in filter(None, map(job.get, TRIGGERS)):
            if status and isinstance(trigger.value, dict) and not trigger.get("pause_status"):
                trigger.value["pause_status"] = Node(status, trigger.file, trigger.line)
