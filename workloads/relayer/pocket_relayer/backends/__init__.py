"""The services behind the relayer: choose an endpoint, call it, check its health."""
