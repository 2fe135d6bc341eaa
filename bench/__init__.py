"""What this package costs, compared with similar ones: every figure is a ratio measured in one run."""
