"""The settings: each option from its flag and from its variable, and what is refused."""

import os
import pickle
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sealserve.cli.main import build_parser, main
from sealserve.errors import InputError, SealserveError
from sealserve_service.commands.options import settings_of
from sealserve_service.settings import Settings
from sealserve_service.settings.errors import AddressError, KeyStoreSettingsError, OptionError
from sealserve_service.settings.options import MODEL_OPTIONS, OPTIONS, Option, read_settings
from tests.support.serving import SETTINGS
from tests.support.settings_page import PAGE, page

CERTIFICATE = {"SEALSERVE_TLS_CERTIFICATE": "x.crt", "SEALSERVE_TLS_PRIVATE_KEY": "x.key"}
OPEN = {"SEALSERVE_WEIGHTS": "open"}
DIGEST = "0123456789abcdef" * 4


class Case(NamedTuple):
    """An option's texts and what they mean.

    Attributes:
        text, value: a text, and what it becomes.
        other, other_value: another text, and what that becomes.
        wrong: texts that are refused, each with a part of what is said.
        beside: variables that the values need.
    """

    text: str
    value: Any
    other: str
    other_value: Any
    wrong: Mapping[str, str] = {}
    beside: Mapping[str, str] = {}


SWITCH = Case("true", True, "no", False, {"perhaps": "true or false", "2": "true or false"})
FILE = Case("a/b", Path("a/b"), "c", Path("c"))
RATE = Case("60", 60.0, "0.5", 0.5, {"0": "above 0", "-1": "above 0", "many": "a number", "inf": "finite"})
SIZE = Case("1000", 1000, "7", 7, {"0": "above 0", "1.5": "a whole number", "2 MB": "a whole number"})
COUNT = SIZE._replace(wrong={**SIZE.wrong, "1000000": "at most"})
SECONDS = Case("2.5", 2.5, "7", 7.0, {"0": "above 0", "soon": "a number", "1e9": "at most", "nan": "finite"})
FROM_ZERO = SECONDS._replace(wrong={"-1": "at least 0", "soon": "a number", "1e9": "at most", "nan": "finite"})
STEP = Case("0.5", ((None, 0.5),), "a=2", (("a", 2.0),), {"0": "above 0", "a=x": "a number", "a=-1": "above 0"})

CASES: dict[str, Case] = {
    "model": Case(
        "x/b.npz",
        (("b", Path("x/b.npz"), ""),),
        f"a=c.npz@sha256:{DIGEST.upper()}",
        (("a", Path("c.npz"), DIGEST),),
        {"b.npz@sha256:12": "64 hexadecimal digits", "@sha256:": "PATH"},
    ),
    "model_folder": FILE,
    "previous": Case(
        "a=x/b.npz",
        (("a", Path("x/b.npz"), ""),),
        f"b=c.npz@sha256:{DIGEST.upper()}",
        (("b", Path("c.npz"), DIGEST),),
        {"a=b.npz@sha256:12": "64 hexadecimal digits", "a=@sha256:": "PATH"},
    ),
    "keep_previous": FROM_ZERO,
    "watch": SWITCH,
    "trust_pickle": SWITCH,
    "input_range": Case(
        "0,1",
        ((None, (0.0, 1.0)),),
        "a=-1,2.5",
        (("a", (-1.0, 2.5)),),
        {"zero,one": "LO,HI", "0": "LO,HI", "0,1,2": "LO,HI", "a=0,inf": "finite"},
    ),
    "input_ranges": Case("r.csv", ((None, Path("r.csv")),), "a=b.csv", (("a", Path("b.csv")),)),
    "input_step": STEP,
    "input_margin": Case(
        "0", ((None, 0.0),), "a=1.5", (("a", 1.5),), {"-1": "at least 0", "a=wide": "a number", "2000": "at most"}
    ),
    "calibration": Case(
        "x.npy",
        ((None, (Path("x.npy"), "")),),
        f"a=y.npy@sha256:{DIGEST.upper()}",
        (("a", (Path("y.npy"), DIGEST)),),
        {"x.npy@sha256:12": "64 hexadecimal digits", "a=@sha256:": "PATH"},
    ),
    "max_score_error": STEP,
    "publish": Case(
        "steps",
        ((None, ("steps",)),),
        "a=structure, steps",
        (("a", ("structure", "steps")),),
        {"all": "'steps' or 'structure'", "steps,": "'steps' or 'structure'"},
    ),
    "accept_training_values": SWITCH,
    "accept_disagreement": SWITCH,
    "weights": Case("open", "open", "Private", "private", {"hidden": "'private' or 'open'"}),
    "hiding_bits": Case("60", 60, "1", 1, {"0": "at least 1", "129": "at most 128", "many": "a whole number"}),
    "address": Case(
        "127.0.0.1:7",
        "127.0.0.1:7",
        "[::1]:8",
        "[::1]:8",
        {"nowhere": "HOST:PORT", "127.0.0.1:65536": "65536", ":7": "HOST:PORT", "0.0.0.0:7": "--insecure"},
    ),
    "processes": Case("3", 3, "Auto", "auto", {"0": "at least 1", "many": "a whole number", "9999": "at most"}, OPEN),
    "tls_certificate": FILE._replace(beside={"SEALSERVE_TLS_PRIVATE_KEY": "k"}),
    "tls_private_key": FILE._replace(beside={"SEALSERVE_TLS_CERTIFICATE": "c"}),
    "tls_client_ca": FILE._replace(beside=CERTIFICATE),
    "identities": FILE,
    "trusted_proxies": Case(
        "10.0.0.0/8, 192.0.2.1",
        (ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32")),
        "2001:db8::/32",
        (ip_network("2001:db8::/32"),),
        {
            "10.0.0.1/8": "such as",
            "proxy.example.org": "such as",
            "0.0.0.0/0": "all addresses",
            "10.0.0.0/8,": "such as",
        },
    ),
    "insecure": SWITCH,
    "public_health": SWITCH,
    "replicas": COUNT._replace(beside={"SEALSERVE_KEY_STORE": "./keys"}),
    "max_connection_age": FROM_ZERO,
    "key_store": Case(
        "./keys",
        "./keys",
        "azure:keys",
        "azure:keys",
        {
            "keys": "./keys",
            "Memory": "memory",
            "azure:NO/CONTAINER": "azure:CONTAINER",
            "ftp://somewhere/keys": "azure:CONTAINER",
            "none": "private weights",
            "AccountName=a;AccountKey=b/c": "SEALSERVE_KEY_STORE_CONNECTION_STRING",
        },
        {"SEALSERVE_KEY_STORE_CONNECTION_STRING": "AccountKey=x"},
    ),
    "key_store_connection_string": Case("AccountKey=x", "AccountKey=x", "y", "y"),
    "identity_client_id": Case("id", "id", "other", "other"),
    "key_days": Case("0.5", 0.5, "7", 7.0, {"0": "above 0", "inf": "finite", "1e9": "at most", "x": "a number"}),
    "ei_engine": Case("seal", "seal", "none", "none", {"palisade": "'seal', 'eiserver' or 'none'"}),
    "rows_per_minute": RATE,
    "requests_per_minute": RATE,
    "bytes_in_flight": RATE,
    "key_bytes": RATE,
    "waiting_calls": COUNT,
    "open_streams": COUNT,
    "concurrent_uploads": COUNT,
    "empty_calls_per_minute": RATE,
    "log_level": Case("debug", "debug", "ERROR", "error", {"loud": "'debug', 'info', 'warning' or 'error'"}),
    "log_format": Case("json", "json", "text", "text", {"xml": "'text' or 'json'"}),
    "metrics_address": Case(
        "9090", "127.0.0.1:9090", "0.0.0.0:9", "0.0.0.0:9", {"here": "HOST:PORT", "99999": "65536"}
    ),
    "traces_exporter": Case("otlp", "otlp", "Console", "console", {"zipkin": "'none', 'otlp' or 'console'"}),
    "max_message_bytes": SIZE._replace(wrong={**SIZE.wrong, "2000000000": "at most"}),
    "max_open_items": SIZE,
    "window_bytes": SIZE,
    "max_key_bytes": SIZE,
    "key_memory_bytes": SIZE,
    "key_cache_bytes": SIZE,
    "ready_zeros": Case("0", 0, "8", 8, {"-1": "at least 0", "1.5": "a whole number", "1000000": "at most"}),
    "max_concurrent_calls": COUNT,
    "max_wait": FROM_ZERO,
    "item_timeout_seconds": SECONDS,
    "idle_timeout_seconds": FROM_ZERO,
    "handshake_timeout_seconds": SECONDS,
    "lame_duck": FROM_ZERO,
    "grace_seconds": FROM_ZERO,
    "heartbeat_seconds": FROM_ZERO,
}

each = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
with_flags = pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.flag], ids=lambda option: option.name
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours is set."""
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)


def value_of(settings: Settings, option: Option) -> Any:
    value = getattr(settings, option.name)
    return value.get_secret_value() if option.name == "key_store_connection_string" else value


def of_environment(option: Option, text: str) -> Any:
    """The option's value when its variable has a text."""
    variables = {**CASES[option.name].beside, option.variable: text}
    return value_of(read_settings({}, variables), option)


def flag_of(option: Option, text: str) -> list[str]:
    """The words of a command line that give an option."""
    if option.is_switch:
        return [option.flag if text == "true" else f"--no-{option.flag[2:]}"]
    return [f"{option.flag}={text}"]


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run `sealserve serve`, which must fail in one line on stderr, and return that line."""
    try:
        code = main(["serve", *arguments])
    except SystemExit as exit_of_program:
        code = int(exit_of_program.code or 0)
    assert code in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sealserve: error: ")
    return str(line.removeprefix("sealserve: error: "))


def test_every_field_is_an_option_with_a_variable_a_help_and_a_case() -> None:
    names = [option.name for option in OPTIONS]
    assert names == [name for name in Settings.model_fields if name != "given_by"]
    assert CASES.keys() == set(names)
    assert len({option.variable for option in OPTIONS}) == len(OPTIONS)
    for option in OPTIONS:
        assert re.fullmatch(r"(SEALSERVE|AZURE|AZUREML|OTEL)_[A-Z_]+", option.variable)
        assert option.help
        assert option.group
        assert option.metavar or option.choices or option.is_switch


@each
def test_a_variable_gives_an_option(option: Option) -> None:
    case = CASES[option.name]
    assert of_environment(option, case.text) == case.value
    assert of_environment(option, case.other) == case.other_value


@each
def test_space_around_a_variable_does_not_count(option: Option) -> None:
    assert of_environment(option, f" \t{CASES[option.name].text}\r\n") == CASES[option.name].value


@each
@pytest.mark.parametrize("text", ["", " ", "\t\r\n"])
def test_an_empty_variable_is_not_set(option: Option, text: str) -> None:
    assert value_of(read_settings({}, {option.variable: text}), option) == value_of(Settings(), option)


@with_flags
def test_a_flag_gives_an_option_and_goes_before_its_variable(option: Option, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[option.name]
    for variable, text in {**case.beside, option.variable: case.text}.items():
        monkeypatch.setenv(variable, text)

    def parsed(*words: str) -> Any:
        return value_of(settings_of(build_parser("serve").parse_args(["serve", *words])), option)

    assert parsed() == case.value
    assert parsed(*flag_of(option, case.other)) == case.other_value
    monkeypatch.delenv(option.variable)
    assert parsed(*flag_of(option, case.text)) == case.value


@pytest.mark.parametrize(
    ("option", "wrong"),
    [(option, wrong) for option in OPTIONS for wrong in CASES[option.name].wrong],
    ids=lambda part: part.name if isinstance(part, Option) else repr(part),
)
def test_what_is_wrong_is_one_line_that_names_who_said_so(
    option: Option, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[option.name]
    for variable, text in case.beside.items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv(option.variable, f" {wrong} ")
    line = fails(capsys)
    assert line.startswith(f"{option.variable}: ")
    assert case.wrong[wrong] in line
    if not option.is_switch:
        monkeypatch.setenv(option.variable, case.text)
        line = fails(capsys, f"{option.flag}={wrong}")
        assert line.startswith(f"{option.flag}: ")
        assert case.wrong[wrong] in line


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.flag and not option.is_switch], ids=lambda option: option.name
)
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_flag_is_a_mistake(option: Option, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Else a variable of a script that is not set would mean, say, no identities."""
    assert fails(capsys, f"{option.flag}={text}") == f"{option.flag}: it is empty; leave it out, or give it a value"


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.is_repeatable], ids=lambda option: option.name
)
@pytest.mark.parametrize("pattern", ["{};{}", " {} ; {} ;", "{}\n{}\n", "\r\n{}\r\n\r\n{}", "{}\n;{}"])
def test_several_values_of_a_variable(option: Option, pattern: str) -> None:
    case = CASES[option.name]
    assert of_environment(option, pattern.format(case.text, case.other)) == (*case.value, *case.other_value)


def test_separators_alone_are_no_values() -> None:
    assert read_settings({}, {"SEALSERVE_MODEL": " ; \n ;"}).model == ()


def test_a_flag_may_have_a_semicolon() -> None:
    assert Settings(model=("a=x;y.npz",)).models[0].path == Path("x;y.npz")


def test_defaults() -> None:
    settings = Settings()
    assert (settings.address, settings.processes, settings.weights, settings.hiding_bits) == (
        "127.0.0.1:50051",
        "auto",
        "private",
        40,
    )
    assert settings.max_wait == 0.1
    assert (settings.log_level, settings.log_format, settings.metrics_address) == ("info", "text", "")
    assert settings.max_key_ttl_seconds == 30 * 86_400
    assert (settings.key_memory_bytes, settings.key_cache_bytes) == (200 << 20, 200 << 20)
    assert (settings.grace_seconds, settings.handshake_timeout_seconds) == (20.0, 20.0)
    assert (settings.max_concurrent_calls, settings.ready_zeros) == (256, 64)
    limits = settings.limits
    assert (limits.max_message_bytes, limits.max_open_items, limits.window_bytes) == (2 << 20, 256, 8 << 20)
    assert (limits.max_key_bytes, limits.suggested_connections) == (16 << 20, 1)
    assert (limits.item_timeout_seconds, limits.idle_timeout_seconds) == (60.0, 300.0)


def test_only_who_reads_settings_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALSERVE_PROCESSES", "many")
    assert Settings().processes == "auto"
    with pytest.raises(OptionError, match="SEALSERVE_PROCESSES"):
        read_settings({}, os.environ)


def test_settings_are_frozen_picklable_and_copied_with_checks() -> None:
    settings = read_settings({"model": ["a=a.npz"]}, {"SEALSERVE_INPUT_RANGE": "a=0,1", "SEALSERVE_KEY_DAYS": "3"})
    with pytest.raises(ValueError, match="frozen"):
        settings.processes = 2
    copy = pickle.loads(pickle.dumps(settings))  # noqa: S301  # our own
    assert copy == settings
    assert copy.name_of("key_days") == "SEALSERVE_KEY_DAYS"
    changed = copy.with_changes(processes=2, weights="open")
    assert (changed.processes, changed.models, changed.key_days) == (2, settings.models, 3.0)
    assert changed.limits.suggested_connections == 2
    with pytest.raises(OptionError, match="--processes: 0 should be at least 1"):
        copy.with_changes(processes=0)
    with pytest.raises(OptionError, match="there is no option prozesse"):
        copy.with_changes(prozesse=2)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"key_store": "./keys"}, ""),
        ({"key_store": "https://a.blob.core.windows.net/keys"}, ""),
        ({"weights": "open", "ei_engine": "none"}, ""),
        ({"weights": "open", "key_store": "none"}, ""),
        ({}, "keys in memory"),
        ({"weights": "open"}, "keys in memory"),  # of encrypted-inference clients
        ({"key_store": "memory"}, "keys in memory"),
        ({"key_store": "./keys", "address": "unix:/run/sealserve.sock"}, "a Unix socket"),
    ],
)
@pytest.mark.parametrize(
    ("cores", "memory_bytes", "count"), [(1, None, 1), (6, None, 6), (6, 2 << 30, 6), (6, 1 << 30, 3), (6, 1 << 28, 1)]
)
def test_processes_are_one_a_core_if_they_can_share_what_they_need(
    values: dict[str, Any],
    reason: str,
    cores: int,
    memory_bytes: int | None,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sealserve_service.settings.core_count", lambda: cores)
    monkeypatch.setattr("sealserve_service.settings.memory_limit_bytes", lambda: memory_bytes)
    settings = Settings(**values)
    assert settings.process_count == settings.limits.suggested_connections == (1 if reason else count)
    assert reason in settings.needs_one_process
    assert bool(settings.needs_one_process) is bool(reason)
    assert settings.with_changes(processes=1).process_count == 1


def test_the_connection_string_is_in_no_text() -> None:
    secret = "AccountName=a;AccountKey=c2VjcmV0"  # noqa: S105
    settings = read_settings({}, {"SEALSERVE_KEY_STORE_CONNECTION_STRING": secret, "SEALSERVE_KEY_STORE": "azure:keys"})
    assert value_of(settings, OPTIONS[[o.name for o in OPTIONS].index("key_store_connection_string")]) == secret
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "c2VjcmV0" not in text
    for place in (secret, f"ftp://user:{secret}@host/keys", f"https://a.example/keys?sig={secret}"):
        with pytest.raises(KeyStoreSettingsError) as refusal:
            Settings(key_store=place)
        assert "c2VjcmV0" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"tls_certificate": "x"}, InputError, "--tls-certificate and --tls-private-key go together"),
        ({"tls_private_key": "x"}, InputError, "go together"),
        ({"tls_client_ca": "x"}, InputError, "--tls-client-ca needs --tls-certificate"),
        ({"tls_certificate": "x", "tls_private_key": "y", "insecure": True}, InputError, "choose one"),
        ({"model": ("a.npz", "x/a.npz")}, InputError, "same name"),
        ({"model": ("a.npz",), "input_range": ("nix=0,1",)}, InputError, "--input-range names 'nix'"),
        ({"model": ("a.npz",), "previous": ("b=a.npz",)}, InputError, "--previous names 'b'"),
        ({"previous": ("a=x.npz", "a=y.npz")}, InputError, "one file for each model"),
        ({"previous": ("a=x.npz",), "keep_previous": 0.0}, InputError, "--keep-previous: 0 seconds"),
        ({"address": "nowhere"}, AddressError, "HOST:PORT"),
        ({"address": "192.0.2.1:7"}, AddressError, "other machines"),
        ({"metrics_address": "nowhere"}, AddressError, "--metrics-address"),
        ({"processes": 2}, KeyStoreSettingsError, "--processes: private weights need .* --weights open"),
        ({"processes": 2, "key_store": "memory"}, KeyStoreSettingsError, "keys of its own"),
        ({"replicas": 2}, KeyStoreSettingsError, "--replicas: private weights need .* each of 2 replicas"),
        ({"replicas": 3, "key_store": "memory"}, KeyStoreSettingsError, "--key-store"),
        ({"replicas": 2, "weights": "open"}, KeyStoreSettingsError, "encrypted-inference clients .* --ei-engine none"),
        ({"key_store": "azure:keys"}, KeyStoreSettingsError, "SEALSERVE_KEY_STORE_CONNECTION_STRING"),
        ({"key_store": "keys"}, KeyStoreSettingsError, "write ./keys"),
        ({"processes": 0}, OptionError, "at least 1"),
        ({"input_step": ((None, -1.0),)}, OptionError, "above 0"),
        ({"tls_certificate": ""}, OptionError, "a path"),
    ],
)
def test_contradictions_are_typed_errors(values: dict[str, Any], error: type[SealserveError], text: str) -> None:
    with pytest.raises(error, match=text):
        Settings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"key_store": "./keys"},
        {"key_store": "https://account.blob.core.windows.net/keys"},
        {"weights": "open", "ei_engine": "none"},
        {"weights": "open", "key_store": "none"},
        {"weights": "open", "processes": 2},
    ],
)
def test_replicas_that_share_keys_or_need_none_are_served(values: dict[str, Any]) -> None:
    assert Settings(replicas=3, **values).replicas == 3


def test_contradictions_name_who_said_so() -> None:
    with pytest.raises(InputError, match="SEALSERVE_TLS_CERTIFICATE and --tls-private-key go together"):
        read_settings({}, {"SEALSERVE_TLS_CERTIFICATE": "x"})
    with pytest.raises(InputError, match="SEALSERVE_INSECURE means plaintext, --tls-certificate means TLS"):
        read_settings({"tls_certificate": "x", "tls_private_key": "y"}, {"SEALSERVE_INSECURE": "1"})
    with pytest.raises(KeyStoreSettingsError, match="SEALSERVE_REPLICAS: "):
        read_settings({}, {"SEALSERVE_REPLICAS": "2"})
    with pytest.raises(InputError, match="SEALSERVE_CALIBRATION names 'b'"):
        read_settings({"model": ["a.npz"]}, {"SEALSERVE_CALIBRATION": "b=x.npy"})


def test_a_directory_for_keys_is_one_that_is_there_or_has_a_separator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyStoreSettingsError, match=r"SEALSERVE_KEY_STORE: 'keys' is none of"):
        read_settings({}, {"SEALSERVE_KEY_STORE": "keys"})
    (tmp_path / "keys").mkdir()
    for place in ("keys", "./other", "a/b", str(tmp_path / "absolute"), "memory"):
        assert read_settings({}, {"SEALSERVE_KEY_STORE": place}).key_store == place


def test_models_are_relative_to_the_model_folder() -> None:
    settings = read_settings({"model": ["a.npz", "b=/b.npz"]}, {"AZUREML_MODEL_DIR": "/models"})
    assert [(model.name, str(model.path)) for model in settings.models] == [("a", "/models/a.npz"), ("b", "/b.npz")]
    assert settings.served_folder is None


def test_a_previous_version_is_served_as_its_model_is() -> None:
    settings = Settings(
        model=("a=new.npz",), previous=(f"a=old.npz@sha256:{DIGEST}",), model_folder="/models", input_range=("a=0,2",)
    )
    (previous,) = settings.previous_models
    assert (previous.name, str(previous.path), previous.sha256) == ("a", "/models/old.npz", DIGEST)
    assert previous.input_range == settings.models[0].input_range == (0.0, 2.0)


def test_previous_versions_are_kept_for_as_long_as_they_are_told_or_an_hour_after_the_start() -> None:
    assert Settings().keep_previous_seconds == 0.0
    assert Settings(previous=("a=x.npz",)).keep_previous_seconds == 3600.0
    assert Settings(previous=("a=x.npz",), keep_previous=5).keep_previous_seconds == 5.0
    assert Settings(keep_previous=5).keep_previous_seconds == 5.0


def test_what_is_said_of_the_models_of_a_folder() -> None:
    said = {"AZUREML_MODEL_DIR": "/models", "SEALSERVE_INPUT_RANGE": "0,1;a=0,2", "SEALSERVE_INPUT_STEP": "a=0.5"}
    folder = read_settings({}, said).served_folder
    assert folder
    assert folder.path == Path("/models")
    a, b = (folder.source(Path(f"/models/{name}.npz")) for name in "ab")
    assert (a.name, a.input_range, a.input_step) == ("a", (0.0, 2.0), 0.5)
    assert (b.name, b.input_range, b.input_step) == ("b", (0.0, 1.0), None)


def test_an_option_for_a_model_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.npz").write_bytes(b"no model")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("SEALSERVE_MAX_SCORE_ERROR", "b=1")
    assert fails(capsys).startswith("SEALSERVE_MAX_SCORE_ERROR names 'b'")


def test_inspect_reads_only_what_says_how_a_model_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALSERVE_INPUT_RANGE", "0,1;a=0,2;other=0,3")
    monkeypatch.setenv("SEALSERVE_WEIGHTS", "open")
    monkeypatch.setenv("SEALSERVE_PROCESSES", "many")
    arguments = build_parser("inspect").parse_args(["inspect", "x/a.npz", "--input-step", "0.5"])
    settings = settings_of(arguments, MODEL_OPTIONS)
    source = settings.source("a", arguments.path)
    assert (source.input_range, source.input_step, settings.weights) == ((0.0, 2.0), 0.5, "open")


@pytest.mark.parametrize(("command", "options"), [("serve", OPTIONS), ("inspect", MODEL_OPTIONS)])
def test_help_lists_each_option(
    command: str, options: tuple[Option, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    for option in options:
        assert option.variable in words
        assert option.help in words
        assert f"\n{option.group}:\n" in shown
        if option.flag:
            assert re.search(rf"^  {option.flag}\b", shown, re.MULTILINE)


def test_the_page_of_settings_is_the_one_of_the_declarations() -> None:
    assert PAGE.read_text() == page(), "python -m tests.support.settings_page"


def test_tests_have_settings_of_their_own() -> None:
    assert SETTINGS.with_changes(max_open_items=3).limits.max_open_items == 3
