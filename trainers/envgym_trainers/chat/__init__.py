"""Chat over an engine: conversations as token ids, and the policy that samples them."""
