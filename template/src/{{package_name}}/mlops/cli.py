"""The project's command: run jobs here, replay the lifecycle, decide on versions."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from .bundle import Bundle, BundleError, load
from .jobs import JobFailed, JobRefused, Runner, TaskEvent, problem_of
from .jobs import check as check_jobs
from .resource_check import check_resources

if TYPE_CHECKING:
    from .platform.local import LocalPlatform
    from .registry import Registry

REPORTS = Path("reports")
ACCOUNTS = "https://accounts.azuredatabricks.net"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a known error is a message and exit code 1, not a traceback."""
    parser = argparse.ArgumentParser(prog=__package__.split(".")[0], description=__doc__)
    parser.add_argument(
        "--problem", metavar="MODEL", help="a further model of the project; default: the first"
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    command("setup", "Get what local runs need: Java, Delta's jars, a quick start for Spark")
    command("check", "Check the bundle for every target: jobs, storage, dashboards, alerts")
    run = command("run", "Run a job of resources/ on this machine")
    run.add_argument("job")
    run.add_argument("parameters", nargs="*", metavar="name=value", help="job parameters")
    cycle = command("lifecycle", "Replay the model's life month by month and write the report")
    cycle.add_argument("--until", metavar="YYYY-MM", help="last month to replay")
    cycle.add_argument("--fresh", action="store_true", help="start over: drop the local tables")
    command("policies", "Compare rules of retraining over the year that lifecycle has replayed")
    command("status", "Show the versions of the model and what was decided on them")
    approve = command("approve", "Approve a version that passed its checks, and deploy it")
    approve.add_argument("version")
    approve.add_argument("--comment", default="", help="kept with the decision")
    reject = command("reject", "Refuse a version, whatever its checks say")
    reject.add_argument("version")
    reject.add_argument("--comment", required=True, help="why; kept with the decision")
    card = command("card", "Draw the plots of a version's model card, into its run and a file")
    card.add_argument("version")
    command("rollback", "Make the previous champion the champion again")
    command("ui", "Open the local MLflow server")
    after = command(
        "after-deploy", "Do what a bundle cannot: evidence tables, deployment job, grants"
    )
    after.add_argument(
        "--summary",
        metavar="FILE",
        default="-",
        help="output of `databricks bundle summary -o json`; - (the default) reads it from a pipe",
    )
    after.add_argument("--warehouse-id", help="SQL warehouse (default: the dashboard's)")
    after.add_argument(
        "--grant",
        metavar="PRINCIPAL",
        action="append",
        default=[],
        help="a user, group or application ID that trains and deploys too; may be repeated",
    )
    after.add_argument(
        "--profile",
        choices=["classification", "regression"],
        help="have the workspace profile the predictions of such a model every day (costs compute)",
    )
    admin = command("admin-setup", "For a platform admin: make an environment ready, once")
    admin.add_argument("target", help="staging, prod or another target of databricks.yml")
    admin.add_argument("--account-id", required=True, help="of the Databricks account")
    admin.add_argument("--workspace-id", required=True, type=int, help="of the target's workspace")
    admin.add_argument("--issuer", required=True, help="who signs the tokens of CI")
    admin.add_argument("--subject", required=True, help="what a token of CI for the target says")
    admin.add_argument("--audience", help="what the tokens are for (default: the account)")
    admin.add_argument("--dry-run", action="store_true", help="look, and change nothing")
    options = parser.parse_args(argv)
    try:
        _go_to_project()
        if options.problem:
            _serve(options.problem)
        return _COMMANDS[options.command](options)
    except (
        BundleError,
        JobFailed,
        JobRefused,
        ValueError,
        LookupError,
        RuntimeError,
        OSError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130


def _go_to_project() -> None:
    """Work in the folder of databricks.yml, wherever below it the command was typed."""
    here = Path.cwd()
    places = (here, *here.parents)
    root = next((place for place in places if (place / "databricks.yml").is_file()), None)
    if root is None:
        raise LookupError(
            f"There is no databricks.yml in {here} or above it. Fix: go to the project's folder."
        )
    os.chdir(root)


def _serve(problem: str) -> None:
    """Have this process serve the model; the team's code has not been loaded yet."""
    os.environ["MLOPS_PROBLEM"] = problem
    from .team import NAME

    if problem != NAME:
        raise RuntimeError(f"This process serves {NAME or 'the first model'}, not {problem}.")


def _bundle() -> Bundle:
    from .platform.local import CATALOG

    return load(Path.cwd(), overrides={"catalog": CATALOG})


def _schema(bundle: Bundle) -> str:
    return str(bundle.resources["schemas"]["mlops"]["name"])


def _connect(bundle: Bundle) -> LocalPlatform:
    from .platform.local import LocalPlatform

    return LocalPlatform.connect(_schema(bundle))


def _registry() -> tuple[LocalPlatform, Registry]:
    from .registry import Registry

    platform = _connect(_bundle())
    return platform, Registry(platform)


def _setup(options: argparse.Namespace) -> int:
    from .platform import spark
    from .platform.java import find_java_home

    home, version = find_java_home()
    print(f"Java {version}: {home}")
    print(f"Delta: {len(spark.fetch_delta_jars())} jars")
    print("Spark: preparing a quick start (about half a minute, once a machine)", flush=True)
    print(f"Spark: {spark.build_archive()}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from .model_check import check_models
    from .team import models, module

    names = [str(module("problem", model).PROBLEM.name) for model in ("", *models())]
    text = yaml.safe_load(Path("databricks.yml").read_text())
    problems = 0
    for mistake in check_models():
        print(mistake)
        problems += 1
    for target in text["targets"]:
        bundle = load(Path.cwd(), target)
        named = {job: problem_of(bundle, job) for job in bundle.jobs}
        unknown = [
            bundle.problem(
                ("resources", "jobs", job),
                f"job `{job}`: there is no model `{model}`",
                f"name one of {', '.join(models()) or 'none: this project has one model'}",
            )
            for job, model in named.items()
            if model and model not in models()
        ]
        for problem in [*unknown, *check_jobs(bundle), *check_resources(bundle, *names)]:
            print(f"[{target}] {problem}")
            problems += 1
    print(f"{problems} problems in the bundle for {len(text['targets'])} targets")
    return 1 if problems else 0


def _run(options: argparse.Namespace) -> int:
    pairs = [text.partition("=") for text in options.parameters]
    for name, sign, _ in pairs:
        if not sign:
            raise ValueError(f"{name!r} is not name=value. Fix: write it like as_of=2013-06-01.")
    bundle = _bundle()
    if problem := problem_of(bundle, options.job):
        _serve(problem)
    runner = Runner(bundle, _connect(bundle), on_task=_say)
    values = runner.run(options.job, {name: value for name, _, value in pairs})
    print(json.dumps(values, indent=2))
    return 0


def _say(event: TaskEvent) -> None:
    print(f"{event.job}.{event.task}: {event.state} {event.detail}".rstrip(), flush=True)


def _lifecycle(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    # Trees that share their cores with Spark wait for each other at every split: they get half of
    # the cores, as long as features are computed meanwhile. Read when scikit-learn is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // 2, 1)))

    from . import lifecycle
    from .platform.local import home_dir
    from .report import month_table, write_report
    from .summary import summarize
    from .team import NAME

    console = Console()
    bundle, home = _bundle(), home_dir()
    months = lifecycle.months(options.until)
    if options.fresh:
        lifecycle.clear(home)
    journal = lifecycle.open_journal(home, _schema(bundle))
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, refresh_per_second=1) as progress:
        bar = progress.add_task("starting Spark", total=len(months))
        names = [month.name for month in months]

        def on_step(month: str, job: str) -> None:
            progress.update(bar, completed=names.index(month), description=f"{month} {job}")

        def on_task(event: TaskEvent) -> None:
            month = str(progress.tasks[bar].description).split(" ", maxsplit=1)[0]
            progress.update(bar, description=f"{month} {event.job}: {event.task}")

        platform = _connect(bundle)
        lifecycle.replay(bundle, platform, journal, options.until, on_step, on_task)
        progress.update(bar, completed=len(months), description="done")
    project = _project_name()
    data = summarize(platform, journal, months, project)
    reports = REPORTS / NAME
    reports.mkdir(parents=True, exist_ok=True)
    fresh = reports / "lifecycle.json.tmp"
    fresh.write_text(json.dumps(data, indent=2, default=str), encoding="utf-8")
    fresh.replace(reports / "lifecycle.json")
    page = write_report(data, reports / "lifecycle.html")
    console.print(month_table(data))
    console.print(f"Report: {page.resolve()}", soft_wrap=True)
    return 0


def _policies(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from . import lifecycle, policies
    from .metrics import gain
    from .team import PROBLEM

    year = policies.Year(_connect(_bundle()), lifecycle.months())
    found = [policies.live(year, policy) for policy in policies.usual()]
    table = Table(title="Rules of retraining, over the replayed year")
    for heading in ("policy", "trainings", "promotions", f"{PROBLEM.metric} served", "gain"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for one in found:
        paid = gain(one.served, found[0].served)
        figures = (str(one.trainings), str(one.promotions), f"{one.served:.4f}", f"{paid:+.4f}")
        table.add_row(one.policy, *figures)
    REPORTS.mkdir(exist_ok=True)
    text = json.dumps([asdict(one) for one in found], indent=2)
    (REPORTS / "policies.json").write_text(text, encoding="utf-8")
    Console().print(table)
    return 0


def _project_name() -> str:
    settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    return str(settings["tool"]["mlops"]["project"])


def _status(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from .decisions import history

    platform, registry = _registry()
    table = Table("version", "alias", "decision", "reason", title=registry.model)
    for row in history(platform, registry):
        table.add_row(*row)
    Console().print(table)
    return 0


def _approve(options: argparse.Namespace) -> int:
    from .decisions import approve
    from .stages.approve import names

    platform, registry = _registry()
    job = _bundle().jobs["deployment"]
    tasks = {task["task_key"]: task["python_wheel_task"] for task in job["tasks"]}
    approvers = names(tasks["approval"]["named_parameters"].get("approvers", ""))
    person, comment = platform.user(), options.comment
    approve(platform, registry, options.version, person, comment, approvers)
    return _decide(platform, registry, options.version)


def _reject(options: argparse.Namespace) -> int:
    from .decisions import reject

    platform, registry = _registry()
    reject(platform, registry, options.version, platform.user(), options.comment)
    return _decide(platform, registry, options.version)


def _card(options: argparse.Namespace) -> int:
    from .model_plots import PLOTS_FILE, draw, load, log_plots

    platform, registry = _registry()
    REPORTS.mkdir(exist_ok=True)
    file = REPORTS / f"version_{options.version}_{PLOTS_FILE}"
    draw(load(platform, registry, options.version)).savefig(file)
    print(f"Plots: {file.resolve()} and {log_plots(platform, registry, options.version)}")
    return 0


def _decide(platform: LocalPlatform, registry: Registry, version: str) -> int:
    from .team import own

    parameters = {"model_name": registry.model, "model_version": version}
    Runner(_bundle(), platform, on_task=_say).run(own("deployment"), parameters)
    return 0


def _rollback(options: argparse.Namespace) -> int:
    from .decisions import roll_back

    platform, registry = _registry()
    print(f"champion of {registry.model}: version {roll_back(platform, registry)}")
    return 0


def _ui(options: argparse.Namespace) -> int:
    from .platform.local import home_dir

    store = f"sqlite:///{home_dir()}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store]
    return subprocess.run(command, check=False).returncode


def _after_deploy(options: argparse.Namespace) -> int:
    from .after_deploy import Deployment, run

    piped = options.summary == "-"
    summary = sys.stdin.read() if piped else Path(options.summary).read_text(encoding="utf-8")
    who, profile = options.grant, options.profile
    wanted = Deployment.of_summary(summary, options.warehouse_id, who, profile)
    wanted.use_host()
    return 0 if run(wanted, say=lambda line: print(line, flush=True)) else 1


def _admin_setup(options: argparse.Namespace) -> int:
    from databricks.sdk import AccountClient, WorkspaceClient

    from .admin_setup import Environment, run

    bundle = load(Path.cwd(), options.target)
    wanted = Environment(
        principal=f"{bundle.name}-{options.target}",
        workspace_id=options.workspace_id,
        catalog=str(bundle.resources["schemas"]["mlops"]["catalog_name"]),
        issuer=options.issuer,
        subject=options.subject,
        audience=options.audience,
    )
    account = AccountClient(host=ACCOUNTS, account_id=options.account_id)
    workspace = WorkspaceClient(host=str(bundle.settings["workspace"]["host"]))
    who = run(wanted, account, workspace, lambda line: print(line, flush=True), options.dry_run)
    if who:
        print(f"application ID of {wanted.principal}: {who}")
    return 0


_COMMANDS = {
    "setup": _setup,
    "check": _check,
    "run": _run,
    "lifecycle": _lifecycle,
    "policies": _policies,
    "status": _status,
    "approve": _approve,
    "reject": _reject,
    "card": _card,
    "rollback": _rollback,
    "ui": _ui,
    "after-deploy": _after_deploy,
    "admin-setup": _admin_setup,
}
