"""`make stubs`: code of other languages for both protocols, by the plugins that people use."""

import re
from pathlib import Path

import pytest

from tests.support.language_tools import make_stubs, require

LANGUAGES = {
    "go": ("go", ["sealserve/inference/open_inference.pb.go", "sealserve/v1/prediction_grpc.pb.go"]),
    "java": (
        "java",
        ["com/sealserve/inference/ModelInferRequest.java", "com/sealserve/v1/PredictionServiceGrpc.java"],
    ),
    "csharp": ("", ["Inference/OpenInference.cs", "Sealserve/V1/Prediction.cs"]),
    "ruby": (
        "grpc_ruby_plugin",
        ["sealserve/v1/prediction_pb.rb", "sealserve/inference/open_inference_services_pb.rb"],
    ),
    "php": ("grpc_php_plugin", ["Inference/ModelInferRequest.php", "Inference/GRPCInferenceServiceClient.php"]),
    "node": ("npm", ["sealserve/inference/open_inference_pb.js", "sealserve/v1/prediction_pb.d.ts"]),
    "rust": ("cargo", ["inference/inference.rs", "sealserve/v1/sealserve.v1.tonic.rs"]),
}
"""What each needs, and some files of each."""

INSTALLS = {"go": "go-tools", "java": "java", "npm": "setup", "cargo": "stubs", "grpc_ruby_plugin": "grpc-plugins"}
LONG = ("java", "rust")
"""They fetch a Maven plugin, or compile for minutes."""


@pytest.mark.parametrize(
    "language",
    [pytest.param(each, marks=pytest.mark.long if each in LONG else pytest.mark.slow) for each in LANGUAGES],
)
def test_stubs_of_both_protocols_are_generated(language: str, tmp_path: Path) -> None:
    needed, files = LANGUAGES[language]
    if needed:
        require(needed, installs=INSTALLS.get(needed, "grpc-plugins"))
    said = make_stubs(language, tmp_path)
    for file in files:
        text = (tmp_path / file).read_text()
        assert re.search("ModelInfer|Predict", text), file
    assert ("messages only" in said) is (language == "csharp" and not list(tmp_path.rglob("*Grpc.cs")))


@pytest.mark.slow
def test_another_language_is_refused() -> None:
    with pytest.raises(AssertionError, match="one of go java csharp ruby php node rust"):
        make_stubs("cobol", Path("build/stubs/cobol"))
