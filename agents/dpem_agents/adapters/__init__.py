"""One small file per reinforcement learning library that trains here, to be copied; `trial` checks each."""
