"""FedPer: the head stays at the site, trained together with the adapter that is shared. Arivazhagan et al. 2019, arXiv:1912.00818."""

from dataclasses import replace

from rainhill.messages import LocalRule
from strategies.personal._personal import Personal


class FedPer(Personal):
    source = "arXiv:1912.00818"
    summary = "the head stays at the site"
    void = True

    def local(self, rule: LocalRule) -> LocalRule:
        return replace(rule, keep=(*rule.keep, "head.*"))
