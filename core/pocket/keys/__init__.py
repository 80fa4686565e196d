"""Load supplier keys and open sealed keys."""
