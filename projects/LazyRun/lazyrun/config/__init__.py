"""A run's config: read, overridden, resolved once."""
