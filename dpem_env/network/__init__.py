"""Networks as plain arrays: topologies, candidate routes, and networks kept on disk."""
