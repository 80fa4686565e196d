"""Logs of the simulated processes."""

import logging

import structlog


def quiet() -> None:
    """Nobody reads what hundreds of processes log."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
