"""One file per round, written whole or not at all: adapter, the strategy's state, and what happened so far."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from rainhill.adapter import Adapter, Array
from rainhill.errors import CheckpointError, UnwrittenError
from rainhill.files import write_whole
from rainhill.messages import RoundRecord
from strategies import State

_ADAPTER = "adapter/"
_STATE = "state/"
_HISTORY = TypeAdapter(tuple[RoundRecord, ...])


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that the next round depends on."""

    recipe: str
    run: str
    adapter: Adapter
    state: State
    history: tuple[RoundRecord, ...]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes, syncs, then renames: a crash or a full disk leaves the previous checkpoint as it was. Raises UnwrittenError."""
    arrays = {_ADAPTER + name: array for name, array in checkpoint.adapter.items()}
    arrays |= {_STATE + name: np.asarray(array, order="C") for name, array in checkpoint.state.arrays.items()}
    metadata = {
        "recipe": checkpoint.recipe,
        "run": checkpoint.run,
        "round": str(checkpoint.state.round),
        "log": json.dumps(dict(checkpoint.state.log)),
        "history": _HISTORY.dump_json(checkpoint.history).decode(),
        "sha256": _digest(arrays),
    }
    path = path_of(folder, checkpoint.state.round)
    try:
        write_whole(path, to_safetensors(arrays, metadata=metadata))
    except OSError as error:
        kept = f"round {checkpoint.state.round - 1} is intact" if checkpoint.state.round > 1 else "nothing was lost before round 1"
        raise UnwrittenError(f"{path}: cannot be written ({error.strerror or error}); {kept}, the run can be resumed") from error
    return path


def latest(folder: Path, *, recipe: str, run: str) -> Checkpoint | None:
    """The last round that was finished, or None; raises CheckpointError where it belongs to another recipe, run or round."""
    paths = sorted(folder.glob("round-*.safetensors"))
    if not paths:
        return None
    found = load(paths[-1])
    if found.recipe != recipe:
        raise CheckpointError(f"{paths[-1]}: belongs to recipe {found.recipe[:12]}, asked to go on with {recipe[:12]}")
    if found.run != run:
        raise CheckpointError(f"{paths[-1]}: belongs to run {found.run!r}, asked to go on with {run!r}")
    if paths[-1] != path_of(folder, found.state.round):
        raise CheckpointError(f"{paths[-1]}: holds round {found.state.round}, expected the one of its name")
    return found


def load(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            arrays: dict[str, Array] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if _digest(arrays) != metadata["sha256"]:
            raise CheckpointError(
                f"{path}: is damaged: its tensors have sha256 {_digest(arrays)[:12]}, written was {metadata['sha256'][:12]}"
            )
        state = State(round=int(metadata["round"]), arrays=_named(arrays, _STATE), log=json.loads(metadata["log"]))
        history = _HISTORY.validate_json(metadata["history"])
        return Checkpoint(
            recipe=metadata["recipe"], run=metadata["run"], adapter=Adapter(_named(arrays, _ADAPTER)), state=state, history=history
        )
    except (SafetensorError, OSError, KeyError, ValueError, ValidationError) as error:
        raise CheckpointError(f"{path}: is not a checkpoint: {error}") from error


def path_of(folder: Path, number: int) -> Path:
    """Where the checkpoint after that round is."""
    return folder / f"round-{number:06d}.safetensors"


def _digest(arrays: dict[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape} ".encode() + arrays[name].tobytes())
    return digest.hexdigest()


def _named(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
