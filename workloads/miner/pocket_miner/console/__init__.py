"""The commands that look at a miner's volume and Redis: of `relayctl`, and inside a pod."""
