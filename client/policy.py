"""What a site lets itself be asked at all, whoever asks: said in its own file, and held against every offer before a person sees it."""

from collections.abc import Iterator
from datetime import datetime

from client.privacy.guard import admit
from rainhill.config import PolicyConfig, SiteConfig
from rainhill.errors import RefusedError
from rainhill.recipe import Recipe

LONGEST_S = 900.0
"""That a coordinator is asked to wait where it is not the site's hours: they may be changed meanwhile."""


def refusals(recipe: Recipe, site: SiteConfig, *, patients: int | None) -> list[str]:
    """Each thing that the site's file does not allow, with both values; none where a person may decide.

    `patients` are those of the site's training part, where they have been counted.
    """
    found = list(_beyond(recipe, site.policy))
    if patients is not None:
        found += too_few(site.policy, patients)
    if site.privacy is None and recipe.privacy is not None:
        found.append(f"epsilon {recipe.privacy.epsilon:g} is asked, and the site's file has no [privacy] that says what patients may spend")
    elif site.privacy is not None:
        try:
            admit(site.privacy, recipe)
        except RefusedError as error:
            found.append(str(error))
    return found


def _beyond(recipe: Recipe, policy: PolicyConfig) -> Iterator[str]:
    for what, got, allowed in (
        ("task", recipe.task.name, policy.tasks),
        ("base model", recipe.base.sha256, policy.bases),
        ("rule", recipe.strategy.rule, policy.rules),
    ):
        if allowed is not None and got not in allowed:
            yield f"{what} {got}, the site allows {', '.join(allowed) or 'none'}"
    if policy.rounds is not None and recipe.rounds.count > policy.rounds:
        yield f"{recipe.rounds.count} rounds, the site allows {policy.rounds}"


def too_few(policy: PolicyConfig, patients: int) -> list[str]:
    # Not how many: that few take part is all that is told.
    few = patients < policy.min_patients
    return [f"fewer training patients than the {policy.min_patients} that the site wants at least"] if few else []


def opens_in_s(hours: str, now: datetime) -> float:
    """Seconds until the site trains again, by its policy's `hours`; 0 where it does now. `now` is in the site's own time."""
    if not hours:
        return 0.0
    start, end = (60 * int(clock[:2]) + int(clock[3:]) for clock in hours.split("-"))
    minute = 60 * now.hour + now.minute
    inside = start <= minute < end if start < end else minute >= start or minute < end
    if inside or start == end:
        return 0.0
    return 60.0 * ((start - minute) % (24 * 60)) - now.second
