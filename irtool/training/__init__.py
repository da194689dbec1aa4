"""Training: recipes as data, the training loop, checkpoints that resume."""
