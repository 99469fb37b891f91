"""How far the guards of a draft hold on the embedded model: abstention, strange films, planted swaps in reports, and regions.

    python -m perf.trust [--weights client/models/weights/draft_tiny] [--films 200] [--seeds 0] [--parts abstention quality]

Films are drawn of the model's home hospital (`sites/reporting/source/liverpool.toml`), of patients that it was not trained on, half of them
for validation and half for test; every threshold is of validation films alone. A seed draws other patients. Intervals are 95% percentile
bootstraps over patients, of all seeds together where there are several.

Swaps are planted in two ways: one sentence of the report by the rules of `client.drafting.quality.swapped`, and the whole report, findings
and impression, as the hospital would have written it of a film with the finding on the other side, without it, or with one more.
"""

import argparse
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from client.data.labeler import Labeler
from client.drafting._sentences import sentences_of
from client.drafting.agreement import OTHERS, drawn, expected_errors
from client.drafting.confidence import CLAIMED, ERRORS, GRAVE, Curve, Threshold, confidence_of, is_wrong, of_claims, risk_coverage
from client.drafting.prompt import Prompt
from client.drafting.quality import Evidence, House, Limit, Quality, Ratios, Witness, check, likelihood_of, ratios_of, swapped
from client.drafting.regions import Region, occluded, overlap, score_of_sentence
from client.drafting.strangeness import Familiar, features_of
from client.drafting.track_record import blind_to, named
from client.embedded import EMBEDDED
from client.models import Writer, Written
from client.models.vlm import Vlm
from client.reporting.clinical import errors_of
from client.reporting.reading import Reading, reading
from client.training.metrics import percentile_interval
from rainhill.toml import read_toml
from sites import phantom, report_text, shift
from sites.cases import Case, Finding
from sites.films import PIXELS, as_read
from sites.hospital import HospitalConfig, PhantomConfig, draw
from sites.report_words import NEGATIVES

SITES = Path(__file__).parents[1] / "sites" / "reporting"
HOME, OTHER = SITES / "source" / "liverpool.toml", SITES / "manchester.toml"
PARTS = ("abstention", "strangeness", "quality", "regions")
TRAINED = 600  # films that stand for those of the training part
DRAWS, LIMIT, BATCH, REGIONS = 1000, 192, 32, 40
SIDED = ("effusion", "pneumothorax", "consolidation", "atelectasis")
PLACES = {"cardiomegaly": "cardiac", "effusion": "base", "pneumothorax": "apex", "consolidation": "lower"}
"""Of what the home hospital's style denies where it is not there, and so may be planted."""
KINDS = {"any of the six errors": ERRORS, "a false, missed or misplaced finding": GRAVE, "a false or misplaced finding": CLAIMED}
BUT = ", but for what the model is blind to"
READ_AS = {"effusion": "pleural_effusion", "oedema": "edema"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One film of each patient."""

    cases: Sequence[Case]
    images: torch.Tensor
    boxes: NDArray[np.float64]
    """(N, F, 4) in pixels of the image."""

    def part(self, start: int, stop: int | None) -> "Shown":
        return Shown(cases=self.cases[start:stop], images=self.images[start:stop], boxes=self.boxes[start:stop])


def shown(config: PhantomConfig, count: int, seed: int, *, test: bool) -> Shown:
    sizes = {"test_patients": count, "patients": 1} if test else {"patients": count, "test_patients": 0}
    cases = [one.cases[0] for one in draw(config.model_copy(update=sizes), seed=seed)[test]]
    images, boxes = [], []
    for start in range(0, count, 64):
        some = cases[start : start + 64]
        drawn = phantom.render(some, config.size)
        stored = shift.apply(drawn.attenuation, config.shift, [case.exposure for case in some])
        images.append(as_read(stored, config.shift.photometric))
        boxes.append(drawn.boxes * (PIXELS / config.size))
    return Shown(cases=cases, images=torch.from_numpy(np.concatenate(images))[:, None], boxes=np.concatenate(boxes))


def config_of(path: Path) -> PhantomConfig:
    config = read_toml(path, HospitalConfig).phantom
    assert config is not None
    return config


@dataclass(frozen=True, kw_only=True)
class Site:
    net: Writer
    config: PhantomConfig
    labeler: Labeler

    def prompt(self, case: Case) -> str:
        return Prompt(indication=report_text.indication(case, self.config.report)).text()

    def report(self, case: Case) -> str:
        return report_text.write(case, self.config.report)

    @torch.no_grad()
    def drafts(self, films: Shown) -> list[Written]:
        found: list[Written] = []
        for start in range(0, len(films.cases), BATCH):
            prompts = [self.net.encode(self.prompt(case), None, limit=LIMIT)[0] for case in films.cases[start : start + BATCH]]
            found += self.net.write(self.net.prefix(films.images[start : start + BATCH]), prompts, limit=LIMIT)
        return found


def share(values: Sequence[bool] | NDArray[np.bool_]) -> str:
    values = np.asarray(values, dtype=float)
    if not len(values):
        return "of none"
    rows = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = percentile_interval(values[rows].mean(axis=1), 0.95)
    return f"{values.mean():6.1%} [{low:.1%}, {high:.1%}] of {len(values)}"


def auroc(own: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    rng, replicates = np.random.default_rng(0), []
    for _ in range(200):
        one, two = (rng.choice(values, len(values)) for values in (own, other))
        replicates.append(_auroc(one, two))
    low, high = percentile_interval(np.array(replicates), 0.95)
    return f"{_auroc(own, other):.3f} [{low:.3f}, {high:.3f}]"


def _auroc(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(roc_auc_score(np.repeat([0, 1], [len(own), len(other)]), np.concatenate([own, other])))


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Drafts of some films, by what they and their reports say."""

    pairs: list[tuple[Reading, Reading]]
    others: list[list[Reading]]
    sure: dict[str, NDArray[np.float64]]
    """How sure the model is of each, by each measure that is the same for all errors."""

    def wrong(self, kinds: Sequence[str], but: Collection[str]) -> NDArray[np.bool_]:
        return np.array([is_wrong(*pair, kinds=kinds, but=but) for pair in self.pairs])

    def by(self, kinds: Sequence[str], but: Collection[str]) -> dict[str, NDArray[np.float64]]:
        agreed = [-expected_errors(draft, some, kinds=kinds, but=but) for (draft, _), some in zip(self.pairs, self.others, strict=True)]
        return {**self.sure, f"agreement with {OTHERS} drawn drafts": np.array(agreed)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Left:
    """Test drafts, and which of them a threshold of validation films keeps."""

    wrong: NDArray[np.bool_]
    kept: NDArray[np.bool_]

    def told(self) -> str:
        rows = np.random.default_rng(0).integers(len(self.wrong), size=(DRAWS, len(self.wrong)))
        replicates = [self._share_left(self.wrong[row], self.kept[row]) for row in rows]
        low, high = percentile_interval(np.array(replicates), 0.95)
        told = f"wrong {share(self.wrong)}; keeps {self.kept.mean():.1%}, of those wrong {share(self.wrong[self.kept])}"
        return f"{told}: {self._share_left(self.wrong, self.kept):.2f} [{low:.2f}, {high:.2f}] of it"

    @staticmethod
    def _share_left(wrong: NDArray[np.bool_], kept: NDArray[np.bool_]) -> float:
        return float(wrong[kept].mean() / wrong.mean()) if kept.any() and wrong.any() else np.nan


def abstention(site: Site, train: Shown, validation: Shown, test: Shown, seed: int) -> dict[str, Left]:
    """By kind of error and measure of confidence, at a threshold that keeps four in five validation drafts."""
    house = _house(site, train)
    before, judged = (_judged(site, films, house, seed) for films in (validation, test))
    counts = np.array([errors_of(*pair).total for pair in judged.pairs])
    print(f"errors of a draft: {counts.mean():.3f}, of {len(counts)}")
    for name, values in judged.by(ERRORS, ()).items():
        print(f"  {name}: {_told(risk_coverage(values, counts), '{:.3f}')}")
    known = named(*zip(*before.pairs, strict=True))
    blind = blind_to(known)
    told = ", ".join(f"{finding} {of.named} of {of.there}" for finding, of in known.items())
    print(f"named of what validation reports have: {told}")
    print(f"blind to: {', '.join(sorted(blind)) or 'nothing'}")
    plain = {kind: _kept(before, judged, kind, kinds, ()) for kind, kinds in KINDS.items()}
    seen = {kind: _kept(before, judged, kind + BUT, kinds, blind) for kind, kinds in KINDS.items()} if blind else plain
    return {
        f"{kind}{but}, by {name}": left
        for but, found in (("", plain), (BUT, seen))
        for kind, of in found.items()
        for name, left in of.items()
    }


def _kept(before: Judged, judged: Judged, title: str, kinds: Sequence[str], but: Collection[str]) -> dict[str, Left]:
    """By measure of confidence."""
    known_wrong, wrong = (one.wrong(kinds, but) for one in (before, judged))
    print(f"drafts with {title}: {share(wrong)}; of the best order {_told(risk_coverage(-wrong.astype(float), wrong))}")
    sure, found = before.by(kinds, but), {}
    for name, values in judged.by(kinds, but).items():
        both = 0 < wrong.sum() < len(wrong)
        print(f"  {name}: AUROC of right against wrong {auroc(-values[~wrong], -values[wrong]) if both else 'of one kind only'}")
        print(f"    error {_told(risk_coverage(values, wrong))}")
        threshold = Threshold.calibrated(sure[name], known_wrong, coverage=0.8)
        found[name] = Left(wrong=wrong, kept=np.array([not threshold.abstains(value) for value in values]))
        print(f"    threshold of validation for 80%: {found[name].told()}")
        print(f"    promised there: at most {threshold.most_wrong:.1%}, with {threshold.certainty:.0%} certainty", flush=True)
    return found


def _told(curve: Curve, form: str = "{:.1%}") -> str:
    found = ", ".join(f"{form.format(curve.error_at(at))} at {at:.0%}" for at in (1.0, 0.8, 0.6, 0.4))
    return f"{found}; area under the curve {curve.area:.3f}"


def _judged(site: Site, films: Shown, house: House, seed: int) -> Judged:
    drafts = site.drafts(films)
    said, truth = (
        [reading(site.labeler, text) for text in texts]
        for texts in ([draft.text for draft in drafts], [site.report(case) for case in films.cases])
    )
    sure = [confidence_of(draft) for draft in drafts]
    claims = [
        of_claims(ratios_of(draft.text, _witness(site, films, place, house, None), site.labeler)) for place, draft in enumerate(drafts)
    ]
    return Judged(
        pairs=list(zip(said, truth, strict=True)),
        others=[_others(site, films, place, seed) for place in range(len(drafts))],
        sure={
            "least likely token": np.array([one.least for one in sure]),
            "mean of all tokens": np.array([one.value for one in sure]),
            "least likely claim": np.array(claims),
        },
    )


def _others(site: Site, films: Shown, place: int, seed: int) -> list[Reading]:
    prompt = site.net.encode(site.prompt(films.cases[place]), None, limit=LIMIT)[0]
    with torch.no_grad():
        hidden = site.net.prefix(films.images[place : place + 1])
    return [reading(site.labeler, one.text) for one in drawn(site.net, hidden, prompt, limit=LIMIT, seed=seed * 100_000 + place)]


def _house(site: Site, train: Shown) -> House:
    return House.of([site.report(case) for case in train.cases], site.labeler, patients=range(len(train.cases)))


def strangeness(site: Site, train: Shown, validation: Shown, test: Shown, other: Shown, seed: int) -> None:
    own, known, further = (features_of(site.net, films.images) for films in (train, validation, test))
    familiar = Familiar.of(own, known, cohort="home")
    distances = familiar.distances(further)
    print(f"strange films: of the hospital's own test films flagged {share(distances > familiar.threshold)}")
    for name, images in foreign(test.images, other.images, seed):
        found = familiar.distances(features_of(site.net, images))
        print(f"  {name}: AUROC {auroc(distances, found)}, flagged {share(found > familiar.threshold)}")


def foreign(films: torch.Tensor, other: torch.Tensor, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    noise = torch.randn(films.shape, generator=torch.Generator().manual_seed(seed))
    yield "inverted", -films
    yield "turned by 90 degrees", films.rot90(1, (2, 3))
    yield "turned by 180 degrees", films.rot90(2, (2, 3))
    yield "mirrored", films.flip(3)
    yield "noisy (sd 0.15)", (films + 0.15 * noise).clamp(-1, 1)
    yield "blurred (sd 2 px)", torch.from_numpy(gaussian_filter(films.numpy(), (0, 0, 2, 2)))
    yield "of another hospital (Manchester)", other
    rng, (down, across) = np.random.default_rng(seed), np.mgrid[0:PIXELS, 0:PIXELS] / PIXELS
    yield "textures", _many(lambda: gaussian_filter(rng.normal(size=down.shape), rng.uniform(1, 6)))
    yield "gradients like a photograph's", _many(lambda: _photograph(rng, down, across))
    yield "a limb", _many(lambda: _limb(rng, down, across))
    yield "one grey", torch.zeros(20, 1, PIXELS, PIXELS)


def _many(make: Callable[[], NDArray[np.float64]], count: int = 100) -> torch.Tensor:
    """Spread over [-1, 1] as films are read."""
    drawn = np.stack([make() for _ in range(count)])
    low, high = np.percentile(drawn, (1, 99), axis=(1, 2), keepdims=True)
    return torch.from_numpy(np.clip((drawn - low) / (high - low) * 2 - 1, -1, 1).astype(np.float32))[:, None]


def _photograph(rng: np.random.Generator, down: NDArray[np.float64], across: NDArray[np.float64]) -> NDArray[np.float64]:
    tilt = rng.normal(size=3)
    objects = 10 * gaussian_filter(rng.normal(size=down.shape), 12)
    return np.asarray(np.sin(3 * tilt[0] * across + 3 * tilt[1] * down + tilt[2]) + objects)


def _limb(rng: np.random.Generator, down: NDArray[np.float64], across: NDArray[np.float64]) -> NDArray[np.float64]:
    """A thigh or an arm: soft tissue round a hollow bone, which is thicker at a joint."""
    off = across - 0.5 - 0.05 * rng.normal() - 0.1 * rng.normal() * (down - 0.5)
    bone, soft = rng.uniform(0.05, 0.09), rng.uniform(0.18, 0.30)

    def through(width: float) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(np.maximum(1 - (off / width) ** 2, 0)))

    joint = 1 + np.exp(-(((down - 0.5) / 0.08) ** 2))
    return through(soft) + 1.5 * joint * (through(bone) - 0.6 * through(0.6 * bone)) + 0.03 * rng.normal(size=off.shape)


def quality(site: Site, train: Shown, validation: Shown, test: Shown, seed: int) -> dict[str, list[bool]]:
    house = _house(site, train)
    limit = Limit.calibrated([_ratios(site, validation, place, house) for place in range(len(validation.cases))])
    rng = np.random.default_rng(seed)
    found: dict[str, list[bool]] = {}
    for place, case in enumerate(test.cases):
        witness = _witness(site, test, place, house, limit)
        for name, report in [("true reports", site.report(case)), *planted(site, case, rng)]:
            checked: Quality = check(report, evidence=Evidence(witness=witness), labeler=site.labeler)
            found.setdefault(name, []).append(checked.flagged)
    return found


def _ratios(site: Site, films: Shown, place: int, house: House) -> Sequence[Ratios]:
    return ratios_of(site.report(films.cases[place]), _witness(site, films, place, house, None), site.labeler)


def _witness(site: Site, films: Shown, place: int, house: House, limit: Limit | None) -> Witness:
    with torch.no_grad():
        hidden = site.net.prefix(films.images[place : place + 1])
    return Witness(likelihood=likelihood_of(site.net, hidden, site.prompt(films.cases[place])), house=house, limit=limit)


def planted(site: Site, case: Case, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """At most one of each kind."""
    sentence = [
        (one.kind, site.report(case).replace(said, one.text, 1))
        for said in (one.text + one.end for one in sentences_of(site.report(case).partition("\n")[0]))
        for one in swapped(said, site.labeler)
    ]
    for name, kinds in (("a sentence's side", ("side",)), ("a sentence's negation", ("absent", "present"))):
        some = [text for kind, text in sentence if kind in kinds]
        if some:
            yield name, some[int(rng.integers(len(some)))]
    for name, others in (("a report's side", _moved(case)), ("a report's negation", [*_without(case), *_with(case, rng)])):
        if others:
            yield name, site.report(others[int(rng.integers(len(others)))])


def _moved(case: Case) -> list[Case]:
    return [
        replace(
            case,
            findings=tuple(replace(one, side="left" if one.side == "right" else "right") if one is moved else one for one in case.findings),
        )
        for moved in case.findings
        if moved.name in SIDED and moved.side != "both"
    ]


def _without(case: Case) -> list[Case]:
    return [replace(case, findings=tuple(one for one in case.findings if one is not gone)) for gone in case.findings if gone.name in PLACES]


def _with(case: Case, rng: np.random.Generator) -> list[Case]:
    found, there = [], {one.name for one in case.findings}
    for name in PLACES:
        if name not in there:
            side = "both" if name == "cardiomegaly" else "left" if rng.random() < 0.5 else "right"
            more = Finding(name=name, side=side, region=PLACES[name], severity=float(rng.beta(4, 1.5)), place=(0.5, 0.5, 0.5))  # type: ignore[arg-type]
            found.append(replace(case, findings=(*case.findings, more)))
    return found


def regions(site: Site, train: Shown, test: Shown) -> dict[str, list[tuple[float, bool]]]:
    """Of each finding on the first films: overlap with its true box, and whether the peak lies in it."""
    healthy = [place for place, case in enumerate(train.cases) if not case.findings]
    filler = train.images[healthy].mean(dim=0)[0].numpy()
    found: dict[str, list[tuple[float, bool]]] = {}
    for place, case in enumerate(test.cases[:REGIONS]):
        for one in case.findings:
            if one.name in ("nodule", "device"):
                continue
            region = _region(site, test, place, one, filler)
            box = tuple(test.boxes[place, phantom.FINDINGS.index(one.name)])
            hit = region is not None and box[0] <= region.peak[0] < box[2] and box[1] <= region.peak[1] < box[3]
            found.setdefault(one.name, []).append((overlap(region.box, box) if region else 0.0, hit))
    return found


def _region(site: Site, films: Shown, place: int, finding: Finding, filler: NDArray[np.float32]) -> Region | None:
    case, begun = films.cases[place], ""
    name = READ_AS.get(finding.name, finding.name)
    for one in sentences_of(site.report(case)):
        said = one.text + one.end
        if any(mention.finding == name for mention in site.labeler.mentions(said)):
            break
        begun += one.before + said
    contrary = NEGATIVES[site.config.report].get(finding.name, "Impression: No acute abnormality.")
    score = score_of_sentence(site.net, site.prompt(case), begun.strip(), said, contrary)
    return occluded(films.images[place, 0].numpy(), score, finding=finding.name, patch=24, stride=8, filler=filler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=EMBEDDED / "draft_tiny")
    parser.add_argument("--films", type=int, default=200, help="of test, and as many of validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    if not (options.weights / "config.json").is_file():
        print(f"{options.weights}: no model there, so nothing is said of drafts")
        return
    # So that it can run beside others: threads that wait for one another on shared cores cost more than they give.
    torch.set_num_threads(1)
    net = Vlm().load(options.weights, outputs={}, last_blocks=None).requires_grad_(False).eval()
    assert isinstance(net, Writer)
    site = Site(net=net, config=config_of(HOME), labeler=Labeler())
    checked: dict[str, list[bool]] = {}
    boxes: dict[str, list[tuple[float, bool]]] = {}
    abstained: dict[str, list[Left]] = {}
    for seed in options.seeds:
        # The model was trained on patients of seed 0 of the training part.
        films = shown(site.config, 2 * options.films, seed + 1, test=True)
        train, validation, test = (
            shown(site.config, TRAINED, seed + 1, test=False),
            films.part(0, options.films),
            films.part(options.films, None),
        )
        print(f"seed {seed}: {options.films} validation and {options.films} test films", flush=True)
        if "abstention" in options.parts:
            for name, left in abstention(site, train, validation, test, seed).items():
                abstained.setdefault(name, []).append(left)
        if "strangeness" in options.parts:
            strangeness(site, train, validation, test, shown(config_of(OTHER), 100, seed, test=True), seed)
        if "quality" in options.parts:
            for name, flags in quality(site, train, validation, test, seed).items():
                checked.setdefault(name, []).extend(flags)
        if "regions" in options.parts:
            for name, each in regions(site, train, test).items():
                boxes.setdefault(name, []).extend(each)
    if abstained:
        print(f"abstention, seeds {', '.join(map(str, options.seeds))} together:")
    for name, parts in abstained.items():
        wrong, kept = (np.concatenate(each) for each in ([one.wrong for one in parts], [one.kept for one in parts]))
        print(f"  {name}: {Left(wrong=wrong, kept=kept).told()}")
    if checked:
        print("report QA, flagged of:")
    for name in sorted(checked, key=lambda name: name != "true reports"):
        print(f"  {name}: {share(checked[name])}")
    if boxes:
        print("regions (indicative): mean IoU with the true box; peak inside it")
        for name, each in [*boxes.items(), ("all", [one for some in boxes.values() for one in some])]:
            print(f"  {name}: {np.mean([iou for iou, _ in each]):.2f}; {share([hit for _, hit in each])}")


if __name__ == "__main__":
    main()
