"""The command line relayctl."""
