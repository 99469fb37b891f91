"""What phantom reports say, in every style: read again by the labeler, alone and against the film before."""

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.labeler import Labeler
from client.reporting.reading import THERE, reading
from sites import report_text
from sites.cases import FINDINGS, Case, Exposure, Finding
from sites.population import PopulationConfig, draw_patients
from sites.report_text import Style

STYLES = get_args(Style)
LABELER = Labeler()
NAMED = {"effusion": "pleural_effusion", "oedema": "edema", "nodule": "lung_lesion", "device": "support_devices"}
UNSIDED = ("cardiomegaly", "oedema", "device")
REGIONS = {
    "cardiomegaly": ("cardiac",),
    "effusion": ("base",),
    "pneumothorax": ("apex",),
    "oedema": ("perihilar",),
    "device": ("line", "tube", "pacemaker"),
}
SAME = ("unchanged", "stable", "persists")


@pytest.fixture(scope="module")
def pairs():
    """(case, the patient's film before, or None)."""
    population = PopulationConfig(prevalence=dict.fromkeys(FINDINGS, 0.25), follow_up=0.8)
    patients = draw_patients(population, 130, 3, images=(1, 3))
    return [pair for patient in patients for pair in zip(patient.cases, (None, *patient.cases), strict=False)]


def one(*findings, image=0):
    exposure = Exposure(
        seed=(0, 0, image), view="PA", zoom=1.0, offset=(0.0, 0.0), rotation_deg=0.0, inspiration=0.0, oblique=0.0, magnification=1.0
    )
    return Case(patient=0, seed=(0, 0), sex="F", age=50.0, habitus=0.0, findings=findings, exposure=exposure)


def finding(name, side="left", region=None, severity=0.5):
    regions = REGIONS.get(name, ("lower",))
    return Finding(name=name, side=side, region=region or regions[0], severity=severity, place=(0.0, 0.0, 0.0))


def wrong(text, case):
    """What the labeler reads in it otherwise than it was drawn."""
    found, drawn = reading(LABELER, text), {finding.name: finding for finding in case.findings}
    mistakes = list(found.contradicted)
    for name in FINDINGS:
        label = NAMED.get(name, name)
        if (found.labels[label] in THERE) != (name in drawn):
            mistakes.append(name)
        elif name in drawn:
            sides = {"both": {"left", "right"}}.get(drawn[name].side, {drawn[name].side})
            mistakes += [f"side of {name}"] * (len(found.sides[label]) == 1 if name in UNSIDED else found.sides[label] != sides)
    return mistakes


def told(text):
    """Finding -> "new", "unchanged" or "resolved", as the findings say it in their own sentence or the next."""
    sentences = text.split("\n")[0].removesuffix(".").split(". ")
    said = {}
    for sentence, following in zip(sentences, [*sentences[1:], ""], strict=True):
        labels = LABELER.labels(f"{sentence}.")
        own = LABELER.comparisons(sentence)
        for name in FINDINGS:
            label = labels[NAMED.get(name, name)]
            if label in THERE:
                word = (own or LABELER.comparisons(following))[0].lower()
                said[name] = "unchanged" if word in SAME else word
            elif label == "negative" and own:
                said[name] = "resolved"
    return said


@pytest.mark.parametrize("style", STYLES)
def test_labels_and_sides_are_read_as_they_were_drawn_and_nothing_is_compared(style, pairs):
    seen = Counter(finding.name for case, _ in pairs for finding in case.findings)
    assert all(seen[name] >= 15 for name in FINDINGS)
    for case, _ in pairs:
        text = report_text.write(case, style)
        assert wrong(text, case) == [], text
        assert LABELER.comparisons(text) == [], text


@pytest.mark.parametrize("style", STYLES)
def test_against_the_film_before_each_finding_is_new_unchanged_or_resolved(style, pairs):
    told_of = Counter()
    for case, before in pairs:
        if before is None:
            continue
        text = report_text.write(case, style, before=before)
        now, then = ({finding.name for finding in one.findings} for one in (case, before))
        expected = dict.fromkeys(now - then, "new") | dict.fromkeys(now & then, "unchanged") | dict.fromkeys(then - now, "resolved")
        assert told(text) == expected, text
        assert wrong(text, case) == [], text
        assert LABELER.comparisons(text), text
        told_of.update(expected.values())
    assert min(told_of[word] for word in ("new", "unchanged", "resolved")) >= 10


@pytest.mark.parametrize("style", STYLES)
def test_a_lost_film_is_compared_with_and_what_is_there_stays_the_truth(style, pairs):
    said = Counter()
    for case, _ in pairs:
        text = report_text.write(case, style, lost=True)
        assert wrong(text, case) == [], text
        assert LABELER.comparisons(text), text
        said.update(told(text).values())
    assert min(said[word] for word in ("new", "unchanged", "resolved")) >= 10


@st.composite
def drawn(draw):
    names = draw(st.lists(st.sampled_from(FINDINGS), unique=True))
    found = []
    for name in names:
        sides = ("both",) if name in ("cardiomegaly", "oedema") else ("left", "right", "both")
        region = draw(st.sampled_from(REGIONS.get(name, ("upper", "middle", "lower"))))
        found.append(finding(name, draw(st.sampled_from(sides)), region, draw(st.floats(0, 1))))
    return tuple(found)


@settings(max_examples=60, deadline=None)
@given(drawn(), st.none() | drawn(), st.sampled_from(STYLES), st.integers(0, 10_000))
def test_any_findings_are_read_as_they_are_whatever_was_there_before(now, then, style, image):
    case = one(*now, image=image)
    text = report_text.write(case, style, before=None if then is None else one(*then))
    assert wrong(text, case) == [], text
    assert bool(LABELER.comparisons(text)) == (then is not None), text


@pytest.mark.parametrize("style", STYLES)
def test_the_impression_names_what_is_there_and_leaves_devices_out(style, pairs):
    normal = set()
    for case, _ in pairs:
        impression = report_text.write(case, style).split("\n")[1]
        concluded = tuple(finding for finding in case.findings if finding.name != "device")
        assert wrong(impression, one(*concluded)) == [], impression
        if not concluded:
            normal.add(impression)
    assert len(normal) == 1
    assert LABELER.labels(normal.pop())["no_finding"] == "positive"


@pytest.mark.parametrize("style", STYLES)
def test_a_finding_on_the_other_side_is_another_one(style):
    left, right = one(finding("effusion", "left")), one(finding("effusion", "right"))
    assert told(report_text.write(left, style, before=left)) == {"effusion": "unchanged"}
    assert told(report_text.write(left, style, before=right)) == {"effusion": "new"}


@pytest.mark.parametrize("style", STYLES)
def test_a_healthy_patient_is_compared_too(style):
    text = report_text.write(one(), style, before=one(image=1))
    assert "no change" in text.lower()
    assert "no change" not in report_text.write(one(), style).lower()
    assert LABELER.labels(text)["no_finding"] == "positive"


def test_a_film_before_is_at_hand_or_lost_and_not_both():
    with pytest.raises(ValueError, match="not with both"):
        report_text.write(one(), "prose", before=one(), lost=True)


@pytest.mark.parametrize("style", STYLES)
def test_an_indication_names_no_finding_and_gives_none_away(style, pairs):
    asked = [(report_text.indication(case, style), {finding.name for finding in case.findings}) for case, _ in pairs]
    healthy = {text for text, found in asked if not found}
    assert len(healthy) == 8
    assert {text for text, _ in asked} == healthy
    for text in healthy:
        labels = LABELER.labels(text)
        assert labels.pop("no_finding") == "positive"
        assert set(labels.values()) == {"unmentioned"}, text
        assert LABELER.comparisons(text) == []


def test_an_indication_has_to_do_with_what_is_found():
    ill = [one(finding("consolidation"), image=image) for image in range(400)]
    fever, without = (
        sum(report_text.indication(case, "prose").startswith("Cough") for case in cases) / 400
        for cases in (ill, [one(image=image) for image in range(400)])
    )
    assert 0.3 < fever < 0.5 and 0.05 < without < 0.2


@pytest.mark.parametrize("style", STYLES)
def test_reports_are_short_and_of_few_words(style, pairs):
    texts = [report_text.write(case, style) for case, _ in pairs]
    every = texts + [report_text.write(case, style, before=before) for case, before in pairs if before]
    every += [report_text.indication(case, style) for case, _ in pairs]
    assert sum(len(text.split()) < 60 for text in texts) >= 0.9 * len(texts)
    assert len({word.strip(".,:;()?").lower() for text in every for word in text.split()}) <= 100


def test_the_same_case_is_written_of_in_the_same_words(pairs):
    for case, before in pairs[:20]:
        assert report_text.write(case, "prose", before=before) == report_text.write(case, "prose", before=before)
        assert report_text.write(case, "prose", lost=True) == report_text.write(case, "prose", lost=True)
        assert report_text.indication(case, "prose") == report_text.indication(case, "prose")
