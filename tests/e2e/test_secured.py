"""Programs on a Kafka that asks who they are and what they may do, with exactly the rights of `kafka.rights`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from secured_fixture import AUDIENCE
from support_arena import wait_until
from support_certificates import token_key, token_server
from support_secured import Ground

from stream_scorer.kafka import rights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from secured_fixture import SecuredKafka

    from stream_scorer.local.simulator import Simulator

SECRET = "s3cr3t of the tests"


@pytest.fixture
def ground(secured: SecuredKafka, tmp_path: Path, simulator: Simulator) -> Iterator[Ground]:
    made = Ground(secured, tmp_path)
    simulator.configure(quota=1_000_000)
    made.environment |= simulator.environment()
    yield made
    made.kill_all()


@pytest.fixture
def token_url(secured: SecuredKafka) -> Iterator[str]:
    with token_server(token_key(secured.folder), AUDIENCE, secret=SECRET) as url:
        yield url


def contacts_file(folder: Path, number: int) -> str:
    rows = [f"C-{n},{n % 9},210.5,12,retired" for n in range(number)]
    file = folder / "contacts.csv"
    head = "contact_id,previous_calls,avg_handle_time,last_contact_days,segment_id"
    file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return str(file)


def test_every_program_does_its_work_with_the_least_rights(ground: Ground, token_url: str) -> None:
    name, number = ground.name, 60
    root = ground.settings(ground.as_root())
    ground.scram(f"maker-{name}", f"scorer-{name}", f"judge-{name}")
    ground.grant(
        {
            f"User:maker-{name}": rights.creating_rights(root),
            f"User:loader-{name}": rights.producing_rights(root),
            f"User:scorer-{name}": rights.scoring_rights(root),
            f"User:CN=caller-{name}": rights.campaign_rights(root),
            f"User:judge-{name}": {*rights.reconciling_rights(root), *rights.reconciling_callbacks_rights(root)},
        }
    )
    made = ground.command(ground.as_scram(f"maker-{name}"), "topics", "create")
    assert (made.code, made.out.count("created")) == (0, 9), made
    loader = ground.as_token(f"loader-{name}", token_url, SECRET)
    loaded = ground.command(loader, "produce", contacts_file(ground.folder, number))
    assert loaded.code == 0, loaded
    scorer = ground.start(ground.as_scram(f"scorer-{name}"), "run")
    caller = ground.start(ground.as_certificate(f"caller-{name}", "the key's password"), "callbacks")
    judge = ground.as_scram(f"judge-{name}")

    def all_done() -> Any:
        assert scorer.running, scorer.log()
        assert caller.running, caller.log()
        ended = ground.command(judge, "reconcile", "--json")
        found = json.loads(ended.out or "{}")
        done = ended.code == 0 and found["totals"]["scored"] + found["totals"]["review"] == number
        return done and (callbacks := found["callbacks"]) and callbacks["totals"]["delivered"] > 0 and found

    wait_until(all_done, lambda: scorer.log() + caller.log())
    assert (scorer.stop(), caller.stop()) == (0, 0)
    for log in (scorer.log(), caller.log()):
        assert "password of" not in log
        assert "the key's password" not in log
