"""Is the version good enough, and better than what serves now?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ..declarations import CheckResult
from ..metrics import gain, naive_score, score
from ..team import PROBLEM
from .candidate import MIN_ROWS, Candidate
from .comparison import Comparison, compare


def threshold(candidate: Candidate) -> CheckResult:
    """The metric is good enough by itself."""
    data, wanted = candidate.data, PROBLEM.thresholds[PROBLEM.metric]
    value = score(data.label, data.prediction)
    return CheckResult(
        check="threshold",
        passed=gain(value, wanted) >= 0,
        reason=f"{PROBLEM.metric} {value:.3f} on later rows, {wanted:.3f} is demanded",
        value=value,
        threshold=wanted,
    )


def better_than_naive(candidate: Candidate) -> CheckResult:
    """The model beats the best constant."""
    data, wanted = candidate.data, PROBLEM.thresholds["gain_over_naive"]
    value, naive = score(data.label, data.prediction), naive_score(data.label)
    return CheckResult(
        check="better_than_naive",
        passed=gain(value, naive) >= wanted,
        reason=f"{gain(value, naive):+.3f} {PROBLEM.metric} against a constant",
        value=value,
        threshold=wanted,
        baseline=naive,
    )


def plausible(candidate: Candidate) -> CheckResult:
    """The model is not so good that it must have seen the answer."""
    data = candidate.data
    value, naive = score(data.label, data.prediction), naive_score(data.label)
    perfect = 1.0 if PROBLEM.higher_is_better else 0.0
    share = gain(value, naive) / max(gain(perfect, naive), 1e-12)
    wanted = PROBLEM.gate.implausible
    good = f"{share:.0%} of the way from a constant to a perfect model"
    return CheckResult(
        check="plausible",
        passed=share < wanted,
        reason=good if share < wanted else f"{good}: look for a leak",
        value=share,
        threshold=wanted,
    )


def better_than_champion(candidate: Candidate) -> CheckResult:
    """The version is better than the champion, beyond chance, on rows that both did not see."""
    wanted, data = PROBLEM.thresholds["gain_over_champion"], candidate.data
    if candidate.champion is None:
        value = score(data.label, data.prediction)
        return CheckResult("better_than_champion", True, "there is no champion yet", value=value)
    theirs = _champions(candidate)
    label, ours = data.label[theirs.index], data.prediction[theirs.index]
    found = _compare(label, ours, theirs)
    return CheckResult(
        check="better_than_champion",
        passed=found.low > wanted,
        reason=f"{found.gain:+.4f} {PROBLEM.metric} against version {candidate.champion} on the "
        f"same {len(label)} rows; with {PROBLEM.gate.confidence:.0%} confidence more than "
        f"{found.low:+.4f}, and more than {wanted:g} is demanded",
        value=score(label, ours),
        threshold=wanted,
        baseline=score(label, theirs),
    )


def no_slice_worse(candidate: Candidate) -> CheckResult:
    """On no slice of the rows is the version worse than the champion by more than the margin."""
    name, gate, data = "no_slice_worse", PROBLEM.gate, candidate.data
    if candidate.champion is None:
        return CheckResult(name, True, "there is no champion yet", "slice")
    theirs = _champions(candidate)
    margin = gate.slice_margin
    worst: tuple[float, str] | None = None
    worse = []
    compared = data.features.loc[theirs.index]
    for feature in gate.slices:
        for value, part in compared[[feature]].groupby(feature, dropna=False):
            rows = part.index
            label = data.label[rows]
            classes = label.nunique() if PROBLEM.task == "classification" else 2
            if len(rows) < gate.min_slice_rows or classes < 2:
                continue
            found = _compare(label, data.prediction[rows], theirs[rows])
            place = f"{feature} {value}"
            worst = min(worst or (found.gain, place), (found.gain, place))
            if found.gain < -margin and found.high < 0:
                worse.append(f"{place} ({found.gain:+.3f} on {len(rows)} rows)")
    if worst is None:
        return CheckResult(name, True, "no slice has enough rows to compare", "slice")
    reason = f"worse on {', '.join(worse)}" if worse else f"least gain {worst[0]:+.3f}"
    return CheckResult(name, not worse, reason, "slice", worst[0], -margin, slice=worst[1])


def calibrated(candidate: Candidate) -> CheckResult:
    """Predicted probabilities are about the shares that come true, about as near as the champion's.

    The expected calibration error over ten bins of equal size: Naeini, Cooper and Hauskrecht,
    Obtaining Well Calibrated Probabilities Using Bayesian Binning (2015). When the world moves,
    both models are off; the one that is not much more so is not kept out.
    """
    value, baseline = _both(candidate, _calibration_error)
    wanted, margin = PROBLEM.gate.max_calibration_error, PROBLEM.gate.calibration_margin
    return CheckResult(
        check="calibrated",
        passed=value <= wanted or (baseline is not None and value < baseline + margin),
        reason=f"probabilities are off by {value:.3f} on average{_against(baseline)}",
        value=value,
        threshold=wanted,
        baseline=baseline,
    )


def _calibration_error(label: pd.Series, prediction: pd.Series) -> float:
    tenth = pd.qcut(prediction.rank(method="first"), 10, labels=False)
    means = pd.DataFrame({"p": prediction, "y": label}).groupby(tenth).mean()
    return float((means["p"] - means["y"]).abs().mean())


def worth_its_errors(candidate: Candidate) -> CheckResult:
    """Acting on the model costs less than always acting, never acting, or than the champion.

    The team's costs: one of a false alarm, one of a miss. A model alarms where a miss is expected
    to cost more: at a probability above `false_alarm / (false_alarm + miss)`.
    """
    gate, late = PROBLEM.gate, candidate.data.label > 0
    always, never = (~late).mean() * gate.cost_of_false_alarm, late.mean() * gate.cost_of_miss
    best = float(min(always, never))
    value, baseline = _both(candidate, _cost)
    return CheckResult(
        check="worth_its_errors",
        passed=value < best or (baseline is not None and value < baseline),
        reason=f"{value:.3f} a row, {best:.3f} without a model{_against(baseline)}",
        kind="business",
        value=value,
        threshold=best,
        baseline=baseline,
    )


def _cost(label: pd.Series, prediction: pd.Series) -> float:
    """Mean cost of a row."""
    gate = PROBLEM.gate
    cut = gate.cost_of_false_alarm / (gate.cost_of_false_alarm + gate.cost_of_miss)
    alarm, late = prediction > cut, label > 0
    false_alarms, misses = (alarm & ~late).mean(), (~alarm & late).mean()
    return float(false_alarms * gate.cost_of_false_alarm + misses * gate.cost_of_miss)


def _both(
    candidate: Candidate, measure: Callable[[pd.Series, pd.Series], float]
) -> tuple[float, float | None]:
    """The measure of the version, and of the champion if there is one that can be used."""
    data = candidate.data
    theirs = data.champion
    baseline = None
    if theirs is not None and len(theirs) >= MIN_ROWS:
        baseline = measure(data.label[theirs.index], theirs)
    return measure(data.label, data.prediction), baseline


def _against(baseline: float | None) -> str:
    return "" if baseline is None else f", the champion's {baseline:.3f}"


def _champions(candidate: Candidate) -> pd.Series:
    """What the champion says of the rows that it did not see either."""
    theirs = candidate.data.champion
    if theirs is None:
        raise ValueError(f"the champion, version {candidate.champion}, cannot be used")
    if len(theirs) < MIN_ROWS:
        raise ValueError(f"only {len(theirs)} rows that the champion was not trained on either")
    return theirs


def _compare(label: pd.Series, ours: pd.Series, theirs: pd.Series) -> Comparison:
    values, first, second = (np.asarray(part, dtype=float) for part in (label, ours, theirs))
    return compare(values, first, second, PROBLEM.task, PROBLEM.gate.confidence)


def checks(task: str) -> dict[str, Callable[[Candidate], CheckResult]]:
    """The checks for this kind of problem."""
    found = [threshold, better_than_naive, plausible, better_than_champion, no_slice_worse]
    if task == "classification":
        found += [calibrated, worth_its_errors]
    return {check.__name__: check for check in found}
