"""Support: errors, files, seeds, compilation and provenance, which know nothing of networks."""
