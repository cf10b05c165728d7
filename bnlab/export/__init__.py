"""A run in, bytes out."""
