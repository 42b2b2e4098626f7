"""Latency of `<package> serve`, look-ups included, against `mlflow models serve` without any.

    python benchmarks/serving.py PROJECT HOME           # the two in turn, at 1, 8 and 32 clients
    python benchmarks/serving.py PROJECT HOME --memory  # 100,000 requests: memory meanwhile

PROJECT is a project with `online_serving` that has been set up, HOME its MLOPS_HOME after the jobs
features and training. Both servers run on this machine and get the same rows: one gets their keys,
the other the looked-up features. Clients keep their connection and send the next request when the
last one is answered; they share the cores with the servers. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIENTS = (1, 8, 32)
REQUESTS = 1_000  # a measurement
ROUNDS = 3  # of which the median counts
PATIENCE = 120  # seconds until a server answers


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(port: int, body: bytes) -> bytes:
    """One request; its answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


@contextmanager
def running(command: list[str], project: Path, home: Path, port: int) -> Iterator[int]:
    """A server, from its first answer on; the id of its process."""
    environment = os.environ | {"MLOPS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    log = (home / "benchmark.log").open("ab")
    server = subprocess.Popen(
        command, cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    started = time.monotonic()
    try:
        while True:
            assert server.poll() is None, f"{command} ended; see {log.name}"
            assert time.monotonic() - started < PATIENCE, f"{command} does not answer"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            except OSError:
                time.sleep(0.3)
        yield server.pid
    finally:
        os.killpg(server.pid, 15)
        server.wait()


async def client(port: int, head: bytes, bodies: list[bytes], times: list[float]) -> None:
    """Send requests one after the other over one connection; seconds of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for body in bodies:
        started = time.perf_counter()
        writer.write(head + str(len(body)).encode() + b"\r\n\r\n" + body)
        status = await reader.readline()
        assert b" 200 " in status, status
        length = 0
        while (line := await reader.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        await reader.readexactly(length)
        times.append(time.perf_counter() - started)
    writer.close()


def measure(port: int, bodies: list[bytes], clients: int, requests: int) -> list[float]:
    """Milliseconds of each request, sorted."""
    head = b"POST /invocations HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: "
    times: list[float] = []
    share = [bodies[n % len(bodies)] for n in range(requests // clients)]

    async def all_clients() -> None:
        await asyncio.gather(*(client(port, head, share, times) for _ in range(clients)))

    asyncio.run(all_clients())
    return sorted(1000 * seconds for seconds in times)


def at(times: list[float], share: float) -> float:
    """A quantile."""
    return times[min(int(share * len(times)), len(times) - 1)]


def memory(pid: int) -> float:
    """Resident megabytes of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


ROWS = """
import json, sys
from {package}.mlops.online import sql_store
from {package}.mlops.platform.local import home_dir
from {package}.problem import PROBLEM
from deltalake import DeltaTable
from pathlib import Path
(path,) = Path(home_dir()).glob("warehouse/*.db/observations")
frame = DeltaTable(path).to_pandas().sort_values("predict_at").tail(200)
frame = frame.astype(object).where(frame.notna(), None)
keys = dict.fromkeys(c.name for c in PROBLEM.request_features)
keys |= dict.fromkeys(k for t in PROBLEM.feature_tables for k in t.keys)
print(json.dumps([frame[list(keys)].to_dict("records"),
                  frame[PROBLEM.feature_names].to_dict("records")]))
"""


def rows(project: Path, home: Path, package: str) -> tuple[list[bytes], list[bytes]]:
    """Bodies of requests: with keys, and with the looked-up features."""
    done = subprocess.run(
        [project / ".venv/bin/python", "-c", ROWS.format(package=package)],
        cwd=project,
        env=os.environ | {"MLOPS_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    keys, features = json.loads(done.stdout)

    def bodies(found: list[Any]) -> list[bytes]:
        return [json.dumps({"dataframe_records": [row]}).encode() for row in found]

    return bodies(keys), bodies(features)


def main() -> int:
    """Measure and print; exit code 1 when p99 is more than 1.5 times that of the peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("home", type=Path)
    parser.add_argument("--memory", action="store_true", help="100,000 requests instead")
    options = parser.parse_args()
    project, home = options.project.resolve(), options.home.resolve()
    (command,) = (project / "src").iterdir()
    package, programs = command.name, project / ".venv/bin"
    keys, features = rows(project, home, package)
    ours, theirs = free_port(), free_port()
    serve = [str(programs / package), "serve", "--port", str(ours)]
    if options.memory:
        with running(serve, project, home, ours) as pid:
            for done in range(0, 100_001, 10_000):
                print(f"{done:7,} requests: {memory(pid):6.1f} MB", flush=True)
                if done < 100_000:
                    measure(ours, keys, 8, 10_000)
        return 0
    model = f"models:/spark_catalog.{package}.flight_delay@champion"
    peer = [str(programs / "mlflow"), "models", "serve", "--model-uri", model]
    peer += ["--env-manager", "local", "--port", str(theirs)]
    store = f"sqlite:///{home}/mlflow.db"
    os.environ |= {"MLFLOW_TRACKING_URI": store, "MLFLOW_REGISTRY_URI": store}
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    worst = 0.0
    with (
        running(serve, project, home, ours),
        running(peer, project, home, theirs),
    ):
        mine, other = json.loads(post(ours, keys[0])), json.loads(post(theirs, features[0]))
        assert mine.keys() == other.keys(), (mine, other)
        print("clients  p50 ms (peer)      p99 ms (peer)      p99 ratio")
        for clients in CLIENTS:
            found = []
            for _ in range(ROUNDS):
                measure(ours, keys, clients, 10 * clients)  # warm
                measure(theirs, features, clients, 10 * clients)
                a = measure(ours, keys, clients, REQUESTS)
                b = measure(theirs, features, clients, REQUESTS)
                found.append((at(a, 0.99) / at(b, 0.99), a, b))
            ratio, a, b = sorted(found, key=lambda item: item[0])[ROUNDS // 2]
            worst = max(worst, ratio)
            p50, p99 = (f"{at(a, q):6.1f} ({at(b, q):6.1f})" for q in (0.5, 0.99))
            print(f"{clients:7}  {p50:17}  {p99:17}  {ratio:.2f}", flush=True)
    return 1 if worst > 1.5 else 0


if __name__ == "__main__":
    sys.exit(main())
