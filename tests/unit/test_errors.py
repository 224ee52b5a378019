from __future__ import annotations

from fairlead.errors import RetryableError, TerminalError


def test_within_says_where_and_keeps_what_the_error_is() -> None:
    first = RetryableError("no connection", reason="ModelUnavailable", retry_after=7)
    error = first.within("Model default (ollama_chat/llama3.2)")
    assert str(error) == "Model default (ollama_chat/llama3.2): no connection"
    assert (type(error), error.reason, error.retry_after) == (RetryableError, "ModelUnavailable", 7)
    assert str(first) == "no connection"


def test_within_of_a_terminal_error_is_terminal() -> None:
    error = TerminalError("bad key", reason="AuthenticationFailed").within("Model x")
    assert isinstance(error, TerminalError)
    assert error.reason == "AuthenticationFailed"
