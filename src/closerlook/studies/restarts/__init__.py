"""Learning-rate restarts: do they move to another solution, and is that why they help?."""
