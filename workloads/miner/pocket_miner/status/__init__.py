"""Report what the miner does and whether it is ready."""
