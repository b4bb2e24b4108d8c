"""Proves that a backup can be restored, and that what should be in it is."""
