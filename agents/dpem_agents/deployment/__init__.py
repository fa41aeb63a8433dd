"""Federated learning between machines, over Flower: plans, certificates, servers and nodes."""
