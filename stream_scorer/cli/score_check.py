"""One paid contact whose answer is compared with the assumed contract: ``stream-scorer config check --score FILE``."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from stream_scorer.cli.connection_check import output_marks
from stream_scorer.contact_files.reader import BadRow, ContactFile
from stream_scorer.core.desk.answer_contract import Assumption
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.errors import CheckFailed, InputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from stream_scorer.core.scoring.types import ContactEvent
    from stream_scorer.settings import Settings


class FirstContact(NamedTuple):
    """The first contact of a file, complete with imputed features."""

    place: str
    contact_id: str
    features: dict[str, Any]
    model_version: str | None


def check_score(settings: Settings, file: Path, *, yes: bool) -> None:
    """Send the first contact of a file, and print each assumption about the answer with its verdict.

    Args:
        settings: of the API and the model.
        file: contacts, as for ``produce``.
        yes: send without a question.

    Raises:
        UsageError: neither ``yes`` nor a terminal that could confirm it.
        InputError: the file has no contact that could be sent.
        ApiError: there is no answer of the API.
        CheckFailed: an assumption does not hold.
    """
    from stream_scorer.wiring.scoring import ApiCheck  # noqa: PLC0415 - imports telemetry, which takes a second

    contact = first_contact(settings, file)
    version = "" if contact.model_version is None else f", version {contact.model_version}"
    typer.echo(
        f"{contact.place} is sent to model {settings.genesys.model_id}{version} at {settings.genesys.api_url}:"
        " the platform bills 1 contact, and 1 request of the quota is used. Nothing is written to Kafka.",
        err=True,
    )
    if not yes and not _is_confirmed():
        typer.echo("nothing was sent", err=True)
        raise typer.Exit(1)
    with closing(ApiCheck(settings)) as api:
        answer = api.score(contact.contact_id, contact.features, contact.model_version)
    marks = output_marks()
    for one in answer.assumptions:
        mark = marks.skipped if one.holds is None else marks.passed if one.holds else marks.failed
        typer.echo(f"{mark} {_text(one)}")
    if answer.further_fields:
        typer.echo(f"{marks.skipped} fields that are not read: {', '.join(answer.further_fields)}")
    if broken := sum(one.holds is False for one in answer.assumptions):
        if not any(one.holds for one in answer.assumptions):
            raise CheckFailed(
                "the first assumption does not hold, so there is no answer to compare: correct what its line names, and"
                " repeat it after `stream-scorer config check --connect`"
            )
        few = "1 assumption does not hold" if broken == 1 else f"{broken} assumptions do not hold"
        raise CheckFailed(
            f"{few}: do not start a worker before the adapter is corrected (stream_scorer/genesys/wire.py)"
        )


def _text(one: Assumption) -> str:
    return f"{one.text}: {one.found}" if one.found else one.text


def _is_confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("--score sends one contact that is billed: add --yes, or answer on a terminal")
    return typer.confirm("Send it?", err=True)


def first_contact(settings: Settings, file: Path) -> FirstContact:
    """Return the first contact of a file.

    Raises:
        InputError: there is none, it cannot be read, or the worker would reject it; names no value.
    """
    types = {name: feature.type for name, feature in settings.model.features.items()}
    contacts = ContactFile(file, types, now_ms=time.time_ns() // 1_000_000)
    row = next(iter(contacts), None)
    if row is None:
        raise InputError(f"{contacts.name}: has no contact")
    place = f"{contacts.name}:{contacts.line}"
    if isinstance(row, BadRow):
        raise InputError(f"{place}: {row.message}")
    return FirstContact(place, row.contact_id, _complete(settings, row, place), _version(settings, row))


def _complete(settings: Settings, event: ContactEvent, place: str) -> dict[str, Any]:
    features = FeatureList(tuple(settings.model.features.values()), settings.model.max_features)
    checked = ContactChecker(features).check(event)
    if isinstance(checked, list):
        reasons = "; ".join(f"{reason}: {detail}" for reason, detail in checked)
        raise InputError(f"{place}: the worker would reject it without a request ({reasons})")
    complete, _ = checked
    return complete


def _version(settings: Settings, event: ContactEvent) -> str | None:
    return settings.genesys.model_version if event.model_version is None else event.model_version
