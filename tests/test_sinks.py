"""Sinks of a project, against real servers that crash while predictions are on their way."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import ROOT, commit, render
from servers import Kafka, postgres
from test_project import USER, finish

CACHE = ROOT / "build/servers"
SINKS = ["parquet", "csv", "postgresql", "kafka"]
COUNT, PART, BAD = 100_000, 5_000, 10
FAILURES = 8
PATIENCE = 300  # seconds
# Batches as Spark hands them over: each again and again until it has been taken, which is written
# down after it was.
DELIVER = f"""
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from flight_delays.mlops import sinks

name, secret, file = sys.argv[1], sys.argv[2], Path(sys.argv[3])
if name == "kafka":
    from flight_delays.mlops.sinks.kafka import Kafka as Chosen
else:
    from flight_delays.mlops.sinks.postgresql import Postgresql as Chosen
sink, start = Chosen(secret, "out"), datetime(2020, 1, 1, tzinfo=UTC)


def rows(first: int) -> Iterator[sinks.Prediction]:
    for n in range(first, first + {PART}):
        entity = "bad\\0" if n == {BAD} and name == "postgresql" else f"e{{n}}"
        at = start + timedelta(minutes=n % 3000)
        yield sinks.Prediction(entity, "m", "1", at, start, n / 7)


while (number := int(file.read_text())) < {COUNT // PART}:
    batch = sinks.Batch(str(number), lambda: rows(number * {PART}))
    refused = sinks._retried(lambda: sink.deliver(batch), (1.0, 2.0, 4.0))
    assert [bad.row.entity for bad in refused] in ([], ["bad\\0"])
    fresh = file.with_suffix(".fresh")
    fresh.write_text(str(number + 1))
    fresh.replace(file)
"""


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with every sink, set up."""
    project = render(template, tmp_path_factory.mktemp("sinks") / "project", sinks=SINKS)
    commit(project)
    finish("make", "setup", cwd=project, CI="")
    return project


@pytest.fixture
def postgresql() -> Iterator[Any]:
    """A server with nothing in it."""
    with postgres().Postgres() as server:
        yield server


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A broker with a topic of three partitions."""
    server = Kafka(tmp_path, CACHE)
    admin = AdminClient({"bootstrap.servers": server.servers})
    admin.create_topics([NewTopic("out", 3, 1)])["out"].result(30)
    yield server
    server.stop()


def survive(project: Path, folder: Path, server: Any, secret: str) -> None:
    """Deliver everything, while the process is killed and the server crashes, both at random."""
    name = "kafka" if isinstance(server, Kafka) else "postgresql"
    done = folder / "done"
    done.write_text("0")
    command = [project / ".venv/bin/python", "-c", DELIVER, name, secret, done]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=project, env=USER, stderr=subprocess.DEVNULL)

    dice, deadline = random.Random(5), time.monotonic() + PATIENCE
    process, failures, reached = start(), 0, 0
    while process.poll() != 0:
        assert time.monotonic() < deadline, f"{done.read_text()} batches are there"
        if process.poll() is not None:  # it has given up
            process = start()
        elif failures < FAILURES and int(done.read_text()) > reached:
            time.sleep(dice.uniform(0, 0.2))
            failures += 1
            if failures % 2:
                process.kill()
                process.wait()
                process = start()
            else:
                server.stop()
                time.sleep(0.5)
                server.start()
            reached = int(done.read_text())
        else:
            time.sleep(0.01)
    assert failures >= FAILURES // 2, "too quick to prove a thing"


def expected() -> list[tuple[str, float]]:
    """What has to arrive."""
    return [(f"e{n}", n / 7) for n in range(COUNT)]


@pytest.mark.full
def test_postgresql_gets_each_prediction_once(
    project: Path, postgresql: Any, tmp_path: Path
) -> None:
    url = postgresql.new_database()
    survive(project, tmp_path, postgresql, url)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT entity, prediction FROM out").fetchall()
    wanted = expected()
    del wanted[BAD]  # refused: no text of PostgreSQL holds a NUL
    assert sorted(found) == sorted(wanted)


@pytest.mark.full
def test_kafka_gets_each_prediction_once(project: Path, kafka: Kafka, tmp_path: Path) -> None:
    options = {"bootstrap.servers": kafka.servers}
    survive(project, tmp_path, kafka, json.dumps(options))
    reader = confluent_kafka.Consumer(
        options
        | {"group.id": "reader", "isolation.level": "read_committed", "enable.partition.eof": True}
    )
    partitions = [confluent_kafka.TopicPartition("out", number, 0) for number in range(3)]
    reader.assign(partitions)
    found, at_end = [], 0
    while at_end < len(partitions):
        message = reader.poll(20)
        assert message is not None, "the broker says nothing"
        if message.error():
            assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF
            at_end += 1
            continue
        value = json.loads(message.value())
        assert message.key().decode() == value["entity"]
        found.append((value["entity"], value["prediction"]))
    reader.close()
    assert sorted(found) == sorted(expected())
