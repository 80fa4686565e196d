"""The Kubernetes operator that reconciles RelayMiner and Supplier resources."""
