"""Stands for `databricks`, `uv`, `gh` and `az` on PATH while tests run CI: records, and answers.

It refuses commands and flags that the real program does not have, a databricks call without an
identity, and a question without a target, which would go to the workspace of the default one.
`CI_STUB` names a folder with `calls.jsonl` and, if a test wrote them, regular expressions of calls:
`fail`, and `cancel` (somebody cancels the run while that call is under way).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ["HOME"])
STUB = Path(__file__).resolve().parent
SCHEMA = {"id": "some.schema", "catalog_name": "some", "name": "schema"}
MODEL = "some.schema.model"
BUNDLE = {
    "validate": {"--strict"},
    "deploy": {"--plan", "--auto-approve"},
    "destroy": {"--auto-approve"},
    "plan": {"-o"},
    "summary": {"-o"},
    "run": {"--params"},
}


def databricks(arguments: list[str]) -> object:
    """What the Databricks CLI would print."""
    github = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    kind = os.environ.get("DATABRICKS_AUTH_TYPE", "")
    token = {"github-oidc": github, "azure-devops-oidc": os.environ.get("SYSTEM_ACCESSTOKEN")}
    if not token.get(kind) or not os.environ.get("DATABRICKS_CLIENT_ID"):
        sys.exit("Error: cannot authenticate")
    match arguments:
        case ["bundle", verb, *rest] if verb in BUNDLE:
            flags = {word.partition("=")[0] for word in rest if word.startswith("-")}
            assert flags <= BUNDLE[verb] | {"-t", "--var"}, f"unknown flags {flags}"
            if verb in ("plan", "deploy", "destroy"):
                refuse_other_branches(rest[rest.index("-t") + 1])
            if verb == "run":
                return f"Run URL: https://workspace.example/{rest[0]}"
            if verb == "plan":
                Path("dist").mkdir()
                Path("dist/project-1-py3-none-any.whl").write_text("wheel")
                actions = {"resources.jobs.features": "update", "resources.jobs.scoring": "skip"}
                entries = {key: {"action": action} for key, action in actions.items()}
                return {"lineage": "an id", "serial": 3, "plan": entries}
            if verb == "deploy" and "--plan" in rest:
                assert json.loads(Path(rest[rest.index("--plan") + 1]).read_text())["plan"]
                assert [*Path("dist").glob("*.whl")], "the wheel that the plan names"
            if verb == "summary":
                return {
                    "resources": {
                        "schemas": {"mlops": SCHEMA},
                        "registered_models": {
                            "champion": {"name": "model"},
                            "minutes_late": {"name": "minutes_late"},
                        },
                    }
                }
            return "done"
        case ["registered-models", "get", name, "--include-aliases", "-t", _, "-o", "json"]:
            assert name == MODEL
            if (STUB / "without_champion").exists():
                return {"full_name": MODEL}
            at = {"champion": 2, "previous_champion": 1}
            return {"aliases": [{"alias_name": k, "version_num": v} for k, v in at.items()]}
        case ["model-versions", "list", name, "-t", _, "-o", "json"]:
            assert name == MODEL
            return [{"version": 9}, {"version": 10}]
        case ["serving-endpoints", "list", "-t", _, "-o", "json"]:
            return [{"name": name} for name in ("some-schema-model", "some-schema-other")]
        case ["feature-store", "list-online-stores", "-t", _, "-o", "json"]:
            return [{"name": name} for name in ("some-schema", "some-other")]
        case ["serving-endpoints", "delete", "some-schema-model", "-t", _]:
            return ""
        case ["feature-store", "delete-online-store", "some-schema", "-t", _]:
            return ""
        case ["current-user", "me", "-t", _, "-o", "json"]:
            return {"userName": "someone@example.com"}
    sys.exit(f"Error: unknown command {arguments}")


def refuse_other_branches(target: str) -> None:
    """Refuse a branch that is not the target's; a checkout on no branch is accepted."""
    text = Path("databricks.yml").read_text()
    block = re.search(rf"(?ms)^  {target}:\n(.*?)(?=^  \S|\Z)", text)
    wanted = block and re.search(r"(?m)^    git:\n      branch: (\S+)", block[1])
    command = ["git", "symbolic-ref", "--short", "--quiet", "HEAD"]
    actual = subprocess.run(command, text=True, capture_output=True).stdout.strip()
    if wanted and actual and actual != wanted[1]:
        sys.exit(f"Error: not on the right Git branch: {wanted[1]} is expected, not {actual}")


def main() -> int:
    """Record the call, then do as the program would, or as the test wants."""
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    call = {
        "program": name,
        "arguments": arguments,
        "client": os.environ.get("DATABRICKS_CLIENT_ID"),
        "token": os.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    }
    with (STUB / "calls.jsonl").open("a") as file:
        file.write(json.dumps(call) + "\n")
    line = " ".join([name, *arguments])
    if name == "uv" and "pytest" in arguments:  # failing tests leave their results too
        Path("reports").mkdir(exist_ok=True)
        Path("reports/junit.xml").write_text("<testsuites/>")
        Path("reports/coverage.xml").write_text("<coverage/>")
    for what in ("fail", "cancel"):
        if (STUB / what).exists() and re.search((STUB / what).read_text(), line):
            if what == "cancel":
                Path(os.environ["CI_CANCELLED"]).touch()
            print(f"{line}: {what}", file=sys.stderr)
            return 1
    if name == "databricks":
        answer = databricks(arguments)
        print(answer if isinstance(answer, str) else json.dumps(answer))
    elif name == "gh" and arguments == ["auth", "setup-git"] and os.environ.get("GH_TOKEN"):
        (HOME / "signed_in").touch()  # the private remote of the tests
    elif name == "uv" and arguments[0] == "sync":
        Path(".venv").mkdir(exist_ok=True)
    elif name == "uv" and "scripts/propose_update.py" in arguments:
        command = arguments[arguments.index("python") + 1 :]
        return subprocess.run([(STUB / "python").read_text(), *command]).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
