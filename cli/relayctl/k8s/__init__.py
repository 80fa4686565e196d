"""The plugin `kubectl pocket`: what an owner asks about RelayMiners and Suppliers in a cluster."""
