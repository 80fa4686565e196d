"""Model the custom resources and the configuration of the workloads."""
