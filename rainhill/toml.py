"""TOML files read into frozen pydantic models.

An unknown key or a value out of range is refused with the file, the key, what was written and what is allowed.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from rainhill.errors import ConfigError
from rainhill.text import did_you_mean, shown

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """A table of a TOML file: frozen, and no key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


def _possible_path(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path holds no NUL")
    try:
        path.expanduser()
    except RuntimeError as error:
        raise ValueError("there is no such user's home folder") from error
    return path


PathName = Annotated[Path, AfterValidator(_possible_path)]


def read_toml(path: Path, model: type[Model]) -> Model:
    """Reads one TOML file; raises ConfigError naming file, key and both values."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {str(error).partition('; use sys.')[0]}") from error
    return parse(raw, model, origin=str(path))


def parse(raw: dict[str, Any], model: type[Model], *, origin: str) -> Model:
    """Validates a table; `origin` is what an error names as the place it came from."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        places = [problem["loc"] for problem in error.errors()]
        # A list whose items are wrong is counted as too short besides: said once.
        problems = [
            _describe(problem, model)
            for problem in error.errors()
            if not any(len(place) > len(problem["loc"]) and place[: len(problem["loc"])] == problem["loc"] for place in places)
        ]
        raise ConfigError(f"{origin}: " + "; ".join(problems)) from error


def _describe(problem: Any, model: type[BaseModel]) -> str:
    keys = [shown(str(part)) for part in problem["loc"]]
    key = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key{_nearest(keys, model)}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    got = problem["input"]
    message = _told(problem)
    if not keys:
        return message
    return f"{key}: {message}" if isinstance(got, dict | BaseModel) else f"{key} = {shown(repr(got))}: {message}"


def _told(problem: Any) -> str:
    """In the words of our own errors, and with the nearest of the values that are known."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if message.startswith("Input should be "):
        message = f"expected {message.removeprefix('Input should be ')}"
    if problem["type"] == "literal_error":
        message += did_you_mean(str(problem["input"]), re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return message


def _nearest(keys: list[str], model: type[BaseModel]) -> str:
    section: Any = model
    for key in keys[:-1]:
        field = getattr(section, "model_fields", {}).get(key)
        section = _table(field.annotation) if field else None
    return nearest(keys[-1], list(getattr(section, "model_fields", {})))


def nearest(key: str, known: Sequence[str]) -> str:
    """What to say after "unknown key": the nearest that there is, or all of them."""
    everything = f"; known here: {', '.join(known)}" if known else ""
    return did_you_mean(key, known) or everything


def _table(annotation: Any) -> Any:
    """The section in `Section | None`."""
    sections = [choice for choice in get_args(annotation) if isinstance(choice, type) and issubclass(choice, BaseModel)]
    return sections[0] if sections else annotation
