from __future__ import annotations

import json
import os
import tomllib
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from stream_scorer.errors import SettingsError
from stream_scorer.genesys.regions import REGIONS
from stream_scorer.settings import ScoringSettings, Settings, load, load_settings, service_link_notes
from stream_scorer.settings.key_catalog import SECRETS, SECTIONS
from stream_scorer.settings.names import variable
from stream_scorer.settings.sections import CallbacksSettings, KafkaSettings

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t-value"

# The table of the contract, key by key: a changed name or default has to be changed here, too.
LIST_COLUMNS = (
    *("contact_id", "event_id", "campaign_id", "score", "confidence_lower", "confidence_upper"),
    *("model_id", "model_version", "occurred_at", "scored_at"),
)
DEFAULTS = {
    "kafka": {
        "bootstrap_servers": "127.0.0.1:9092",
        "group_id": "stream-scorer",
        "start_from": "earliest",
        "allow_new_group": False,
        "properties": {},
    },
    "topics": {
        "features": "contact-features",
        "features_retry": "contact-features-retry",
        "scores": "contact-scores",
        "review": "contact-scores-review",
        "rejected": "contact-features-rejected",
        "audit": "scoring-audit",
        "callbacks": "campaign-callbacks",
        "callbacks_retry": "campaign-callbacks-retry",
        "callbacks_rejected": "campaign-callbacks-rejected",
        "receipts": "campaign-receipts",
        "decisions": "scoring-decisions",
    },
    "schema_registry": {"url": None, "properties": {}},
    "genesys": {
        "region": "mypurecloud.com",
        "base_url": None,
        "login_url": None,
        "client_id": None,
        "client_secret": None,
        "model_id": None,
        "model_version": None,
        "timeout_s": 30,
        "token_timeout_s": 15,
        "max_retries": 3,
        "backoff_base_s": 2.0,
        "max_backoff_s": 60,
        "max_retry_after_s": 900,
        "probe_interval_s": 10,
        "requests_per_minute": 300,
    },
    "scoring": {
        "max_contacts": 1000,
        "max_request_bytes": 512000,
        "linger_ms": 200,
        "max_in_flight": 8,
        "max_uncommitted": 16000,
        "commit_interval_ms": 200,
        "revoke_wait_s": 5,
        "shutdown_timeout_s": 25,
        "max_contacts_per_minute": None,
        "max_event_age_s": None,
        "retry_delays_s": (60, 600, 3600),
        "max_refused_share": 0.01,
    },
    "model": {"max_features": 50},
    "verification": {"min_interval_width": 0.15, "max_interval_width": None},
    "audit": {"retention_days": 400},
    "callbacks": {
        "target": "webhook",
        "url": None,
        "threshold": 0.75,
        "secret": None,
        "secret_previous": None,
        "group_id": None,
        "max_contacts": 75,
        "linger_ms": 200,
        "retry_delays_s": (60, 600, 3600, 21600),
        "max_per_minute": None,
        "max_age_s": 86400,
        "timeout_s": 15,
        "probe_interval_s": 10,
        "allow_http": False,
        "contact_list_id": None,
        "contact_lists": {},
        "columns": {name: name for name in LIST_COLUMNS},
        "contact_id": "derived",
        "requeue": "never",
        "admin_port": 9465,
    },
    "admin": {"host": "127.0.0.1", "port": 9464, "max_unexplained_wait_s": 300.0},
    "log": {"level": "info", "format": "auto"},
}


def written(folder: Path, text: str) -> Path:
    file = folder / "scorer.toml"
    file.write_text(text)
    return file


def refused(
    environ: dict[str, str] | None = None, *, file: Path | None = None, flags: dict[str, object] | None = None
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(file, flags=flags, environ=environ or {})
    assert SECRET not in str(caught.value)
    assert "pydantic" not in str(caught.value)
    return str(caught.value).splitlines()


def test_keys_and_defaults_are_those_of_the_contract() -> None:
    settings = load_settings(environ={})
    found = {
        section: {key: getattr(getattr(settings, section), key) for key in keys} for section, keys in SECTIONS.items()
    }
    assert found["kafka"].pop("instance_id")
    assert list(found["model"].pop("features")) == [
        "previous_calls",
        "avg_handle_time",
        "last_contact_days",
        "segment_id",
    ]
    assert found == DEFAULTS
    assert settings.callbacks_group_id == "stream-scorer-callbacks"


def test_every_key_can_be_set_in_the_environment_under_its_derived_name() -> None:
    assert variable(("kafka", "bootstrap_servers")) == "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS"
    assert variable(("schema_registry", "url")) == "STREAM_SCORER_SCHEMA_REGISTRY__URL"
    texts = {
        "STREAM_SCORER_KAFKA__PROPERTIES": '{"a": 1}',
        "STREAM_SCORER_SCHEMA_REGISTRY__PROPERTIES": '{"a": 1}',
        "STREAM_SCORER_MODEL__FEATURES": '{"a": {"type": "integer"}}',
        "STREAM_SCORER_CALLBACKS__RETRY_DELAYS_S": "[1, 2]",
        "STREAM_SCORER_CALLBACKS__CONTACT_LISTS": '{"spring": "list"}',
        "STREAM_SCORER_CALLBACKS__COLUMNS": '{"phone": "attributes.phone", "at": "scored_at"}',
        "STREAM_SCORER_CALLBACKS__CONTACT_ID": "attributes.id",
        "STREAM_SCORER_CALLBACKS__REQUEUE": "newer_score",
        "STREAM_SCORER_KAFKA__START_FROM": "latest",
        "STREAM_SCORER_KAFKA__ALLOW_NEW_GROUP": "true",
        "STREAM_SCORER_CALLBACKS__TARGET": "log",
        "STREAM_SCORER_CALLBACKS__GROUP_ID": "campaigns",
        "STREAM_SCORER_CALLBACKS__ALLOW_HTTP": "true",
        "STREAM_SCORER_LOG__LEVEL": "debug",
        "STREAM_SCORER_LOG__FORMAT": "json",
        "STREAM_SCORER_VERIFICATION__MAX_INTERVAL_WIDTH": "0.9",
        "STREAM_SCORER_VERIFICATION__MIN_INTERVAL_WIDTH": "0.1",
        "STREAM_SCORER_CALLBACKS__THRESHOLD": "0.5",
        "STREAM_SCORER_SCORING__MAX_CONTACTS": "900",
        "STREAM_SCORER_SCORING__RETRY_DELAYS_S": "[1, 2]",
        "STREAM_SCORER_SCORING__MAX_REFUSED_SHARE": "0.5",
        "STREAM_SCORER_SCORING__MAX_REQUEST_BYTES": "4000",
        "STREAM_SCORER_SCORING__MAX_UNCOMMITTED": "9000",
        "STREAM_SCORER_GENESYS__MAX_BACKOFF_S": "90",
        "STREAM_SCORER_GENESYS__REGION": "mypurecloud.ie",
    }
    for section, keys in SECTIONS.items():
        for key in keys:
            texts.setdefault(
                variable((section, key)),
                "http://x" if key.endswith("url") else f"t-{key}" if section == "topics" else "7",
            )
    origins = load(environ=texts).origins
    set_keys = {path[:2] for path in origins}
    assert set_keys == {(section, key) for section, keys in SECTIONS.items() for key in keys}


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    file = written(tmp_path, "[scoring]\nlinger_ms = 1\nmax_contacts = 10\nmax_in_flight = 2\n")
    environ = {"STREAM_SCORER_SCORING__LINGER_MS": "2", "STREAM_SCORER_SCORING__MAX_IN_FLIGHT": "3"}
    loaded = load(file, environ=environ, flags={"scoring.linger_ms": 3, "scoring.max_uncommitted": None})
    scoring = loaded.settings.scoring
    assert (scoring.max_contacts, scoring.max_in_flight, scoring.linger_ms) == (10, 3, 3)
    assert scoring.max_uncommitted == 16000
    assert loaded.origins["scoring", "max_contacts"] == str(file)
    assert loaded.origins["scoring", "max_in_flight"] == "STREAM_SCORER_SCORING__MAX_IN_FLIGHT"
    assert loaded.origins["scoring", "linger_ms"] == "the command line"


def test_the_platforms_variables_stand_between_file_and_ours(tmp_path: Path) -> None:
    file = written(tmp_path, '[genesys]\nclient_id = "file"\nmodel_id = "file"\n')
    environ = {
        "GENESYS_CLIENT_ID": "platform",
        "GENESYS_MODEL_ID": "platform",
        "GENESYS_CLIENT_SECRET": SECRET,
        "STREAM_SCORER_GENESYS__MODEL_ID": "ours",
    }
    genesys = load_settings(file, environ=environ).genesys
    assert (genesys.client_id, genesys.model_id) == ("platform", "ours")
    assert genesys.client_secret is not None
    assert genesys.client_secret.get_secret_value() == SECRET


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    file = written(tmp_path, '[genesys]\nmodel_version = "3"\n')
    environ = {"STREAM_SCORER_GENESYS__MODEL_VERSION": "", "GENESYS_CLIENT_ID": ""}
    genesys = load_settings(file, environ=environ).genesys
    assert (genesys.model_version, genesys.client_id) == ("3", None)


def test_tables_of_free_names_are_merged_name_by_name(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '[kafka.properties]\n"sasl.username" = "u"\nretries = 3\n'
        '[model.features]\na = {type = "integer", minimum = 5}\n',
    )
    environ = {
        "STREAM_SCORER_KAFKA__PROPERTIES": json.dumps({"sasl.password": SECRET, "retries": 4}),
        "STREAM_SCORER_MODEL__FEATURES": '{"a": {"type": "string"}, "b": {"type": "number", "impute": 1.5}}',
    }
    settings = load_settings(file, environ=environ)
    assert settings.kafka.properties == {"sasl.username": "u", "sasl.password": SECRET, "retries": 4}
    features = settings.model.features
    # A feature is replaced as a whole: half of one definition and half of another would not be intended.
    assert [(f.name, f.type, f.minimum, f.impute) for f in features.values()] == [
        ("a", "string", None, None),
        ("b", "number", None, 1.5),
    ]
    assert not settings.model.is_default
    assert load_settings(environ={}).model.is_default


# --- unknown names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("STREAM_SCORER_KAFKA_GROUP_ID", "STREAM_SCORER_KAFKA__GROUP_ID"),
        ("STREAM_SCORER_SCORNG__MAX_CONTACTS", "STREAM_SCORER_SCORING__MAX_CONTACTS"),
        ("STREAM_SCORER_GENESYS__MODELID", "STREAM_SCORER_GENESYS__MODEL_ID"),
        ("stream_scorer_admin__port", "STREAM_SCORER_ADMIN__PORT"),
        ("STREAM_SCORER_GENESYS__CLIENT_SECRET_FIL", "STREAM_SCORER_GENESYS__CLIENT_SECRET_FILE"),
    ],
)
def test_an_unknown_variable_is_an_error_with_a_suggestion(name: str, meant: str) -> None:
    assert refused({name: SECRET}) == [f"unknown environment variable {name}; did you mean {meant}?"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[verificaton]\na = 1", "unknown section 'verificaton' in {file}; did you mean verification?"),
        (
            'group_id = "x"',
            "unknown section 'group_id' in {file}; did you mean kafka.group_id or callbacks.group_id?",
        ),
        ("[scoring]\nlinger = 1", "unknown key scoring.linger in {file}; did you mean linger_ms?"),
        (
            "[kafka]\nmax_in_flight = 1",
            "unknown key kafka.max_in_flight in {file}; did you mean scoring.max_in_flight?",
        ),
        ("[admin]\nxyz = 1", "unknown key admin.xyz in {file}; there are host, port, max_unexplained_wait_s"),
        ("admin = 3", "admin in {file} is a section: write [admin] and its keys below"),
        (
            '[model.features.age]\ntyp = "integer"',
            "model.features.age has no key 'typ'; did you mean type? (from {file})",
        ),
    ],
)
def test_an_unknown_key_in_the_file_is_an_error_with_a_suggestion(tmp_path: Path, text: str, line: str) -> None:
    file = written(tmp_path, text)
    assert refused(file=file) == [line.format(file=file)]


def test_an_unknown_flag_is_an_error() -> None:
    assert refused(flags={"kafka.start": "latest"}) == ["unknown setting kafka.start; did you mean kafka.start_from?"]


# --- wrong values


@pytest.mark.parametrize(
    ("key", "text", "line"),
    [
        ("scoring.max_contacts", "1001", "must be at most 1000, not '1001'"),
        ("scoring.max_contacts", "0", "must be at least 1, not '0'"),
        ("scoring.max_request_bytes", "512001", "must be at most 512000, not '512001'"),
        ("scoring.max_in_flight", "many", "must be a whole number, not 'many'"),
        ("scoring.max_in_flight", "1.5", "must be a whole number, not '1.5'"),
        ("genesys.timeout_s", "nan", "must be a finite number, not 'nan'"),
        ("genesys.timeout_s", "-1", "must be greater than 0, not '-1'"),
        ("callbacks.threshold", "1.1", "must be at most 1, not '1.1'"),
        ("callbacks.target", "hook", "must be one of 'webhook', 'genesys-outbound' or 'log', not 'hook'"),
        ("callbacks.allow_http", "maybe", "must be true or false, not 'maybe'"),
        ("callbacks.retry_delays_s", "[]", "must not be empty"),
        ("scoring.retry_delays_s", "[]", "must not be empty"),
        ("scoring.max_refused_share", "0", "must be greater than 0, not '0'"),
        ("scoring.max_refused_share", "1.1", "must be at most 1, not '1.1'"),
        ("callbacks.retry_delays_s", '["x"]', "must be a number, not 'x'"),
        ("admin.port", "65536", "must be at most 65535, not '65536'"),
        ("kafka.properties", "3", "must be a table"),
        (
            "kafka.group_id",
            " x ",
            "must be text that is not empty, has no control characters and no spaces around it, not ' x '",
        ),
        ("topics.audit", "a b", "must be a topic name: up to 240 letters, digits, '.', '_' and '-', not 'a b'"),
        ("genesys.base_url", "ftp://x", "must be a URL that begins with http:// or https://"),
        *(
            (
                "genesys.base_url",
                f"http://x{end}",
                "must be a URL without blanks, line ends and other characters that are not printed",
            )
            for end in (" ", "\r", "\n", "\ufeff")
        ),
        ("genesys.base_url", f"https://u:{SECRET}@x", "must be a plain URL, without credentials, query or fragment"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_remedy_and_origin(key: str, text: str, line: str) -> None:
    name = variable(tuple(key.split(".")))
    assert refused({name: text}) == [f"{key} {line} (from {name})"]


def test_a_boolean_is_no_number(tmp_path: Path) -> None:
    file = written(tmp_path, "[admin]\nport = true\n")
    assert refused(file=file) == [f"admin.port must be a number, not True (from {file})"]


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, "[scoring]\nbogus = 1\nlinger_ms = -1\n")
    lines = refused({"STREAM_SCORER_ADMIN__PORT": "x", "STREAM_SCORER_X": "1"}, file=file)
    assert len(lines) == 4
    assert {line.split()[0] for line in lines} == {"unknown", "scoring.linger_ms", "admin.port"}


def test_a_property_with_a_wrong_value_is_named_and_its_value_is_not_shown(tmp_path: Path) -> None:
    file = written(tmp_path, f'[kafka.properties]\n"sasl.password" = ["{SECRET}"]\n')
    assert refused(file=file) == [
        f"kafka.properties.sasl.password must be text, a number, true or false (from {file})",
    ]


LINKS = {
    "STREAM_SCORER_PORT": "tcp://10.0.0.1:80",
    "STREAM_SCORER_SERVICE_HOST": "10.0.0.1",
    "STREAM_SCORER_SERVICE_PORT": "80",
    "STREAM_SCORER_SERVICE_PORT_HTTP_METRICS": "80",
    "STREAM_SCORER_PORT_80_TCP": "tcp://10.0.0.1:80",
    "STREAM_SCORER_PORT_80_TCP_PROTO": "tcp",
    "STREAM_SCORER_PORT_80_TCP_PORT": "80",
    "STREAM_SCORER_PORT_80_TCP_ADDR": "10.0.0.1",
    "STREAM_SCORER_CALLBACKS_PORT": "tcp://[fd00::1]:9465",
    "STREAM_SCORER_CALLBACKS_SERVICE_HOST": "10.0.0.2",
    "STREAM_SCORER_ADMIN_PORT": "udp://10.0.0.3:9464",
}


def test_service_links_of_kubernetes_are_no_settings() -> None:
    environ = {**LINKS, "STREAM_SCORER_ADMIN__PORT": "9999"}
    assert load_settings(environ=environ).admin.port == 9999
    (note,) = service_link_notes(environ)
    assert note.startswith(f"STREAM_SCORER_ADMIN_PORT and {len(LINKS) - 1} more in the environment: ignored")
    assert service_link_notes({"STREAM_SCORER_ADMIN__PORT": "9999"}) == ()


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("STREAM_SCORER_ADMIN_PORT", "9464", "STREAM_SCORER_ADMIN__PORT"),
        ("STREAM_SCORER_CALLBACKS_ADMIN_PORT", "9465", "STREAM_SCORER_CALLBACKS__ADMIN_PORT"),
        ("STREAM_SCORER_ADMIN_HOST", "10.0.0.1", "STREAM_SCORER_ADMIN__HOST"),
    ],
)
def test_a_forgotten_underscore_is_no_service_link(name: str, value: str, meant: str) -> None:
    assert refused({name: value}) == [f"unknown environment variable {name}; did you mean {meant}?"]
    assert service_link_notes({name: value}) == ()


def test_broken_json_in_a_variable_shows_how_to_write_it() -> None:
    (line,) = refused({"STREAM_SCORER_KAFKA__PROPERTIES": "{" + SECRET})
    assert line.startswith("kafka.properties in STREAM_SCORER_KAFKA__PROPERTIES is not valid JSON:")
    assert line.endswith('write it as in {"security.protocol": "SSL"}')


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert refused(file=tmp_path / "none.toml") == [
        f"cannot read the settings file {tmp_path / 'none.toml'}: No such file or directory"
    ]
    (line,) = refused(file=written(tmp_path, "[kafka\n"))
    assert "scorer.toml is not valid TOML" in line
    assert "line 1" in line


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"[genesys]\nclient_secret = {SECRET}\n", "at line 2, column 17"),
        (f'[genesys]\nclient_secret = "{SECRET}\n', "at line 2, column "),
        (f'[genesys]\n"{SECRET}" = 1\n"{SECRET}" = 2\n', "at line 3, column "),
        (f'["{SECRET}"]\n["{SECRET}"]\n', "at line 2, column "),
        ("[genesys]\nclient_id = [", "at the end"),
        ("a = " + "[" * 20_000, ": it is nested too deep"),
    ],
)
def test_a_file_that_is_no_toml_is_not_quoted(tmp_path: Path, text: str, place: str) -> None:
    (line,) = refused(file=written(tmp_path, text))
    assert f"scorer.toml is not valid TOML{place if place.startswith(':') else ' ' + place}" in line
    assert SECRET not in line


@pytest.mark.parametrize("text", ["earliest", "latest", "2030-01-31T06:00:00Z", "2030-01-31T06:00:00+01:00"])
def test_start_from(text: str) -> None:
    assert load_settings(environ={"STREAM_SCORER_KAFKA__START_FROM": text}).kafka.start_from == text


@pytest.mark.parametrize("text", ["yesterday", "2030-01-31T06:00:00", "2030-13-01T00:00:00Z"])
def test_start_from_needs_a_time_with_a_zone(text: str) -> None:
    (line,) = refused({"STREAM_SCORER_KAFKA__START_FROM": text})
    assert line.startswith("kafka.start_from must be earliest, latest or an ISO time with a zone")


def test_start_from_may_be_a_time_of_toml(tmp_path: Path) -> None:
    file = written(tmp_path, "[kafka]\nstart_from = 2030-01-31T06:00:00Z\n")
    assert load_settings(file, environ={}).kafka.start_at_ms == 1896069600000


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a:1", True),
        ("a:1,b:2", True),
        ("a:1, b:2", True),
        ("broker", True),
        ("[::1]:9092", True),
        ("SSL://a:9093", True),
        ("sasl_ssl://a:9093,PLAINTEXT://b:1", True),
        ("http://a:9092", False),
        ("kafka://a:9092", False),
        ("a:0", False),
        ("a:99999", False),
        ("a b:1", False),
        (",a:1", False),
    ],
)
def test_bootstrap_servers(text: str, good: bool) -> None:
    name = "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS"
    if good:
        assert load_settings(environ={name: text}).kafka.bootstrap_servers == text.replace(" ", "")
    else:
        assert refused({name: text})[0].startswith("kafka.bootstrap_servers must be host:port")


@pytest.mark.parametrize("value", ['""', "5", '["secret"]', "{a = 1}", "true"])
@pytest.mark.parametrize("key", ["genesys.client_secret_file", "kafka.properties_file"])
def test_a_path_that_is_none_is_named_with_its_key(tmp_path: Path, key: str, value: str) -> None:
    section, name = key.split(".")
    file = written(tmp_path, f"[{section}]\n{name} = {value}\n")
    with pytest.raises(SettingsError, match=rf"^{key} in .*\.toml must be the path of a file$"):
        load_settings(file, environ={})


# --- settings that cannot work together


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[scoring]\nmax_uncommitted = 999", "scoring.max_uncommitted (999) is less than scoring.max_contacts (1000)"),
        ("[genesys]\nbackoff_base_s = 61", "genesys.backoff_base_s (61) is longer than genesys.max_backoff_s (60)"),
        ("[verification]\nmax_interval_width = 0.15", "every score would go to review"),
        ("[model]\nmax_features = 3", "model.max_features (3) is less than the 4 features"),
        ('[topics]\nscores = "contact-features"', "topics.scores and topics.features are both 'contact-features'"),
        ('[callbacks]\ngroup_id = "stream-scorer"', "callbacks.group_id and kafka.group_id are both 'stream-scorer'"),
        ('[callbacks]\ngroup_id = "a"\n[kafka]\ngroup_id = "a-delivery"', "the group in which callbacks are delivered"),
        ("[callbacks]\nretry_delays_s = [60, 30]", "callbacks.retry_delays_s must be in ascending order"),
        ('[callbacks]\ncolumns = {phone = "phone"}', "callbacks.columns.phone must be attributes.NAME or a field of a"),
        ('[callbacks]\ncolumns = {phone = "attributes."}', "callbacks.columns.phone must be attributes.NAME or"),
        ("[callbacks]\ncolumns = {}", "callbacks.columns must not be empty"),
        (
            f"[callbacks]\ncolumns = {{{', '.join(f'c{n} = {chr(34)}score{chr(34)}' for n in range(51))}}}",
            "callbacks.columns has 51 columns, and a contact list at most 50",
        ),
        ('[callbacks]\ncontact_id = "event_id"', "callbacks.contact_id must be derived, contact_id or attributes.NAME"),
        (
            '[callbacks]\nrequeue = "newer_score"\ncolumns = {phone = "attributes.phone"}',
            'callbacks.requeue = "newer_score" needs a column that is filled from scored_at',
        ),
        ("[scoring]\nretry_delays_s = [60, 30]", "scoring.retry_delays_s must be in ascending order"),
        (
            '[topics]\nscores = "contact-features-retry-9"',
            "topics.scores is 'contact-features-retry-9', which is a retry",
        ),
        ('[topics]\nfeatures = "contact-features-retry-1"', "topics.features is 'contact-features-retry-1', which is"),
        (
            '[topics]\nfeatures_retry = "campaign-callbacks-retry"',
            "both have the retry topic 'campaign-callbacks-retry-1'",
        ),
        ('[topics]\ndecisions = "contact-features-retry-2"', "which is a retry topic of topics.features_retry"),
        ('[topics]\ndecisions = "scoring-audit"', "topics.decisions and topics.audit are both 'scoring-audit'"),
        ('[topics]\nreceipts = "contact-scores"', "topics.receipts and topics.scores are both 'contact-scores'"),
        ('[topics]\ncallbacks = "contact-scores"', "topics.callbacks and topics.scores are both 'contact-scores'"),
        ('[topics]\ncallbacks_rejected = "campaign-callbacks"', "are both 'campaign-callbacks'"),
        ('[topics]\nreceipts = "campaign-callbacks-retry-4"', "topics.receipts and topics.callbacks_retry are both"),
        ('[topics]\nscores = "campaign-callbacks-retry-1"', "is a retry topic of topics.callbacks_retry"),
        ("[model]\nfeatures = {}", "model.features is empty"),
        ("[model]\nfeatures = 3", "model.features must be a table of features"),
        ("[model.features]\na = 3", "model.features.a must be a table"),
        ("[model.features.a]\nimpute = 3", "model.features.a.type is missing"),
        ('[model.features.a]\ntype = "date"', "model.features.a.type is 'date'"),
        ('[model.features.a]\ntype = "integer"\nimpute = "x"', "model.features.a.impute: 'x' is not of type integer"),
        ('[model.features.a]\ntype = "integer"\nimpute = 5\nmaximum = 4', "breaks minimum, maximum or choices"),
        ('[model.features.a]\ntype = "string"\nimpute = "z"\nchoices = ["x"]', "breaks minimum, maximum or choices"),
        ('[model.features.a]\ntype = "number"\nimpute = nan', "model.features.a.impute: nan"),
        ('[model.features.a]\ntype = "number"\nminimum = 2\nmaximum = 1', "minimum 2 is greater than maximum 1"),
        ('[model.features.a]\ntype = "string"\nminimum = 2', "only an integer or a number has one"),
        ('[model.features.a]\ntype = "string"\nchoices = "x"', "model.features.a.choices must be a list"),
        ('[model.features.a]\ntype = "string"\nimpute = ["x"]', "must be numbers, booleans or strings"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, text: str, part: str) -> None:
    file = written(tmp_path, text)
    (line,) = refused(file=file)
    assert part in line
    assert line.endswith(f"(from {file})")


def test_several_settings_may_name_one_topic() -> None:
    topics = load_settings(
        environ={"STREAM_SCORER_TOPICS__REVIEW": "contact-scores", "STREAM_SCORER_TOPICS__AUDIT": "contact-scores"}
    ).topics
    assert topics.scoring == ("contact-features", "contact-scores", "contact-features-rejected")


def test_the_topics_of_the_retry_tiers_are_numbered() -> None:
    delays = {"SCORING__RETRY_DELAYS_S": "[1, 2, 3]", "CALLBACKS__RETRY_DELAYS_S": "[1, 2]"}
    names = load_settings(environ={f"STREAM_SCORER_{key}": value for key, value in delays.items()}).all_topics
    contacts = [f"contact-features-retry-{level}" for level in (1, 2, 3)]
    assert [name for name in names if "retry" in name] == [
        *contacts,
        "campaign-callbacks-retry-1",
        "campaign-callbacks-retry-2",
    ]
    assert len(names) == len(set(names)) == 14


def test_there_are_at_most_nine_retry_topics() -> None:
    (line,) = refused({"STREAM_SCORER_SCORING__RETRY_DELAYS_S": "[1,2,3,4,5,6,7,8,9,10]"})
    assert line.startswith("scoring.retry_delays_s must have at most 9 items")


# --- the API's addresses


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_gives_both_addresses(region: str) -> None:
    genesys = load_settings(environ={"STREAM_SCORER_GENESYS__REGION": region}).genesys
    assert (genesys.api_url, genesys.token_url) == (f"https://api.{region}", f"https://login.{region}")


def test_an_unknown_region_names_the_known_ones() -> None:
    (line,) = refused({"STREAM_SCORER_GENESYS__REGION": "mypurecloud.xx"})
    assert "mypurecloud.ie" in line
    assert "genesys.base_url" in line


def test_a_base_url_frees_the_region_and_takes_the_login_along() -> None:
    environ = {"STREAM_SCORER_GENESYS__REGION": "lab", "STREAM_SCORER_GENESYS__BASE_URL": "http://127.0.0.1:8090/"}
    genesys = load_settings(environ=environ).genesys
    # The secret for a simulator must not go to the platform.
    assert (genesys.api_url, genesys.token_url) == ("http://127.0.0.1:8090", "http://127.0.0.1:8090")
    environ["STREAM_SCORER_GENESYS__LOGIN_URL"] = "http://127.0.0.1:8091"
    assert load_settings(environ=environ).genesys.token_url == "http://127.0.0.1:8091"


# --- secrets


def test_secrets_are_the_ones_the_sections_declare() -> None:
    declared = {
        (section, key)
        for section, info in Settings.model_fields.items()
        for key, field in info.annotation.model_fields.items()  # type: ignore[union-attr]
        if "SecretStr" in str(field.annotation)
    }
    assert declared == SECRETS


def test_a_secret_shows_nowhere(tmp_path: Path) -> None:
    file = written(tmp_path, f'[callbacks]\nsecret = "{SECRET}"\n[kafka.properties]\n"sasl.password" = "{SECRET}"\n')
    settings = load_settings(file, environ={"GENESYS_CLIENT_SECRET": SECRET})
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert settings.genesys.client_secret is not None
    assert settings.genesys.client_secret.get_secret_value() == SECRET


def test_a_secret_is_never_a_flag() -> None:
    assert refused(flags={"genesys.client_secret": SECRET}) == [
        "genesys.client_secret is a secret and cannot be a flag: set STREAM_SCORER_GENESYS__CLIENT_SECRET"
    ]


@pytest.mark.parametrize("name", ["STREAM_SCORER_GENESYS__CLIENT_SECRET_FILE", "GENESYS_CLIENT_SECRET_FILE"])
def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    loaded = load(environ={name: str(tmp_path / "secret")})
    assert loaded.settings.genesys.client_secret is not None
    assert loaded.settings.genesys.client_secret.get_secret_value() == SECRET
    assert loaded.origins["genesys", "client_secret"] == f"{tmp_path / 'secret'}, named by {name}"


@pytest.mark.parametrize("name", ["STREAM_SCORER_GENESYS__CLIENT_SECRET_FILE", "GENESYS_CLIENT_SECRET_FILE"])
def test_the_clients_secret_is_read_again_from_its_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / "secret"
    file.write_text("first\n")
    settings = load_settings(environ={name: str(file)})
    assert settings.genesys.read_client_secret() == "first"
    file.write_text("\ufeff second \r\n", "utf-16-le")
    assert settings.genesys.read_client_secret() == "second"
    assert not {"first", "second"} & set(repr(settings).split("'"))
    file.unlink()
    with pytest.raises(SettingsError) as caught:
        settings.genesys.read_client_secret()
    assert str(caught.value) == f"genesys.client_secret: cannot read {file}, named by {name}: No such file or directory"


def test_a_secret_from_a_pipe_is_read_once() -> None:
    """As the shell's ``GENESYS_CLIENT_SECRET_FILE=<(vault read …)`` gives it."""
    reading, writing = os.pipe()
    os.write(writing, b"first\n")
    os.close(writing)
    settings = load_settings(environ={"GENESYS_CLIENT_SECRET_FILE": f"/dev/fd/{reading}"})
    assert [settings.genesys.read_client_secret() for _ in range(2)] == ["first", "first"]
    os.close(reading)


def test_a_secret_file_that_became_no_good_does_not_show_its_content(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first")
    genesys = load_settings(environ={"GENESYS_CLIENT_SECRET_FILE": str(file)}).genesys
    for content, what in (
        (b"\xffhidden", "is not UTF-8 text"),
        (b"hidden" * 20_000, "is larger than 64 kB"),
        (b'"hidden"', "is in quotation marks"),
        (b" \n", "is empty"),
    ):
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=f"named by GENESYS_CLIENT_SECRET_FILE, {what}") as caught:
            genesys.read_client_secret()
        assert "hidden" not in str(caught.value)


def test_a_secret_that_wins_over_a_file_is_not_read_from_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from the file")
    file = written(tmp_path, '[genesys]\nclient_secret_file = "secret"\n')
    assert load_settings(file, environ={}).genesys.read_client_secret() == "from the file"
    genesys = load_settings(file, environ={"GENESYS_CLIENT_SECRET": SECRET}).genesys
    assert genesys.read_client_secret() == SECRET
    with pytest.raises(SettingsError, match=r"genesys\.client_secret is missing"):
        load_settings(environ={}).genesys.read_client_secret()


def test_a_secret_file_named_in_the_settings_file_is_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    file = written(tmp_path, '[callbacks]\nsecret_file = "secret"\n')
    secret = load_settings(file, environ={}).callbacks.secret
    assert secret is not None
    assert secret.get_secret_value() == SECRET


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_files_in_any_encoding_of_unicode(tmp_path: Path, encoding: str) -> None:
    """PowerShell's `>` writes UTF-16, Notepad a byte order mark: such a secret got a 401 from the login service."""
    secret, properties, file = (tmp_path / name for name in ("secret", "kafka.json", "settings.toml"))
    secret.write_bytes(f"{SECRET}\r\n".encode(encoding))
    properties.write_bytes(f'{{"sasl.password": "{SECRET}é"}}\r\n'.encode(encoding))
    file.write_bytes('[genesys]\r\nclient_secret_file = "secret"\r\nmodel_id = "é"\r\n'.encode(encoding))
    settings = load_settings(file, environ={KAFKA_FILE: str(properties)})
    assert settings.genesys.client_secret is not None
    assert settings.genesys.client_secret.get_secret_value() == SECRET
    assert settings.genesys.model_id == "é"
    assert settings.kafka.properties == {"sasl.password": f"{SECRET}é"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", " "),
        ("", "\t\r\n\n"),
        ("  ", ""),
        ("\n", "\n"),
        ("\u00a0", "\u00a0"),
        ("\u200b", "\u200b \u2060"),
        ("", "\0\0"),
    ],
)
def test_blanks_around_a_secret_are_no_part_of_it(tmp_path: Path, before: str, after: str) -> None:
    """`echo secret | base64` in a Kubernetes secret ends with a newline, in a file as in a variable."""
    secret = tmp_path / "secret"
    secret.write_text(f"{before}{SECRET} x{after}")
    sources = [{"GENESYS_CLIENT_SECRET_FILE": str(secret)}]
    if "\0" not in after:
        sources += [{"GENESYS_CLIENT_SECRET": secret.read_text()}]
    for environ in sources:
        found = load_settings(environ=environ).genesys.client_secret
        assert found is not None
        assert found.get_secret_value() == f"{SECRET} x"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f'"{SECRET}"\n', "is in quotation marks: write the secret without them"),
        (f"'{SECRET}'", "is in quotation marks"),
        (f"“{SECRET}”", "is in quotation marks"),
        (f"{SECRET}\n{SECRET}\n", "has several lines: write nothing but the secret"),
        (f"{SECRET}\u2028{SECRET}", "has several lines"),
        (f"{SECRET[:3]}\u200b{SECRET[3:]}", "has a character that is not printed (U+200B): write the secret again"),
        (f"{SECRET[:3]}\ufeff{SECRET[3:]}", "has a character that is not printed (U+FEFF)"),
        (f"{SECRET}\x1b[0m", "has a character that is not printed (U+001B)"),
        # Found here: a file for `docker --env-file`, or a piece of the settings, where the secret alone is meant.
        (f"GENESYS_CLIENT_SECRET={SECRET}\n", "has a name before the secret: write nothing but the secret"),
        (f"export GENESYS_CLIENT_SECRET={SECRET}", "has a name before the secret"),
        (f"client_secret = {SECRET}", "has a name before the secret"),
        (f'{{"clientSecret": "{SECRET}"}}', "has a name before the secret"),
        ("\ufeff", "is empty"),
    ],
)
def test_what_cannot_be_meant_as_a_secret_is_named(tmp_path: Path, content: str, problem: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(content)
    name = "STREAM_SCORER_CALLBACKS__SECRET"
    (line,) = refused({f"{name}_FILE": str(secret)})
    assert line.startswith(f"callbacks.secret: {secret}, named by {name}_FILE, {problem}")
    assert SECRET not in line
    # Found here: `docker --env-file` passes quotation marks on, as part of the value.
    (line,) = refused({name: content})
    assert line.startswith(f"callbacks.secret, given by {name}, {problem}")
    assert SECRET not in line


@pytest.mark.parametrize(
    "secret", ["a", "'", 'it"s', "whsec_c2VjcmV0Og==", "a=b", "secretly=", "SECRETSECRET==", "x y", "é€"]
)
def test_odd_secrets_stay_as_they_are(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "secret"
    file.write_text(secret)
    for environ in ({"GENESYS_CLIENT_SECRET": secret}, {"GENESYS_CLIENT_SECRET_FILE": str(file)}):
        loaded = load(environ=environ)
        assert loaded.settings.genesys.client_secret is not None
        assert loaded.settings.genesys.client_secret.get_secret_value() == secret
    assert loaded.origins["genesys", "client_secret"] == f"{file}, named by GENESYS_CLIENT_SECRET_FILE"


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s\xe9cret")
    assert refused({"GENESYS_CLIENT_SECRET_FILE": str(secret)}) == [
        f"genesys.client_secret: {secret}, named by GENESYS_CLIENT_SECRET_FILE, is not UTF-8 text"
    ]
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load_settings(secret, environ={})


def test_a_secret_file_that_is_no_good_is_one_line(tmp_path: Path) -> None:
    name = "STREAM_SCORER_GENESYS__CLIENT_SECRET_FILE"
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.write_text("\n")
    assert refused({name: str(missing)}) == [
        f"genesys.client_secret: cannot read {missing}, named by {name}: No such file or directory"
    ]
    assert refused({name: str(empty)}) == [f"genesys.client_secret: {empty}, named by {name}, is empty"]
    (line,) = refused({name: str(missing), "STREAM_SCORER_GENESYS__CLIENT_SECRET": SECRET})
    assert "given twice" in line


KAFKA_FILE = "STREAM_SCORER_KAFKA__PROPERTIES_FILE"


def test_properties_with_secrets_may_stand_in_a_file_beside_the_others(tmp_path: Path) -> None:
    secrets = tmp_path / "kafka.json"
    secrets.write_text(f'{{"sasl.password": "{SECRET}"}}\n')
    environ = {KAFKA_FILE: str(secrets), "STREAM_SCORER_KAFKA__PROPERTIES": '{"sasl.username": "scorer"}'}
    loaded = load(environ=environ)
    assert loaded.settings.kafka.properties == {"sasl.username": "scorer", "sasl.password": SECRET}
    assert loaded.origins["kafka", "properties", "sasl.password"] == f"{secrets}, named by {KAFKA_FILE}"
    assert SECRET not in repr(loaded)
    file = written(tmp_path, '[kafka]\nproperties_file = "kafka.json"\nproperties = { "sasl.username" = "s" }\n')
    assert load_settings(file, environ={}).kafka.properties == {"sasl.username": "s", "sasl.password": SECRET}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"sasl.password={SECRET}", "is no JSON object"),
        (f'["{SECRET}"]', "is no JSON object"),
        (f'{{"sasl.password": "{SECRET}"', "is no JSON object"),
        (f'{{"sasl.username": "{SECRET}"}}', "kafka.properties.sasl.username is given twice, by "),
        (f'{{"sasl.password": ["{SECRET}"]}}', "kafka.properties"),
    ],
)
def test_an_invalid_properties_file_is_reported_without_its_content(tmp_path: Path, content: str, reason: str) -> None:
    secrets = tmp_path / "kafka.json"
    secrets.write_text(content)
    lines = refused({KAFKA_FILE: str(secrets), "STREAM_SCORER_KAFKA__PROPERTIES": '{"sasl.username": "scorer"}'})
    assert lines
    assert all(SECRET not in line for line in lines)
    assert reason in lines[0]
    assert str(secrets) in lines[0]


# --- settings required by commands


def test_require_api_names_what_is_missing_and_how_to_set_it() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={"GENESYS_CLIENT_ID": "id"}).require_api()
    secret, model = str(caught.value).splitlines()
    assert secret.startswith("genesys.client_secret is missing: set STREAM_SCORER_GENESYS__CLIENT_SECRET, GENESYS_")
    assert model == "genesys.model_id is missing: set STREAM_SCORER_GENESYS__MODEL_ID or GENESYS_MODEL_ID"
    load_settings(
        environ={"GENESYS_CLIENT_ID": "id", "GENESYS_CLIENT_SECRET": SECRET, "GENESYS_MODEL_ID": "m"}
    ).require_api()


def test_properties_without_a_schema_registry_are_refused_rather_than_ignored() -> None:
    environ = {"STREAM_SCORER_SCHEMA_REGISTRY__PROPERTIES": f'{{"basic.auth.user.info": "me:{SECRET}"}}'}
    with pytest.raises(SettingsError, match=r"schema_registry\.properties are set, and schema_registry\.url is not"):
        load_settings(environ=environ)
    settings = load_settings(environ={**environ, "STREAM_SCORER_SCHEMA_REGISTRY__URL": "http://registry:8081"})
    assert SECRET not in repr(settings)
    assert settings.schema_registry.properties == {"basic.auth.user.info": f"me:{SECRET}"}


def test_a_window_too_small_for_the_slots_is_a_warning() -> None:
    (warning,) = load_settings(environ={"STREAM_SCORER_SCORING__MAX_UNCOMMITTED": "2000"}).warnings
    assert "holds 2 full batches" in warning
    assert load_settings(environ={}).warnings == ()


def test_a_life_that_is_shorter_than_a_request_is_a_warning() -> None:
    patient = {"STREAM_SCORER_GENESYS__TIMEOUT_S": "290"}
    (warning,) = load_settings(environ=patient).warnings
    assert "admin.max_unexplained_wait_s (300)" in warning
    assert "305 s" in warning
    assert load_settings(environ={**patient, "STREAM_SCORER_ADMIN__PORT": "0"}).warnings == (), "/livez is not served"
    assert load_settings(environ={**patient, "STREAM_SCORER_ADMIN__MAX_UNEXPLAINED_WAIT_S": "306"}).warnings == ()


def test_settings_are_frozen_and_each_load_has_an_instance_of_its_own() -> None:
    settings = load_settings(environ={})
    with pytest.raises(ValidationError):
        settings.kafka.group_id = "other"
    assert settings.kafka.instance_id != load_settings(environ={}).kafka.instance_id
    assert settings.kafka.transactional_id == f"stream-scorer-{settings.kafka.instance_id}-scorer"


def test_no_two_roles_have_one_transactional_id_whatever_groups_and_instances_are_called() -> None:
    """They would fence each other. Once the scorer `callbacks-0` and the campaign worker `0` had the same."""
    names = ("0", "callbacks-0", "0-scorer", "planner", "delivery-0", "callbacks-delivery-0")
    ids: list[set[str]] = [set(), set(), set()]
    for instance in names:
        for campaign_group in (None, "stream-scorer-0", "stream-scorer-scorer"):
            kafka = KafkaSettings(instance_id=instance)
            settings = Settings(kafka=kafka, callbacks=CallbacksSettings(group_id=campaign_group))
            ids[0].add(kafka.transactional_id)
            ids[1].add(settings.planner_transactional_id)
            ids[2].add(settings.deliverer_transactional_id)
            # Below the prefixes that docs/security.md names.
            assert kafka.transactional_id.startswith("stream-scorer-")
            assert settings.planner_transactional_id.startswith(f"{settings.callbacks_group_id}-")
            assert settings.deliverer_transactional_id.startswith(f"{settings.callbacks_group_id}-")
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_sections_can_be_made_directly_and_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SCORER_SCORING__LINGER_MS", "5")
    assert Settings(scoring=ScoringSettings(max_contacts=7)).scoring.max_contacts == 7
    assert Settings().scoring.linger_ms == 200
    assert load_settings().scoring.linger_ms == 5


def test_a_full_file_in_toml_is_read_to_exact_values(tmp_path: Path) -> None:
    text = """
    [model.features.age]
    type = "integer"
    impute = 40
    minimum = 0
    maximum = 120

    [callbacks]
    retry_delays_s = [1, 2.5]
    """
    assert tomllib.loads(text)
    settings = load_settings(written(tmp_path, text), environ={})
    age = settings.model.features["age"]
    assert (age.type, age.impute, age.minimum, age.maximum, age.choices) == ("integer", 40, 0, 120, None)
    assert settings.callbacks.retry_delays_s == (1, 2.5)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"STREAM_SCORER_GENESYS__BASE_URL": "http://api.example.com"}, "genesys.base_url and genesys.login_url: "),
        ({"STREAM_SCORER_GENESYS__LOGIN_URL": "http://127.0.0.1.example.com"}, "genesys.login_url: "),
        (
            {
                "STREAM_SCORER_SCHEMA_REGISTRY__URL": "http://registry.example.com",
                "STREAM_SCORER_SCHEMA_REGISTRY__PROPERTIES": '{"basic.auth.user.info": "name:secret"}',
            },
            "schema_registry.url: ",
        ),
        ({"STREAM_SCORER_SCHEMA_REGISTRY__URL": "http://registry.example.com"}, None),
        ({"STREAM_SCORER_GENESYS__BASE_URL": "http://127.0.0.1:8090"}, None),
        ({"STREAM_SCORER_GENESYS__BASE_URL": "http://localhost:8090"}, None),
        ({"STREAM_SCORER_GENESYS__BASE_URL": "http://[::1]:8090"}, None),
        ({"STREAM_SCORER_GENESYS__BASE_URL": "https://api.example.com"}, None),
    ],
)
def test_credentials_sent_in_plain_text_are_warned_of(environ: dict[str, str], named: str | None) -> None:
    warnings = load_settings(environ=environ).warnings
    assert [one.startswith(named) for one in warnings] == [True] if named else warnings == ()
