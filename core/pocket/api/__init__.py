"""Custom resource models: the one schema of CRDs, workload configuration and docs."""
