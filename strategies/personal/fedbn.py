"""FedBN: each site keeps its own norms; here weights and biases alone, for layer norms keep no statistics. Li 2021, arXiv:2102.07623."""

from dataclasses import replace

from rainhill.messages import LocalRule
from strategies.personal._personal import Personal


class FedBn(Personal):
    source = "arXiv:2102.07623"
    summary = "weights and biases of the norms stay at the site"
    void = True
    trains_norms = True

    def local(self, rule: LocalRule) -> LocalRule:
        return replace(rule, keep=(*rule.keep, "norm:*"))
