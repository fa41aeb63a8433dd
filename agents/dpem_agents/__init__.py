"""Learning agents for dpem_env: forecasters, Stable-Baselines3 PPO and federated averaging with privacy."""
