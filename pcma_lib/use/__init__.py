"""A trained model as it is saved, loaded, made fast and shared."""
