"""The benchmark of the agent: its report, and how it times by turns."""

from benchmarks import agent


def test_the_report_says_what_is_added() -> None:
    result = {
        "batch_rows": 4096,
        "row": {"sdk_ms": 2.0, "agent_ms": 2.4, "bare_ms": 2.35, "empty_call_ms": 0.3},
        "batch": {"sdk_ms": 100.0, "agent_ms": 105.0, "bare_ms": 104.0, "empty_call_ms": 0.4},
        "languages": {"Python": {"row_ms": 2.4, "batch_ms": 105.0}, "go": {"row_ms": 2.2, "batch_ms": 101.25}},
        "throughput": [{"callers": 8, "apart": 430.2, "coalesced": 790.1}],
    }
    shown = agent.report(result)
    assert "| one row    | 2.00    | 2.40      | 0.40 ms, 20% | 2.35              | 0.30              |" in shown
    assert "| 4,096 rows | 100.00  | 105.00    | 5.00 ms, 5%  | 104.00            | 0.40              |" in shown
    assert "| go     | 2.20        | 101.25         |" in shown
    assert "| 8                      | 430                    | 790               |" in shown


def test_functions_are_timed_by_turns() -> None:
    called = list[str]()
    found = agent.alternate({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2)
    assert called == ["a", "b", "a", "b", "a", "b"], "the first of each is not timed"
    assert found.keys() == {"a", "b"}
