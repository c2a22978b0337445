"""What `make` runs: execute the chapters, build the pages, keep the measured times."""
