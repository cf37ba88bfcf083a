"""The network, a file for each part of the paper. It knows tensors only: no paths, no settings, no plots."""
