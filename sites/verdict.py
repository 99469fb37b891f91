"""What adaptation was worth at a site, in plain words: a verdict is whether the 95 % interval of a paired difference excludes 0."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rainhill.told import MEASURES

Verdict = Literal["better", "no different", "worse"]
_DOES = {"auroc": "reads this site's films", "label_f1": "drafts this site's reports"}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measured value with its 95 % bootstrap interval; NaN where nothing could be measured."""

    value: float
    low: float
    high: float

    @property
    def measured(self) -> bool:
        return math.isfinite(self.value)

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


def interval(of: Mapping[str, Any] | None) -> Interval:
    """Reads `{"value", "low", "high"}` as it stands in results.json, where null, NaN or an absent key is "not measured"."""
    return Interval(**{key: math.nan if (of or {}).get(key) is None else float((of or {})[key]) for key in ("value", "low", "high")})


def measure(of: Mapping[str, Any]) -> str:
    """The metric that a site's models, or a run's, are compared by."""
    return str(of.get("measure") or "auroc")


def measure_title(of: Mapping[str, Any]) -> str:
    return MEASURES.get(measure(of), measure(of))


def over_findings(of: Mapping[str, Any]) -> str:
    """How findings come together in the measure."""
    return "mean over findings" if measure(of) == "auroc" else "over all findings together"


def arm(site: Mapping[str, Any], name: str) -> Interval:
    """The measure of one of the site's models."""
    return interval((site.get(name) or {}).get(measure(site)))


def difference(site: Mapping[str, Any], name: str) -> Interval:
    """`name` is a key of the site's `differences`, such as `private_minus_base`."""
    return interval((site.get("differences") or {}).get(name))


def verdict(difference: Mapping[str, Any]) -> Verdict:
    """An interval that touches 0 shows no difference, and neither does one that could not be computed."""
    of = interval(difference)
    if of.low > 0:
        return "better"
    if of.high < 0:
        return "worse"
    return "no different"


def site_verdict(site: Mapping[str, Any]) -> Verdict | None:
    """None where the site's held-out patients allow no verdict: "no different" is a finding, "not measured" is none."""
    of = difference(site, "private_minus_base")
    if not (of.measured and of.bounded):
        return None
    return verdict({"value": of.value, "low": of.low, "high": of.high})


def verdict_text(title: str, site: Mapping[str, Any]) -> str:
    """What the adapted model is worth at this site, then what federation added to training alone."""
    found, adapted = site_verdict(site), arm(site, "private")
    if found is None:
        return f"{title}: no verdict. {_why_none(site)}"
    change = difference(site, "private_minus_base")
    does = _DOES.get(measure(site), "does")
    level = f"The adapted model {does} at {measure_title(site)} {level_text(adapted)}"
    told = {
        "better": f"{level}, up {difference_text(change)} from the model as it arrived.",
        "no different": f"{level}; no change from the model as it arrived could be measured (difference {difference_text(change)}).",
        "worse": f"{level}, down {difference_text(_negated(change))} from the model as it arrived: it should not go into use here.",
    }[found]
    return " ".join([f"{title}: {found}.", told, _federation(site)])


def consortium_text(results: Mapping[str, Any]) -> str:
    """What the run was worth over all its sites; the means are unweighted and of per-site numbers."""
    sites, means = results["sites"], results.get("consortium") or {}
    base, private, local, pooled = (_number(means.get(key)) for key in ("base", "private", "local", "pooled"))
    title = measure_title(results)
    over = f"{title} at the one site" if len(sites) == 1 else f"Mean {title} over the {len(sites)} sites"
    told = []
    if math.isfinite(base) and math.isfinite(private):
        moved = f"{'rose' if private > base else 'fell'} from {base:.3f} as the model arrived to {private:.3f} adapted"
        if round(private - base, 3) == 0:
            moved = f"stayed at {base:.3f}, adapted or as the model arrived"
        others = [f"training alone gave {local:.3f}"] * math.isfinite(local) + [f"the pooled upper bound is {pooled:.3f}"] * math.isfinite(
            pooled
        )
        told.append(f"{over} {moved}{'; ' if others else ''}{', '.join(others)}.")
    told.append(_tally([site_verdict(site) for site in sites.values()]))
    return " ".join(told)


def level_text(of: Interval) -> str:
    """`0.86 [0.83, 0.89]`."""
    if not of.measured:
        return "not measured"
    return f"{of.value:.2f} [{of.low:.2f}, {of.high:.2f}]" if of.bounded else f"{of.value:.2f}"


def difference_text(of: Interval) -> str:
    """`0.004 [−0.010, 0.018]`: three decimals, because a difference is small, and a true minus sign."""
    return f"{of.value:.3f} [{of.low:.3f}, {of.high:.3f}]".replace("-", "−")


def _federation(site: Mapping[str, Any]) -> str:
    alone, added = arm(site, "local"), difference(site, "private_minus_local")
    if not (alone.measured and added.measured and added.bounded):
        return "Training alone was not measured, so what federation added is not known."
    match verdict({"value": added.value, "low": added.low, "high": added.high}):
        case "better":
            return f"Training alone would have given {alone.value:.2f}: federation added {difference_text(added)}."
        case "worse":
            return f"Training alone would have been better here: {alone.value:.2f}, higher by {difference_text(_negated(added))}."
        case _:
            return (
                f"Federation added nothing measurable beyond training alone here (training alone {alone.value:.2f}, "
                f"difference {difference_text(added)})."
            )


def _why_none(site: Mapping[str, Any]) -> str:
    if arm(site, "base").measured and arm(site, "private").measured:
        return "The difference between the adapted model and the model as it arrived has no interval."
    if arm(site, "base").measured != arm(site, "private").measured:
        absent = "the adapted model" if arm(site, "base").measured else "the model as it arrived"
        return f"There is no result for {absent}."
    left_out = ", ".join(site.get("left_out") or [])
    return f"Its held-out patients have too few positives for any finding to be measured{f' ({left_out})' if left_out else ''}."


def _tally(found: list[Verdict | None]) -> str:
    if len(found) == 1:
        return {None: "No verdict could be reached there.", "no different": "The difference could not be told from chance."}.get(
            found[0], f"The adapted model is {found[0]} there."
        )
    better, same, worse, unknown = (found.count(each) for each in ("better", "no different", "worse", None))
    told = f"The adapted model is better at {better or 'none'}, no different at {same or 'none'}, worse at {worse or 'none'}"
    return f"{told}; at {unknown} no verdict could be reached." if unknown else f"{told}."


def _negated(of: Interval) -> Interval:
    return Interval(value=-of.value, low=-of.high, high=-of.low)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
