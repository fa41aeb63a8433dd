"""Proximal policy optimisation with Stable-Baselines3, by policies the nodes share or by one of each node's own.

`vec_env` shows networks to Stable-Baselines3, every node a sub-environment. `shared` and `independent` are the two
kinds of networks in PyTorch, both around the same `prior`; `forward` repeats them in numpy. `training` makes a
`checkpoint`, which `policy` plays. Playing needs no torch.
"""
