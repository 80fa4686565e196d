"""Delete outcomes that are older than the retention."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.workload import MinerConfig
from pocket_miner import miner_metrics
from pocket_miner.status.report import Reports
from pocket_miner.storage.audit import Audit

_LOG: FilteringBoundLogger = structlog.get_logger()
_RETENTION_SECONDS: Final = 600.0
_DAY_SECONDS: Final = 86_400.0


async def delete_old_outcomes(audit: Audit, reports: Reports, config: MinerConfig, height: Callable[[], int]) -> None:
    """Delete outcomes that are older than `retention_days`, again and again."""
    blocks = int(config.retention_days * _DAY_SECONDS / config.chain.block_seconds)
    while True:
        try:
            await asyncio.to_thread(reports.save)
            more = height() > blocks
            while more:  # a thousand at a time, so that other work continues meanwhile
                more = bool(await asyncio.to_thread(audit.prune, height() - blocks))
                await asyncio.sleep(0.1)
        except sqlite3.Error as error:
            miner_metrics.ERRORS.labels("retention").inc()
            _LOG.warning("deleting old outcomes failed, retrying", error=error)
        await asyncio.sleep(_RETENTION_SECONDS)
