"""Serve every process: logs, statistics, program start, single-flight."""
