"""Declared experiments: what is run to get a committed result, and what of it has to be run again."""
