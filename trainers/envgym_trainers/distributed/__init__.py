"""Several processes that train one model: who they are, what they say to each other, and who has which weights."""
