"""The task `report`: what goes in, what the loss is on, what is measured, and that it goes through a round like any other."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client import models, tasks
from client.data.cohort import Cohort
from client.data.rows import Rows
from client.drafting.track_record import named
from client.models.vlm import VlmNet
from client.tasks.findings import Findings
from client.tasks.report import Classifier, Report
from client.training import features, lora
from client.training.answer import LocalData, answered
from client.training.fit import fit
from client.training.memory import Memory
from client.workbench import Bench, first_adapter, open_bench, own_data
from rainhill.errors import BaseModelError, ConfigError, DataError
from rainhill.messages import Plan
from rainhill.recipe import EvaluationSection, FitSection, LoraSection, Recipe, TaskSection
from tests.client.vlm_families import SIZE, save

SAID = (
    "The heart is enlarged.\nImpression: cardiomegaly.",
    "Unchanged left pleural effusion.\nImpression: left effusion.",
    "No pneumothorax. No pleural effusion.\nImpression: no acute abnormality.",
)
"""Of film n, the one at n modulo 3."""


def cohort_of(films: int = 12, *, priors: bool = False, silent: tuple[int, ...] = ()) -> Cohort:
    """Two films of each patient, whose report is told by a bright third of the film."""
    rng, kinds = np.random.default_rng(0), np.arange(films) % 3
    images = rng.normal(0, 0.1, (films, 1, SIZE, SIZE)).astype(np.float32)
    for image, kind in zip(images, kinds, strict=True):
        image[0, :, kind * SIZE // 3 : (kind + 1) * SIZE // 3] += 0.8
    patients = np.arange(films) // 2
    return Cohort(
        site="aintree",
        findings=(),
        images=Rows(np.clip(images, -1, 1)),
        labels=np.empty((films, 0), dtype=np.float32),
        patients=patients,
        pseudonym=patients.astype(str),
        split=np.array(["train"] * films),
        sex=np.array([""] * films),
        age=np.full(films, np.nan, dtype=np.float32),
        view=np.array([""] * films),
        reports=tuple("" if film in silent else SAID[kind] for film, kind in enumerate(kinds)),
        indications=tuple("Cough." if film % 2 else "" for film in range(films)),
        priors=tuple("Left effusion." if priors and film % 3 == 1 else "" for film in range(films)),
    )


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llava", tmp_path_factory.mktemp("report") / "llava")


@pytest.fixture
def bench(llava: Path, recipe: Recipe) -> Bench:
    raw = recipe.model_dump(mode="json")
    base = {"model": "vlm", "weights": str(llava), "sha256": models.digest(llava), "scope": "language+projector+vision"}
    adapted = {"rank": 4, "alpha": 8, "modules": "(q_proj|v_proj|fc1|up_proj|linear_1)"}
    changed = {"task": {"name": "report", "max_tokens": 40, "val_drafts": 3}, "base": base, "lora": adapted, "sites": []}
    return open_bench(Recipe.model_validate(raw | changed), llava)


def spoken(bench: Bench, tokens: torch.Tensor) -> str:
    net = bench.net
    assert isinstance(net, VlmNet)
    return str(net.tokenizer.decode(tokens[tokens >= 0], skip_special_tokens=True))


def test_the_loss_is_on_the_report_alone_and_on_how_it_ends(bench: Bench) -> None:
    found = bench.task.examples(cohort_of(), bench.net)
    assert found.given is not None and found.given.shape == found.targets.shape
    answer = found.targets[0][found.targets[0] >= 0]
    assert spoken(bench, answer) == SAID[0]
    assert answer[-1] == bench.net.tokenizer.eos_token_id  # type: ignore[union-attr]
    # Where there is a target, it is what is given there.
    written = found.targets >= 0
    assert torch.equal(found.given[written], found.targets[written])
    assert "Indication: Cough." in spoken(bench, found.given[1]) and "Indication" not in spoken(bench, found.given[0])


def test_comparisons_are_scrubbed_where_there_is_no_prior_and_kept_where_there_is_one(bench: Bench) -> None:
    def texts(priors: bool, **options: object) -> str:
        found = Report(max_tokens=60, **options).examples(cohort_of(priors=priors), bench.net)
        return spoken(bench, found.targets[1])

    assert texts(priors=False) == "Left pleural effusion.\nImpression: left effusion."
    assert texts(priors=True) == SAID[1]
    assert texts(priors=False, scrub=False) == SAID[1]
    # A prior that is not put into the prompt is none.
    assert texts(priors=True, blocks=("indication",)) == "Left pleural effusion.\nImpression: left effusion."
    # Nor is one of which nothing comes to be read there.
    unseen = replace(cohort_of(), priors=("\u200b",) * 12)
    assert spoken(bench, bench.task.examples(unseen, bench.net).targets[1]) == "Left pleural effusion.\nImpression: left effusion."
    given = bench.task.examples(cohort_of(priors=True), bench.net).given
    assert given is not None and "Comparison: Left effusion." in spoken(bench, given[1])


def test_what_stays_is_made_new_in_training_alone(bench: Bench) -> None:
    films = cohort_of(priors=True)
    films = replace(films, priors=tuple(prior and f"No cardiomegaly. {prior}" for prior in films.priors))
    task = Report(max_tokens=60, counterfactual=1.0)
    train, val = task.examples(films, bench.net), task.examples(films, bench.net, films)
    assert train.given is not None and val.given is not None
    assert spoken(bench, train.targets[1]) == SAID[1].replace("Unchanged", "New")
    assert "Comparison: No cardiomegaly.\n" in spoken(bench, train.given[1])
    assert spoken(bench, val.targets[1]) == SAID[1] and "Comparison: No cardiomegaly. Left effusion." in spoken(bench, val.given[1])
    # What is measured against is what was reported.
    assert train.texts == val.texts == films.reports
    never = Report(max_tokens=60, counterfactual=0.0).examples(films, bench.net)
    assert spoken(bench, never.targets[1]) == SAID[1]


def test_an_image_without_a_report_has_no_loss_and_is_not_measured(bench: Bench) -> None:
    data = features.compute(bench.net, cohort_of(silent=(0, 5)), bench.task)
    losses = bench.task.losses(bench.net, data, torch.arange(12))
    assert (losses[[0, 5]] == 0).all() and (losses[[1, 2, 3]] > 0).all()
    truth = bench.task.truth(data)
    assert np.isnan(truth[[0, 5]]).all() and np.isfinite(truth[1]).all()
    scored = bench.task.score(bench.net, data, temperature=1.0, section=EvaluationSection(bootstraps=100), seed=(0,))
    assert len(scored.drafts) == 10
    assert [draft.text for draft in scored.drafts] == [one.text for one in bench.task.drafts(bench.net, data, [1, 2, 3, 4, *range(6, 12)])]
    record = bench.task.track_record(bench.net, data)
    with_report = sum(any(row not in (0, 5) for row in own.tolist()) for own in data.images_of)
    assert record is not None and record.threshold.of == with_report and record.threshold.kept <= 0.8 * with_report
    # Drafts that were cut might have come to any finding: they count for none of them.
    ended = [one for one in (scored.drafts[place] for place in (0, 1, 3, 4, 6, 8)) if np.isfinite(one.sure)]
    assert len(ended) == record.threshold.kept == 1
    assert record.named == named([one.said for one in ended], [one.wanted for one in ended])
    none = features.compute(bench.net, cohort_of(silent=tuple(range(12))), bench.task)
    assert bench.task.track_record(bench.net, none) is None
    assert bench.task.unlabelled([none]) == ["a report to train on (columns.report)"] and bench.task.unlabelled([none, data]) == []


def test_a_loss_is_that_of_its_row_alone_whatever_it_is_batched_with(bench: Bench) -> None:
    data = features.compute(bench.net, cohort_of(priors=True), bench.task)
    with torch.no_grad():
        together = bench.task.losses(bench.net, data, torch.arange(12))
        alone = torch.cat([bench.task.losses(bench.net, data, torch.tensor([row])) for row in range(12)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_what_is_learned_is_written_and_measured(bench: Bench) -> None:
    data = features.compute(bench.net, cohort_of(), bench.task)
    first = first_adapter(bench)
    lora.write_adapter(bench.net, first, name=lora.SHARED)
    before = bench.task.validated(bench.net, data)
    section = FitSection(steps=120, patients_per_step=6, learning_rate=2e-2)
    fit(bench.net, data, bench.task, section, parameters=lora.trainable(bench.net, name=lora.SHARED, with_head=True), seed=(0,))
    after = bench.task.validated(bench.net, data)
    assert after.metrics["loss"] < 0.2 * before.metrics["loss"]
    scored = bench.task.score(bench.net, data, temperature=1.0, section=EvaluationSection(bootstraps=100, min_positives=2), seed=(0,))
    assert scored.means["label_f1"].value > 0.9 > before.metrics["label_f1"]
    assert bench.task.value(bench.net, data, EvaluationSection()) == pytest.approx(scored.means["label_f1"].value)
    assert {"label_precision", "wrong_sides", "rouge_l", "meteor_nosyn", "corpus_bleu", "cider_d"} <= set(scored.means)
    assert scored.findings["pleural_effusion"].keys() == {"label_f1", "label_precision", "label_recall"}
    # Its own adapter off, the model writes what it wrote.
    lora.write_adapter(bench.net, first, name=lora.SHARED)
    assert bench.task.validated(bench.net, data).metrics == before.metrics


def test_an_image_without_a_report_is_left_out_and_its_patient_counts_for_nothing(bench: Bench) -> None:
    """Else patients whose loss is 0 would stand behind a site's numbers, and carry its weight."""
    films = replace(cohort_of(24, silent=(0, 1, 2, 12, 13, 14, 20)), split=np.array(["train"] * 12 + ["val"] * 8 + ["test"] * 4))
    own = own_data(bench, films)
    # Of six, four and two patients one, one and none have no report at all; of each of three more a film has none.
    assert (own.train.count, own.val.count) == (5, 3) and (len(own.train.targets), len(own.val.targets)) == (9, 5)
    assert all(text.strip() for text in own.train.texts + own.val.texts)
    assert own.cohort.part("train").pseudonyms == ("1", "2", "3", "4", "5") and own.cohort.part("test").n_patients == 2
    assert bench.task.validated(bench.net, own.val).patients == {"loss": 3, "label_f1": 3}
    silent = replace(films, reports=tuple("" if part == "val" else text for part, text in zip(films.split, films.reports, strict=True)))
    with pytest.raises(DataError, match="aintree: has no val patient with a report, and a site needs some to take part"):
        own_data(bench, silent)


def test_a_measure_is_told_of_as_many_patients_as_were_drafted_for(bench: Bench) -> None:
    data = features.compute(bench.net, cohort_of(12, silent=(0, 2, 3)), bench.task)
    # The first film of the first patient has no report, nor any of the second's.
    assert Report(max_tokens=40, val_drafts=2).validated(bench.net, data).patients == {"loss": 6, "label_f1": 2}
    assert Report(max_tokens=40, val_drafts=99).validated(bench.net, data).patients == {"loss": 6, "label_f1": 5}
    assert Report(max_tokens=40, val_drafts=0).validated(bench.net, data).patients == {"loss": 6}


def test_reports_that_max_tokens_cuts_are_told_of(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.task.examples(cohort_of(), bench.net)
    assert not caplog.records
    lengths = [len(bench.net.encode("", said, limit=99)[0]) - len(bench.net.encode("", None, limit=99)[0]) for said in SAID]  # type: ignore[operator]
    at = sorted(lengths)[1]
    Report(max_tokens=at).examples(cohort_of(), bench.net)
    assert caplog.messages == [f"site aintree: max_tokens = {at} cuts 4 of 12 reports"]


def test_a_draft_without_a_prior_compares_with_nothing_whatever_the_model_has_learned(bench: Bench) -> None:
    raw = Report(max_tokens=40, scrub=False)
    alone, with_prior = (features.compute(bench.net, cohort_of(priors=priors), raw) for priors in (False, True))
    lora.write_adapter(bench.net, first_adapter(bench), name=lora.SHARED)
    section = FitSection(steps=240, patients_per_step=8, learning_rate=2e-2)
    parameters = lora.trainable(bench.net, name=lora.SHARED, with_head=True)
    fit(bench.net, features.concatenate([alone, with_prior]), raw, section, parameters=parameters, seed=(0,))

    def compare(task: Report, data: features.Features) -> int:
        return sum(bool(task.labeler.comparisons(one.text)) for one in task.drafts(bench.net, data, range(12)))

    assert compare(raw, alone) == compare(raw, with_prior) == 4
    guarded = Report(max_tokens=40)
    assert compare(guarded, alone) == 0 and compare(guarded, with_prior) == 4
    said = guarded.drafts(bench.net, alone, [1])[0]
    assert said.text == "Left pleural effusion.\nImpression: left effusion." and said.ended


def test_a_round_is_answered_like_any_other(bench: Bench, tmp_path: Path) -> None:
    data = features.compute(bench.net, cohort_of(), bench.task)
    plan = Plan(run="r", recipe=bench.recipe.sha256, round=1, site="aintree", adapter=first_adapter(bench))
    update = answered(
        plan,
        recipe=bench.recipe,
        strategy=bench.strategy,
        net=bench.net,
        task=bench.task,
        data=LocalData(train=data, val=data),
        memory=Memory(tmp_path),
    )
    assert update.evaluation is not None and set(update.evaluation.metrics) == {"loss", "label_f1"}
    assert update.delta.pairs() and all(".lora_" in name for name in update.delta)


def test_pooled_reports_of_different_length_keep_their_losses(bench: Bench) -> None:
    short = cohort_of(priors=True)
    long = replace(short, indications=tuple("Shortness of breath since the day before yesterday." for _ in short.reports))
    parts = [features.compute(bench.net, one, bench.task) for one in (short, long)]
    pooled = features.concatenate(parts)
    assert pooled.texts == (*parts[0].texts, *parts[1].texts)
    with torch.no_grad():
        alone = torch.cat([bench.task.losses(bench.net, part, torch.arange(12)) for part in parts])
        torch.testing.assert_close(bench.task.losses(bench.net, pooled, torch.arange(24)), alone, rtol=1e-4, atol=1e-5)


def test_a_task_refuses_a_model_that_cannot_do_it(bench: Bench, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="wants a model with an output for each finding"):
        Findings(findings=("square",)).examples(cohort_of(), bench.net)
    with pytest.raises(BaseModelError, match="wants a model that writes"):
        Report().examples(cohort_of(), open_bench(recipe, tmp_path).net)


def prompt_of(bench: Bench, given: torch.Tensor, targets: torch.Tensor) -> str:
    return spoken(bench, given[(given >= 0) & (targets < 0)])


def test_a_classifier_says_in_the_prompt_what_it_finds(bench: Bench, tiny_base: Path, tiny_digest: str) -> None:
    section = {"model": "vit", "weights": str(tiny_base), "sha256": tiny_digest, "findings": ["square", "stripe"]}
    net = models.load(
        Classifier.model_validate(section), lora=LoraSection(), outputs={"square": "square", "stripe": "stripe"}, folder=tiny_base
    )
    films = cohort_of()
    scores = Findings(findings=("square", "stripe")).scores(features.logits(net, net.prefix(torch.from_numpy(films.images[:]))))
    threshold = float(np.median(scores[:, 0]))
    task = Report.model_validate({"blocks": ["findings"], "classifier": section | {"threshold": threshold}, "max_tokens": 40})
    found = task.examples(films, bench.net)
    assert found.given is not None
    told = [prompt_of(bench, *row) for row in zip(found.given, found.targets, strict=True)]
    wanted = [
        ", ".join(name for name, score in zip(("square", "stripe"), row, strict=True) if score >= threshold) or "none" for row in scores
    ]
    assert all(f"Predicted findings: {words}\n" in text for words, text in zip(wanted, told, strict=True))
    assert len(set(wanted)) > 1
    with pytest.raises(BaseModelError, match="sha256"):
        Report.model_validate({"blocks": ["findings"], "classifier": section | {"sha256": "0" * 64}}).examples(films, bench.net)


def test_reports_of_films_that_look_alike_stand_in_the_prompt_and_never_the_patients_own(bench: Bench) -> None:
    films = cohort_of(24)
    task = Report(blocks=("similar",), similar=2, max_tokens=40)
    found = task.examples(films, bench.net)
    assert found.given is not None
    for film, (ids, targets) in enumerate(zip(found.given, found.targets, strict=True)):
        prompt = prompt_of(bench, ids, targets)
        cited = [int(number) for number in re.findall(r"\(film (\d+)\)", prompt)]
        assert len(cited) == 2 and all(films.patients[one] != films.patients[film] for one in cited)
        assert all(films.reports[one].split("\n")[0] in prompt for one in cited)
    # A test film finds them among the training films, whatever the adapter is by then.
    lora.write_adapter(bench.net, first_adapter(bench), name=lora.SHARED)
    other = replace(films._take(np.array([0, 1])), pseudonym=np.array(["x", "x"]))
    again = task.examples(other, bench.net, films)
    assert again.given is not None and "(film 0)" in prompt_of(bench, again.given[0], again.targets[0])


def test_a_film_with_labels_alone_is_trained_on_a_report_in_the_sites_words(bench: Bench) -> None:
    films = cohort_of(24, silent=tuple(range(12, 24)))
    labels = np.array([[float(film % 3 == 0), float(film % 3 == 1)] for film in range(24)], dtype=np.float32)
    films = replace(films, findings=("big heart", "fluid"), labels=labels)
    called = {"big heart": "cardiomegaly", "fluid": "pleural_effusion"}
    task = Report(findings=films.findings, expand=True, called=called, max_tokens=60)
    found = task.examples(films, bench.net)
    for film in range(12, 24):
        said = task.labeler.labels(spoken(bench, found.targets[film]))
        assert (said["cardiomegaly"] == "positive", said["pleural_effusion"] == "positive") == (film % 3 == 0, film % 3 == 1)
    # It is no reference: nobody signed it.
    assert found.texts[12:] == ("",) * 12
    without = Report(findings=films.findings, max_tokens=60).examples(films, bench.net)
    assert (without.targets[12:] < 0).all()


def test_options_that_do_not_go_together_are_refused_by_name() -> None:
    for options, words in (
        ({"blocks": ["findings"]}, "the block 'findings' and a classifier go together"),
        ({"called": {"fluid": "pleural_effusion"}}, "called names 'fluid', which is not one of the findings"),
        ({"findings": ["fluid"], "called": {"fluid": "water"}}, "called.fluid = 'water' is not one of"),
        ({"findings": ["fluid"], "expand": True}, "of fluid it is not known which finding it is"),
        (
            {"blocks": ["indicaton"]},
            "blocks.0 = 'indicaton': expected 'indication', 'prior', 'findings' or 'similar', did you mean 'indication'?",
        ),
        ({"counterfactual": 2}, "counterfactual = 2: expected less than or equal to 1"),
        ({"language": "fr"}, "there are no phrases of language 'fr'"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            tasks.from_section(TaskSection.model_validate({"name": "report", **options}))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"blocks": ["similar"]}, "block 'similar'"), ({"findings": ["fracture"], "expand": True}, "expand"), ({}, "")],
)
def test_what_would_put_one_patient_into_anothers_example_is_refused_under_privacy(
    bench: Bench, options: dict[str, object], words: str
) -> None:
    task = bench.recipe.task.model_dump() | options
    plain = Recipe.model_validate(bench.recipe.model_dump() | {"task": task})
    tasks.from_recipe(plain)
    private = Recipe.model_validate(plain.model_dump() | {"privacy": {"epsilon": 1.0}})
    if not words:
        tasks.from_recipe(private)
        return
    with pytest.raises(ConfigError, match=f"{words} with .privacy.: what is learned from a patient would hold something of others"):
        tasks.from_recipe(private)


def test_reports_in_another_language_are_refused_before_a_number_comes_of_them(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match="site aintree: 0 of 12 reports speak of a finding, as phrases of language 'de' have it"):
        Report(language="de").examples(replace(cohort_of(), reports=("The heart is enlarged.",) * 12), bench.net)
    # A word that both have is not enough: its "kein" would go unseen.
    german = replace(cohort_of(), reports=("Kein Pneumothorax. Kein Erguss. Herz normal groß.",) * 12)
    with pytest.raises(DataError, match="site aintree: 12 of 12 reports read rather as language 'de' than as 'en'"):
        Report().examples(german, bench.net)
    assert Report(language="de").examples(german, bench.net).texts == german.reports
    some = replace(cohort_of(), reports=german.reports[:4] + ("No pneumothorax. The heart is enlarged.",) * 8)
    with caplog.at_level("WARNING"):
        Report().examples(some, bench.net)
    assert caplog.messages == ["site aintree: 4 of 12 reports read rather as language 'de': what they say is not understood"]
    # A handful may be anything.
    Report(language="de").examples(replace(cohort_of(6), reports=("The heart is enlarged.",) * 6), bench.net)
