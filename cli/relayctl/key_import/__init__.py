"""Read supplier keys from where people have them: Cosmos keyrings, armored exports, mnemonics."""
