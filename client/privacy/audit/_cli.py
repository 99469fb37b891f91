"""`rainhill audit`: is the installed code as private as its ledger says?"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once
from rainhill.errors import ConfigError

if TYPE_CHECKING:
    from client.privacy.audit.finding import Finding, Trial

FAILED = 1
SEEDS = 2**32
INDENT, WIDTH = 20, 100


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For a script: a list of objects.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for inversion.png: what an update gives away.")
@click.option("--quick", is_flag=True, help="In seconds: fewer patients, canaries and shadow adapters, so that only coarse faults show.")
@click.option(
    "--layer",
    "names",
    multiple=True,
    metavar="NAME",
    help="Only this one, or several: sensitivity, order, noise, sampling, one_run, membership.  [default: all]",
)
@click.option("--seed", type=click.IntRange(min=0, max=SEEDS - 1), help="Does an earlier audit again.  [default: drawn afresh]")
def audit(as_json: bool, out: Path | None, quick: bool, names: tuple[str, ...], seed: int | None) -> None:
    """Audit the installed private training by attacking it, on made-up patients and on this machine; no site's data is read.

    Exit code 0 says that every layer holds, 1 that one fails. An audit finds faults; that none was found proves nothing.
    """
    with stops_at_once():
        import json
        import secrets

        from client.privacy.audit.finding import Trial
        from client.privacy.audit.layers import LAYERS
        from rainhill.plugins import unknown

    for name in names:
        if name not in LAYERS:
            raise click.UsageError(unknown(list(LAYERS), name, "layer"))
    if out is not None:
        _refuse_unwritable(out)
    trial = Trial(quick=quick, seed=secrets.randbelow(SEEDS) if seed is None else seed, fresh=seed is None)
    findings = []
    for name, layer in LAYERS.items():
        if name in names or not names:
            findings.append(layer(trial))
            if not as_json:
                _print(findings[-1])
    if as_json:
        # Before the picture: a disk that is full by now does not cost the findings.
        click.echo(json.dumps([finding.row() for finding in findings], indent=1))
    drawn = None if out is None else _draw(out, trial)
    if not as_json:
        click.echo(f"{drawn or ''}\n{_told(findings)}\n{_again(trial, names)}")
    if not all(finding.passed for finding in findings):
        sys.exit(FAILED)


def _refuse_unwritable(out: Path) -> None:
    """Before the minutes that an audit takes. Raises ConfigError."""
    import tempfile

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written to: {error.strerror}") from error


def _print(finding: Finding) -> None:
    mark = click.style("holds", fg="green") if finding.passed else click.style("FAILS", fg="red", bold=True)
    click.echo(_line(finding.layer, mark, finding.verdict))


def _draw(out: Path, trial: Trial) -> str:
    """What the figure shows, and where it is."""
    from client.privacy.audit import picture
    from client.privacy.audit.inversion import inversion

    found = inversion(trial)
    return f"{_line('inversion', 'shown', found.sentence())}\n{' ' * INDENT}{picture.draw(found, out)}\n"


def _told(findings: Sequence[Finding]) -> str:
    failed = [finding.layer for finding in findings if not finding.passed]
    if failed:
        return f"{len(failed)} of {len(findings)} fail: {', '.join(failed)}."
    return f"{len(findings)} of {len(findings)} hold. An audit can find faults; it cannot prove that there are none."


def _again(trial: Trial, names: Sequence[str]) -> str:
    command = f"rainhill audit --seed {trial.seed}{' --quick' if trial.quick else ''}" + "".join(f" --layer {name}" for name in names)
    return f"The same draws again{', but for the secret keys of granted rounds' if trial.fresh else ''}: {command}"


def _line(name: str, mark: str, text: str) -> str:
    lines = textwrap.wrap(text, width=WIDTH - INDENT)
    return f"{click.style(name.ljust(INDENT - 7), bold=True)}{mark}  " + f"\n{' ' * INDENT}".join(lines)
