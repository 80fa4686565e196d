"""relayctl: the command line."""
