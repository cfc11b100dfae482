from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer import AuditLogger, ConfidenceVerifier, RejectedContact, ScoreResult
from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def result(
    contact_id: str = "c", score: float = 0.5, lower: float = 0.3, upper: float = 0.7, **more: Any
) -> ScoreResult:
    return ScoreResult(contact_id, score, lower, upper, 12.3456, "2027-01-15T08:00:00.000+00:00", **more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("given", "reasons"),
    [
        (result(), ()),
        (result(lower=0.45, upper=0.55), ("narrow_interval",)),
        (result(lower=0.0, upper=1.0), ("wide_interval",)),
        (result(score=1.2), ("score_out_of_range", "interval_inconsistent")),
        (result(lower=0.7, upper=0.3), ("interval_inconsistent",)),
    ],
)
def test_verifier(given: ScoreResult, reasons: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    verifier = ConfidenceVerifier(max_confidence_width=0.9)
    with caplog.at_level(logging.WARNING, "stream_scorer"):
        assert verifier.verify(given) is (not reasons)
    assert verifier.reasons(given) == reasons
    assert all(reason in caplog.text for reason in reasons)


def test_width_at_the_limit_passes() -> None:
    assert ConfidenceVerifier().verify(result(score=0.3, lower=0.2, upper=0.35))
    assert not ConfidenceVerifier(0.2).verify(result(score=0.3, lower=0.2, upper=0.35))


def test_result_is_a_dict_for_json() -> None:
    assert json.loads(json.dumps(asdict(result())))["confidence_interval_lower"] == 0.3


def test_audit_holds_every_contact(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    rejected = RejectedContact(2, "evil\nname", ("refused_by_api",), "no")
    reviewed = result("b", lower=0.5, upper=0.5, review_reasons=("narrow_interval",), imputed_features=("calls",))
    AuditLogger(str(log)).log_score_batch([result("a"), reviewed], "m", 3, rejected=[rejected], batch_id="batch-1")
    head, first, second, third = lines(log)
    assert (head["model_id"], head["batch_size"], head["results"], head["rejected"]) == ("m", 3, 2, 1)
    assert [one["outcome"] for one in (first, second, third)] == ["SCORED", "REVIEW", "REJECTED"]
    assert {one["batch_id"] for one in (head, first, second, third)} == {"batch-1"}
    assert (first["score"], first["confidence_lower"], first["confidence_upper"]) == (0.5, 0.3, 0.7)
    assert (second["reasons"], second["imputed_features"]) == (["narrow_interval"], ["calls"])
    assert (third["contact_id"], third["reasons"]) == ("evil\nname", ["refused_by_api"])


def test_audit_rotates_between_batches(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    audit = AuditLogger(str(log), max_bytes=1000, backup_count=2)
    for number in range(12):
        audit.log_score_batch([result(f"c{number}-{n}") for n in range(2)], "m", 2)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.log", "audit.log.1", "audit.log.2"]
    assert all(file.stat().st_size <= 1000 for file in files)
    kept = [one["contact_id"] for file in reversed(files) for one in lines(file) if "contact_id" in one]
    assert kept == [f"c{number}-{n}" for number in range(12 - len(kept) // 2, 12) for n in range(2)]
    assert all("batch_size" in lines(file)[0] for file in files)  # no batch is split


def test_batch_larger_than_the_limit_is_written_whole(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    audit = AuditLogger(str(log), max_bytes=100)
    for _ in range(3):
        audit.log_score_batch([result()], "m", 1)
    assert len(list(tmp_path.iterdir())) == 3
    assert len(lines(log)) == 2


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    audit = AuditLogger(str(log), max_bytes=0)

    def write(batch: str) -> None:
        for _ in range(20):
            audit.log_score_batch([result(batch)] * 5, "m", 5, batch_id=batch)

    threads = [threading.Thread(target=write, args=(f"b{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = lines(log)
    assert len(written) == 4 * 20 * 6
    for at in range(0, len(written), 6):
        assert len({one["batch_id"] for one in written[at : at + 6]}) == 1


@pytest.mark.parametrize("given", [{"log_file": None}, {"log_file": 3}, {"max_bytes": "5"}, {"backup_count": 1.5}])
def test_an_invalid_argument_is_named_immediately(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"^{next(iter(given))} must be"):
        AuditLogger(**given)


def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    place = tmp_path / "missing" / "audit.log"
    with pytest.raises(SettingsError, match=r"audit\.log cannot be written: No such file"):
        AuditLogger(str(place)).log_score_batch([result()], "m", 1)
