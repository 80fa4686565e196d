"""View models: pure functions of a snapshot."""
