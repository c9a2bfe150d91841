"""The committed Plan against the world: traffic, the cluster, live objects, profiles."""
