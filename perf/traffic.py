"""All that crosses between phantom hospitals and their coordinator in a private run, held against the adapter's size, and searched.

    python -m perf.traffic [--rounds 5] [--sites bury,oldham] [--out runs/perf-traffic]

The shipped private recipe, over real daemons, each through a proxy of its own that opens TLS. Printed, by direction and for a site and a
round: bytes of the adapter's values, of the message that holds them, of the calls that bring it, and of everything on the wire above TCP,
which is TLS, heartbeats, polls and offers too. Then what was looked for of each hospital's own, and what of it was found. Exit code 1
where anything was, or where everything on the wire is more than 1.2 times the adapter.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import sites
from client.home import SiteHome
from perf._belongings import canaries_of
from perf._canaries import SHORTEST, Canaries, Found
from perf._cost import Cost, costs_of, summed
from perf._fleet import calls_of, carried
from perf._tap import WAYS, Tap
from perf._watched import watched

MOST = 1.2
"""Bytes on the wire, of those of the adapter."""
HERE = Path(sites.__file__).parent


def crossed(tap: Tap) -> list[tuple[str, bytes]]:
    """What was said, as it was and put together again: bodies, and the messages in them; and what was on the wire."""
    found: list[tuple[str, bytes]] = []
    calls = [call for one in tap.connections for call in calls_of(one)]
    for way in WAYS:
        found.append((f"{way}, in clear", b"".join(one.said(way) for one in tap.connections)))
        found.append((f"{way}, on the wire", b"".join(one.crossed(way) for one in tap.connections)))
        halves = (call.asked if way == "up" else call.answered for call in calls)
        found.append((f"{way}, bodies", b"".join(half.body for half in halves if half)))
        found.append((f"{way}, messages", b"".join(one.blob for one in carried(calls) if one.way == way)))
    return found


def searched(site_file: Path, tap: Tap, noise_keys: Iterable[bytes] = ()) -> tuple[Canaries, list[Found]]:
    """What was looked for of a site that has trained, and what was found."""
    canaries = canaries_of(SiteHome.open(site_file), noise_keys)
    return canaries, canaries.found(crossed(tap))


def told(canaries: Canaries, found: list[Found]) -> str:
    """Without a word of what was found: it would name a patient."""
    looked = ", ".join(f"{count} of {kind}" for kind, count in sorted(canaries.kinds().items()))
    lines = [f"looked for {looked} ({canaries.too_short} more were shorter than {SHORTEST} bytes): {len(found)} found"]
    lines += [f"  {kind}: {within}" for kind, within in sorted({(one.kind, one.within) for one in found})]
    return "\n".join(lines)


def report(costs: list[Cost]) -> str:
    """A line for each direction: means over sites and rounds; after each size, its share of the adapter's."""
    lines = ["| | adapter | message | | its calls | | on the wire | | other calls |", "|---|---|---|---|---|---|---|---|---|"]
    of = summed(costs)
    for what, ways in (("up", ("up",)), ("down", ("down",)), ("both", WAYS)):
        sizes = {name: sum(of[way][name] for way in ways) for name in ("adapter", "message", "calls", "wire")}
        cells = " | ".join(f"{sizes[name] / 1024:.1f} | {sizes[name] / sizes['adapter']:.3f}" for name in ("message", "calls", "wire"))
        lines.append(f"| {what} | {sizes['adapter'] / 1024:.1f} KiB | {cells} | {of[ways[0]]['polls']:.0f} |")
    worst = max(costs, key=lambda cost: cost.wire / cost.adapter)
    lines += [
        "",
        f"a round: {of['up']['seconds']:.1f} s; most: {worst.wire / worst.adapter:.3f}, {worst.site}, round {worst.round}, {worst.way}",
    ]
    return "\n".join(lines)


def measured(folder: Path, *, rounds: int, names: list[str]) -> bool:
    """Prints it all; whether it is as it should be."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (HERE / "recipes" / "private.toml").read_text(encoding="utf-8")
    recipe = folder / "private.toml"
    listed = ", ".join(f'"{name}"' for name in names)
    recipe.write_text(text.replace("count = 8", f"count = {rounds}").replace("\n[task]", f"\nsites = [{listed}]\n\n[task]", 1))
    with watched(folder, recipe, HERE) as rehearsal:
        rehearsal.prepare()
        rehearsal.to_the_end()
    costs = [cost for name in names for cost in costs_of(name, rehearsal.taps[name], rounds=rounds)]
    print(report(costs))
    holds = all(cost.wire <= MOST * cost.adapter for cost in costs)
    for name in names:
        canaries, found = searched(folder / name / f"{name}.toml", rehearsal.taps[name], rehearsal.noise_keys[name])
        print(f"{name}: {told(canaries, found)}")
        holds = holds and not found
    return holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sites", default="bury,oldham")
    parser.add_argument("--out", type=Path, default=Path("runs/perf-traffic"))
    options = parser.parse_args()
    sys.exit(0 if measured(options.out.absolute(), rounds=options.rounds, names=options.sites.split(",")) else 1)


if __name__ == "__main__":
    main()
