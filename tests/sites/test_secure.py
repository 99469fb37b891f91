"""A federation whose coordinator learns sums alone: the same adapter, with sites that drop out, and what a site does not give away."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import strategies
from client.secure import respond
from client.workbench import Bench, first_adapter, open_bench
from rainhill import wire
from rainhill.errors import QuorumError, RainhillError, RefusedError
from rainhill.messages import Plan, Refusal, SecureMessage, Update
from rainhill.recipe import CompressionSection, PartSection, Recipe, SecureSection, StrategySection
from server.checkpoint import Checkpoint
from server.rounds import Collect
from server.secure import Secure
from sites import arms
from sites.bench import SiteData, open_site
from sites.consortium import read_sites
from sites.guards import masker_of
from sites.inline import collect_inline, secure_inline
from tests.conftest import write_hospital

SITES = ("aintree", "broadgreen", "calder", "dingle", "everton")
SECTION = SecureSection(bound=4.0, dropouts=0.2)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("five")
    for number, name in enumerate(SITES):
        write_hospital(folder, name, patients=30, gain=1 - 0.1 * number)
    return folder


@pytest.fixture
def masked(recipe: Recipe, five: Path, tmp_path: Path) -> tuple[Bench, dict[str, SiteData]]:
    bench = open_bench(recipe.model_copy(update={"secure_aggregation": SECTION}), tmp_path)
    return bench, {name: open_site(bench, site, tmp_path / "cache") for name, site in read_sites(five).items()}


def run(
    bench: Bench, data: dict[str, SiteData], folder: Path, *, collect: Collect | None = None, secure: Secure | None = None
) -> Checkpoint:
    memory = arms.memory_of(folder, "shared")
    return arms.train_shared(
        bench,
        first_adapter(bench),
        sites=list(data),
        collect=collect or collect_inline(bench, data, memory),
        folder=folder,
        on_round=lambda arm, record: None,
        secure=secure or secure_inline(bench.recipe, list(data), memory),
    )


def plainly(bench: Bench, data: dict[str, SiteData], folder: Path, sites: Iterable[str] = SITES) -> Checkpoint:
    plain = replace(bench, recipe=bench.recipe.model_copy(update={"secure_aggregation": None}))
    return run(plain, {site: data[site] for site in sites}, folder)


def seen_by(secure: Secure, seen: list[bytes], *, silent: Mapping[int, str] | None = None) -> Secure:
    """The same exchanges, with what crossed kept, and a site that is gone from a phase on."""

    def exchange(blobs: Mapping[str, bytes]) -> Iterable[tuple[str, bytes]]:
        message = wire.secure_from_bytes(next(iter(blobs.values())))
        assert isinstance(message, SecureMessage)
        gone = {site for phase, site in (silent or {}).items() if message.phase >= phase}
        for site, answer in secure.exchange({site: blob for site, blob in blobs.items() if site not in gone}):
            seen.append(answer)
            yield site, answer

    return replace(secure, exchange=exchange)


def test_the_sum_of_masked_updates_makes_the_adapter_of_plain_ones(masked, tmp_path: Path) -> None:
    bench, data = masked
    secure, plain = run(bench, data, tmp_path / "secure"), plainly(bench, data, tmp_path / "plain")
    # Half a step of the grid in the mean of each round, and what training makes of it.
    assert 0 < secure.adapter.max_abs_difference(plain.adapter) < 1e-5
    assert secure.history[-1].answered == SITES
    assert secure.history[0].up_bytes["aintree"] > 4 * sum(array.size for array in plain.adapter.values())


def weighed(bench: Bench) -> Bench:
    """The same federation, in which a site counts as often as it has patients."""
    recipe = bench.recipe.model_copy(update={"strategy": bench.recipe.strategy.model_copy(update={"weights": "patients"})})
    return replace(bench, recipe=recipe, strategy=strategies.from_recipe(recipe))


def test_a_sum_weighed_by_patients_is_that_of_plain_updates(masked, five: Path, tmp_path: Path) -> None:
    bench, data = masked
    # Of another size, or the weights would not show.
    write_hospital(five / "more", "aintree", patients=70)
    more = open_site(bench, read_sites(five / "more")["aintree"], tmp_path / "cache")
    bench, data = weighed(bench), {**data, "aintree": more}
    secure, plain = run(bench, data, tmp_path / "secure"), plainly(bench, data, tmp_path / "plain")
    assert 0 < secure.adapter.max_abs_difference(plain.adapter) < 1e-4
    alike = replace(bench, strategy=replace(bench.strategy, weights="equal"))
    assert secure.adapter.max_abs_difference(plainly(alike, data, tmp_path / "alike").adapter) > 1e-3


def test_no_update_is_among_what_the_coordinator_is_sent(masked, tmp_path: Path) -> None:
    bench, data = masked
    memory, crossed, answers = arms.memory_of(tmp_path, "shared"), [], []
    collect = collect_inline(bench, data, memory)

    def watched(plans: Mapping[str, Plan]) -> Iterable[Update | Refusal]:
        for answer in collect(plans):
            answers.append(answer)
            yield answer

    run(bench, data, tmp_path, collect=watched, secure=seen_by(secure_inline(bench.recipe, list(data), memory), crossed))
    assert answers and all(dict(answer.delta) == {} for answer in answers)
    for path in memory.rglob("update"):
        kept = wire.answer_from_bytes(path.read_bytes())
        assert isinstance(kept, Update)
        update = kept.delta
        quantiser_free = np.concatenate([update[name].ravel() for name in sorted(update)])
        assert not any(quantiser_free[:8].tobytes() in blob for blob in crossed)
        # A masked vector tells nothing of the update: its words are spread over the whole ring.
        vectors = [np.frombuffer(blob[-4 * quantiser_free.size :], dtype="<u4") for blob in crossed if len(blob) > 4 * quantiser_free.size]
        assert vectors and all(abs(vector.mean() / 2**31 - 1) < 0.2 for vector in vectors)


@pytest.mark.parametrize("phase", [0, 1, 2, 3, 4])
def test_a_site_that_drops_out_is_left_out_by_name_and_the_others_are_summed(masked, tmp_path: Path, phase: int) -> None:
    bench, data = masked
    one = replace(bench, recipe=bench.recipe.model_copy(update={"rounds": bench.recipe.rounds.model_copy(update={"count": 1})}))
    secure = seen_by(secure_inline(one.recipe, list(data), arms.memory_of(tmp_path / "secure", "shared")), [], silent={phase: "calder"})
    done = run(one, data, tmp_path / "secure", secure=secure)
    # Whoever has given a masked input is in the sum, whether or not it helps to unmask it.
    left = SITES if phase > 2 else tuple(site for site in SITES if site != "calder")
    assert done.history[0].answered == left
    assert dict(done.history[0].refused) == ({} if phase > 2 else {"calder": f"no answer to exchange {phase} of secure aggregation"})
    assert done.adapter.max_abs_difference(plainly(one, data, tmp_path / "plain", left).adapter) < 1e-6


def test_too_few_survivors_unmask_nothing_and_the_run_can_be_resumed(masked, tmp_path: Path) -> None:
    bench, data = masked
    memory, crossed = arms.memory_of(tmp_path, "shared"), []
    honest = secure_inline(bench.recipe, list(data), memory)
    with pytest.raises(QuorumError, match="3 of 5 sites gave a masked input, the quorum of secure aggregation is 4; nothing was revealed"):
        run(bench, data, tmp_path, secure=seen_by(seen_by(honest, crossed, silent={2: "calder"}), [], silent={2: "dingle"}))
    assert not list(memory.rglob("unmasked"))
    assert run(bench, data, tmp_path).history[-1].answered == SITES


def test_a_site_unmasks_one_list_of_survivors_in_a_round(masked, tmp_path: Path) -> None:
    bench, data = masked
    one = replace(bench, recipe=bench.recipe.model_copy(update={"rounds": bench.recipe.rounds.model_copy(update={"count": 1})}))
    memory = arms.memory_of(tmp_path, "shared")
    honest = secure_inline(one.recipe, list(data), memory)
    run(one, data, tmp_path)
    for path in (tmp_path / "shared").glob("round-*"):
        path.unlink()
    # The same round again, from which a coordinator leaves one out: the two sums would differ by its update.
    with pytest.raises(QuorumError, match="confirmed the unmask request"):
        run(one, data, tmp_path, secure=seen_by(honest, [], silent={2: "calder"}))
    # With the same survivors the sum is the same, and may be told again.
    assert run(one, data, tmp_path).history[0].answered == SITES


def exchanged(bench: Bench, memory: Path, message: SecureMessage) -> SecureMessage | Refusal:
    masker = masker_of(bench.recipe, "aintree", sites=SITES, memory=memory)
    assert masker is not None
    return wire.secure_from_bytes(respond(wire.secure_to_bytes(message), masker))


def test_a_site_refuses_what_does_not_follow_from_the_recipe(masked, tmp_path: Path) -> None:
    from rainhill.secagg import Layout, agree

    bench, data = masked
    memory = arms.memory_of(tmp_path, "shared")
    done = run(bench, data, tmp_path)
    shapes = {name: array.shape for name, array in done.adapter.items()}
    about = {"run": "tiny", "round": 2, "weights": dict.fromkeys(SITES, 1), "layout": Layout(shapes=shapes), "bound": 4.0, "dropouts": 0.2}

    def refused(phase: int = 0, round: int = 2, **changes: object) -> str:  # noqa: A002
        terms = agree(**(about | {"round": round} | changes))
        answer = exchanged(bench, memory, SecureMessage(run="tiny", round=round, site="aintree", phase=phase, body=terms.to_bytes()))
        assert isinstance(answer, Refusal)
        return answer.reason

    assert "are not" in refused(bound=5.0)
    assert "are not" in refused(weights={**dict.fromkeys(SITES, 1), "everton": 7})
    assert "are not" in refused(dropouts=0.4)
    assert refused(round=9) == "aintree: has no update for round 9 of run tiny"
    assert "exchange 3 of round 2 does not follow from one before" in refused(phase=3)
    assert isinstance(
        exchanged(bench, memory, SecureMessage(run="tiny", round=2, site="aintree", phase=0, body=agree(**about).to_bytes())), SecureMessage
    )


def test_a_site_masks_no_other_weight_than_the_number_of_patients_that_it_told(masked, tmp_path: Path) -> None:
    from rainhill.secagg import Layout, agree

    bench, data = weighed(masked[0]), masked[1]
    done, memory = run(bench, data, tmp_path), arms.memory_of(tmp_path, "shared")
    own = data["aintree"].train.count
    shapes = {name: array.shape for name, array in done.adapter.items()}

    def asked(weights: dict[str, int]) -> SecureMessage | Refusal:
        terms = agree(run="tiny", round=2, weights=weights, layout=Layout(shapes=shapes), bound=4.0, dropouts=0.2)
        return exchanged(bench, memory, SecureMessage(run="tiny", round=2, site="aintree", phase=0, body=terms.to_bytes()))

    for weight in (1, 100 * own):
        answer = asked({**dict.fromkeys(SITES, 30), "aintree": weight})
        assert isinstance(answer, Refusal) and "are not" in answer.reason
    assert isinstance(asked({**dict.fromkeys(SITES, 30), "aintree": own}), SecureMessage)


def test_an_update_beyond_the_bound_is_refused_and_not_cut(masked, tmp_path: Path) -> None:
    bench, data = masked
    tight = replace(bench, recipe=bench.recipe.model_copy(update={"secure_aggregation": SecureSection(bound=1e-6, dropouts=0.2)}))
    with pytest.raises(QuorumError, match="gave a masked input"):
        run(tight, data, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": StrategySection(rule="flexlora")}, "strategy 'flexlora' needs each site's own"),
        ({"strategy": StrategySection(rule="fedavg", robust=PartSection(name="median"))}, "needs each site's own"),
        (
            {"strategy": StrategySection(rule="fedavg", weights="capped")},
            "weights = 'capped' in .*: take 'patients'",
        ),
        ({"strategy": StrategySection(rule="fedavg", server_optimizer=PartSection(name="scaffold"))}, "variate|needs each site's own"),
        ({"compression": CompressionSection(encoding="int8")}, "encoding 'int8'"),
    ],
)
def test_what_a_sum_cannot_serve_is_refused_by_name(recipe: Recipe, changes: dict[str, object], words: str) -> None:
    with pytest.raises(RainhillError, match=words):
        strategies.from_recipe(recipe.model_copy(update={"secure_aggregation": SECTION, **changes}))


def test_without_exchanges_a_recipe_that_asks_for_them_does_not_run(masked, tmp_path: Path) -> None:
    from server.rounds import run_rounds

    bench, data = masked
    with pytest.raises(RefusedError, match="no way to exchange its messages"):
        run_rounds(
            bench.recipe, bench.strategy, first_adapter(bench), run="r", sites=list(data), collect=lambda plans: [], folder=tmp_path
        )  # fmt: skip


def test_two_hospitals_are_told_why_it_would_protect_neither(simulate, hospitals: Path, recipe_text, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(recipe_text(extra='sites = ["aintree", "calder"]') + "[secure_aggregation]\n")
    told = simulate("tiny.toml", "--sites", hospitals, cwd=tmp_path)
    assert told.returncode == 2
    assert "secure aggregation among 2 sites (aintree and calder)" in told.stderr
    assert "only differential privacy at each site protects one hospital from the other" in told.stderr


def test_a_private_and_masked_run_goes_through(simulate, hospitals: Path, recipe_text, tmp_path: Path) -> None:
    text = recipe_text(rule="alternating").replace('rule = "alternating"', 'rule = "alternating"\nweights = "patients"')
    assert 'weights = "patients"' in text
    (tmp_path / "tiny.toml").write_text(text + "[privacy]\nepsilon = 6\n[secure_aggregation]\n")
    done = simulate("tiny.toml", "--sites", hospitals, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rounds = json.loads((tmp_path / "run" / "results.json").read_text())["rounds"]
    assert [record["answered"] for record in rounds] == [["aintree", "broadgreen", "calder"]] * 2
