"""Episodes to watch: a log, played again, as a page of its own, a GIF or a video."""
