"""Secure aggregation against the plain sum: time and bytes on each side, and how far the sum is from the plain one.

    python -m perf.secure_aggregation [--sites 3 10 50] [--entries 25000 150000] [--repeats 3]

Everything is in this process and crosses as bytes; what is left out is the network, of which a secure round takes five trips and a plain
one takes one. Plain is what a site and the coordinator do without it, in the same run: the update written, read and added up in
float32. Times are CPU seconds, the median of the repeats; a client's is the mean over the sites that stay. Sites that drop out do so after
they have shared their secrets, which costs the coordinator most. The deviation is from the float64 sum of the same updates.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import numpy as np

from perf._secure_round import Phase, Spent, sum_securely
from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.messages import Update
from rainhill.secagg import Layout, Terms, agree

TENSORS = 8
BOUND = 1.0
HEAD = "| sites | gone | entries | client ms (plain) | ratio | server ms (plain) | ratio | up KiB (ratio) | down KiB | deviation | bound |"


@dataclass(frozen=True, kw_only=True)
class Cost:
    client_s: float
    server_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 10, 50])
    parser.add_argument("--entries", type=int, nargs="+", default=[25_000, 150_000])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(HEAD + "\n" + "|---:" * (HEAD.count("|") - 1) + "|")
    for entries in options.entries:
        for count in options.sites:
            for dropouts in (0.0, 0.3):
                # Three in ten of three is nobody.
                if dropouts == 0.0 or int(dropouts * count):
                    print(row(count, int(dropouts * count), entries, options.repeats), flush=True)


def row(count: int, gone: int, entries: int, repeats: int) -> str:
    layout = Layout(shapes={f"block_{number}.weight": (entries // TENSORS,) for number in range(TENSORS)})
    rng = np.random.default_rng(0)
    inputs = {f"site_{number:03d}": draw(layout, rng) for number in range(count)}
    terms = agree(run="perf", round=1, weights=dict.fromkeys(inputs, 1), layout=layout, bound=BOUND)
    drop_after: dict[str, Phase] = dict.fromkeys(list(inputs)[:gone], "share")
    stay = [site for site in inputs if site not in drop_after]
    secure, plain = [], []
    for _ in range(repeats):
        spent = Spent()
        result = sum_securely(inputs, terms, drop_after=drop_after, spent=spent)
        secure.append(Cost(client_s=statistics.fmean(spent.client_s[site] for site in stay), server_s=spent.server_s))
        plain.append(plain_round([inputs[site] for site in stay], terms))
    exact = np.sum([layout.flatten(inputs[site]) for site in stay], axis=0)
    plain_bytes = len(wire.answer_to_bytes(update(inputs[stay[0]], terms)))
    up, down = (statistics.fmean(sizes[site] for site in stay) for sizes in (spent.up_bytes, spent.down_bytes))
    cells = [str(count), str(gone), f"{entries:,}", *against(secure, plain, "client_s"), *against(secure, plain, "server_s")]
    cells += [f"{up / 1024:.1f} ({up / plain_bytes:.3f})", f"{down / 1024:.1f}"]
    cells += [f"{np.max(np.abs(result.total - exact)):.2e}", f"{result.error_bound:.2e}"]
    return "| " + " | ".join(cells) + " |"


def against(secure: list[Cost], plain: list[Cost], side: str) -> list[str]:
    ours, theirs = (statistics.median(getattr(cost, side) for cost in costs) for costs in (secure, plain))
    return [f"{1e3 * ours:.1f} ({1e3 * theirs:.2f})", f"{ours / theirs:.0f}"]


def draw(layout: Layout, rng: np.random.Generator) -> Adapter:
    return Adapter({name: np.clip(0.1 * rng.normal(size=shape), -BOUND, BOUND).astype(np.float32) for name, shape in layout.shapes.items()})


def update(delta: Adapter, terms: Terms) -> Update:
    return Update(run=terms.run, round=terms.round, site=terms.sites[0], delta=delta, patients=1, steps=1, loss=0.0)


def plain_round(deltas: list[Adapter], terms: Terms) -> Cost:
    started = time.process_time()
    blobs = [wire.answer_to_bytes(update(delta, terms)) for delta in deltas]
    sent = time.process_time()
    total: Adapter | None = None
    for blob in blobs:
        answer = wire.answer_from_bytes(blob)
        assert isinstance(answer, Update)
        total = answer.delta if total is None else total + answer.delta
    return Cost(client_s=(sent - started) / len(deltas), server_s=time.process_time() - sent)


if __name__ == "__main__":
    main()
