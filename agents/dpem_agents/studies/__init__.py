"""Studies of learners: searches, learning curves, attacks, and what privacy costs."""
