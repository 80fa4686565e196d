"""Miner: claims and proves recorded relays."""
