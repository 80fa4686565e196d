"""How relays arrive; every transport calls the same pipeline."""
