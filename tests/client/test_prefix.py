"""Hidden states in memory and on disk: the same numbers, checked, keyed by what they were made from, wiped with their cohort."""

import logging
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.data import store
from client.data.cohort import concatenate as pool
from client.training import features, lora, prefix
from client.training.features import Features, logits
from client.training.fit import fit
from client.training.prefix import PrefixCache, States
from client.workbench import Bench, first_adapter, open_bench
from rainhill.adapter import Adapter
from rainhill.recipe import AugmentationSection, read_recipe
from sites.bench import SiteData, open_cohort, site_data
from sites.consortium import read_sites

VIEWS = AugmentationSection(views=2)


@pytest.fixture
def bench(recipe_file: Path, tmp_path: Path) -> Bench:
    """LoRA in the last block of two, and three views of each image."""
    recipe = read_recipe(recipe_file)
    last = recipe.lora.model_copy(update={"last_blocks": 1})
    return open_bench(recipe.model_copy(update={"lora": last, "augmentation": VIEWS}), tmp_path)


@pytest.fixture
def films(bench: Bench, hospitals: Path, tmp_path: Path) -> object:
    return open_cohort(bench, read_sites(hospitals)["aintree"], tmp_path)


@pytest.fixture
def on_disk(bench: Bench, films, tmp_path: Path) -> PrefixCache:
    """Of a machine without any memory to spare."""
    return PrefixCache(
        folder=tmp_path / "hidden", cohort=films.fingerprint(), base=bench.recipe.base, last_blocks=1, available_memory=lambda: 0
    )


@pytest.fixture
def in_memory(on_disk: PrefixCache) -> PrefixCache:
    return replace(on_disk, available_memory=lambda: 10**12, folder=on_disk.folder / "elsewhere")


def trained(bench: Bench, data: Features) -> tuple[Adapter, np.ndarray]:
    lora.write_adapter(bench.net, first_adapter(bench), name=lora.SHARED)
    section = bench.recipe.rounds.model_copy(update={"steps": 12})
    fit(bench.net, data, bench.task, section, parameters=lora.trainable(bench.net, name=lora.SHARED, with_head=True), seed=(3,))
    return lora.read_adapter(bench.net, name=lora.SHARED, with_head=True), logits(bench.net, data.hidden)


def arrays(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def test_memory_disk_and_no_cache_train_the_same_adapter_bit_by_bit(bench: Bench, films, on_disk, in_memory) -> None:
    plain, large, small = (site_data(bench, films, cache=cache).train for cache in (None, on_disk, in_memory))
    assert isinstance(plain.hidden, torch.Tensor)
    assert isinstance(small.hidden, torch.Tensor)
    assert isinstance(large.hidden, States)
    assert large.hidden.shape == tuple(plain.hidden.shape)
    assert torch.equal(large.hidden[:], plain.hidden)
    assert torch.equal(small.hidden, plain.hidden)
    assert torch.equal(large.hidden[torch.tensor([5, 0, 5])], plain.hidden[torch.tensor([5, 0, 5])])
    assert len(arrays(on_disk.folder)) == 3
    assert not in_memory.folder.exists()
    adapter, values = trained(bench, plain)
    for other in (large, small):
        assert trained(bench, other)[0] == adapter
        np.testing.assert_array_equal(trained(bench, other)[1], values)


def test_a_second_run_computes_nothing_and_gives_the_same(bench: Bench, films, on_disk, monkeypatch) -> None:
    first = site_data(bench, films, cache=on_disk)
    images = []
    monkeypatch.setattr(bench.net, "prefix", lambda batch, compute=bench.net.prefix: images.append(len(batch)) or compute(batch))
    # Even where there is memory enough by now: reading is faster than computing.
    second = site_data(bench, films, cache=replace(on_disk, available_memory=lambda: 10**12))
    assert set(images) == {1}  # one empty image for the shape of what it gives
    assert torch.equal(first.train.hidden[:], second.train.hidden[:])


def test_sites_are_pooled_without_a_copy(bench: Bench, films, on_disk) -> None:
    disk, memory = site_data(bench, films, cache=on_disk).train, site_data(bench, films).train
    pooled, expected = features.concatenate([disk, memory]), torch.cat([memory.hidden, memory.hidden])
    assert pooled.hidden.shape == tuple(expected.shape)
    assert torch.equal(pooled.hidden[:], expected)
    assert pooled.hidden.rows.files == disk.hidden.rows.files
    memory.hidden[0] += 1
    assert torch.equal(pooled.hidden[len(disk.hidden) :], memory.hidden)
    adapter, _ = trained(bench, features.concatenate([memory, memory]))
    assert trained(bench, Features(torch.cat([memory.hidden] * 2), memory.targets.repeat(2, 1), pooled.patients))[0] == adapter


def test_bfloat16_takes_half_and_changes_logits_little(bench: Bench, films, on_disk, in_memory) -> None:
    whole = site_data(bench, films, cache=on_disk).train
    halves = [site_data(bench, films, cache=replace(cache, precision="bfloat16")).train for cache in (on_disk, in_memory)]
    sizes = {file.stat().st_size for file in arrays(on_disk.folder)}
    largest = max(sizes)
    assert (largest + 128) // 2 in sizes  # of what follows numpy's header of 128 bytes
    assert torch.equal(halves[0].hidden[:], halves[1].hidden[:])
    assert halves[0].hidden[:4].dtype == torch.float32
    # Eight significant bits: no value is off by more than 2^-8 of itself.
    assert ((halves[0].hidden[:] - whole.hidden[:]).abs() <= whole.hidden[:].abs() * 2**-8).all()
    lora.write_adapter(bench.net, first_adapter(bench), name=lora.SHARED)
    values, rounded = (logits(bench.net, one.hidden) for one in (whole, halves[0]))
    assert 0 < np.abs(values - rounded).max() < 0.03 * values.std()


def keys(bench: Bench, cohort, cache: PrefixCache, section: AugmentationSection = VIEWS, seed: tuple[int, ...] = (1,)) -> set[str]:
    features.compute_views(bench.net, cohort, bench.task, section, seed=seed, cache=cache)
    return {file.stem for file in arrays(cache.folder)}


def test_whatever_changes_hidden_states_changes_the_key(bench: Bench, films, on_disk) -> None:
    train = films.part("train")
    base = on_disk.base
    count = len(keys(bench, train, on_disk))
    for changed in (
        {"cache": replace(on_disk, base=base.model_copy(update={"sha256": "0" * 64}))},
        {"cache": replace(on_disk, base=type(base)(**base.model_dump(), interpolate=True))},
        {"cache": replace(on_disk, last_blocks=2)},
        {"cache": replace(on_disk, precision="bfloat16")},
        {"seed": (2,)},
        {"section": VIEWS.model_copy(update={"views": 1})},
        {"section": VIEWS.model_copy(update={"zoom": 0.2})},
        {"cohort": films.part("val")},
        {"cohort": pool([train, train], site="twice")},
    ):
        assert len(keys(bench, **{"cohort": train, "cache": on_disk, **changed})) == (count := count + 1), changed
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert len(keys(bench, train, on_disk)) == count + 1
    finally:
        torch.set_num_threads(threads)


def test_what_changes_no_hidden_state_computes_nothing_again(bench: Bench, films, on_disk) -> None:
    train = films.part("train")
    before = keys(bench, train, on_disk)
    assert keys(bench, replace(train, labels=1 - train.labels, site="renamed"), on_disk) == before
    plain = keys(bench, train, on_disk, section=AugmentationSection())
    assert keys(bench, train, on_disk, section=AugmentationSection(zoom=0.4), seed=(9,)) == plain


def test_a_damaged_file_is_computed_again(bench: Bench, films, on_disk, caplog) -> None:
    expected = site_data(bench, films, cache=on_disk).train.hidden[:]
    for file in arrays(on_disk.folder):
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
    assert torch.equal(site_data(bench, films, cache=on_disk).train.hidden[:], expected)
    assert caplog.text.count("is damaged (checksum), computing again") == 3
    caplog.clear()
    assert torch.equal(site_data(bench, films, cache=on_disk).train.hidden[:], expected)
    assert not caplog.text


def test_a_full_disk_costs_the_file_and_not_the_run(bench: Bench, films, on_disk, caplog) -> None:
    allowed, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, most))
    try:
        data = site_data(bench, films, cache=on_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, most))
    assert torch.equal(data.train.hidden, site_data(bench, films).train.hidden)
    needed = data.train.hidden.numel() * 4 / 1e6
    assert f"hidden states not written: File too large ({on_disk.folder}: {needed:.1f} MB needed, " in caplog.text
    assert " MB free)" in caplog.text
    assert not arrays(on_disk.folder)


def test_a_wiped_cohort_leaves_nothing_and_its_neighbour_everything(bench: Bench, films, on_disk, hospitals, tmp_path) -> None:
    theirs = open_cohort(bench, read_sites(hospitals)["broadgreen"], tmp_path)
    site_data(bench, films, cache=on_disk)
    site_data(bench, theirs, cache=replace(on_disk, cohort=theirs.fingerprint()))
    gone = store.wipe(tmp_path, films.fingerprint())
    assert len(gone) == 4  # pixels, and the hidden states of three parts
    left = [file for folder in (tmp_path / "pixels", on_disk.folder) for file in folder.iterdir()]
    assert len([file for file in left if file.suffix == ".npy"]) == 4
    assert {file.name.split(".")[1] for file in left if file.suffix == ".cohort"} == {theirs.fingerprint()}
    assert not {file.stem for file in gone} & {file.name.partition(".")[0] for file in left}


def test_a_cohort_dealt_again_is_wiped_with_its_pixels(bench: Bench, films, on_disk, tmp_path) -> None:
    again = replace(films, split=films.split[::-1].copy())
    site_data(bench, again, cache=replace(on_disk, cohort=again.fingerprint(), available_memory=lambda: 10**12))
    assert store.wipe(tmp_path, again.fingerprint()) == list(films.images.files)


def test_no_pixel_and_no_name_is_in_what_is_told(bench: Bench, films, on_disk, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    site_data(bench, films, cache=on_disk)
    texts = [file.read_text() for file in on_disk.folder.glob("*.json")]
    assert len(texts) == 3
    assert not any(word in text for word in ("png", "P1", "aintree", str(on_disk.folder)) for text in [*texts, caplog.text])


def test_a_part_without_images_has_features_too(bench: Bench, films) -> None:
    nobody = features.compute(bench.net, replace(films, split=np.full(len(films), "val")).part("train"), bench.task)
    assert (len(nobody.hidden), nobody.count) == (0, 0)
    assert prefix.join([nobody.hidden]) is nobody.hidden
    assert logits(bench.net, nobody.hidden).shape == (0, 2)


def test_a_site_has_its_hidden_states_in_bfloat16_where_its_file_says_so(bench: Bench, hospitals, tmp_path) -> None:
    from sites.bench import open_site

    site = read_sites(hospitals)["aintree"]
    site = replace(site, config=site.config.model_copy(update={"prefix": "bfloat16"}))
    data: SiteData = open_site(bench, site, tmp_path)
    assert isinstance(data.train.hidden, States)
    assert not data.train.hidden.rows.files  # small: in memory
