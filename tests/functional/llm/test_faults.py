"""What goes wrong on the way to a provider and back, on the wire: every fault of every provider ends, and clearly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairlead.errors import FairleadError
from fairlead.llm.base import AnswerLost, ChatMessage, ChatRequest, TokenUsage
from fairlead.llm.breaker import Breaker
from fairlead.llm.limits import RateLimiter
from fairlead.llm.providers import ProviderModel, Providers
from fairlead.llm.requests import Target
from fairlead.llm.retrying import Care, Retrying
from fairlead.testing.clock import FakeClock
from fairlead.testing.kubectl import free_port
from fairlead.testing.standins import Failure, Fault, StandIn

MODELS = ["openai/gpt-4o-mini", "ollama_chat/llama3.2", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash"]
KEY = "sk-canary-77aa01"
FAULTS = [
    pytest.param(Failure(429, "slow", {"retry-after": "7"}), "RateLimited", "slow", id="429"),
    pytest.param(Failure(500, "boom"), "ModelUnavailable", "boom", id="500"),
    pytest.param(Failure(529, "overloaded"), "ModelUnavailable", "overloaded", id="529"),
    pytest.param(Fault.RESET, "ModelUnavailable", "broke", id="reset"),
    pytest.param(Fault.CUT, "ModelUnavailable", "before it was complete", id="cut"),
    pytest.param(Fault.TOLD, "ModelUnavailable", "overloaded for", id="told-in-the-stream"),
    pytest.param(Fault.EMPTY, "ModelUnavailable", "empty", id="empty"),
    pytest.param(Fault.HTML, "ModelUnavailable", "text/html", id="html"),
    pytest.param(Fault.INVALID_JSON, "ModelUnavailable", "no JSON", id="invalid-json"),
    pytest.param(Fault.STALL, "Timeout", "stopped in the middle", id="stall"),
    pytest.param(Fault.SILENT, "Timeout", "no answer within", id="silent"),
    pytest.param(Fault.DRIP, "Timeout", "no answer within", id="slow"),
    pytest.param(Fault.HUGE, "TooLarge", "characters", id="10-MB"),
    pytest.param(Fault.ENDLESS, "TooLarge", "characters", id="never-ending"),
]
LATE = (Fault.SILENT, Fault.DRIP)
TERMINAL = (Fault.HUGE, Fault.ENDLESS)
BEGUN = (Fault.RESET, Fault.CUT, Fault.TOLD, Fault.STALL, Fault.DRIP, *TERMINAL)


def retrying(providers: Providers, standin: StandIn, model: str, *, retries: int, clock: FakeClock) -> Retrying:
    target = Target(model, standin.base_url(model), KEY)
    care = Care(Breaker(clock), RateLimiter(clock), lambda: 0.5, retries=retries)
    return Retrying(ProviderModel(providers, target), clock, care)


def ask(fault: Failure | Fault) -> ChatRequest:
    return ChatRequest((ChatMessage("user", "Sort this."),), timeout_seconds=0.6 if fault in LATE else 30)


def budgeted(fault: Fault) -> ChatRequest:
    return replace(ask(fault), granted_input_tokens=70, granted_output_tokens=30)


@pytest.mark.parametrize(("fault", "reason", "text"), FAULTS)
@pytest.mark.parametrize("model", MODELS)
async def test_fault_ends_in_one_clear_error(
    providers: Providers, standin: StandIn, *, model: str, fault: Failure | Fault, reason: str, text: str
) -> None:
    standin.failures.append(fault)
    asked = retrying(providers, standin, model, retries=0, clock=FakeClock())
    with pytest.raises((FairleadError, AnswerLost), match=text) as failed:
        await asked.complete(ask(fault), deadline=1e9)
    error = failed.value.error if isinstance(failed.value, AnswerLost) else failed.value
    assert isinstance(error, FairleadError)
    assert error.reason == reason
    assert KEY not in str(error)
    assert "Traceback" not in str(error)
    assert isinstance(failed.value, AnswerLost) == (fault in BEGUN), "what has begun has used tokens"
    assert len(standin.asked) == 1


@pytest.mark.parametrize("model", MODELS)
async def test_answer_that_nobody_saw_counts_at_its_worst_case_under_a_budget(
    providers: Providers, standin: StandIn, model: str
) -> None:
    standin.failures.append(Fault.SILENT)
    asked = retrying(providers, standin, model, retries=1, clock=FakeClock())
    with pytest.raises(AnswerLost) as failed:
        await asked.complete(budgeted(Fault.SILENT), deadline=1e9)
    assert failed.value.error.reason == "Timeout"
    assert failed.value.lost == (TokenUsage(70, 30, estimated=True),)
    assert len(standin.asked) == 1, "what was granted is used up"


async def test_refusal_or_a_provider_that_is_not_there_uses_nothing_of_a_budget(
    providers: Providers, standin: StandIn
) -> None:
    standin.failures.append(Failure(500, "boom"))
    asked = retrying(providers, standin, MODELS[0], retries=1, clock=FakeClock())
    assert (await asked.complete(budgeted(Fault.EMPTY), deadline=1e9)).lost == ()
    nobody = ProviderModel(providers, Target(MODELS[0], f"http://127.0.0.1:{free_port()}", KEY))
    with pytest.raises(FairleadError) as failed:
        await nobody.complete(budgeted(Fault.EMPTY))
    assert failed.value.reason == "ModelUnavailable"


@pytest.mark.parametrize(("fault", "reason", "text"), [each for each in FAULTS if each.values[0] not in TERMINAL])
@pytest.mark.parametrize("model", MODELS)
async def test_fault_is_got_over_by_a_retry(
    providers: Providers, standin: StandIn, *, model: str, fault: Failure | Fault, reason: str, text: str
) -> None:
    del text
    standin.failures.append(fault)
    clock = FakeClock()
    done = await retrying(providers, standin, model, retries=1, clock=clock).complete(ask(fault), deadline=1e9)
    assert (done.text, done.tries) == (standin.text, 2)
    assert clock.slept == [7.5 if reason == "RateLimited" else 0.5]
    assert len(done.lost) == (fault in BEGUN)
    assert all(usage.estimated for usage in done.lost)
