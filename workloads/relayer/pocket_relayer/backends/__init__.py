"""What stands behind the relayer."""
