"""Policies of other kinds than the adapters', short and to be copied: one that remembers, one that passes messages."""
