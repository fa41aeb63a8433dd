"""Baseline policies for dpem_env, found through the ``dpem_env.policies`` entry points."""
