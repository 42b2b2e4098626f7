"""Can the version be served: in time, in little space, and with the same answers?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..declarations import CheckResult
from ..team import PROBLEM
from ..trial import CLEAN_PROCESS, Measured
from .candidate import Candidate
from .compliance import requirements

KIND = "infrastructure"
BATCH_ROWS = 5000


def probe(candidate: Candidate) -> Measured:
    """Try the version on the latest of its rows, in a clean process.

    Raises:
        RuntimeError: it could not be tried, with the reason.
    """
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(candidate.registry.uri(candidate.version)))
    sample = candidate.data.features.tail(BATCH_ROWS)
    lines = requirements(candidate)
    return CLEAN_PROCESS.measure(folder, sample, lines, PROBLEM.gate.patience)


def loads_in_a_clean_process(measured: Measured) -> CheckResult:
    """It loads where nothing of the training is left, with the packages that it names."""
    other = [f"{name} is {there}, not {wanted}" for name, wanted, there in measured.other_packages]
    words = f"loaded in {measured.load_seconds:.1f} s"
    return CheckResult(
        "loads_in_a_clean_process",
        not other,
        "; ".join(other) or words,
        KIND,
        measured.load_seconds,
    )


def single_row_latency(measured: Measured) -> CheckResult:
    """One row is answered within the budget, 99 times in a hundred."""
    wanted = PROBLEM.gate.max_latency_ms
    words = f"p50 {measured.p50_ms:.1f} ms, p99 {measured.p99_ms:.1f} ms for one row"
    passed = measured.p99_ms <= wanted
    return CheckResult("single_row_latency", passed, words, KIND, measured.p99_ms, wanted)


def batch_throughput(measured: Measured) -> CheckResult:
    """A batch is scored fast enough."""
    value, wanted = measured.rows_per_second, PROBLEM.gate.min_rows_per_second
    words = f"{value:,.0f} rows a second"
    return CheckResult("batch_throughput", value >= wanted, words, KIND, value, wanted)


def memory(measured: Measured) -> CheckResult:
    """Loading and predicting take little memory."""
    value, wanted = measured.memory_mb, PROBLEM.gate.max_memory_mb
    words = f"{value:.0f} MB more than before it was loaded"
    return CheckResult("memory", value <= wanted, words, KIND, value, wanted)


def artifact_size(measured: Measured) -> CheckResult:
    """The model's files are small enough to load quickly."""
    value, wanted = measured.size_mb, PROBLEM.gate.max_size_mb
    return CheckResult("artifact_size", value <= wanted, f"{value:.1f} MB", KIND, value, wanted)


def malformed_input_refused(measured: Measured) -> CheckResult:
    """A request that breaks the signature gets an error, and no prediction."""
    words = f"answered: {', '.join(measured.answered)}" if measured.answered else "all refused"
    return CheckResult("malformed_input_refused", not measured.answered, words, KIND)


def online_agrees_with_batch(measured: Measured) -> CheckResult:
    """One row in a request's JSON gets the prediction that it got in a batch."""
    value, wanted = measured.disagreement, 1e-6
    words = f"largest difference {value:.1e}"
    return CheckResult("online_agrees_with_batch", value <= wanted, words, KIND, value, wanted)


CHECKS: dict[str, Callable[[Measured], CheckResult]] = {
    check.__name__: check
    for check in (
        loads_in_a_clean_process,
        single_row_latency,
        batch_throughput,
        memory,
        artifact_size,
        malformed_input_refused,
        online_agrees_with_batch,
    )
}
