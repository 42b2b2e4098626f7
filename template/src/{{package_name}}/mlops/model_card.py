"""The model card: what a version is, what it was made from, how good it is, what it is not for.

After Mitchell et al., Model Cards for Model Reporting (2019).
"""

from __future__ import annotations

from collections.abc import Iterable

from .declarations import CheckResult
from .registry import Registry
from .team import PROBLEM

CARD_FILE = "model_card.md"


def write_card(registry: Registry, version: str, results: Iterable[CheckResult]) -> None:
    """Write the card to the run that trained the version."""
    run_id = registry.get(version).run_id
    if run_id:
        registry.client.log_text(run_id, card(registry, version, results), CARD_FILE)


def card(registry: Registry, version: str, results: Iterable[CheckResult]) -> str:
    """The card as Markdown."""
    found = registry.get(version)
    tags = found.tags
    lines = [
        f"# {registry.model}, version {version}",
        "",
        f"{PROBLEM.description}.",
        "",
        "## Made from",
        "",
        f"- Rows from {tags.get('trained_from')} to {tags.get('trained_until')}, known at "
        f"{tags.get('as_of')}",
        f"- Tables at these versions: {tags.get('table_versions')}",
        f"- Code {tags.get('code')}, commit {tags.get('git_commit')}, trained because: "
        f"{tags.get('reason')}, by {tags.get('author')}",
        "",
        "## Features",
        "",
        *(f"- `{column.name}`: {column.description}" for column in PROBLEM.features),
        "",
        "## How good it is",
        "",
        "On rows later than all that it was trained on. The plots are in `model_card.png`, drawn "
        f"while the version awaits approval and by `{__package__.split('.')[0]} card {version}`.",
        "",
        "| Check | Passed | Result |",
        "| --- | --- | --- |",
    ]
    for result in results:
        words = result.reason.replace("|", "\\|").replace("\n", " ")
        where = f" ({result.slice})" if result.slice else ""
        lines.append(f"| {result.check}{where} | {'yes' if result.passed else 'NO'} | {words} |")
    lines += [
        "",
        "## Use and limits",
        "",
        PROBLEM.intended_use or f"For the question above, and no other: {PROBLEM.description}.",
        "It knows what was known at the time of a prediction, and nothing of what its features do "
        "not hold. Monitoring says when the data moves away from what it was trained on.",
        "",
    ]
    return "\n".join(lines)
