"""`calculate_frame` against an API: a stand-in for the DataFrame, and pandas itself."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server, results

from stream_scorer import AuditLogger, GenesysAuthManager, PredictiveScoreCalculator, ScoreClient
from stream_scorer.errors import ApiUnavailable, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAN = float("nan")
EXPECTED = ["calls", "segment"]
REFUSED = "7"


class Index(list[Any]):
    """Like the index of a DataFrame: labels in any order, perhaps more than once."""

    def __init__(self, labels: Any, name: str | None = None) -> None:
        super().__init__(labels)
        self.names = [name]

    def get_level_values(self, name: str) -> Index:
        assert name in self.names
        return self


class Frame:
    """The part of a DataFrame that is used: columns by name, a selection of them, an index."""

    ndim = 2

    def __init__(self, columns: dict[str, list[Any]], index: Index | None = None) -> None:
        self._columns = columns
        rows = len(next(iter(columns.values()), index or []))
        self.index = Index(range(rows)) if index is None else index

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: Any) -> Any:
        if isinstance(name, list):
            return Frame({one: self._columns[one] for one in name}, self.index)
        return self._columns[name]

    def __setitem__(self, name: str, values: list[Any]) -> None:
        assert len(values) == len(self.index)
        self._columns[name] = values

    def copy(self) -> Frame:
        return Frame(dict(self._columns), self.index)


def refuses_one(request: Any, conn: Any) -> None:
    if any(one["contactId"] == REFUSED for one in request.json["contacts"]):
        conn.sendall(answer(400, {"code": "invalid.value", "details": [{"entityId": REFUSED}]}))
    else:
        conn.sendall(results(request))


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(refuses_one)
        yield server


@pytest.fixture
def calculator(server: RawServer, tmp_path: Path) -> Iterator[PredictiveScoreCalculator]:
    auth = GenesysAuthManager("id", "secret", server.url)
    client = ScoreClient(auth, server.url, requests_per_minute=100_000, sleep=lambda _: None)
    auditor = AuditLogger(str(tmp_path / "audit.log"))
    with PredictiveScoreCalculator(
        "m", "", "", EXPECTED, {"segment": "default"}, client=client, auditor=auditor
    ) as calculator:
        yield calculator


def sent(server: RawServer) -> dict[str, Any]:
    return {one["contactId"]: one["features"] for request in server.to("/api/") for one in request.json["contacts"]}


def some_rows(**more: list[Any]) -> dict[str, list[Any]]:
    return {"customer": [5, 6, 7, 8], "calls": [1, NAN, 3, 4], "segment": ["a", "b", "c", None], **more}


def test_rows_become_contacts_and_results(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    frame = Frame(some_rows(unused=[[], [], [], []]), Index([9, 3, 3, 1]))
    got = calculator.calculate_frame(frame, id="customer")
    assert got.index == [9, 3, 3, 1]
    assert got["customer"] == [5, 6, 7, 8]
    assert got["outcome"] == ["scored", "rejected", "rejected", "scored"]
    assert got["score"] == pytest.approx([0.5, NAN, NAN, 0.5], nan_ok=True)
    assert got["confidence_interval_lower"] == pytest.approx([0.3, NAN, NAN, 0.3], nan_ok=True)
    assert got["reasons"] == ["", "missing_feature", "refused_by_api", ""]
    assert got["imputed_features"] == ["", None, None, "segment"]
    assert "nothing to impute: 'calls'" in got["detail"][1]
    assert sent(server)["5"] == {"calls": 1, "segment": "a"}
    assert sent(server)["8"] == {"calls": 4, "segment": "default"}
    assert frame.columns == ["customer", "calls", "segment", "unused"]


def test_results_for_review(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    narrow = {"contactId": "5", "score": 0.5, "confidenceInterval": {"lower": 0.5, "upper": 0.5}}
    server.respond(answer(200, {"results": [narrow]}))
    got = calculator.calculate_frame(Frame({"customer": [5], "calls": [1]}), "customer")
    assert (got["outcome"], got["reasons"], got["score"]) == (["review"], ["narrow_interval"], [0.5])


def test_ids_in_the_index(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    got = calculator.calculate_frame(Frame({"calls": [1, 2]}, Index(["x", "y"], "customer")), id="customer")
    assert got["outcome"] == ["scored", "scored"]
    assert "customer" not in got.columns  # the index has them
    assert set(sent(server)) == {"x", "y"}


@pytest.mark.parametrize("contact_id", [NAN, None, 5.0, True, ""])
def test_invalid_ids(server: RawServer, calculator: PredictiveScoreCalculator, contact_id: Any) -> None:
    got = calculator.calculate_frame(Frame({"customer": [contact_id], "calls": [1]}), id="customer")
    assert (got["outcome"], got["reasons"]) == (["rejected"], ["invalid_contact"])
    assert server.requests == []


class Doubled(Frame):
    @property
    def columns(self) -> list[str]:
        return [*super().columns, "calls"]


@pytest.mark.parametrize(
    ("frame", "name", "words"),
    [
        (Frame(some_rows()), "client", "neither a column nor an index 'client'"),
        (Frame({"customer": [1], "segment": ["a"]}), "customer", "no column for 'calls'"),
        (Doubled(some_rows()), "customer", "more than one column 'calls'"),
        (Frame({"score": [1], "calls": [1]}), "score", "must not be named 'score'"),
        (Frame({"calls": [1]}), None, "id is None: give the name"),  # the index has that name: 0, 1, 2, …
        ([{"customer": 1}], "customer", "DataFrame, not list"),
    ],
)
def test_invalid_frames(
    server: RawServer, calculator: PredictiveScoreCalculator, frame: Any, name: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        calculator.calculate_frame(frame, id=name)
    assert server.requests == []


class NoNewColumns(Frame):
    """As a frame of dask or pyspark: its columns can be read, and lists are no columns to it."""

    def __getitem__(self, name: Any) -> Any:
        return NoNewColumns(self._columns, self.index) if isinstance(name, list) else super().__getitem__(name)

    def __setitem__(self, name: str, values: list[Any]) -> None:
        raise TypeError(name)

    def copy(self) -> Frame:
        return self


def test_a_frame_that_cannot_store_results_is_not_billed(
    server: RawServer, calculator: PredictiveScoreCalculator
) -> None:
    with pytest.raises(TypeError):
        calculator.calculate_frame(NoNewColumns(some_rows()), id="customer")
    assert server.requests == []


def test_a_frame_instead_of_contacts(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    with pytest.raises(InputError, match="use calculate_frame"):
        calculator.calculate(Frame(some_rows()))  # type: ignore[arg-type]
    assert server.requests == []


def test_results_finished_before_an_outage(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    server.respond(lambda request, conn: conn.sendall(results(request)), answer(503))
    with pytest.raises(ApiUnavailable) as caught:
        calculator.calculate_frame(Frame({"customer": list(range(10, 1510)), "calls": [1] * 1500}), id="customer")
    got: Any = caught.value.partial
    assert got["outcome"] == ["scored"] * 1000 + [None] * 500
    assert "1000 contacts were finished" in caught.value.__notes__[0]


def test_records_with_nan(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    outcome = calculator.calculate(
        {"contactId": name, "features": features}
        for name, features in (("a", {"calls": 1.0, "segment": NAN}), ("b", {"calls": NAN, "segment": "x"}))
    )
    assert [one.imputed_features for one in outcome.scored] == [("segment",)]
    assert [one.reasons for one in outcome.rejected] == [("missing_feature",)]
    assert sent(server) == {"a": {"calls": 1.0, "segment": "default"}}


# --- pandas itself


def test_pandas(server: RawServer, calculator: PredictiveScoreCalculator, tmp_path: Path) -> None:
    pandas = import_module("pandas")
    (tmp_path / "contacts.csv").write_text("customer,calls,segment,name\n5,1,a,x\n6,,b,y\n7,3,c,z\n8,4,,w\n")
    frame = pandas.read_csv(tmp_path / "contacts.csv", index_col="name").sort_values("calls", ascending=False)
    before = frame.copy()
    got = calculator.calculate_frame(frame, id="customer")
    assert isinstance(got, pandas.DataFrame)
    assert got.index.equals(frame.index)
    assert got["customer"].to_list() == [8, 7, 5, 6]
    assert got["outcome"].to_list() == ["scored", "rejected", "scored", "rejected"]
    assert got["score"].dtype == "float64"
    assert got["score"].isna().to_list() == [False, True, False, True]
    assert sent(server)["8"] == {"calls": 4, "segment": "default"}
    pandas.testing.assert_frame_equal(frame, before)
    joined = frame.assign(score=got["score"])
    assert joined.loc["x", "score"] == 0.5
    twice = pandas.concat([frame, frame])
    assert calculator.calculate_frame(twice, id="customer").index.equals(twice.index)
    by_index = calculator.calculate_frame(frame.set_index("customer"), id="customer")
    assert by_index.loc[8, "outcome"] == "scored"
    assert calculator.calculate_frame(frame.head(0), id="customer").empty
    levels = frame.set_index(["segment", "customer"], append=True)[["calls"]]
    assert calculator.calculate_frame(levels, id="customer")["outcome"].to_list()[0] == "scored"
    contacts = frame.apply(lambda row: {"contactId": f"c-{row['customer']}", "features": row[EXPECTED]}, axis=1)
    assert [one.contact_id for one in calculator.calculate(contacts).scored] == ["c-8", "c-7", "c-5"]
