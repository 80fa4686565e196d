"""Staking by declaration: compare, plan, sign and send."""
