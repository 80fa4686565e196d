"""Own shards of suppliers through Leases."""
