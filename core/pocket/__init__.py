"""Provide what relayer, miner, operator, localnet and relayctl share."""
