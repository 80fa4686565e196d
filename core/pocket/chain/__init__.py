"""Query and follow the chain's nodes."""
