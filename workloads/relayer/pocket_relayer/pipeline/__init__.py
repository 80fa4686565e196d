"""Admit, meter, forward, sign and record a relay of any transport."""
