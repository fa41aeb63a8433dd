"""Tables and pictures of plain data."""
