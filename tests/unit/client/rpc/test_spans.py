"""The spans of calls that never become calls of gRPC."""

import grpc
import pytest

from sealserve._rpc.spans import CallSpans
from tests.support.span_records import SpanRecords, status


def test_a_call_over_a_closed_channel_has_no_status_and_is_not_cancelled() -> None:
    records, channel = SpanRecords(), grpc.insecure_channel("127.0.0.1:1")
    spans = CallSpans(records.provider.get_tracer("test"), "127.0.0.1:1", sends_ids=True)
    call = spans.unary("a.Service/Method", channel.unary_unary("/a.Service/Method", None, None))
    channel.close()
    with pytest.raises(ValueError, match="closed channel"):
        call(b"")
    (span,) = records.ended
    assert status(span) == "UNKNOWN"
