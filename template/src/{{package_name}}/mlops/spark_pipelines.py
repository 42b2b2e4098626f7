"""Run a declarative pipeline with open-source Spark's own command, `spark-pipelines`.

It shows that the files of a pipeline are what Spark takes them for: its server plans and runs them,
over this machine's tables, and writes to a folder of its own. For everyday use the job runner
computes the same tables in its process (`pipelines`), without the twenty seconds of a start.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from .pipelines import PipelineError
from .platform.local import LocalPlatform
from .platform.spark import configuration as spark_configuration
from .platform.spark import environment

# Tables of the project, as views of the pipeline: its catalog is empty when it starts.
_VIEWS = """\
from pyspark import pipelines as dp
from pyspark.sql import DataFrame, SparkSession

PATHS = {paths}


def view(name: str, path: str) -> None:
    @dp.temporary_view(name=name)
    def read() -> DataFrame:
        return SparkSession.active().read.format("delta").load(path)


for name, path in PATHS.items():
    view(name, path)
"""


def run_by_spark(
    name: str,
    files: Iterable[Path],
    configuration: Mapping[str, str],
    read: Iterable[str],
    platform: LocalPlatform,
    folder: Path,
) -> LocalPlatform:
    """Run the files in a new Spark, on the tables `read`; give a platform of the tables it wrote.

    They are in the folder, which is emptied first.

    Raises:
        PipelineError: the command failed; the message has the end of what it said.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "conf").mkdir(parents=True)
    written = LocalPlatform(platform.spark, platform.schema, folder)
    here = folder / "pipeline"
    here.mkdir()
    for file in files:
        shutil.copy(file, here)
    paths = {table: str(platform.path(table)) for table in read}
    (here / "tables_of_the_project.py").write_text(_VIEWS.format(paths=json.dumps(paths)))
    spec = {
        "name": name,
        "storage": (folder / "storage").as_uri(),
        "catalog": platform.catalog,
        "database": "default",
        "libraries": [{"glob": {"include": "pipeline/**"}}],
        "configuration": dict(configuration),
    }
    (folder / "spark-pipeline.yml").write_text(yaml.safe_dump(spec))
    settings = {
        **spark_configuration(written.path("")),
        "spark.sql.sources.default": "delta",
    }
    del settings["spark.master"]  # the command starts a server, and talks to it
    lines = (f"{key} {value}\n" for key, value in settings.items())
    (folder / "conf" / "spark-defaults.conf").write_text("".join(lines))
    # Not beside the interpreter where `uv run --with` has laid an environment over the project's.
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    command = shutil.which("spark-pipelines", path=places)
    if command is None:
        raise PipelineError("spark-pipelines is not installed. Fix: make setup")
    done = subprocess.run(
        [command, "run", "--spec", str(folder / "spark-pipeline.yml")],
        env=environment() | {"SPARK_CONF_DIR": str(folder / "conf")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    )
    (folder / "spark-pipelines.log").write_text(done.stdout)
    if done.returncode:
        raise PipelineError(f"spark-pipelines failed:\n{done.stdout[-3000:]}")
    return written
