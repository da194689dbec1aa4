"""Training: recipes as data, a loop that reads on one page, checkpoints that resume."""
