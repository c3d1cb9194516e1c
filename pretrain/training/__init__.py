"""Training runs: command-line arguments, the loop and the parts it is made of."""
