"""Run one miner process: its loops, its admin port and what it runs on."""
