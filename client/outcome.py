"""What a run came to at this hospital: the shared adapter with a part of its own, held against the base, on patients set aside."""

from dataclasses import dataclass
from typing import Any

from client.training import features, lora
from client.training.answer import own_view, site_seed
from client.training.features import Features
from client.training.memory import Memory
from client.training.metrics import Measured, Scored
from client.training.personal import Private, personalise, private_part
from client.workbench import Bench, OwnData
from rainhill.adapter import Adapter
from rainhill.messages import Plan, SiteId


@dataclass(frozen=True, kw_only=True)
class Outcome:
    measure: str
    """Of the task, that the models are compared by."""
    shared: Adapter
    """As the site has it: with the tensors that it kept of its own."""
    private: Private
    arms: dict[str, Scored]
    """base: without any adapter. shared. private: with the site's own part."""
    held_out: str
    """The patients that they were measured on: test, or val where the site sets none of use aside, by which the private part was chosen."""
    patients: int
    """How many of those there are: of a task that writes, who have a report."""


def outcome(plan: Plan, bench: Bench, data: OwnData, memory: Memory) -> Outcome:
    """`plan` is the one that follows the last round. What of this may be told is for the door."""
    site, recipe = plan.site, bench.recipe
    shared = own_view(plan.adapter, plan.rule, memory, plan.round)
    held_out, part = _held_out(bench, data)

    arms: dict[str, Scored] = {}
    for arm, adapter in (("base", lora.draw(bench.net, name=lora.SHARED, with_head=False, seed=recipe.seed)), ("shared", shared)):
        lora.write_adapter(bench.net, adapter, name=lora.SHARED)
        arms[arm] = scored(bench, part, site)
    private = personalise(shared, site=site, recipe=recipe, net=bench.net, task=bench.task, data=data, mode=bench.strategy.personal)
    with private_part(bench.net, shared, private, recipe) as temperature:
        arms["private"] = scored(bench, part, site, temperature=temperature)
    return Outcome(measure=bench.task.measure, shared=shared, private=private, arms=arms, held_out=held_out, patients=_measured_on(part))


def scored(bench: Bench, part: Features, site: SiteId, *, temperature: float = 1.0) -> Scored:
    """A site's patients by the network as it is now. All of the site's models are compared on the same draws of these."""
    seed = site_seed(bench.recipe.seed, site, 0)
    return bench.task.score(bench.net, part, temperature=temperature, section=bench.recipe.evaluation, seed=seed)


def described(found: Outcome, plan: Plan, confidence: float) -> dict[str, Any]:
    """As JSON. A number that cannot be measured, for want of patients of both classes or of reports, is None."""
    levels = {arm: scored.means.get(found.measure) for arm, scored in found.arms.items()}
    base = levels["base"]
    return {
        "run": plan.run,
        "recipe": plan.recipe,
        "adapter": plan.adapter.fingerprint(),
        "private": found.private.adapter.fingerprint(),
        "instead": found.private.instead,
        "private_steps": found.private.steps,
        "temperature": round(found.private.temperature, 4),
        "held_out": found.held_out,
        "patients": found.patients,
        "confidence": confidence,
        "measure": found.measure,
        "levels": {arm: _interval(level, confidence) for arm, level in levels.items()},
        "gain": {arm: _interval(own.minus(base) if (own := levels[arm]) and base else None, confidence) for arm in ("shared", "private")},
        # Label F1 counts what is said of all findings together, the rare ones too.
        "left_out": [] if found.measure == "label_f1" else list(found.arms["base"].left_out),
    }


def _held_out(bench: Bench, data: OwnData) -> tuple[str, Features]:
    if (data.cohort.split == "test").any():
        return "test", features.compute(bench.net, data.cohort.part("test"), bench.task, among=data.cohort.part("train"))
    return "val", data.val


def _measured_on(part: Features) -> int:
    """How many patients. Of few of them nothing is told, and who has no report hides nobody."""
    if not part.texts:
        return part.count
    return len({patient for patient, text in zip(part.patients.tolist(), part.texts, strict=True) if text.strip()})


def _interval(measured: Measured | None, confidence: float) -> dict[str, float] | None:
    if measured is None:
        return None
    low, high = measured.interval(confidence)
    return {"value": round(measured.value, 4), "low": round(low, 4), "high": round(high, 4)}
