"""Store Lease records in Kubernetes or Redis."""
