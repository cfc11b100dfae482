"""Bodies of the control endpoints that dial and opt out."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream_scorer.errors import SettingsError
from stream_scorer.local.http_server.models import validation_message
from stream_scorer.local.simulator.contact_list import WrapUp  # noqa: TC001 - pydantic evaluates it

_Order = TypeVar("_Order", bound=BaseModel)


class DialOrder(BaseModel):
    """Body of ``POST /dial``.

    Attributes:
        list: the contact list; None: the first.
        contacts: number of calls; None: everyone who waits, once.
        wrap_up: wrap-up code of these calls.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    list: str | None = None
    contacts: Annotated[int, Field(ge=0)] | None = None
    wrap_up: WrapUp = "CONTACTED"


class OptOutOrder(BaseModel):
    """Body of ``POST /opt-out``.

    Attributes:
        list: the contact list; None: the first.
        ids: ids of its contacts.
    """

    model_config = ConfigDict(extra="forbid")

    list: str | None = None
    ids: tuple[str, ...]


def parse_order(order: type[_Order], content: Any) -> _Order:
    """Return the checked body.

    Raises:
        SettingsError: unknown field or invalid value, in one line.
    """
    try:
        return order.model_validate(content)
    except ValidationError as error:
        raise SettingsError(f"dialler: {validation_message(error)}") from None
