"""Clips: how they are stored, read, checked, changed and put into batches."""
