"""Which layer of the audit finds which planted fault, and how often each layer fails sound code.

    python -m perf.audit [--honest 40] [--seed 0] [--full]

Each fault is planted once, with the seed given, and the code as it ships is audited as often as `--honest` says, with the seeds that
follow. A cell is what the layer measured, against its bound in the first row; bold where the layer fails. By default the audit is the
quick one, which finds less.
"""

import argparse
import time
from collections.abc import Sequence

from client.privacy.audit.finding import Finding, Plant, Trial
from client.privacy.audit.layers import LAYERS
from perf._audit_faults import FAULTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--honest", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    print(f"| fault (seed {options.seed}) | {' | '.join(LAYERS)} | caught by |")
    print("|---" * (len(LAYERS) + 2) + "|")
    sound = audited(Trial(quick=not options.full, seed=options.seed))
    print(f"| *bound* | {' | '.join(f'{finding.bound:.4g}' for finding in sound)} | |")
    print(row("none", sound), flush=True)
    for name, plant in FAULTS.items():
        print(row(name, audited(planted(plant, options.seed, full=options.full))), flush=True)
    print(false_alarms(range(options.seed + 1, options.seed + 1 + options.honest), full=options.full))


def planted(plant: Plant, seed: int, *, full: bool) -> Trial:
    return Trial(quick=not full, seed=seed, plant=plant)


def audited(trial: Trial) -> list[Finding]:
    return [layer(trial) for layer in LAYERS.values()]


def row(name: str, findings: Sequence[Finding]) -> str:
    cells = [f"{finding.value:.4g}" if finding.passed else f"**{finding.value:.4g}**" for finding in findings]
    caught = sum(not finding.passed for finding in findings)
    return f"| {name} | {' | '.join(cells)} | {caught} |"


def false_alarms(seeds: Sequence[int], *, full: bool) -> str:
    started = time.process_time()
    failed = dict.fromkeys(LAYERS, 0)
    for seed in seeds:
        for finding in audited(Trial(quick=not full, seed=seed)):
            failed[finding.layer] += not finding.passed
    spent = (time.process_time() - started) / max(1, len(seeds))
    told = f"| false alarms in {len(seeds)} sound runs | {' | '.join(map(str, failed.values()))} | {sum(failed.values())} |"
    return f"{told}\n\nSeeds {seeds[0]} to {seeds[-1]}; {spent:.1f} CPU seconds a run." if seeds else told


if __name__ == "__main__":
    main()
