"""What a completion's `finish_reason` means. Only a known reason makes a reply whole: any other one may stand for a failure."""

from typing import Any, Final

from bff.errors import UpstreamError

COMPLETE: Final = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence"})
LENGTH: Final = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"})
"""The model's own limit cut the reply short."""
TOOL_CALLS: Final = frozenset({"tool_calls", "function_call"})
WITHHELD: Final = "The assistant may not answer this."


def reason_in(choice: dict[str, Any]) -> str:
    """In lower case, as gateways to Gemini send STOP; "" while there is none. Raises UpstreamError for no text."""
    reason = choice.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        raise UpstreamError(detail="the finish_reason is not text")
    return (reason or "").strip().lower()


def is_truncated(reason: str, *, tools_offered: bool) -> bool:
    """Raises UpstreamError for a reason that does not end a whole reply."""
    if reason == "content_filter":
        raise UpstreamError(WITHHELD, detail="finish_reason content_filter")
    if reason not in COMPLETE | LENGTH and not (tools_offered and reason in TOOL_CALLS):
        known = reason if reason in TOOL_CALLS else "that is unknown"
        raise UpstreamError(detail=f"a finish_reason {known}")
    return reason in LENGTH
