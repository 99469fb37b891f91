"""Flower's simulation engine: the same round loop as a ServerApp, the sites as virtual SuperNodes on Ray.

Each Ray worker opens the base model and the sites it is handed once, and keeps them.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from client.privacy.guard import Guard
from client.workbench import Bench, open_bench
from rainhill.config import BasePrecision, Device
from rainhill.errors import RefusedError
from rainhill.messages import Plan, Refusal, SiteId, Update
from rainhill.recipe import Recipe
from server.checkpoint import Checkpoint
from server.rounds import Collect
from server.secure import Secure
from sites.bench import SiteData, open_site
from sites.consortium import read_sites
from sites.guards import guard_of, masker_of, pinned_keys

CONNECT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What a worker needs to stand in for any of the sites; small, since it travels to every worker."""

    recipe: Recipe
    recipe_folder: Path
    sites_folder: Path
    cache: Path
    memory: Path
    """Folder in which each site keeps its own of a run; the same for all workers."""
    sites: tuple[SiteId, ...]
    threads: int
    """torch threads of one fit; the same number gives the same sums as the inline engine."""
    device: Device = "cpu"
    precision: BasePrecision = "float32"

    def __hash__(self) -> int:
        # A recipe may hold tables, which have no hash of their own.
        return hash((self.recipe.sha256, self.sites_folder, self.memory))


def run_on_flower(workshop: Workshop, rounds: Callable[[Collect, Secure | None], Checkpoint]) -> Checkpoint:
    """Calls `rounds` with a Collect that trains on Flower's simulation engine, and with its exchanges; gives what it gives."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's workers would give way to everything else, and on a busy machine would not even be there in time.
    os.environ.setdefault("RAY_worker_niceness", "0")
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from client.flower.app import client_app
    from server.flower.grid import collect_over, find_nodes

    outcome: SimpleQueue[Checkpoint | BaseException] = SimpleQueue()
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001 - Flower calls with both
        try:
            nodes = find_nodes(grid, set(workshop.sites), deadline_s=CONNECT_S)
            deadline_s = workshop.recipe.rounds.deadline_s
            outcome.put(rounds(collect_over(grid, nodes, deadline_s=deadline_s), _secure(workshop, grid, nodes)))
        except BaseException as error:
            # Flower would print it and go on to its own end: it is raised again below, in the caller's thread.
            outcome.put(error)

    def site_of(context: Context) -> SiteId:
        return workshop.sites[int(context.node_config["partition-id"])]

    logging.getLogger("flwr").setLevel(logging.ERROR)
    run_simulation(
        server_app=server_app,
        client_app=client_app(site_of, lambda plan: _answer(workshop, plan), lambda site, blob: _respond(workshop, site, blob)),
        num_supernodes=len(workshop.sites),
        backend_config={
            "client_resources": {"num_cpus": workshop.threads, "num_gpus": 0.0},
            "init_args": _ray_arguments(),
        },
    )
    result = outcome.get_nowait()
    if isinstance(result, BaseException):
        raise result
    return result


def _ray_arguments() -> Any:
    # A cluster's own head decides how many cores there are; given both, Ray refuses to start.
    if "RAY_ADDRESS" in os.environ:
        return {"log_to_driver": False}
    return {"num_cpus": os.cpu_count() or 1, "log_to_driver": False, "logging_level": "ERROR"}


def _answer(workshop: Workshop, plan: Plan) -> Update | Refusal:
    from client.training.answer import answer
    from client.training.memory import Memory

    bench = _bench(workshop)
    return answer(
        plan,
        recipe=bench.recipe,
        strategy=bench.strategy,
        net=bench.net,
        task=bench.task,
        data=_site(workshop, plan.site),
        memory=Memory(workshop.memory / plan.site),
        guard=_guard(workshop, plan.site),
        masker=masker_of(workshop.recipe, plan.site, sites=workshop.sites, memory=workshop.memory),
    )


def _respond(workshop: Workshop, site: SiteId, blob: bytes) -> bytes:
    from client.secure import respond

    masker = masker_of(workshop.recipe, site, sites=workshop.sites, memory=workshop.memory)
    if masker is None:
        raise RefusedError(f"{site}: recipe {workshop.recipe.name} asks for no secure aggregation")
    return respond(blob, masker)


def _secure(workshop: Workshop, grid: Any, nodes: dict[SiteId, int]) -> Secure | None:
    from server.flower.grid import exchange_over

    if workshop.recipe.secure_aggregation is None:
        return None
    exchange = exchange_over(grid, nodes, deadline_s=workshop.recipe.rounds.deadline_s)
    return Secure(exchange=exchange, pinned=pinned_keys(workshop.recipe, workshop.sites))


@lru_cache(maxsize=1)
def _bench(workshop: Workshop) -> Bench:
    import torch

    torch.set_num_threads(workshop.threads)
    return open_bench(workshop.recipe, workshop.recipe_folder, device=workshop.device, precision=workshop.precision)


@cache
def _guard(workshop: Workshop, site: SiteId) -> Guard | None:
    return guard_of(_bench(workshop), site, _site(workshop, site), workshop.memory / site)


@cache
def _site(workshop: Workshop, site: SiteId) -> SiteData:
    return open_site(_bench(workshop), read_sites(workshop.sites_folder)[site], workshop.cache)
