"""Talk to the API server: watches, queue, reconciliation and what the operator publishes."""
