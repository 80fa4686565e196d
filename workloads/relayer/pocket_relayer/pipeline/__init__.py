"""Admit, meter, forward, sign and record a relay, whatever its transport."""
