"""Provide what relayer, miner, operator, localnet and relayctl share."""

from pocket.runtime import logs

logs.use_safe_defaults()
