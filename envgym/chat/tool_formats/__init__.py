"""How families of models write tool calls: one format a module, and what they share.

A format is found by name, or from a chat template by ``recognise``.
"""

from __future__ import annotations

from envgym.chat.tool_formats.base import (
    MAX_CALLS,
    ToolFormat,
    dropped,
    listed,
    recognise,
    tool_formats,
    unique_ids,
)
from envgym.chat.tool_formats.hermes import HermesFormat
from envgym.chat.tool_formats.json_calls import make_call

__all__ = [
    "MAX_CALLS",
    "HermesFormat",
    "ToolFormat",
    "dropped",
    "listed",
    "make_call",
    "recognise",
    "tool_formats",
    "unique_ids",
]
