"""The `sealserve` program against a real service: what it prints, what it writes, how it fails."""

import csv
import json
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.cluster import KMeans

from sealserve.cli.command import credentials
from sealserve.cli.main import _EXTRAS, build_parser, commands, main
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.secret_key import SecretKey
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.commands.options import settings_of
from sealserve_service.settings import Settings
from sealserve_service.settings.options import MODEL_OPTIONS, OPTIONS
from tests.support.command_line import fails
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.programs import serve
from tests.support.serving import HANG_SECONDS, ROOT, linear, registered_keys, running_server, served


@pytest.fixture
def rows_file(tmp_path: Path, digits_model: Digits) -> Path:
    path = tmp_path / "rows.npy"
    np.save(path, digits_model.X[:40])
    return path


@pytest.fixture
def model_file(tmp_path: Path, digits_model: Digits) -> Path:
    path = tmp_path / "digits.skops"
    skops.io.dump(digits_model.estimator, path)
    return path


def test_predicts_a_npy_file(rows_file: Path, digits_server: str, digits_model: Digits, tmp_path: Path) -> None:
    output = tmp_path / "labels.npy"
    assert main(["predict", "--address", digits_server, "--input", str(rows_file), "--output", str(output)]) == 0
    assert np.load(output).tolist() == digits_model.estimator.predict(digits_model.X[:40]).tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.npy", "rows.npy"]


@pytest.mark.parametrize("method", ["decision_function", "predict_proba"])
def test_predicts_a_csv_file(digits_server: str, digits_model: Digits, tmp_path: Path, method: str) -> None:
    np.savetxt(tmp_path / "rows.csv", digits_model.X[:9], delimiter=",")
    command = ["predict", "--address", digits_server, "--input", str(tmp_path / "rows.csv"), "--method", method]
    assert main([*command, "--output", str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        records = list(csv.reader(file))
    if method == "predict_proba":
        assert records.pop(0) == [str(digit) for digit in range(10)]
    written = np.array([list(map(float, row)) for row in records])
    assert written == pytest.approx(getattr(digits_model.estimator, method)(digits_model.X[:9]), abs=1e-2)


def test_a_progress_bar_is_silent_where_stderr_is_no_terminal(
    rows_file: Path, digits_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--address", digits_server, "--input", str(rows_file)]) == 0
    assert re.fullmatch(r"40 rows in .* rows/s\n", capsys.readouterr().err)


@pytest.mark.parametrize("words", [["--input-range", "-1,2"], ["--input-range=-1,2"], ["--input-range", "-.5,2"]])
def test_a_range_may_begin_with_a_minus(words: list[str], model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model_file), *words]) == 0
    low = words[-1].removeprefix("--input-range=").partition(",")[0]
    assert re.search(rf"^range +{float(low):g} to 2,", capsys.readouterr().out, re.MULTILINE)


def test_other_words_with_a_minus_stay_flags(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--json", "-x"], ["--input-range", "--json"], ["--input-range"], ["-5"]):
        with pytest.raises(SystemExit) as caught:
            main(["inspect", str(model_file), *words])
        assert caught.value.code == 2
    capsys.readouterr()


def test_predictions_go_to_stdout_and_the_rest_to_stderr(
    rows_file: Path, digits_server: str, digits_model: Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--address", digits_server, "--input", str(rows_file), "--progress"]) == 0
    captured = capsys.readouterr()
    expected = digits_model.estimator.predict(digits_model.X[:40])
    assert captured.out.split() == list(map(str, expected))
    assert re.search(r"40 rows in .* rows/s", captured.err)
    assert "100%" in captured.err


def test_a_secret_key_is_made_once_and_kept(rows_file: Path, digits_server: str, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    command = ["predict", "--address", digits_server, "--input", str(rows_file), "--secret-key", str(key)]
    assert main(command) == 0
    made = SecretKey.load(key).age
    assert main(command) == 0
    assert SecretKey.load(key).age > made


def test_rows_out_of_range_are_named_and_nothing_is_written(
    rows_file: Path, digits_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.load(rows_file)
    rows[7, 3] = 2.0
    np.save(rows_file, rows)
    output = tmp_path / "labels.csv"
    command = ["predict", "--address", digits_server, "--input", str(rows_file), "--output", str(output)]
    assert "1 of 40 rows failed; nothing was written" in fails(capsys, *command)
    assert not output.exists()
    assert main(command[:-2]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "1 of 40 rows failed; nothing was written" in printed.err
    assert main([*command, "--clip"]) == 0
    assert len(output.read_text().split()) == 40


def test_the_columns_of_a_csv_file_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = linear([[1.0, 2.0]])
    named = type(model)(model.weights, model.intercept, model.output, ("age", "height"))
    with running_server(ModelRegistry([served("named", named)])) as address:
        path = tmp_path / "rows.csv"
        path.write_text("age,height\n0.5,0.25\n")
        assert main(["predict", "--address", address, "--input", str(path)]) == 0
        assert float(capsys.readouterr().out) == pytest.approx(1.0, abs=1e-2)
        path.write_text("height,age\n0.25,0.5\n")
        assert "in its order; they differ: in another order: number 0 is 'height', not 'age'" in fails(
            capsys, "predict", "--address", address, "--input", path
        )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.npy", None, "No such file"),
        ("rows.npy", b"no array", "rows.npy"),
        ("rows.csv", b"1,2\n3\n", "rows.csv"),
        ("rows.txt", b"1,2\n", "its suffix is of no format of rows"),
        ("rows.csv", b"1,2\n", "64 features"),
    ],
)
def test_bad_rows_files(
    name: str,
    content: bytes | None,
    message: str,
    digits_server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in fails(capsys, "predict", "--address", digits_server, "--input", tmp_path / name)


def test_lists_and_shows_models(digits_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--address", digits_server]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"^digits +64 +10 +classification +UNCHECKED +row-2048-44, column-2048-44$", listed, re.MULTILINE)
    assert main(["models", "show", "--address", digits_server]) == 0
    shown = capsys.readouterr().out
    for expected in ("score error bound", "proven", "rounding of weights", "observed score error", "weights"):
        assert expected in shown
    assert re.findall(r"^ *verdict +(\w+)$", shown, re.MULTILINE) == ["UNCHECKED"] * 3
    assert main(["models", "show", "digits", "--json", "--address", digits_server]) == 0
    description = json.loads(capsys.readouterr().out)
    assert description["offers"][0]["parameters"]["parameter_set"]["name"] == "row-2048-44"
    assert description["verdict"] == description["offers"][0]["verdict"] == "UNCHECKED"
    assert main(["models", "list", "--json", "--address", digits_server]) == 0
    assert json.loads(capsys.readouterr().out) == [description]


def test_an_unknown_model(digits_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model named 'nix'" in fails(capsys, "models", "show", "nix", "--address", digits_server)


def test_health(digits_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--address", digits_server]) == 0
    assert main(["health", "--address", digits_server, "--service", "sealserve.v1.PredictionService"]) == 0
    assert main(["health", "--address", digits_server, "--service", "nix"]) == 1
    assert capsys.readouterr().out.split() == ["SERVING", "SERVING", "NOT_FOUND"]


def test_nothing_listens(rows_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert "cannot be reached" in fails(capsys, "predict", "--address", address, "--input", rows_file)
        assert "cannot be reached" in fails(capsys, "models", "list", "--address", address)
        assert main(["health", "--address", address]) == 1


def test_the_probe_loads_neither_numpy_nor_seal() -> None:
    program = "import sys; from sealserve.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", program, "health", "--address", "127.0.0.1:1", "--timeout", "0.1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(result.stdout.split())
    assert "sealserve.cli.health" in loaded
    assert loaded.isdisjoint({"numpy", "seal", "sklearn", "matplotlib", "pydantic"})


PROBE = ("health", "--address", "127.0.0.1:1", "--timeout", "0.1")
CREDENTIALS = ("ca-certificate", "client-certificate", "client-key", "server-name")


@pytest.mark.parametrize("name", [*CREDENTIALS, "token"])
@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_variable_of_a_client_is_not_set(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SEALSERVE_{name.replace('-', '_').upper()}", text)
    assert credentials(build_parser("health").parse_args(PROBE)) == Credentials()


def test_variables_of_a_client_are_stripped_and_flags_go_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CREDENTIALS, "token"):
        monkeypatch.setenv(f"SEALSERVE_{name.replace('-', '_').upper()}", f" a-{name}\n")
    expected: dict[str, Any] = {name.replace("-", "_"): f"a-{name}" for name in (*CREDENTIALS, "token")}
    assert credentials(build_parser("health").parse_args(PROBE)) == Credentials(**expected)
    flags = [f"--{name}=b" for name in CREDENTIALS]
    expected |= {name.replace("-", "_"): "b" for name in CREDENTIALS}
    assert credentials(build_parser("health").parse_args([*PROBE, *flags])) == Credentials(**expected)


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        *(("--timeout", value, "a number of seconds above 0") for value in ("nan", "inf", "0", "-1", "1e300", "soon")),
        *(("--address", value, "HOST:PORT") for value in ("", " ", "127.0.0.1:65536", "127.0.0.1:99999")),
        ("--token-file", "", "it is empty"),
    ],
)
def test_a_wrong_flag_of_a_client_is_refused(
    flag: str, value: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["models", "list", f"{flag}={value}"])
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert flag in last
    assert text in last


def test_what_a_client_cannot_use_names_who_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--ca-certificate: it is empty" in fails(capsys, *PROBE, "--ca-certificate=")
    monkeypatch.setenv("SEALSERVE_CLIENT_KEY", "x.key")
    assert "(given: SEALSERVE_CLIENT_KEY)" in fails(capsys, *PROBE)
    assert "(given: SEALSERVE_CLIENT_KEY, --insecure)" in fails(capsys, *PROBE, "--insecure")
    monkeypatch.delenv("SEALSERVE_CLIENT_KEY")
    monkeypatch.setenv("SEALSERVE_TOKEN", "two words")
    said = fails(capsys, *PROBE)
    assert "(given: SEALSERVE_TOKEN)" in said
    assert "two words" not in said


def inspected(command: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The plans that `inspect` reports."""
    assert main([*command, "--json"]) == 0
    plans: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["plans"]
    return plans


def chosen_rows(command: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The plan of single rows that would be served."""
    (chosen,) = [p for p in inspected(command, capsys) if p["is_chosen"] and p["layout"] == "row"]
    return chosen


def test_inspects(model_file: Path, digits_model: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "calibration.npy", digits_model.X)
    command = ["inspect", str(model_file), "--calibration", str(tmp_path / "calibration.npy"), "--weights", "open"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert re.search(r"observed score error +\S+ over 300 rows, \S+ r.m.s.", shown)
    assert re.search(r"labels that differ +0.00%, \S+ expected, over 300 rows", shown)
    assert re.search(r"^row +open +row-2048-44 .*<- served$", shown, re.MULTILINE)
    chosen = chosen_rows(command, capsys)
    assert chosen["key_bytes"] == 0
    wanted = chosen["score_error_bound"] / 5000
    better = chosen_rows([*command, "--max-score-error", str(wanted)], capsys)
    assert better["score_error_bound"] <= wanted
    assert better["request_bytes"] + better["reply_bytes"] > chosen["request_bytes"] + chosen["reply_bytes"]


@pytest.mark.slow
def test_inspects_both_modes_side_by_side(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["inspect", str(model_file), "--input-range", "0,1", "--input-step", "0.0625", "--weights", "private"]
    plans = inspected(command, capsys)
    assert {(p["layout"], p["weights"]) for p in plans} == {
        (layout, weights) for layout in ("row", "column") for weights in ("open", "private")
    }
    assert [(p["layout"], p["weights"]) for p in plans if p["is_chosen"]] == [("row", "private"), ("column", "private")]
    for plan in plans:
        assert (plan["key_bytes"] > 0) is (plan["weights"] == "private")
        assert plan["server_seconds"] > 0
        is_packed = plan["parameter_set"].endswith(("-2048-44", "-4096-92"))
        least, most = (2.7, 2.9) if is_packed else (1.9, 2.0)
        assert least < plan["request_bytes"] / plan["seeded_request_bytes"] < most
        places = plan["rows_per_item"] * 10
        bits = plan["plain_modulus_bits"]
        assert plan["told_bits"] is None or places * bits < plan["told_bits"] <= places * (bits + 0.1) + 1
        assert (plan["told_bits"] is None) is (plan["weights"] == "open")
    same_set = {p["weights"]: p["weight_bits"] for p in plans if p["parameter_set"] == "row-4096-92"}
    assert same_set["private"] < same_set["open"]
    more_hiding = inspected([*command, "--hiding-bits", "60"], capsys)
    bits = {p["weight_bits"] for p in more_hiding if (p["parameter_set"], p["weights"]) == ("row-4096-92", "private")}
    assert bits == {same_set["private"] - 10}
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert re.search(r"key to register, once +98,498 bytes, public-encryption-key", shown)
    assert re.search(r"^row +private +row-4096-92 .*<- served$", shown, re.MULTILINE)
    assert re.search(r"weights +private: a reply tells the scores, and a client that does not keep to the", shown)
    assert re.search(r"weights +private, promised against clients that keep to the protocol only", shown)
    assert "are\npromised against clients that keep to the protocol only: withdraw them from a tenant" in shown
    assert main([*command, "--weights", "open", "--hiding-bits", "128"]) == 0
    for refused in ("0", "129", "many", "-1"):
        with pytest.raises(SystemExit):
            main([*command, "--hiding-bits", refused])


def test_models_that_are_refused(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pickle, clusters, text = tmp_path / "model.pkl", tmp_path / "clusters.pkl", tmp_path / "model.txt"
    joblib.dump(KMeans(2), clusters)
    pickle.write_bytes(clusters.read_bytes())
    text.write_text("no model")
    in_range = ("--input-range", "0,1")
    assert "--trust-pickle" in fails(capsys, "inspect", pickle, *in_range)
    assert "KMeans" in fails(capsys, "inspect", clusters, "--trust-pickle", *in_range)
    assert "--input-range LO,HI" in fails(capsys, "inspect", model_file)
    assert "missing.npz" in fails(capsys, "inspect", tmp_path / "missing.npz", *in_range)
    assert "model.txt" in fails(capsys, "inspect", text, *in_range)
    assert "no parameter set" in fails(capsys, "inspect", model_file, *in_range, "--max-score-error", "1e-30")
    assert "missing.npz" in fails(capsys, "serve", "--model", tmp_path / "missing.npz", *in_range)


@pytest.mark.parametrize(
    ("options", "offered", "warned"),
    [
        ((), [("row", False), ("column", False), ("ei-slots", False)], False),
        (("--weights", "private"), [("row", True), ("column", True)], False),
        (
            ("--weights", "private", "--ei-engine", "seal"),
            [("row", True), ("column", True), ("ei-slots", False)],
            True,
        ),
    ],
    ids=["open", "private", "private and encrypted-inference"],
)
def test_what_hides_no_weights_is_not_offered_beside_what_does(
    model_file: Path, tmp_path: Path, options: tuple[str, ...], offered: list[tuple[str, bool]], warned: bool
) -> None:
    common = (f"--model=digits={model_file}", "--input-range=0,1", "--input-step=0.0625")
    with (
        serve(*common, *options, log=tmp_path / "log") as program,
        Client(program.address, timeout_seconds=HANG_SECONDS) as client,
    ):
        assert [(offer.layout.name, offer.private_weights) for offer in client.model.offers] == offered
        assert len(client.predict(np.zeros((1, 64)))) == 1
        assert any("hide no weights" in line for line in program.said) is warned


def test_weights_are_private_unless_they_are_to_be_open() -> None:
    for command, listed in ((["serve"], OPTIONS), (["inspect", "a.npz"], MODEL_OPTIONS)):
        settings = settings_of(build_parser(command[0]).parse_args(command), listed)
        assert (settings.weights, settings.hiding_bits) == ("private", 40)
        assert (
            settings_of(build_parser(command[0]).parse_args([*command, "--weights", "open"]), listed).weights == "open"
        )
    assert (Settings().weights, Settings().hiding_bits) == ("private", 40)


def test_serve_refuses_what_makes_no_sense(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = f"digits={model_file}"
    assert "HOST:PORT" in fails(capsys, "serve", "--model", model, "--input-range", "0,1", "--address", "nowhere")
    assert "same name" in fails(capsys, "serve", "--model", model, "--model", model)
    assert "'nix'" in fails(capsys, "serve", "--model", model, "--input-range", "nix=0,1")
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--model", model, "--processes", "0"])
    assert caught.value.code == 2
    assert "at least 1" in capsys.readouterr().err
    in_range = ("serve", "--model", model, "--input-range", "0,1", "--address", "127.0.0.1:0")
    for place, text in (
        ("azure:keys", "SEALSERVE_KEY_STORE_CONNECTION_STRING"),
        ("azure:NO/CONTAINER", "azure:CONTAINER"),
        ("https://account.blob.core.windows.net/keys?sig=secret", "azure:CONTAINER"),
        ("ftp://somewhere/keys", "azure:CONTAINER"),
        ("/proc/keys", "/proc/keys"),
    ):
        said = fails(capsys, *in_range, "--key-store", place)
        assert text in said
        assert "sig=secret" not in said
    assert "keys of its own" in fails(capsys, *in_range, "--processes", "2", "--key-store", "memory")
    for without_keys in (("--processes", "2"), ("--key-store", "none")):
        said = fails(capsys, *in_range, "--weights", "private", *without_keys)
        assert "--key-store" in said
        assert "--weights open" in said
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--model", model, "--input-range", "zero,one"])
    assert caught.value.code == 2


def test_options_are_for_one_model_or_for_all() -> None:
    arguments = build_parser("serve").parse_args(
        ["serve", "--model", "a=x/one.npz", "--model", "x/two.skops", "--input-range", "0,1", "--input-range", "a=-1,1"]
    )
    first, second = settings_of(arguments).models
    assert (first.name, first.path, first.input_range) == ("a", Path("x/one.npz"), (-1.0, 1.0))
    assert (second.name, second.path, second.input_range) == ("two", Path("x/two.skops"), (0.0, 1.0))
    assert first.max_score_error is None


def test_a_model_may_come_with_its_digest(capsys: pytest.CaptureFixture[str], model_file: Path) -> None:
    digest = "0123456789abcdef" * 4
    models = (f"a=x/b@c.npz@sha256:{digest.upper()}", f"x/b.npz@sha256:{digest}", "x/b@c.npz")
    assert Settings(model=models).model == (
        ("a", Path("x/b@c.npz"), digest),
        ("b", Path("x/b.npz"), digest),
        ("b@c", Path("x/b@c.npz"), ""),
    )
    with pytest.raises(SystemExit):
        main(["serve", "--model", f"a.npz@sha256:{digest[1:]}"])
    assert "64 hexadecimal digits" in capsys.readouterr().err
    served = ("serve", "--model", f"{model_file}@sha256:{digest}", "--input-range", "0,1")
    assert f"not {digest}" in fails(capsys, *served)


def test_the_environment_gives_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALSERVE_ADDRESS", "127.0.0.1:7")
    monkeypatch.setenv("SEALSERVE_PROCESSES", "3")
    arguments = build_parser("serve").parse_args(["serve", "--model", "a.npz", "--processes", "2", "--weights", "open"])
    settings = settings_of(arguments)
    assert (settings.address, settings.processes) == ("127.0.0.1:7", 2)


def test_a_container_is_configured_by_variables_alone(model_file: Path, tmp_path: Path, digits_model: Digits) -> None:
    variables = {
        "SEALSERVE_MODEL": f" digits={model_file} ;\n again={model_file} ",
        "SEALSERVE_INPUT_RANGE": "0,1\nagain=0,2\n",
        "SEALSERVE_INPUT_STEP": "0.0625",
        "SEALSERVE_PROCESSES": " 2 ",
        "SEALSERVE_WATCH": "yes",
        "SEALSERVE_KEY_STORE": str(tmp_path / "keys"),
        "SEALSERVE_MAX_OPEN_ITEMS": "7",
        "SEALSERVE_LOG_FORMAT": "",
    }
    with serve(**variables) as program, Client(program.address, model="again", timeout_seconds=HANG_SECONDS) as client:
        assert [model.name for model in client.models()] == ["again", "digits"]
        assert client.model.grid.maximum[0] == 2.0
        assert (client.model.limits.max_open_items, client.model.limits.suggested_connections) == (7, 2)
        assert (
            client.predict(digits_model.X[:1]).tolist() == digits_model.estimator.predict(digits_model.X[:1]).tolist()
        )


def test_the_model_folder_of_azure_ml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nested").mkdir()
    for name in ("one.npz", "nested/two.npz"):
        np.savez(tmp_path / name, coef=np.ones((1, 2)), intercept=np.zeros(1))
    (tmp_path / "notes.txt").write_text("no model")
    in_range = ["--input-range=0,1"]
    with (
        serve(*in_range, AZUREML_MODEL_DIR=str(tmp_path)) as program,
        Client(program.address, timeout_seconds=HANG_SECONDS) as client,
    ):
        assert [model.name for model in client.models()] == ["one", "two"]
    with serve("--model=nested/two.npz", *in_range, AZUREML_MODEL_DIR=str(tmp_path)) as program:
        assert main(["models", "list", "--address", program.address]) == 0
    capsys.readouterr()
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "nowhere"))
    assert "nowhere" in fails(capsys, "serve")
    monkeypatch.delenv("AZUREML_MODEL_DIR")
    assert "AZUREML_MODEL_DIR" in fails(capsys, "serve")


def test_keys_are_registered_shown_listed_and_deleted(
    tmp_path: Path, ei_user: EIUser, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "evaluation_keys.bin"
    file.write_bytes(ei_user.evaluation_keys)
    with running_server(ModelRegistry([]), keys=registered_keys()) as address:

        def said(*arguments: str) -> str:
            assert main(["keys", *arguments, "--address", address]) == 0
            return capsys.readouterr().out

        record = json.loads(said("register", str(file), "--ttl", "60", "--json"))
        assert record["key_id"] == ei_user.key_id
        assert record["byte_count"] == len(ei_user.evaluation_keys)
        assert ei_user.key_id in said("show", ei_user.key_id)
        assert json.loads(said("list", "--json")) == [record]
        assert len(said("list").splitlines()) == 2
        assert said("delete", ei_user.key_id) == ""
        assert json.loads(said("list", "--json")) == []
        assert main(["keys", "list", "--address", address]) == 0
        assert capsys.readouterr() == ("", "no key is registered: `sealserve keys register` sends one\n")
        for nothing in ("", "x", ei_user.key_id[:-1]):
            with pytest.raises(SystemExit):
                main(["keys", "show", nothing, "--address", address])
            assert f"{nothing!r} is not the id of a key, 64 hexadecimal digits" in capsys.readouterr().err
        assert "not registered" in fails(capsys, "keys", "show", ei_user.key_id, "--address", address)
        file.write_bytes(b"no key")
        assert "the key is" in fails(capsys, "keys", "register", file, "--address", address)
        assert "missing" in fails(capsys, "keys", "register", tmp_path / "missing", "--address", address)


def test_every_command_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    overview = capsys.readouterr().out
    assert {command.name for command in commands()} == {
        "agent",
        "bench",
        "demo",
        "health",
        "inspect",
        "keys",
        "models",
        "pack",
        "plan",
        "predict",
        "serve",
        "tokens",
        "top",
    }
    for command in commands():
        assert command.name in overview
        with pytest.raises(SystemExit) as caught:
            main([command.name, "--help"])
        assert caught.value.code == 0
        assert f"sealserve {command.name}" in capsys.readouterr().out.partition("example:")[2]


def test_a_missing_extra_is_named(model_file: Path) -> None:
    program = (
        "import sys; sys.modules['skops'] = None; from sealserve.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "inspect", str(model_file), "--input-range", "0,1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "pip install 'sealserve[service]'" in result.stderr


def test_a_list_of_commands_needs_no_extra() -> None:
    """Who has the SDK only asks for help first."""
    hide = "import sys; sys.modules['pydantic'] = None; from sealserve.cli.main import main; "
    command = [sys.executable, "-c", hide + "sys.exit(main(sys.argv[1:]))"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert all(command.name in shown for command in commands())
    for name in ("serve", "inspect", "pack"):
        refused = subprocess.run([*command, name, "--help"], capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1
        assert refused.stderr == (
            f"sealserve: error: `sealserve {name}` needs packages that are not installed, such as pydantic: "
            "pip install 'sealserve[service]'\n"
        )


def test_every_package_of_an_extra_is_known_by_its_module() -> None:
    """A missing one is reported with its extra, not with a traceback."""
    modules = {"azure-identity": "azure", "azure-storage-blob": "azure", "grpcio-reflection": "grpc_reflection"}
    modules |= {"encrypted-inference": "encrypted", "scikit-learn": "sklearn"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("ei", "service", "demo"):
        for requirement in extras[extra]:
            name = re.split(r"[^\w-]", requirement)[0]
            if name != "sealserve":
                assert _EXTRAS[modules.get(name, name.replace("-", "_"))] == extra, requirement


def test_the_list_of_commands_says_which_need_an_extra(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for command in commands():
        noted = f"{command.summary} (sealserve[service])" in text
        assert noted is (command.name in {"demo", "inspect", "pack", "serve", "tokens"}), command.name


@pytest.mark.slow
def test_the_demonstration_ends_with_its_summary_without_matplotlib(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['matplotlib'] = None; from sealserve.cli.main import main; "
    command = [sys.executable, "-c", hide + "sys.exit(main(sys.argv[1:]))", "demo"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1].startswith("rows=450 accuracy=0.9")
    assert result.stdout.count("agreement=1.0000") == 3
    assert "no picture without matplotlib: pip install 'sealserve[demo]'" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_demonstration(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "digits.png"
    assert main(["demo", "--output", str(picture)]) == 0
    printed = capfd.readouterr().out
    found = re.findall(r"^rows=(\d+) accuracy=(\S+) agreement=(\S+) p50_ms=(\S+)$", printed, re.MULTILINE)
    assert [(rows, agreement) for rows, _, agreement, _ in found] == [
        ("450", "1.0000"),
        ("143", "1.0000"),
        ("450", "1.0000"),
    ]
    assert all(0.7 < float(accuracy) <= 1 and float(milliseconds) > 0 for _, accuracy, _, milliseconds in found)
    titles = re.findall(r"^(.*): weights private, verdict OK$", printed, re.MULTILINE)
    for words, title in zip(("categories and gaps", "HistGradientBoosting", "digits"), titles, strict=True):
        assert words in title
    assert picture.read_bytes().startswith(b"\x89PNG")
