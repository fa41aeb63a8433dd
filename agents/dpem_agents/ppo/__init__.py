"""Proximal policy optimisation with Stable-Baselines3, by policies the nodes share or by one of each node's own.

`vec_env` shows networks to Stable-Baselines3, every node a sub-environment. `layout` tells what rows and actions hold,
`networks` what PyTorch makes of them on top of a `prior`; `forward` repeats it in numpy. `training` makes a
`checkpoint`, which `policy` plays. It may `start` from another one: `movement` tells how far it has gone since.
Playing needs no torch.
"""
