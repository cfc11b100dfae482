"""The dashboard and the rules: their expressions, and the metrics in them that no service exports."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker_harness import Answer

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "stream-scorer.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "stream-scorer.json"

# Not exported by the services: Prometheus adds them to everything that it scrapes.
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"job", "instance"}
# Exported from the first event on, since a zero would need its labels. The rules count a series that is new.
FROM_THE_FIRST_EVENT = {
    "stream_scorer_refusals_over_limit_total": {
        "reason": {"refused_by_api"},
        "status": {"400"},
        "model_version": {""},
        "outcome": {"held", "rejected"},
    },
    "stream_scorer_callbacks_campaign_blocked": {
        "campaign_id": {"spring"},
        "target": {"webhook https://x"},
        "status": {"open", "switched_off"},
        "http_response_status_code": {"404"},
        "remedy": {"check the path"},
    },
}

_TOKEN = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*")|(?P<range>\[[^]]+])|(?P<offset>offset\s+\d+[smhdw])|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_:][\w:]*)
    |(?P<sign>=~|!~|!=|==|>=|<=|[-+*/<>=(){},])|(?P<space>\s+)""",
    re.VERBOSE,
)
_OPERATORS = {"and", "or", "unless"}
_GROUPING = {"by", "without", "on", "ignoring"}


@dataclass(slots=True)
class Selector:
    """A metric that an expression reads: its matchers, and the labels that are to be left when it was summed up."""

    metric: str
    values: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    kept: set[str] = field(default_factory=set)

    @property
    def labels(self) -> set[str]:
        return {*self.values, *self.kept}


class Expression:
    """Parser of the subset of PromQL that we use; anything else is an error, so that no metric is missed.

    Grouping precedes its operand, ``sum by (a) (b)``, and applies to everything in the parentheses after it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.selectors: list[Selector] = []
        self.grouped: set[str] = set()
        self._tokens = list(_tokens(text))
        self._at = 0
        self._read(set())
        assert self._at == len(self._tokens), f"a parenthesis too many: {text}"

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _read(self, kept: set[str]) -> None:
        """Read to the end of the parentheses or of the expression, whose metrics keep these labels."""
        waiting: set[str] = set()
        while self._peek() not in ("", ")"):
            token = self._next()
            if token == "(":
                self._read(kept | waiting)
                assert self._next() == ")", self.text
                waiting = set()
            elif token in _GROUPING:
                waiting = set(self._names())
                self.grouped |= waiting
                if token == "on":  # of what stands on both sides of it
                    for selector in self.selectors[-1:]:
                        selector.kept |= waiting
                    kept = kept | waiting
                    waiting = set()
            elif re.match(r"[A-Za-z_:]", token) and token not in _OPERATORS and self._peek() not in {"(", *_GROUPING}:
                self.selectors.append(self._selector(token, kept))

    def _names(self) -> Iterator[str]:
        assert self._next() == "(", self.text
        while (token := self._next()) != ")":
            if token != ",":
                yield token

    def _selector(self, metric: str, kept: set[str]) -> Selector:
        selector = Selector(metric, kept=set(kept))
        if self._peek() == "{":
            self._next()
            while (label := self._next()) != "}":
                if label == ",":
                    continue
                operator, value = self._next(), self._next().strip('"')
                plain = operator in {"=", "=~"} and re.fullmatch(r"[\w|-]+", value)
                selector.values[label] |= set(value.split("|")) if plain else set()
        return selector


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match, f"no PromQL of ours at {text[at : at + 20]!r}"
        at = match.end()
        if match.lastgroup not in {"space", "range", "offset"}:
            yield match[0]


def rules() -> list[dict[str, Any]]:
    """Every rule, recording and alerting."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Every panel of the dashboard, rows left out."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, Expression]:
    """All expressions, by where they stand."""
    found = {f"rule {rule.get('alert') or rule['record']}": Expression(rule["expr"]) for rule in rules()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = Expression(target["expr"])
    return found


def duplicate_series(exposition: str) -> list[str]:
    """Series that a text of ``/metrics`` has more than once: Prometheus takes the first, which may be the wrong one."""
    series = [line.rsplit(" ", 1)[0] for line in exposition.splitlines() if line and not line.startswith("#")]
    return sorted(name for name, times in Counter(series).items() if times > 1)


def missing_series(expositions: Iterable[str]) -> list[str]:
    """Return the metrics, labels and label values of dashboard and rules that none of these expositions has."""
    exported: dict[str, dict[str, set[str]]] = {name: {} for name in OF_PROMETHEUS}
    exported |= {name: {label: set(known) for label, known in of.items()} for name, of in FROM_THE_FIRST_EVENT.items()}
    for exposition in expositions:
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                labels = exported.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    for rule in rules():
        if "record" in rule:
            exported[rule["record"]] = {label: set() for label in Expression(rule["expr"]).grouped}
    missing = []
    for where, expression in expressions().items():
        for selector in expression.selectors:
            if selector.metric not in exported:
                missing.append(f"{where}: {selector.metric}")
                continue
            labels = exported[selector.metric]
            own = selector.labels - LABELS_OF_PROMETHEUS
            missing += [f"{where}: {selector.metric} has no label {label}" for label in sorted(own - labels.keys())]
            missing += [
                f"{where}: {selector.metric} has no {label}={value}"
                for label in sorted(own & labels.keys())
                for value in sorted(selector.values[label] - labels[label] if label in selector.values else ())
            ]
    return missing


def assert_exported(*answers: Answer | None) -> None:
    """Assert that the responses to ``/metrics`` have all that dashboard and rules use, and each series once."""
    texts = [answer.text for answer in answers if answer is not None]
    assert len(texts) == len(answers)
    assert missing_series(texts) == []
    assert [name for text in texts for name in duplicate_series(text)] == []
