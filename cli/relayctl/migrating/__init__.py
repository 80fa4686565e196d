"""Convert configurations of other relay miners to resources."""
