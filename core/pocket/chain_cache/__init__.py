"""Share chain queries, heights and invalidations between processes through Redis."""
