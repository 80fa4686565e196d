"""Keep relays, seals and outcomes on the miner's volume."""
