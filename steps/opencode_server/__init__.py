"""The coding agent as it really is: a client of `opencode serve`, and all that keeps a call to it within bounds."""
