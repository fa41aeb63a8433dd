"""Observations: what a node may know, as a declared list of features and their compiled writer."""
