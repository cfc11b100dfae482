"""docs/security.md against the code: the exact rights, and secrets that are never shown."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from stream_scorer.cli.config import effective_lines
from stream_scorer.errors import SettingsError
from stream_scorer.kafka.admin import acls
from stream_scorer.kafka.client.config import check_properties
from stream_scorer.settings import Settings, load

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
SECRET = "s3cr3t/of+the test"
USERS = {
    "scorer": "run",
    "caller": "callbacks",
    "producer": "produce",
    "maker": "topics create",
    "judge": "reconcile",
    "operator": "rejected",
    "reviewer": "review",
    "reader": "read",
    "campaign-operator": "deliveries",
}


class Given(NamedTuple):
    """An ACL; a name that ends with ``*`` is a prefix."""

    program: str
    operation: str
    resource: str
    name: str

    def covers(self, program: str, right: acls.Right) -> bool:
        same = (self.program, self.operation, self.resource) == (program, right.operation, right.resource)
        return same and (right.name.startswith(self.name[:-1]) if self.name.endswith("*") else right.name == self.name)


def in_the_table() -> set[Given]:
    section = PAGE.split("## The least rights", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {
        Given(program.strip("`"), operation, resource, name)
        for program, operations, resource, names in cells
        for operation in operations.split(", ")
        for name in re.findall(r"`(.*?)`", names)
    }


def in_the_commands() -> set[Given]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--allow-principal")
    parser.add_argument("--resource-pattern-type", default="literal")
    for option in ("--operation", "--topic", "--group", "--transactional-id"):
        parser.add_argument(option, action="append", default=[])
    found = set()
    for line in re.findall(r"^\$acls (.*)$", PAGE, re.MULTILINE):
        asked = parser.parse_args(shlex.split(line))
        end = "*" if asked.resource_pattern_type == "prefixed" else ""
        for resource in ("topic", "group", "transactional id"):
            for name in getattr(asked, resource.replace(" ", "_")):
                for operation in asked.operation:
                    program = USERS[asked.allow_principal.removeprefix("User:")]
                    found.add(Given(program, operation, resource, name + end))
    return found


def needed() -> set[tuple[str, acls.Right]]:
    settings = Settings()
    judge = (*acls.reconciling_rights(settings), *acls.reconciling_callbacks_rights(settings))
    programs = {
        "run": acls.scoring_rights(settings),
        "callbacks": acls.callback_rights(settings),
        "produce": acls.producing_rights(settings),
        "topics create": acls.creating_rights(settings),
        "reconcile": judge,
        "rejected": acls.rejected_desk_rights(settings),
        "review": acls.review_desk_rights(settings),
        "read": acls.reading_rights(settings),
        "deliveries": acls.deliveries_desk_rights(settings),
    }
    return {(program, right) for program, some in programs.items() for right in some}


def test_the_table_has_exactly_the_rights_of_the_programs() -> None:
    table = in_the_table()
    for program, right in needed():
        assert any(given.covers(program, right) for given in table), f"{program}: {right}"
    for given in table:
        assert any(given.covers(program, right) for program, right in needed()), given


def test_the_commands_grant_the_rights_of_the_table() -> None:
    assert in_the_commands() == in_the_table()


def test_the_line_on_the_page_is_the_one_that_is_said() -> None:
    properties = {
        "bootstrap.servers": "kafka-1.example.com:9093",
        "security.protocol": "SASL_SSL",
        "sasl.username": "scorer",
    }
    line = acls.denied_error(properties, [acls.Permission("Write", "topic", "contact-scores")])
    assert f"\nstream-scorer: {line}\n" in PAGE


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("sasl.password", {"sasl.mechanism": "SCRAM-SHA-512"}),
        ("sasl.password", {"sasl.mechanism": "PLAIN", "sasl.username": "scorer"}),
        ("ssl.key.password", {"security.protocol": "SSL", "ssl.key.location": "no such file"}),
        ("ssl.key.pem", {"security.protocol": "SSL"}),
        ("ssl.certificate.pem", {"security.protocol": "SSL"}),
        ("ssl.keystore.password", {"security.protocol": "SSL", "ssl.keystore.location": "no such file"}),
        ("sasl.oauthbearer.client.secret", {"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc"}),
        ("sasl.oauthbearer.config", {"sasl.mechanism": "OAUTHBEARER"}),
        ("sasl.oauthbearer.assertion.private.key.passphrase", {"sasl.mechanism": "OAUTHBEARER"}),
    ],
)
def test_a_secret_property_is_shown_nowhere(name: str, others: dict[str, str]) -> None:
    properties = {"security.protocol": "SASL_SSL", **others, name: SECRET}
    loaded = load(environ={"STREAM_SCORER_KAFKA__PROPERTIES": json.dumps(properties)})
    said = ["\n".join(effective_lines(loaded)), repr(loaded), repr(loaded.settings.kafka)]
    try:
        check_properties(loaded.settings)
    except SettingsError as error:
        said.append(str(error))
    assert f'properties."{name}" = "***"' in said[0]
    for text in said:
        assert SECRET not in text
