"""The model that drafts reports, as it is trained from nothing and as it comes along."""

from pathlib import Path

import numpy as np
import pytest
import torch

import client
from client import models
from client.data.labeler import Labeler
from client.drafting.prompt import Prompt
from client.models import Writer
from client.reporting.reading import reading
from rainhill.recipe import LoraSection, read_recipe
from rainhill.toml import read_toml
from sites import pretrain_report
from sites.cli import RECIPES
from sites.films import Films, draw_films
from sites.hospital import HospitalConfig, draw
from sites.phantom import FINDINGS
from sites.pretrain_report import Film, collection, films_of, look, measured, tokenizer_of, untrained, write, written

WEIGHTS = Path(client.__file__).parent / "models" / "weights" / "draft_tiny"


@pytest.fixture(scope="module")
def known() -> tuple[Films, list[Film]]:
    config = read_toml(pretrain_report.SOURCE, HospitalConfig).phantom
    assert config is not None
    patients, _ = draw(config.model_copy(update={"patients": 24, "test_patients": 24}), seed=5)
    films = films_of(patients)
    return draw_films(config, [film.case for film in films]), films


def test_a_film_knows_the_one_before_it_of_its_own_patient_alone(known: tuple[Films, list[Film]]) -> None:
    _, films = known
    assert any(film.before for film in films) and any(film.before is None for film in films)
    assert all(film.before.patient == film.case.patient for film in films if film.before)


def test_what_it_is_trained_on_compares_only_where_the_prompt_has_the_report_before(known: tuple[Films, list[Film]]) -> None:
    labeler, rng, told = Labeler(), np.random.default_rng(0), []
    for film in known[1] * 6:
        prompt, answer = written(film, rng, "prose")
        assert bool(labeler.comparisons(answer)) == ("Comparison: " in prompt), (prompt, answer)
        told.append(prompt)
    for block in ("Indication: ", "Comparison: ", "Predicted findings: "):
        assert 0 < sum(block in prompt for prompt in told) < len(told)


def test_its_tokenizer_can_write_any_text(known: tuple[Films, list[Film]]) -> None:
    rng = np.random.default_rng(0)
    tokenizer = tokenizer_of([text for film in known[1] for text in written(film, rng, "prose")])
    for text in ("Größe 3 cm, ß-Blocker. 肺炎 \n\n No effusion.", "There is no pneumothorax."):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert len(tokenizer) <= pretrain_report.VOCABULARY


def test_training_is_the_same_twice_and_lowers_the_loss(known: tuple[Films, list[Film]]) -> None:
    data, films = known
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(0)
        tokenizer = tokenizer_of([text for film in films for text in written(film, rng, "prose")])
        net = pretrain_report.as_writer(untrained(tokenizer, 3), tokenizer)
        blind = net.prefix(data.batch(slice(None))).detach()
        looked = list(look(net.model, data, seed=3, epochs=2, batch=8, rate=2e-3))
        seen = net.prefix(data.batch(slice(None))).detach()
        voiced = list(write(net, data, films, home="prose", seed=3, epochs=3, batch=8, rate=2e-3))
        runs.append((looked, voiced, net.model.lm_head.weight.detach().clone(), net))
        assert not torch.equal(blind, seen)
    (looked, voiced, weight, net), other = runs[0], runs[1]
    assert (looked, voiced) == other[:2] and torch.equal(weight, other[2])
    assert looked[1] < looked[0] and voiced[2] < voiced[1] < voiced[0]
    found = measured(net, data, films, home="prose")
    assert 0 <= found["label F1"] <= 1 and 0 <= found["word for word"] <= 1


def test_writing_leaves_the_eyes_as_they_were(known: tuple[Films, list[Film]]) -> None:
    data, films = known
    tokenizer = tokenizer_of([text for film in films for text in written(film, np.random.default_rng(0), "prose")])
    net = pretrain_report.as_writer(untrained(tokenizer, 3), tokenizer)
    before = {key: one.clone() for key, one in net.model.state_dict().items()}
    list(write(net, data, films, home="prose", seed=3, epochs=1, batch=8, rate=2e-3))
    moved = {key for key, one in net.model.state_dict().items() if not torch.equal(one, before[key])}
    assert moved and not any("vision_tower" in key for key in moved)


def test_in_the_teaching_collection_every_finding_is_frequent_and_nobody_is_of_the_others() -> None:
    config = read_toml(pretrain_report.SOURCE, HospitalConfig).phantom
    assert config is not None
    taught, _ = draw(collection(config, 400), seed=0)
    home, _ = draw(config.model_copy(update={"patients": 400}), seed=0)
    shown = [{finding.name for finding in patient.cases[0].findings} for patient in taught]
    for name in FINDINGS:
        assert 0.15 < np.mean([name in each for each in shown]) < 0.35, name
    assert not {case.seed for patient in taught for case in patient.cases} & {case.seed for patient in home for case in patient.cases}


@pytest.fixture(scope="module")
def embedded() -> Writer:
    base = read_recipe(RECIPES / "reporting.toml").base
    net = models.load(base, lora=LoraSection(), outputs={}, folder=RECIPES)
    assert isinstance(net, Writer)
    return net


def test_the_embedded_model_is_the_pinned_one_and_small_and_has_a_card(embedded: Writer) -> None:
    assert sum(weight.numel() for weight in embedded.model.parameters()) < 5e5  # type: ignore[union-attr]
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 2e6
    assert models.digest(WEIGHTS) in (WEIGHTS / "README.md").read_text()


def test_it_writes_what_its_own_hospitals_films_show_and_compares_with_nothing_without_a_prior(embedded: Writer) -> None:
    config = read_toml(pretrain_report.SOURCE, HospitalConfig).phantom
    assert config is not None
    _, test = draw(config.model_copy(update={"patients": 1, "test_patients": 40}), seed=7)
    films = films_of(test)
    data = draw_films(config, [film.case for film in films])
    assert measured(embedded, data, films, home=config.report)["label F1"] > 0.75  # type: ignore[arg-type]
    prompts = [embedded.encode("Report:", None, limit=128)[0]] * len(films)
    drafts = embedded.write(embedded.prefix(data.batch(slice(None))), prompts, limit=128)
    labeler = Labeler()
    assert not any(labeler.comparisons(draft.text) for draft in drafts)
    assert all(draft.ended for draft in drafts)


def test_what_a_classifier_found_helps_where_the_film_alone_does_not(embedded: Writer) -> None:
    config = read_toml(pretrain_report.SOURCE, HospitalConfig).phantom
    assert config is not None
    often = config.population.model_copy(update={"prevalence": config.population.prevalence | {"atelectasis": 0.5}})
    _, test = draw(config.model_copy(update={"patients": 1, "test_patients": 60, "population": often}), seed=8)
    films, labeler = films_of(test), Labeler()
    hidden = embedded.prefix(draw_films(config, [film.case for film in films]).batch(slice(None)))
    truth = ["atelectasis" in {finding.name for finding in film.case.findings} for film in films]

    def right(told: bool) -> int:
        """Films whose draft has an atelectasis where there is one, and none where there is none."""
        found = [tuple(finding.name for finding in film.case.findings) if told else None for film in films]
        prompts = [embedded.encode(Prompt(findings=one).text(), None, limit=128)[0] for one in found]
        drafts = embedded.write(hidden, prompts, limit=128)
        said = [reading(labeler, draft.text).labels["atelectasis"] == "positive" for draft in drafts]
        return sum(one == other for one, other in zip(said, truth, strict=True))

    assert right(told=True) >= right(told=False) + 5
