"""The stages of the pipeline: one module each, one entry point each, thin over the machinery.

A stage is a function `run(platform, *, ...)`. Its keywords are its parameters: a job names them in
`named_parameters`. It returns the task values that later tasks read.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..platform import Platform, connect
from ..team import NAME

TaskValues = Mapping[str, str] | None
# Of every stage: where its tables are, and which model it serves, the first unless it is named.
_COMMON = {"catalog": True, "schema": True, "problem": False}


class ParameterError(ValueError):
    """A stage got a parameter it cannot use."""


def parse_time(name: str, text: str) -> datetime:
    """Parse an ISO date or time; without a zone it is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ParameterError(
            f"--{name}={text!r} is not a time. Fix: write it like 2013-06-01 or "
            "2013-06-01T12:00:00+00:00."
        ) from None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def names(text: str) -> list[str]:
    """The names of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


class EntryPoint:
    """A stage as a program: what a wheel task calls.

    `parameters` maps each `--name=value` it takes to whether it is required.
    """

    def __init__(self, run: Callable[..., TaskValues]) -> None:
        self._run = run
        self.__doc__ = run.__doc__
        signature = inspect.signature(run, eval_str=True)
        self._keywords = {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        self.parameters: dict[str, bool] = _COMMON | {
            name: parameter.default is inspect.Parameter.empty
            for name, parameter in self._keywords.items()
        }

    def __call__(
        self, argv: Sequence[str] | None = None, platform: Platform | None = None
    ) -> dict[str, str]:
        """Run the stage; without a platform, connect to the one this process is on."""
        parser = argparse.ArgumentParser(description=self.__doc__, allow_abbrev=False)
        for name, required in self.parameters.items():
            parser.add_argument(f"--{name}", required=required)
        options = vars(parser.parse_args(sys.argv[1:] if argv is None else argv))
        catalog, schema = options.pop("catalog"), options.pop("schema")
        problem = options.pop("problem") or ""
        if problem != NAME:
            raise ParameterError(
                f"This process serves {NAME or 'the first model'}, and the task is of "
                f"{problem or 'the first model'}. Fix: one process a model; run the other's jobs "
                "by themselves."
            )
        # An empty value means "not given": a job cannot leave a parameter out.
        given = {name: text for name, text in options.items() if text}
        missing = [n for n, needed in self.parameters.items() if needed and not options.get(n, "-")]
        if missing:
            raise ParameterError(f"--{missing[0]} is empty. Fix: give it a value.")
        values = {name: self._convert(name, text) for name, text in given.items()}
        platform = platform or connect(catalog, schema)
        result = dict(self._run(platform, **values) or {})
        for key, value in result.items():
            platform.set_task_value(key, value)
        return result

    def _convert(self, name: str, text: str) -> Any:
        wants = str(self._keywords[name].annotation)
        return parse_time(name, text) if "datetime" in wants else text


def entry_point(run: Callable[..., TaskValues]) -> EntryPoint:
    """Turn a stage into its entry point."""
    return EntryPoint(run)
