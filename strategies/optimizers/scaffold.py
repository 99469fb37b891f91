"""SCAFFOLD: each local gradient is corrected by how the site's own has differed from all sites'. Karimireddy et al. 2020, arXiv:1910.06378.

c_i is the mean gradient of site i over its last steps (option II, which for plain SGD is the same), c their mean; a site adds c - c_i.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rainhill.adapter import Adapter, Array
from rainhill.messages import LocalRule, SiteId, Update
from strategies._rule import Move
from strategies.optimizers._optimizer import Optimizer

_ALL, _SITE = "c/", "site/"


class Scaffold(Optimizer):
    source = "arXiv:1910.06378"
    summary = "local gradients corrected by each site's drift"
    linear = False
    variates = True

    def local(self, rule: LocalRule, arrays: Mapping[str, Array], site: SiteId, adapter: Adapter) -> LocalRule:
        correction = {
            name: (arrays.get(_ALL + name, 0.0) - arrays.get(f"{_SITE}{site}/{name}", 0.0) + np.zeros(array.shape)).astype(array.dtype)
            for name, array in adapter.items()
            if rule.sends(name)
        }
        return replace(rule, correction=Adapter(correction), variate=True)

    def step(
        self, before: Adapter, proposed: Adapter, moves: Sequence[Move], updates: Sequence[Update], arrays: Mapping[str, Array]
    ) -> tuple[Adapter, dict[str, Array]]:
        del before, moves
        kept = dict(arrays)
        for update in updates:
            kept |= {f"{_SITE}{update.site}/{name}": array for name, array in (update.variate or {}).items()}
        sites = sorted({key.removeprefix(_SITE).partition("/")[0] for key in kept if key.startswith(_SITE)})
        for name in {key.removeprefix(_SITE).partition("/")[2] for key in kept if key.startswith(_SITE)}:
            known = [kept[key].astype(np.float64) for key in (f"{_SITE}{site}/{name}" for site in sites) if key in kept]
            kept[_ALL + name] = np.mean(known, axis=0)
        return proposed, kept
