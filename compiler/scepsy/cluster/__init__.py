"""What a live cluster has: nodes and GPUs as plain values, and the Cluster document that says the same."""
