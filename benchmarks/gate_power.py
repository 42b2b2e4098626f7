"""How often the gate errs and how often it sees a gain: the figures of the decisions 0016 and 0023.

    PYTHONPATH=PROJECT/src PYTHON benchmarks/gate_power.py PACKAGE [--pairs 500]

Simulated pairs of models, each the truth seen through noise. The peer in the same run is the plain
comparison of two numbers, as `mlflow.validate_evaluation_results` makes it. For a project with
online serving, the sequential test on outcomes too, against a test at each look.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95


def pair(task: str, noise: float, rows: int, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Labels, the answers of a model with this noise, and those of one with noise 1."""
    truth = random.normal(size=rows)
    label = truth
    if task == "classification":
        label = (truth + random.normal(size=rows) > 0.8).astype(float)
    ours, theirs = (truth + random.normal(0, scale, rows) for scale in (noise, 1.0))
    return label, ours, theirs


def gate(compare: Callable, pairs: int) -> None:
    """Share of the pairs that pass, by task, rows and noise of the challenger."""
    print("| task | rows | noise | mean gain | the gate passes | a plain comparison passes |")
    print("| --- | --- | --- | --- | --- | --- |")
    for task in ("classification", "regression"):
        for rows, noises in ((600, (1.0, 0.9, 0.8, 0.5, 1.6)), (6000, (1.0, 0.95, 0.9))):
            count = pairs if rows == 600 else pairs // 5
            for noise in noises:
                random = np.random.default_rng(2)
                found = [
                    compare(*pair(task, noise, rows, random), task, CONFIDENCE)
                    for _ in range(count)
                ]
                passed = np.mean([each.low > 0 for each in found])
                plain = np.mean([each.gain > 0 for each in found])
                gain = np.mean([each.gain for each in found])
                row = (task, rows, noise, f"{gain:+.4f}", f"{passed:.1%}", f"{plain:.1%}")
                print("|", " | ".join(map(str, row)), "|", flush=True)


def trial(half_width: Callable, pairs: int) -> None:
    """Share of the trials that promote, looked at after every 50 rows of the challenger."""
    rows, least, scale = 20_000, 100, 0.02
    print("| share | gain | sequential promotes | median rows | a test at each look promotes |")
    print("| --- | --- | --- | --- | --- |")
    at = np.arange(least - 1, rows, 50)
    for share in (0.1, 0.5):
        other = ((at + 1) * (1 - share) / share).astype(int) - 1
        for gain in (0.0, 0.01, 0.02, 0.04):
            random, ends, plain = np.random.default_rng(5), [], 0
            for _ in range(pairs):
                ours = random.beta(0.5, 2.0, rows) - gain
                theirs = random.beta(0.5, 2.0, other[-1] + 1)
                means, variance = [], 0.0
                for loss, place in ((ours, at), (theirs, other)):
                    mean = np.cumsum(loss)[place] / (place + 1)
                    square = np.cumsum(loss**2)[place] / (place + 1)
                    means.append(mean)
                    variance = variance + (square - mean**2) / place
                found = means[1] - means[0]
                better = found - half_width(variance, scale, 2 * (1 - CONFIDENCE)) > 0
                ends.append(at[better][0] + 1 if better.any() else np.nan)
                plain += bool((found > 1.645 * np.sqrt(variance)).any())
            promoted = np.mean(~np.isnan(ends))
            median = f"{np.nanmedian(ends):,.0f}" if promoted else "-"
            row = (share, gain, f"{promoted:.1%}", median, f"{plain / pairs:.1%}")
            print("|", " | ".join(map(str, row)), "|", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package")
    parser.add_argument("--pairs", type=int, default=500)
    options = parser.parse_args()
    mlops = f"{options.package}.mlops"
    gate(importlib.import_module(f"{mlops}.evaluation.comparison").compare, options.pairs)
    try:
        sequential = importlib.import_module(f"{mlops}.online.sequential")
    except ModuleNotFoundError:
        print("no online serving in this project: no trial to simulate")
        return
    print()
    trial(sequential.half_width, options.pairs)


if __name__ == "__main__":
    main()
