"""Scenarios: faults and configuration changes on a timeline. `docs/simulator.md` describes the file.

A scenario is a TOML file::

    name = "bad-day"                # default: the name of the file
    description = "…"
    speed = 1.0                     # 2.0 plays it in half the time

    [[step]]
    name = "too many requests"      # shown while it lasts
    at_s = 5                        # seconds since the first request
    for_s = 10                      # default: to the end
    config = {latency_ms = 800}     # as PATCH /_simulator/config, undone at the end of the step
    faults = [{action = {status = 429, retry_after = 3}}]
    revoke_tokens = true            # once, at the start

    [expect]
    refused = {ids = ["C-17"]}      # contacts that a worker must reject, since no request with them succeeds

Time begins with the first token or score request, so that a worker's start time does not matter. A fault without
``times`` acts while its step lasts. Steps may overlap: faults act in the order in which their steps began, and of two
values for one setting the later step's applies.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import Field, ValidationError, field_validator, model_validator

from stream_scorer.core.charset import decode_text
from stream_scorer.core.parse_errors import parse_error_place
from stream_scorer.errors import InputError, SettingsError
from stream_scorer.file_reader import read_file
from stream_scorer.local.http_server.models import Frozen, validation_message
from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.faults import Fault, Selection
from stream_scorer.local.simulator.response_faults import select

SHIPPED: Final = ("bad-day", "broken-contract", "poison")
MAX_BYTES: Final = 1_000_000

Seconds: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StepFault(Fault):
    """Fault that acts while its step lasts, unless ``times`` is set."""

    times: Annotated[int, Field(ge=1)] | None = None


class Step(Frozen):
    """Changes for a period. Times are seconds since the first request, before ``speed`` is applied."""

    name: str = ""
    at_s: Seconds
    for_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    faults: tuple[StepFault, ...] = ()
    revoke_tokens: bool = False

    @field_validator("config")
    @classmethod
    def _known_settings(cls, changes: dict[str, Any]) -> dict[str, Any]:
        try:
            SimulatorConfig.model_validate({**SimulatorConfig().model_dump(), **changes})
        except ValidationError as error:
            raise ValueError(validation_message(error)) from None
        return changes

    @model_validator(mode="after")
    def _does_something(self) -> Step:
        if not (self.config or self.faults or self.revoke_tokens):
            raise ValueError("a step needs config, faults or revoke_tokens")
        if self.for_s is not None and not (self.config or self.faults):
            raise ValueError("revoke_tokens takes no time: leave out for_s")
        return self

    @property
    def lasts(self) -> bool:
        """Whether the step has a duration; one that only revokes tokens has none."""
        return bool(self.config or self.faults)


class Expected(Frozen):
    """Required effect of a scenario on contacts."""

    refused: Selection | None = None


class Scenario(Frozen):
    """Timeline of the simulator's faults and changes."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    steps: Annotated[tuple[Step, ...], Field(min_length=1, alias="step")]
    expect: Expected = Expected()

    def refuses(self, contact_id: str) -> bool:
        """Return whether a worker must reject this contact, since no request with it ever succeeds."""
        refused = self.expect.refused
        return refused is not None and contact_id in select([contact_id], refused)

    def label(self, index: int) -> str:
        """Return the name of a step."""
        return self.steps[index].name or f"step {index + 1}"


def parse_scenario(content: Any, source: str, default_name: str = "scenario") -> Scenario:
    """Return the scenario of decoded TOML or JSON; ``source`` names it in errors.

    Raises:
        SettingsError: it is malformed; one line with source, step and field.
    """
    try:
        return Scenario.model_validate({"name": default_name, **content} if isinstance(content, dict) else content)
    except ValidationError as error:
        problems = "; ".join(_problem(item["loc"], item["msg"], content) for item in error.errors())
        raise SettingsError(f"scenario {source}: {problems}") from None


def load_scenario(name_or_path: str) -> Scenario:
    """Return the packaged scenario of this name, else the one in this file.

    Raises:
        InputError: the file does not exist or cannot be read.
        SettingsError: it is malformed; one line with file, step and field.
    """
    try:
        data = _shipped(name_or_path) if name_or_path in SHIPPED else read_file(name_or_path, MAX_BYTES)
    except FileNotFoundError:
        shipped = ", ".join(SHIPPED)
        raise InputError(f"scenario {name_or_path}: no such file, and none of those that ship: {shipped}") from None
    except OSError as error:
        raise InputError(f"scenario {name_or_path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"scenario {name_or_path}: larger than {MAX_BYTES:,} bytes: it is no scenario")
    try:
        content = tomllib.loads(decode_text(data))
    except (ValueError, RecursionError) as error:
        raise InputError(f"scenario {name_or_path}: it is not TOML{parse_error_place(error)}") from None
    return parse_scenario(content, name_or_path, Path(name_or_path).stem)


def _shipped(name: str) -> bytes:
    return (resources.files("stream_scorer.local") / "scenarios" / f"{name}.toml").read_bytes()


def _problem(place: tuple[int | str, ...], message: str, content: Any) -> str:
    """Return a problem as ``step 2 'name', field: problem``."""
    parts = []
    match place:
        case ("step", int(index), *rest):
            name = content["step"][index].get("name", "") if isinstance(content["step"][index], dict) else ""
            parts.append(f"step {index + 1}" + (f" '{name}'" if isinstance(name, str) and name else ""))
        case (*rest,):
            pass
    if rest:
        parts.append(".".join(map(str, rest)))
    return f"{', '.join(parts) or 'value'}: {message.removeprefix('Value error, ')}"
