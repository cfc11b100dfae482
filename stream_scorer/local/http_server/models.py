"""Pydantic models of the local servers: configuration values, and the words that the faults of all servers have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

Milliseconds: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
HeaderText: TypeAlias = Annotated[str, Field(pattern=r"^[\x20-\x7e]+$")]
Transfer: TypeAlias = Literal["cut", "cut_chunked", "drip", "endless", "gzip", "gzip_bomb"]
BODILESS: Final[AbstractSet[int]] = {204, 304}


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


class Frozen(BaseModel):
    """Frozen model without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerFault(Frozen):
    """Effect of a fault on an answer."""

    status: Annotated[int, Field(ge=200, le=599)] | None = None
    retry_after: Annotated[HeaderText, BeforeValidator(_as_text)] | None = None
    headers: dict[HeaderText, HeaderText] = Field(default_factory=dict)
    transfer: Transfer | None = None
    drop: Literal["before", "after"] | None = None
    delay_ms: Milliseconds = 0.0


class ScriptedFault(Frozen):
    """One entry of a script.

    Attributes:
        times: number of affected requests; None: all.
        after: number of matching requests that pass first.
    """

    times: Annotated[int, Field(ge=1)] | None = 1
    after: Annotated[int, Field(ge=0)] = 0


FaultT = TypeVar("FaultT", bound=ScriptedFault)


def read_faults(content: Any, model: type[FaultT]) -> list[FaultT]:
    """Return the faults of decoded JSON, a list.

    Raises:
        SettingsError: the script is malformed; one line with the place.
    """
    try:
        return TypeAdapter(list[model]).validate_python(content)  # type: ignore[valid-type]
    except ValidationError as error:
        raise SettingsError(f"faults: {validation_message(error)}") from None


def validation_message(error: ValidationError) -> str:
    """Return a validation error as ``field: problem; …``, without the value, which may be a secret."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )
