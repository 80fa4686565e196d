"""Read recorded relays from Redis and from peers into the volume."""
