"""The command line relayctl."""

__version__ = "0.1.0"
