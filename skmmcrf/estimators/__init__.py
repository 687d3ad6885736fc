"""The estimators, and the files that keep them."""
