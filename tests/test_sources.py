"""Topics as sources of a project, from a real broker that crashes while they are read."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import ROOT, commit, render
from deltalake import DeltaTable
from servers import Kafka
from test_project import USER, finish

COUNT, BATCH, RUBBISH = 100_000, 2_000, 100
FAILURES, PATIENCE = 8, 1800  # seconds
START = datetime(2020, 1, 1, tzinfo=UTC)
# As the job does it, again and again; what has been read is written down by Spark.
READ = f"""
import sys
from datetime import UTC, datetime
from pathlib import Path
from flight_delays.mlops import topics
from flight_delays.mlops.declarations import Column, Source
from flight_delays.mlops.platform.local import LocalPlatform
from flight_delays.mlops.stages.ingest import bring_in

topics.BATCH = {BATCH}
home, done = map(Path, sys.argv[1:])
columns = (
    Column("id", "bigint", "Key", nullable=False),
    Column("value", "double", "Some number", check="value >= 0"),
    Column("available_at", "timestamp", "When it became known", nullable=False),
)
source = Source("events", "Events", topics.Topic("events", columns), columns, ("id",))
platform = LocalPlatform.connect("s", home)
while True:
    bring_in(platform, [source], datetime(2030, 1, 1, tzinfo=UTC))
    done.touch()
"""


def messages() -> list[tuple[str, bytes]]:
    """Each key once, some of them again, as they were or corrected; and rubbish."""
    dice = random.Random(1)
    found = []
    for number in range(COUNT):
        at = START + timedelta(seconds=number)
        row = {"id": number, "value": number / 7, "available_at": at.isoformat()}
        found.append((str(number), json.dumps(row).encode()))
        if dice.random() < 0.1:
            row = json.loads(found[dice.randrange(len(found))][1])
            if dice.random() < 0.5:
                row["value"] += COUNT  # known at the same moment: the one that comes last counts
            found.append((str(row["id"]), json.dumps(row).encode()))
    return found


def rubbish() -> list[tuple[str, bytes]]:
    """What breaks the contract, each for another reason."""
    bad = [b"{", b"[]", b"null", b'{"id": "x"}', b'{"id": 1, "value": -1}', b"\xff"]
    return [("bad", bad[n] if n < len(bad) else f"rubbish {n}".encode()) for n in range(RUBBISH)]


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A broker with a topic of three partitions."""
    server = Kafka(tmp_path, ROOT / "build/servers")
    admin = AdminClient({"bootstrap.servers": server.servers})
    admin.create_topics([NewTopic("events", 3, 1)])["events"].result(30)
    yield server
    server.stop()


@pytest.mark.full
def test_each_message_of_a_topic_is_taken_once(
    template: Path, tmp_path_factory: pytest.TempPathFactory, kafka: Kafka
) -> None:
    """While the reader is killed and the broker crashes, both at random."""
    project = render(template, tmp_path_factory.mktemp("k") / "project", kafka_sources=True)
    commit(project)
    finish("make", "setup", cwd=project, CI="")
    home = tmp_path_factory.mktemp("home")
    done = home / "done"
    command = [project / ".venv/bin/python", "-c", READ, home, done]
    servers = {"bootstrap.servers": kafka.servers}
    log = (home / "log").open("ab")

    def start() -> subprocess.Popen[bytes]:
        options = USER | {"KAFKA_OPTIONS": json.dumps(servers)}
        return subprocess.Popen(command, cwd=project, env=options, stdout=log, stderr=log)

    def commits() -> int:
        return len([*home.glob("warehouse/s.db/events/_delta_log/*.json")])

    sent = messages()
    wanted = {row["id"]: row["value"] for row in (json.loads(text) for _, text in sent)}
    size = len(sent) // (FAILURES + 1) + 1
    parts = [sent[n : n + size] for n in range(0, len(sent), size)]
    parts[1] = parts[1] + rubbish()
    producer = Producer(servers | {"enable.idempotence": True})
    dice, deadline = random.Random(5), time.monotonic() + PATIENCE
    process = start()
    try:
        for number, part in enumerate(parts):
            for key, text in part:
                producer.produce("events", text, key)
                producer.poll(0)
            assert producer.flush(60) == 0
            if number == len(parts) - 1:
                break
            before = commits()
            while commits() == before:  # something of it has been read, and not all
                assert time.monotonic() < deadline, (home / "log").read_text()[-3000:]
                if process.poll() is not None:
                    process = start()
                time.sleep(0.05)
            time.sleep(dice.uniform(0, 1))
            if number % 2 == 0:
                process.kill()
                process.wait()
            else:
                kafka.stop()
                time.sleep(0.5)
                kafka.start()
            if process.poll() is not None:
                process = start()
        done.unlink(missing_ok=True)
        for _ in range(2):  # the second run began after all had been sent
            while not done.exists():
                assert time.monotonic() < deadline, (home / "log").read_text()[-3000:]
                if process.poll() is not None:
                    process = start()
                time.sleep(0.2)
            done.unlink()
    finally:
        process.kill()
        process.wait()
    table = DeltaTable(home / "warehouse/s.db/events").to_pyarrow_table()
    assert len(table) == len(wanted) == COUNT
    assert dict(zip(table["id"].to_pylist(), table["value"].to_pylist(), strict=True)) == wanted
    bad = DeltaTable(home / "warehouse/s.db/quarantine").to_pyarrow_table().to_pylist()
    assert len(bad) == RUBBISH
    assert {row["source"] for row in bad} == {"events"}
