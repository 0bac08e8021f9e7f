"""The export of spans by OpenTelemetry's variables: what is wrong with one is said in a line."""

import pytest

from sealserve.errors import InputError
from sealserve_service.telemetry.trace_export import exported_spans


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "'soon'"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", "OTEL_EXPORTER_OTLP_COMPRESSION"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "max_queue_size"),
    ],
)
def test_a_variable_with_a_wrong_value(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said), exported_spans("otlp"):
        pass
