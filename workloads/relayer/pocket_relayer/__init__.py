"""The relayer: admit, serve, sign and record relays."""
