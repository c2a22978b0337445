"""The four methods, one file a paper, each to be read beside its equations."""
