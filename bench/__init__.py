"""What this package costs, beside its peers: every figure a ratio that was taken in one run."""
