"""Real servers for tests: PostgreSQL as projects start it, Kafka from Maven."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from conftest import ROOT

PATIENCE = 60  # seconds for a server to start
KAFKA = "org.apache.kafka:kafka_2.13:4.0.0"
POM = """<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId>
<artifactId>broker</artifactId><version>1</version><dependencies><dependency>
<groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency></dependencies>
</project>"""
SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
log.dirs={folder}/logs
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
"""


def run(*command: str | Path, **options: object) -> str:
    """Run a command to its end; its output."""
    done = subprocess.run(
        [str(part) for part in command],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}"
    return str(done.stdout)


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(is_ready: Callable[[], bool], what: str) -> None:
    """Wait for something to become so."""
    deadline = time.monotonic() + PATIENCE
    while not is_ready():
        assert time.monotonic() < deadline, f"{what} did not start"
        time.sleep(0.1)


def listens(port: int) -> bool:
    """Whether somebody answers at the port."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def postgres() -> ModuleType:
    """The launcher of PostgreSQL that projects with online serving have."""
    (file,) = (ROOT / "template/tests").rglob("*postgres.py*")
    loader = SourceFileLoader("postgres", str(file))
    module = module_from_spec(spec_from_loader("postgres", loader))
    loader.exec_module(module)
    return module


class Kafka:
    """One broker that is its own controller (KRaft)."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.servers = f"127.0.0.1:{self.port}"
        jars = cache / KAFKA.replace(":", "_")
        if not jars.exists():
            fresh = jars.with_suffix(".new")
            fresh.mkdir(parents=True, exist_ok=True)
            (folder / "pom.xml").write_text(POM.format(*KAFKA.split(":")))
            copy = ("dependency:copy-dependencies", f"-DoutputDirectory={fresh}")
            run("mvn", "--quiet", "--batch-mode", *copy, "-DincludeScope=runtime", cwd=folder)
            fresh.rename(jars)
        self._java = ["java", "-Xmx512m", "-cp", f"{jars}/*"]
        settings = SETTINGS.format(port=self.port, controller=free_port(), folder=folder)
        (folder / "server.properties").write_text(settings)
        format_ = ("format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", folder / "server.properties")
        run(*self._java, "kafka.tools.StorageTool", *format_)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", self.folder / "server.properties"],
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: listens(self.port), "Kafka")

    def stop(self) -> None:
        """Stop it at once, as a crash does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
