"""Talk to the API server.

Here are watches, queue, reconciliation and what the operator publishes.
"""
