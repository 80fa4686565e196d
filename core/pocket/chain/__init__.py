"""The chain as a relay miner sees it: queries, blocks, transactions (protocol/messages.md, sections 3 to 11)."""
