"""Inspect a miner's volume and Redis, as `relayctl` commands and inside a pod."""
