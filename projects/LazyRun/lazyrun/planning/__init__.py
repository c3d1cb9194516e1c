"""Memory and work of a config before its run."""
