"""What is on disk: data sets are found, verified, decoded once, cached; embedded glyphs where there is nothing else."""
