"""Arguments that default to the environment; explicit ones take precedence.

The variables are those of a worker, ``STREAM_SCORER_GENESYS__…``, and the shorter ``GENESYS_…``; the longer names take
precedence. An empty variable counts as not set. They are read when an object is created, never at import.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.errors import SettingsError
from stream_scorer.genesys.client import check_url
from stream_scorer.genesys.regions import DEFAULT_REGION, api_url, login_url_for
from stream_scorer.library.messages import in_library_words
from stream_scorer.library.validation import check_text
from stream_scorer.settings.names import variable
from stream_scorer.settings.secret_file import SecretFile
from stream_scorer.settings.secret_text import SecretTextError, clean_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Argument:
    """Value of an argument, in no repr, and its origin for errors: the argument's name or a variable."""

    value: str = field(repr=False)
    origin: str


class Address(NamedTuple):
    """Base URLs of API and login service."""

    base_url: str
    login_url: str


def check_present(**given: str | None) -> None:
    """Check that each argument is passed or stands in the environment.

    Raises:
        SettingsError: names all that are absent, and their variables.
    """
    absent = [name for name, value in given.items() if value is None and _set_variable(name) is None]
    if not absent:
        return
    verb, them = ("is", "it") if len(absent) == 1 else ("are", "them")
    variables = _joined([f"GENESYS_{name.upper()}" for name in absent])
    file = " (or GENESYS_CLIENT_SECRET_FILE)" if "client_secret" in absent else ""
    raise SettingsError(f"{_joined(absent)} {verb} missing: pass {them}, or set {variables}{file}")


def text_argument(name: str, given: str | None) -> str:
    """Return an argument or the value of its variable.

    Raises:
        SettingsError: it is absent, empty or not valid text.
    """
    check_present(**{name: given})
    found = _found(name, given)
    value, origin = (given, name) if found is None else (found.value, found.origin)
    check_text(origin, value)
    return str(value)


def secret_argument(given: str | None) -> str | Callable[[], str]:
    """Return the client secret, or a function that reads its file again, so that a replaced secret needs no restart.

    Raises:
        SettingsError: it is absent or cannot be a secret, or its file cannot be read. No part of it is repeated.
    """
    check_present(client_secret=given)
    name = None if given is not None else _set_variable("client_secret")
    if name is not None and name.endswith("_FILE"):
        file = SecretFile("client_secret", Path(os.environ[name]), name)
        secret = file.read()
        return file.read if file.is_kept else secret
    origin, value = ("client_secret", given) if name is None else (name, os.environ[name])
    check_text(origin, value)
    try:
        return clean_secret(str(value))
    except SecretTextError as error:
        raise SettingsError(f"{origin} {error}") from None


def address(base_url: str | None, region: str | None, login_url: str | None) -> Address:
    """Return the URLs of API and login service.

    An explicit ``base_url`` or ``region`` replaces all three variables, which belong together.

    Raises:
        SettingsError: both are passed, the region is unknown, or a URL is not http or https with a host.
    """
    if base_url is not None and region is not None:
        raise SettingsError("base_url and region contradict each other: pass one of them")
    is_explicit = base_url is not None or region is not None
    base = _found("base_url", base_url, is_explicit=is_explicit)
    if base is None:
        base = _url_of(_found("region", region, is_explicit=is_explicit) or Argument(DEFAULT_REGION, "region"))
    check_url(base.origin, base.value)
    login = _found("login_url", login_url, is_explicit=is_explicit) or Argument(login_url_for(base.value), "login_url")
    check_url(login.origin, login.value)
    return Address(base.value, login.value)


def _url_of(region: Argument) -> Argument:
    check_text(region.origin, region.value)
    try:
        return Argument(api_url(region.value), region.origin)
    except SettingsError as error:
        origin = "" if region.origin == "region" else f"{region.origin}: "
        raise SettingsError(origin + in_library_words(str(error))) from None


def _found(name: str, given: str | None, *, is_explicit: bool = False) -> Argument | None:
    """Return an argument or its variable; no variable if ``is_explicit``."""
    if given is not None:
        return Argument(given, name)
    found = None if is_explicit else _set_variable(name)
    return None if found is None else Argument(os.environ[found], found)


def _set_variable(name: str) -> str | None:
    """Return the variable of an argument that is set; None: there is none."""
    return next((one for one in _variables(name) if os.environ.get(one)), None)


def _variables(name: str) -> Iterator[str]:
    for one in (variable(("genesys", name)), f"GENESYS_{name.upper()}"):
        yield one
        if name == "client_secret":
            yield f"{one}_FILE"


def _joined(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
