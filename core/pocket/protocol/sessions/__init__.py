"""Compute sessions, their ids and their suppliers.

Source: docs/protocol/sessions.md.
"""
