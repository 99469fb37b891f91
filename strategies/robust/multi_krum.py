"""Multi-Krum: the mean of all but the sites farthest from their neighbours. Blanchard et al. 2017, arXiv:1703.02757."""

from strategies.robust.krum import Krum


class MultiKrum(Krum):
    summary = "mean of all but the sites farthest from their neighbours"
    reweighs = True

    def kept(self, count: int) -> int:
        return count - self.byzantine
