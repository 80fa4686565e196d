"""Hold what is known of a session and decide its stage."""
