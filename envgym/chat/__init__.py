"""Chat: the formats in which models write tool calls, and servers that complete conversations."""
