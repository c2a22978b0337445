"""Four memory-augmented networks, their baselines, and every experiment of their papers."""
