"""Run one mining loop for each supplier that this miner owns."""
