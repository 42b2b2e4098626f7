"""Spark on this machine: its jars, a session tuned for small data, a quick start."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .cache import cache_dir
from .java import find_java_home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Of what an artifact depends on these are needed; Spark brings the others itself.
_WANTED = (
    "io.delta_",
    "io.unitycatalog_",
    "org.apache.commons_commons-pool2",
    "org.apache.kafka_kafka-clients",
    "org.apache.spark_spark-sql-kafka",
    "org.apache.spark_spark-token-provider-kafka",
)
_EXCLUDED = (
    "com.fasterxml.jackson.core:*",
    "com.fasterxml.jackson.datatype:*",
    "org.apache.hadoop:*",
    "org.apache.logging.log4j:*",
    "org.apache.parquet:*",
    "org.roaringbitmap:*",
    "org.slf4j:*",
)
_MEMORY = "1536m"
# Short jobs: compile quickly, not perfectly; and keep what was compiled (48 MB are not enough).
_JIT = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC -Xmn512m"

# Measured on small tables: each of these saves time, together about half of it.
_CONFIGURATION = {
    "spark.master": "local[2]",
    "spark.driver.memory": _MEMORY,
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.ui.explainMode": "simple",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "1",
    "spark.sql.adaptive.enabled": "false",
    # A table of more files than this would be listed by a job of its own.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
    "spark.rdd.compress": "false",
    "spark.shuffle.compress": "false",
    # Python's call site with every column: five more calls to Java each.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Rows from pandas as a literal in the plan cost the optimizer seconds.
    "spark.sql.execution.arrow.localRelationThreshold": "0",
    "spark.sql.codegen.cache.maxEntries": "2000",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.databricks.delta.properties.defaults.checkpointInterval": "50",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # as in a Delta table
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}


class JarsError(RuntimeError):
    """Jars that Spark needs are not there and could not be fetched."""


def _artifacts() -> list[str]:
    """Coordinates of what this project needs beside Spark."""
    line = ".".join(version("pyspark").split(".")[:2])
    found = [f"io.delta:delta-spark_{line}_2.13:{version('delta-spark')}"]
    if find_spec("..topics", __package__):  # a module of projects whose sources are topics
        found.append(import_module("..topics", __package__).CONNECTOR)
    return found


def _jars_dir(artifact: str) -> Path:
    return cache_dir() / "jars" / artifact.replace(":", "_")


def jars() -> list[Path]:
    """The jars in the cache.

    Raises:
        JarsError: they have not been fetched.
    """
    found: list[Path] = []
    for artifact in _artifacts():
        folder = _jars_dir(artifact)
        here = sorted(folder.glob("*.jar"))
        if not here:
            raise JarsError(f"{artifact} is not in {folder}. Fix: run `make setup` once.")
        found += here
    return found


def fetch_jars() -> list[Path]:
    """Fetch the jars from Maven Central, or from DEFAULT_ARTIFACT_REPOSITORY, once.

    Raises:
        JarsError: the repository cannot be reached; the message says how to name a mirror.
    """
    for artifact in _artifacts():
        _fetch(artifact)
    return jars()


def _fetch(artifact: str) -> None:
    """Have Spark's own resolver fetch one artifact, in a process of its own, unless it is there."""
    target = _jars_dir(artifact)
    if not any(target.glob("*.jar")):
        ivy = cache_dir() / "ivy" / target.name
        command = [
            "from pyspark.sql import SparkSession",
            f"conf = {{'spark.jars.packages': {artifact!r}, 'spark.jars.ivy': {str(ivy)!r},",
            f"'spark.jars.excludes': {','.join(_EXCLUDED)!r}, 'spark.ui.enabled': 'false'}}",
            "builder = SparkSession.builder.master('local[1]')",
            "[builder.config(key, value) for key, value in conf.items()]",
            "builder.getOrCreate().stop()",
        ]
        code = "\n".join([command[0], command[1] + command[2], *command[3:]])
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
        )
        found = [jar for jar in (ivy / "jars").glob("*.jar") if jar.name.startswith(_WANTED)]
        if done.returncode != 0 or not found:
            tail = "\n".join(
                line for line in (done.stderr + done.stdout).splitlines() if "rror" in line
            )
            raise JarsError(
                f"{artifact} could not be fetched.\n{tail[-2000:]}\n"
                "Fix: check the network, or set DEFAULT_ARTIFACT_REPOSITORY to your Maven mirror, "
                f"or copy the jars of that artifact and its dependencies into {target}."
            )
        fresh = target.with_suffix(f".{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for jar in found:
            shutil.copy2(jar, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)


def environment() -> dict[str, str]:
    """Variables that Spark's launcher and its Python workers need."""
    home, _ = find_java_home()
    return os.environ | {
        "JAVA_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def _archive() -> Path:
    """Class-data archive for this Java and these jars: Spark's classes, parsed ahead of time."""
    home, java = find_java_home()
    use = Path(__file__).with_name("warm_up.py").read_text()
    parts = [str(home), str(java), version("pyspark"), use, *(jar.name for jar in jars())]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return cache_dir() / "classes" / f"{key}.jsa"


def build_archive() -> Path:
    """Build the class-data archive once: Spark's classes as a session with Delta uses them."""
    archive = _archive()
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        fresh = archive.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [sys.executable, "-m", f"{__package__}.warm_up"],
            check=True,
            capture_output=True,
            env=os.environ | {"MLOPS_ARCHIVE_TO": str(fresh)},
        )
        # Java leaves no archive where it cannot write one; Spark then starts without it.
        if fresh.exists():
            fresh.replace(archive)
    return archive


def _java_options() -> str:
    """Options of the driver's JVM."""
    if "MLOPS_ARCHIVE_TO" in os.environ:
        share = f"-XX:ArchiveClassesAtExit={os.environ['MLOPS_ARCHIVE_TO']}"
    elif _archive().exists():
        share = f"-XX:SharedArchiveFile={_archive()}"
    else:
        share = ""
    return f"{_JIT} -Xlog:disable {share}".strip()


def configuration(warehouse: Path) -> dict[str, str]:
    """Settings of a Spark with tables in this folder."""
    return _CONFIGURATION | {
        "spark.driver.extraJavaOptions": _java_options(),
        "spark.driver.extraClassPath": os.pathsep.join(map(str, jars())),
        "spark.sql.warehouse.dir": warehouse.as_uri(),
    }


def start_session(warehouse: Path) -> SparkSession:
    """Start the session of this process, or return the one that runs."""
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    if running is not None:
        return running
    os.environ.update(environment())
    warehouse.mkdir(parents=True, exist_ok=True)
    builder = SparkSession.builder.appName("mlops")
    for key, value in configuration(warehouse).items():
        builder = builder.config(key, value)
    with _stderr_to(warehouse.parent / "spark.log"):
        return builder.getOrCreate()


@contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """Have programs started meanwhile, that is Java, write their chatter to the log.

    What goes wrong in Spark reaches Python as an exception, so nothing is hidden.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
