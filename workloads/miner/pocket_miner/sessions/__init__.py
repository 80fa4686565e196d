"""Track each session and decide its stage."""
