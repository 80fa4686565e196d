"""The transports of relays, which all call the same pipeline."""
