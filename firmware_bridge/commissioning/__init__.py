"""Putting into service: who is there, what they say, and what a wrong map should be. Used by `hark scan` and `hark read`."""
