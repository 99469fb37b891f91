"""Metrics that need weights, such as RadGraph F1, CheXbert F1 and GREEN, measured by a program in an environment of its own.

The program reads `{"drafts": [...], "references": [...]}` from standard input and writes one JSON object to standard output: a metric's
name -> N numbers, or `{"value": x}` of all reports together, or `{"not_measured": "why"}`. docs/report-metrics.md says how to set one up.
"""

import json
import math
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.reporting.wording import WORDINGS
from client.training.metrics import Measured, patient_draws
from rainhill.errors import DataError
from rainhill.recipe import EvaluationSection
from rainhill.text import counted, one_line, shown

OURS = frozenset({
    *("label_f1", "label_precision", "label_recall", "label_macro_f1", "wrong_sides", "contradictions", "comparisons", "silent", "errors"),
    *("corpus_bleu", *WORDINGS),
})  # fmt: skip
"""Names that no program may give to a metric of its own."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_LONGEST_REASON = 500
# What leads to another network, or into our own environment.
_NOT_PASSED = re.compile(r"(?i).*_proxy|python(path|home)|virtual_env|__pyvenv_launcher__")


@dataclass(frozen=True, kw_only=True)
class Answer:
    scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """(N,) each."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Of all reports together: they have no interval."""
    not_measured: Mapping[str, str] = field(default_factory=dict)
    """Metric -> why, in words; the program's name stands for its metrics where it did not get to name them."""

    def measured(self, patients: NDArray[np.int64], *, section: EvaluationSection, seed: Sequence[int]) -> dict[str, Measured]:
        """A report's mean of each score, on the draws of patients that `clinical` makes from the same seed."""
        weights = patient_draws(patients, section.bootstraps, seed).astype(np.float64)
        found = {name: Measured(value=float(of.mean()), replicates=weights @ of / weights.sum(axis=1)) for name, of in self.scores.items()}
        return found | {name: Measured(value=value, replicates=np.empty(0)) for name, value in self.values.items()}


def ask(command: Sequence[str], drafts: Sequence[str], references: Sequence[str], *, timeout_s: float) -> Answer:
    """Runs the program without a shell, offline as far as it heeds that, in a folder that is empty and gone afterwards.

    What is not there, or does not end well, is told in the answer. DataError where the program answers with something else than was agreed.
    """
    if len(drafts) != len(references):
        raise DataError(f"{len(drafts)} drafts of {len(references)} references: one of each is wanted")
    program = Path(command[0]).name
    # Into standard input: a command line is for everybody on the machine to read.
    asked = json.dumps({"drafts": list(drafts), "references": list(references)}).encode()
    try:
        written, code = _run(command, asked, timeout_s)
    except OSError as error:
        return Answer(not_measured={program: f"{command[0]} cannot be started: {error.strerror or error}"})
    except subprocess.TimeoutExpired:
        return Answer(not_measured={program: f"no answer within {timeout_s:g} s"})
    if code:
        # What it said may quote a report, and is not kept.
        ended = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return Answer(not_measured={program: f"{ended}; run it by hand to see what it says"})
    return _answer(written, len(drafts), program)


def _run(command: Sequence[str], asked: bytes, timeout_s: float) -> tuple[bytes, int]:
    # Its own folder is another one: a path to the program is meant from ours.
    first = str(Path(command[0]).absolute()) if os.sep in command[0] else command[0]
    environment = {name: value for name, value in os.environ.items() if not _NOT_PASSED.fullmatch(name)}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    # Some metrics leave the reports in files.
    with tempfile.TemporaryDirectory(prefix="rainhill-metrics-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(  # noqa: S603 - the site's own program, and no shell
            [first, *command[1:]],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        with process:
            try:
                written, _ = process.communicate(asked, timeout=timeout_s)
            except BaseException:
                # With all that it started.
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return written, process.returncode


def _answer(written: bytes, reports: int, program: str) -> Answer:
    try:
        found = json.loads(written, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        # The error itself quotes nothing; what was written may.
        raise DataError(
            f"{program}: {counted(len(written), 'byte')} of its answer are not a JSON object ({type(error).__name__})"
        ) from None
    if not isinstance(found, dict):
        raise DataError(f"{program}: its answer is {_kind(found)}, expected an object of metrics")
    scores: dict[str, NDArray[np.float64]] = {}
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, given in found.items():
        _refuse_name(name, program)
        match given:
            case list():
                scores[name] = _numbers(given, reports, f"{program}: {name}")
            case {"value": value, **rest} if not rest:
                values[name] = _number(value, f"{program}: {name}")
            case {"not_measured": str(reason), **rest} if not rest:
                reasons[name] = one_line(" ".join(reason.split()), _LONGEST_REASON) or "no reason is given"
            case _:
                raise DataError(f'{program}: {name} is {_kind(given)}, expected {counted(reports, "number")}, {{"value": x}} or why not')
    if not found:
        reasons[program] = "it named no metric"
    return Answer(scores=scores, values=values, not_measured=reasons)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there more than once")
    return found


def _refuse_name(name: str, program: str) -> None:
    if not _NAME.fullmatch(name):
        raise DataError(f"{program}: a metric is named {shown(name)!r}, expected small letters, digits and _, 48 at most")
    if name in OURS:
        raise DataError(f"{program}: a metric is named {name}, which is measured here: the program's own needs another name")


def _numbers(given: list[Any], reports: int, whose: str) -> NDArray[np.float64]:
    if len(given) != reports:
        raise DataError(f"{whose}: {counted(len(given), 'number')}, expected one of each of {counted(reports, 'report')}")
    return np.array([_number(one, f"{whose}: report {place}") for place, one in enumerate(given, start=1)], dtype=np.float64)


def _number(given: Any, whose: str) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise DataError(f"{whose} is {_kind(given)}, expected a number")
    try:
        number = float(given)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"{whose} is {number}, expected a finite number")
    return number


def _kind(given: Any) -> str:
    """Never the value itself: it may be words of a report."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(given), "null")
