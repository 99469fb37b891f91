"""A consortium on one machine: prepares the sites, trains the arms, measures them, and leaves results, report and adapters behind."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from client.outcome import scored
from client.privacy.ledger import Ledger
from client.training import lora
from client.training.metrics import Scored
from client.workbench import Bench, first_adapter, open_bench
from rainhill.adapter import Adapter
from rainhill.errors import ConfigError
from rainhill.files import write_whole
from rainhill.messages import RoundRecord, SiteId
from server.checkpoint import Checkpoint
from server.rounds import Collect
from server.secure import Secure
from sites import arms, consortium, results
from sites.arms import Trained
from sites.bench import SiteData, open_site
from sites.consortium import Site
from sites.evaluate import Measurements, measure
from sites.inline import collect_inline, secure_inline
from sites.report import Film, write_report
from sites.runs import Run

FILMS_PER_SITE = 4


class Progress(Protocol):
    """Where the work stands, for whoever watches."""

    def start(self, total: int) -> None: ...

    def step(self, what: str) -> None: ...


@dataclass(kw_only=True)
class Clock:
    """Seconds by phase."""

    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = round(self.phases.get(name, 0.0) + time.monotonic() - started, 3)


def simulate(run: Run, *, cache: Path, progress: Progress) -> dict[str, Any]:
    """Does what is left to do of the run, writes everything into its folder, and gives the contents of results.json."""
    clock = Clock()
    started = time.monotonic()
    recipe = run.recipe
    bench = open_bench(recipe, run.recipe_folder, device=run.device, precision=run.precision)
    # What `auto` came to here: a resumed run goes on with that, or not at all.
    run = replace(run, device=bench.net.compute.device, precision=bench.net.compute.precision)
    sites = consortium.find_sites(recipe, run.sites_folder)
    source = consortium.find_source(run.sites_folder)
    progress.start(total=len(sites) + (source is not None) + (len(sites) + 2) * recipe.rounds.count + 2)

    with clock.phase("data"):
        data = _open_sites(bench, sites, cache, progress)
        origin = _open_sites(bench, [source] if source else [], cache, progress)
    first = first_adapter(bench, origin[source.name] if source else None)
    at_home = _at_home(bench, source, origin)
    _each_output_is_labelled(bench, data)
    # Only now: a site that cannot be opened leaves no half-begun run behind.
    run.begin({site: own.cohort.fingerprint() for site, own in data.items()})

    def on_round(arm: str, record: RoundRecord) -> None:
        progress.step(f"{arm}, round {record.round} of {recipe.rounds.count}")

    with clock.phase("shared"):
        shared = _federate(run, bench, first, sites, data, cache, on_round)
        views = arms.own_views(bench, shared, data, folder=run.checkpoints)
    with clock.phase("local"):
        local = arms.train_local(bench, first, data, folder=run.checkpoints, on_round=on_round)
    with clock.phase("pooled"):
        pooled = arms.train_pooled(bench, first, data, folder=run.checkpoints, on_round=on_round)
    with clock.phase("private"):
        progress.step("private part of each site")
        private = Trained(adapters={}, private=arms.train_private(bench, views, data))
    with clock.phase("evaluation"):
        progress.step("evaluation")
        found = measure(bench, data, first=first, local=local, shared=views, private=private, pooled=pooled)
        seen = arms.as_seen(bench, first, shared, data, folder=run.checkpoints)
        entries = _site_entries(bench, sites, data, found, seen, views, local, private)
        base_at_home = _source_entry(bench, source, at_home, _at_home(bench, source, origin))

    fingerprints = _write_adapters(run.folder / "adapters", shared=shared.adapter, views=views, pooled=pooled, local=local, private=private)
    document = {
        "format": results.FORMAT,
        **_what_was_run(run, bench),
        "source": base_at_home,
        "sites": entries,
        "cross_site": results.cross_site(found, [site.name for site in sites], bench.task.measure),
        "consortium": results.consortium(entries),
        "rounds": [_round_entry(record) for record in shared.history],
        **results.crossing(bench, shared.history),
        "privacy": results.privacy(bench, {site: _ledger(run, site) for site in data}) if recipe.privacy else None,
        "seconds": round(time.monotonic() - started, 3),
        "seconds_by_phase": clock.phases,
        "peak_rss_mb": results.peak_rss_mb(),
        "adapters": fingerprints,
        "software": results.software(),
    }
    write_whole(run.folder / "results.json", (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    write_report(document, _films(sites + ([source] if source else []), {**data, **origin}), run.folder)
    return document


def _open_sites(bench: Bench, sites: list[Site], cache: Path, progress: Progress) -> dict[SiteId, SiteData]:
    data = {}
    for site in sites:
        data[site.name] = open_site(bench, site, cache)
        progress.step(f"films of {site.title}")
    return data


def _each_output_is_labelled(bench: Bench, data: Mapping[SiteId, SiteData]) -> None:
    """An output that no site has a label for cannot be learned, and is most often a name misspelt."""
    if missing := bench.task.unlabelled([own.train for own in data.values()]):
        raise ConfigError(f"recipe {bench.recipe.name}: no site has {', '.join(missing)}")


def _federate(
    run: Run,
    bench: Bench,
    first: Adapter,
    sites: list[Site],
    data: Mapping[SiteId, SiteData],
    cache: Path,
    on_round: arms.OnRound,
) -> Checkpoint:
    names = [site.name for site in sites]

    memory = arms.memory_of(run.checkpoints, "shared")

    def rounds(collect: Collect, secure: Secure | None) -> Checkpoint:
        return arms.train_shared(bench, first, sites=names, collect=collect, folder=run.checkpoints, on_round=on_round, secure=secure)

    if run.engine == "inline":
        return rounds(collect_inline(bench, data, memory), secure_inline(run.recipe, names, memory))
    from sites.flower_engine import Workshop, run_on_flower

    workshop = Workshop(
        recipe=run.recipe,
        recipe_folder=run.recipe_folder,
        sites_folder=run.sites_folder,
        cache=cache,
        memory=memory.resolve(),
        sites=tuple(names),
        threads=threads(),
        device=run.device,
        precision=run.precision,
    )
    return run_on_flower(workshop, rounds)


def _ledger(run: Run, site: SiteId) -> Ledger:
    return Ledger.open(arms.memory_of(run.checkpoints, "shared") / site, site=site)


def threads() -> int:
    import torch

    return torch.get_num_threads()


def _site_entries(
    bench: Bench,
    sites: list[Site],
    data: Mapping[SiteId, SiteData],
    found: Measurements,
    seen: tuple[RoundRecord, ...],
    views: Mapping[SiteId, Adapter],
    local: Trained,
    private: Trained,
) -> dict[SiteId, dict[str, Any]]:
    entries = {}
    for site in sites:
        own, name = data[site.name], site.name
        ends = {"shared": (views[name], seen), "local": (local.adapters[name], local.history[name])}
        entries[name] = results.site_results(
            site,
            own,
            found.arms[name],
            task=bench.task,
            curve={arm: results.curve(history, name, arms.validated(bench, adapter, own)) for arm, (adapter, history) in ends.items()},
            private={"steps": private.private[name].steps, "temperature": round(private.private[name].temperature, 4)},
            confidence=bench.recipe.evaluation.confidence,
            record=found.records.get(name),
        )
    return entries


def _at_home(bench: Bench, source: Site | None, origin: Mapping[SiteId, SiteData]) -> Scored | None:
    """The base where it was trained, with every adapter off."""
    if source is None:
        return None
    lora.write_adapter(bench.net, lora.draw(bench.net, name=lora.SHARED, with_head=False, seed=bench.recipe.seed), name=lora.SHARED)
    with lora.switched_off(bench.net):
        return scored(bench, origin[source.name].test, source.name)


def _source_entry(bench: Bench, source: Site | None, before: Scored | None, after: Scored | None) -> dict[str, Any] | None:
    if source is None or before is None or after is None:
        return None
    told = results.scored(before, bench.recipe.evaluation.confidence)
    same = told == results.scored(after, bench.recipe.evaluation.confidence) and _texts(before) == _texts(after)
    return {"site": source.name, "title": source.title, **told, "unchanged": same}


def _texts(scored: Scored) -> list[str]:
    return [draft.text for draft in scored.drafts]


def _what_was_run(run: Run, bench: Bench) -> dict[str, Any]:
    recipe = run.recipe
    return {
        "name": recipe.name,
        "title": recipe.title,
        "recipe_sha256": recipe.sha256,
        "seed": recipe.seed,
        "engine": run.engine,
        "compute": asdict(bench.net.compute),
        "task": recipe.task.name,
        "strategy": recipe.strategy.described(),
        "encoding": recipe.compression.encoding,
        "measure": bench.task.measure,
        "outputs": list(bench.task.names),
        "base": {
            "model": recipe.base.model,
            "weights": recipe.base.weights,
            "sha256": recipe.base.sha256,
            "parameters": results.base_parameters(bench),
        },
        "lora": {
            "rank": recipe.lora.rank,
            "ranks": dict(recipe.lora.ranks),
            "modules": len(bench.modules),
            "parameters": sum(parameter.numel() for parameter in lora.trainable(bench.net, name=lora.SHARED, with_head=False).values()),
            "last_blocks": recipe.lora.last_blocks,
        },
    }


def _round_entry(record: RoundRecord) -> dict[str, Any]:
    return {
        "round": record.round,
        "asked": list(record.asked),
        "answered": list(record.answered),
        "refused": dict(record.refused),
        "seconds": round(record.seconds, 3),
        "down_bytes": dict(record.down_bytes),
        "up_bytes": dict(record.up_bytes),
        "log": dict(record.log),
    }


def _write_adapters(
    folder: Path, *, shared: Adapter, views: Mapping[SiteId, Adapter], pooled: Adapter, local: Trained, private: Trained
) -> dict[str, str]:
    """Writes each adapter as safetensors, and gives its fingerprint."""
    adapters = {"shared": shared, "pooled": pooled}
    # Of a site that has it at a lower rank, with tensors of its own, or another of several.
    adapters |= {f"shared/{site}": adapter for site, adapter in views.items() if adapter != shared}
    adapters |= {f"local/{site}": adapter for site, adapter in local.adapters.items()}
    adapters |= {f"private/{site}": part.adapter for site, part in private.private.items()}
    for name, adapter in adapters.items():
        write_whole(folder / f"{name}.safetensors", adapter.to_bytes())
    return {name: adapter.fingerprint() for name, adapter in adapters.items()}


def _films(sites: list[Site], data: Mapping[SiteId, SiteData]) -> dict[SiteId, list[Film]]:
    """A few films of each site, of different patients where it can be: with findings and without."""
    shown = {}
    for site in sites:
        films = data[site.name].cohort
        _, first_of_each = np.unique(films.patients, return_index=True)
        rows = sorted(first_of_each)[:FILMS_PER_SITE]
        shown[site.name] = [
            Film(
                image=np.round((films.images[row][0] + 1) * 127.5).astype(np.uint8),
                caption=", ".join(name for name, label in zip(films.findings, films.labels[row], strict=True) if label == 1)
                or "no finding",
            )
            for row in rows
        ]
    return shown
