"""A read-only web page and terminal view of relayers and miners."""
