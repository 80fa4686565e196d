"""Call the Kubernetes API."""
