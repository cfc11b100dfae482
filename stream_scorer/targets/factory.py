"""Factory of the target in ``callbacks.target``; a missing setting is one error line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import structlog

from stream_scorer.errors import CheckFailed, SettingsError
from stream_scorer.genesys.oauth import TokenSource
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.http_client.client import Http
from stream_scorer.http_client.environment import check_tls_environment
from stream_scorer.targets.contact_columns import ContactColumns
from stream_scorer.targets.genesys_outbound import OutboundTarget
from stream_scorer.targets.log_target import LogTarget
from stream_scorer.targets.signature import Signer
from stream_scorer.targets.ssrf_guard import guard_for
from stream_scorer.targets.webhook import MAX_CONNECTIONS, WebhookTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_scorer.callbacks.ports import Target
    from stream_scorer.settings import Settings
    from stream_scorer.targets.contact_list import ContactListCheck


def build_target(settings: Settings) -> Target:
    """Return the target of ``callbacks.target``, ready to deliver.

    For a webhook, the host of ``callbacks.url`` is resolved once, within `START_CHECK_S`.

    Raises:
        SettingsError: a setting that the target needs is missing or invalid; names it.
    """
    return _BUILDERS[settings.callbacks.target](settings)


def check_endpoint(target: Target) -> Iterator[str]:
    """Check that the campaign manager can be reached, or that its contact lists fit; yield a line for each success.

    Raises:
        CheckFailed: one line for each problem.
    """
    if isinstance(target, WebhookTarget):
        yield target.reach()
    problems = []
    for one in check_contact_lists(target):
        if one.info is None or one.problem is not None:
            problems.append(f"contact list {one.list_id}: {one.problem}")
            continue
        addresses = ", ".join(one.info.addresses)
        found = f"{len(one.info.columns)} columns, addresses in {addresses}; {one.info.size:,} contacts"
        yield f"contact list {one.list_id}: {found}"
    if problems:
        raise CheckFailed("\n".join(problems))


def check_contact_lists(target: Target) -> Iterator[ContactListCheck]:
    """Read the contact lists of the target ``genesys-outbound``, each once; any other target has none."""
    if isinstance(target, OutboundTarget):
        for list_id in target.list_ids:
            yield target.check(list_id)


def _webhook(settings: Settings) -> Target:
    callbacks = settings.callbacks
    if callbacks.url is None:
        raise SettingsError(
            "callbacks.url is missing: set STREAM_SCORER_CALLBACKS__URL to the https URL that takes the callbacks,"
            " or callbacks.target to 'log' for trying things out"
        )
    if callbacks.secret is None:
        raise SettingsError(
            "callbacks.secret is missing: set STREAM_SCORER_CALLBACKS__SECRET or STREAM_SCORER_CALLBACKS__SECRET_FILE;"
            " openssl rand -base64 32 makes one"
        )
    previous = None if callbacks.secret_previous is None else callbacks.secret_previous.get_secret_value()
    signer = Signer(callbacks.secret.get_secret_value(), previous)
    if callbacks.url.lower().startswith("https:"):
        check_tls_environment(os.environ)  # webhooks are sent without a proxy
    guard = guard_for(callbacks.url, allow_http=callbacks.allow_http)
    return WebhookTarget(callbacks.url, signer, guard, timeout_s=callbacks.timeout_s)


def _log(_: Settings) -> Target:
    return LogTarget(structlog.get_logger("stream_scorer"))


def _outbound(settings: Settings) -> OutboundTarget:
    genesys, list_id = settings.genesys, settings.callbacks.contact_list_id
    if list_id is None:
        raise SettingsError(
            "callbacks.contact_list_id is missing: set STREAM_SCORER_CALLBACKS__CONTACT_LIST_ID to the id of the"
            " contact list that callbacks are added to"
        )
    client_id, secret = settings.require_client()
    http = Http(MAX_CONNECTIONS)
    tokens = TokenSource(http, genesys.token_url, client_id, secret, timeout_s=genesys.token_timeout_s)
    callbacks = settings.callbacks
    return OutboundTarget(
        http,
        tokens,
        Quota(genesys.requests_per_minute),
        genesys.api_url,
        list_id,
        contact_lists=callbacks.contact_lists,
        columns=ContactColumns(callbacks.columns, callbacks.contact_id),
        requeue_newer=callbacks.requeue == "newer_score",
        timeout_s=genesys.timeout_s,
    )


_BUILDERS: Final[Mapping[str, Callable[[Settings], Target]]] = {
    "webhook": _webhook,
    "log": _log,
    "genesys-outbound": _outbound,
}
