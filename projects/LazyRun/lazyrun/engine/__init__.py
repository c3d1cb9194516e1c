"""Training and evaluation of a resolved config."""
