"""Episode logs: their format, how they are recorded, and verified replay."""
