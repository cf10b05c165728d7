"""Batch Normalization Lab."""
