"""Run the relayer's supervisor and its workers."""
