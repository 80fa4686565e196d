"""The whole system in one process: real relayers and miners on a virtual clock, faults at every boundary, a seed."""
