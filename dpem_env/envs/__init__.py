"""Environments: an episode put together once, and façades of PettingZoo and Gymnasium that only translate."""
