"""Implement the plugin `kubectl pocket`.

It answers an owner's questions about RelayMiners and Suppliers in a cluster.
"""
