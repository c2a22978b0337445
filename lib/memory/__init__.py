"""External memories as pure functions of tensors: a state goes in, a new state comes out."""
