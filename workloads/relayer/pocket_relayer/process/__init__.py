"""The relayer's supervisor and its workers."""
