"""What patients have spent: against the budget, by run, charge by charge; never whose."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from client.console.drawn import Curve, curve
from client.console.site import Site, found
from client.privacy.course import Point, course
from client.privacy.statement import Snapshot, Statement, state
from client.privacy.year import last_year
from rainhill.config import PrivacyConfig
from rainhill.console.frame import Page, Shown, Visitor


@dataclass(frozen=True, kw_only=True)
class Spent:
    statement: Statement
    points: tuple[Point, ...]
    newest: str
    """Hash of the ledger's newest entry; empty where there is none."""

    @property
    def left(self) -> float | None:
        """Of the budget, to the patient who has spent most; None without one."""
        limit = self.statement.budget
        return max(limit - self.statement.most_spent.epsilon, 0.0) if limit is not None else None

    @property
    def share(self) -> float:
        """Of the budget that is spent, at most 1."""
        limit = self.statement.budget
        return min(self.statement.most_spent.epsilon / limit, 1.0) if limit else 0.0

    @property
    def curve(self) -> Curve:
        return curve(self.points, self.statement.budget)


class Spending:
    """Of a site; worked out anew where its ledger, its own file or the day is another, since an epsilon takes its time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._known: tuple[Snapshot, PrivacyConfig | None, date, Spent] | None = None

    def spent(self) -> Spent:
        """LedgerError where the ledger does not hold."""
        ledger, config, now = self._site.ledger(), self._site.home.config, datetime.now(UTC)
        known = self._known
        if known is None or known[0] is not ledger or known[1:3] != (config.privacy, now.date()):
            statement = state(config.name, ledger, config.privacy, last_year=last_year(ledger, now))
            newest = ledger.entries[-1].hash if ledger.entries else ""
            spent = Spent(statement=statement, points=course(ledger, statement.delta), newest=newest)
            self._known = known = ledger, config.privacy, now.date(), spent
        return known[3]


def pages(site: Site, spending: Spending) -> list[Page]:
    def privacy(visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
        known = found(spending.spent)
        return site.page("privacy.html.j2", "Privacy", {"spent": known.value, "trouble": known.problem, "plain": plain_numbers})

    return [Page(path="/privacy", show=privacy, menu="Privacy")]


def plain_numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
