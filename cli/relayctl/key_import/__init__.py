"""Read supplier keys from Cosmos keyrings, armored exports and mnemonics."""
