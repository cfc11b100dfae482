"""No log call has a field of a contact: every call is checked in the source."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from log_calls import log_calls

import stream_scorer

FOLDER = Path(stream_scorer.__file__).parent
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
# Fields without personal data. `detail`, `reason` and `after` are messages that are redacted where they are built
# (redaction/credentials.py, kafka/client/errors.py); tests/unit/test_security.py and the end-to-end tests check their
# output.
HARMLESS = {
    "topics",
    *("assigned", "partitions", "revoked"),
    *("after", "after_s", "attempt", "attempts", "batch_id", "batches", "callback_id", "campaign_id"),
    *(
        "contacts",
        "contacts_sent_again",
        "correlation_id",
        "detail",
        "for_s",
        "group_id",
        "instance_id",
        "limit",
        "loop",
        "model_version",
        "next_attempt_in_s",
    ),
    *(
        "offset",
        "partition",
        "probes",
        "reason",
        "records",
        "since",
        "remedy",
        "source",
        "status",
        "target",
        "threshold",
    ),
    *("topic", "trace_id"),
}
# Of the progress of a loop: numbers only.
PROGRESS = {
    *("rate_per_s", "scored", "review", "rejected", "deferred", "lag", "quota_used", "quota_allowed"),
    *("scores_read", "planned", "delivered", "refused", "gave_up", "expired"),
}
# The target `log` writes callbacks instead of sending them, by design.
WRITES_CALLBACKS = "targets/log_target.py"
OF_CONTACTS = re.compile(r"contact_id|feature|score|value|key|body|payload|header|confidence|record_|secret|token")
# `text` is the API's free text, without the ids and values of the request (redaction/contacts.py).
AT_DEBUG = {"contact_id", "text"}


def calls() -> list[tuple[str, str, ast.Call]]:
    return [
        (f"{path.relative_to(FOLDER)}:{node.lineno}", node.func.attr, node)
        for path in FOLDER.rglob("*.py")
        if path != FOLDER / WRITES_CALLBACKS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in METHODS
        and re.search(r"log\b|logger|structlog", ast.unparse(node.func.value))
    ]


def test_every_field_of_a_log_line_is_on_the_list() -> None:
    unknown = [
        f"{place}: {keyword.arg}"
        for place, method, call in calls()
        for keyword in call.keywords
        if keyword.arg is not None
        and keyword.arg not in HARMLESS
        and not (method == "debug" and keyword.arg in AT_DEBUG)
    ]
    assert unknown == []
    assert not [name for name in HARMLESS if OF_CONTACTS.search(name)]


def test_fields_chosen_at_run_time_are_on_the_list() -> None:
    """Those behind ``**`` and of levels that a condition chooses, which are no keyword of a log method."""
    found = {
        (call.event, field)
        for call in log_calls(FOLDER)
        for field in call.fields
        if field not in HARMLESS and call.module != WRITES_CALLBACKS.removesuffix(".py").replace("/", ".")
    }
    assert {field for _, field in found} - AT_DEBUG - PROGRESS == {"next_probe_in_s", "next_request_in_s"}
    assert {event for event, field in found if field in PROGRESS} == {
        "caught up",
        "progress reported",
        "totals reported",
    }
    assert {event for event, field in found if field in AT_DEBUG} == {
        "contact rejected by broker",
        "error text received",
    }


def test_log_calls_have_literal_event_names() -> None:
    made = [(place, call) for place, _, call in calls() if call.keywords]
    assert len(made) > 15
    assert [place for place, call in made if not isinstance(call.args[0], ast.Constant | ast.IfExp)] == []
