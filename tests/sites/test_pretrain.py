from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTForImageClassification

import client
from client.models import digest
from rainhill.toml import read_toml
from sites import pretrain
from sites.films import as_read, draw_films
from sites.hospital import HospitalConfig, draw
from sites.phantom import FINDINGS

WEIGHTS = Path(client.__file__).parent / "models" / "weights" / "thorax_tiny"


@pytest.fixture(scope="module")
def films():
    config = read_toml(pretrain.SOURCE, HospitalConfig).phantom.model_copy(update={"patients": 24, "test_patients": 24})
    known, _ = draw(config, seed=5)
    return draw_films(config, [case for patient in known for case in patient.cases])


def test_films_come_as_the_model_reads_them(films):
    images = films.batch(slice(None))
    assert images.shape[1:] == (1, 128, 128)
    assert images.min() == -1
    assert images.max() == 1
    assert films.patches.shape[1:] == (64, len(FINDINGS))
    assert not films.patches.any(axis=1)[films.labels == 0].any()


def test_reading_inverts_monochrome1_and_keeps_the_mean_of_an_area():
    stored = np.random.default_rng(0).integers(0, 4096, (2, 192, 192)).astype(np.uint16)
    read = as_read(stored, "MONOCHROME2")
    assert np.allclose(read, -as_read((4095 - stored).astype(np.uint16), "MONOCHROME2"), atol=1e-5)
    assert np.allclose(read, as_read((4095 - stored).astype(np.uint16), "MONOCHROME1"), atol=1e-5)
    assert read.shape == (2, 128, 128)


def test_training_is_the_same_twice_and_lowers_the_loss(films):
    runs = []
    for _ in range(2):
        model = pretrain.untrained(3)
        losses = [loss for _, loss in pretrain.train(model, films, seed=3, epochs=3, batch=8, rate=1e-3)]
        runs.append((losses, model.classifier.weight.detach().clone()))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0][-1] < runs[0][0][0]


def test_the_embedded_base_model_loads_offline_and_its_card_names_its_digest():
    model = ViTForImageClassification.from_pretrained(WEIGHTS, local_files_only=True)
    assert tuple(model.config.id2label.values()) == FINDINGS
    assert sum(p.numel() for p in model.parameters()) < 3e6
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 6e6
    assert digest(WEIGHTS) in (WEIGHTS / "README.md").read_text()


def test_the_embedded_base_model_reads_films_of_its_own_department():
    config = read_toml(pretrain.SOURCE, HospitalConfig).phantom.model_copy(update={"patients": 1, "test_patients": 120})
    _, test = draw(config, seed=99)
    data = draw_films(config, [patient.cases[0] for patient in test])
    model = ViTForImageClassification.from_pretrained(WEIGHTS, local_files_only=True)
    assert np.mean(list(pretrain.auroc(pretrain.scores(model, data), data.labels).values())) > 0.8
