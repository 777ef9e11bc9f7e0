"""Who may be asked: versions, rules, names of tools; and what the questions are called."""

import pytest

from steps.opencode_server.faults import Faulty
from steps.opencode_server.rules import DENY_ALL, Rule, deny_all, is_allowed, message_id, require_version, session_id

BAN, ANSWER = DENY_ALL


@pytest.mark.parametrize("version", ["1.18.33", "1.18.0", "1.99.1", "1.20.0-beta.1"])
def test_a_server_of_the_known_kind_is_asked(version: str) -> None:
    require_version(version)


@pytest.mark.parametrize("version", ["1.17.9", "0.5.0", "2.0.0", "2.0.0-rc.1", "", "latest", "local", "v1.18.33", "1.18.33\nx"])
def test_another_server_is_refused_in_one_sentence(version: str) -> None:
    with pytest.raises(Faulty, match="is needed") as refused:
        require_version(version)
    assert refused.value.fault.name == "oc_version"
    assert not refused.value.fault.retriable


@pytest.mark.parametrize(
    "rules",
    [
        [BAN, ANSWER],
        [Rule("*", "*", "allow"), Rule("bash", "*", "allow"), BAN, ANSWER],
        [BAN, ANSWER, Rule("external_directory", "/somewhere/*", "allow")],
        [BAN, Rule("bash", "*", "deny"), ANSWER],
    ],
)
def test_a_ban_of_everything_but_the_answer_is_known(rules: list[Rule]) -> None:
    assert deny_all(rules)


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [ANSWER],
        [BAN],
        [ANSWER, BAN],
        [BAN, ANSWER, Rule("bash", "*", "allow")],
        [BAN, ANSWER, Rule("bash", "*", "ask")],
        [BAN, ANSWER, Rule("b*", "*", "allow")],
        [BAN, ANSWER, Rule("*", "*", "allow")],
        [BAN, ANSWER, Rule("StructuredOutput", "*", "deny")],
        [BAN, Rule("structuredoutput", "*", "allow")],
        [Rule("*", "*.txt", "deny"), ANSWER],
        [Rule("edit", "*", "deny"), Rule("bash", "*", "deny"), ANSWER],
    ],
)
def test_anything_less_is_no_ban(rules: list[Rule]) -> None:
    assert not deny_all(rules)


def test_only_the_answers_tool_is_allowed_however_a_name_is_written() -> None:
    assert is_allowed("StructuredOutput")
    assert is_allowed(" structuredoutput ")
    for name in ("bash", "Edit", " edit", "read", "task", "", "StructuredOutput2", "mcp_StructuredOutput"):
        assert not is_allowed(name)


def test_a_question_is_called_the_same_whenever_it_is_asked_and_each_is_called_otherwise() -> None:
    assert session_id("k", 0, 0) == session_id("k", 0, 0)
    names = {session_id(key, invalid, stalled) for key in ("k", "l") for invalid in (0, 1, 2) for stalled in (0, 1)}
    assert len(names) == 12
    assert all(name.startswith("ses_") for name in names)
    assert message_id("k", 0, 0).startswith("msg_")
