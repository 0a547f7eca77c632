"""Chat: how models write tool calls, and servers that complete conversations."""
