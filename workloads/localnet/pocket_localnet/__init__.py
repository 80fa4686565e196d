"""A small and faithful Shannon chain for trials and tests."""
