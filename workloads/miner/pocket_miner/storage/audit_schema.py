"""Define the tables of an audit trail, and the hash of an outcome.

It links an outcome to all before it.
"""

import hashlib
from typing import Final

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS seal (
  supplier TEXT NOT NULL, session_id TEXT NOT NULL, session_end INTEGER NOT NULL, seal TEXT NOT NULL,
  signed TEXT NOT NULL, PRIMARY KEY (supplier, session_id));
CREATE TABLE IF NOT EXISTS outcome (
  number INTEGER PRIMARY KEY AUTOINCREMENT, supplier TEXT NOT NULL, session_id TEXT NOT NULL, body TEXT NOT NULL,
  previous TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE (supplier, session_id));
CREATE TABLE IF NOT EXISTS cost (
  supplier TEXT NOT NULL, session_id TEXT NOT NULL, tx_hash TEXT NOT NULL, what TEXT NOT NULL,
  upokt INTEGER NOT NULL,
  PRIMARY KEY (supplier, session_id, tx_hash));
CREATE TABLE IF NOT EXISTS rejected (
  supplier TEXT NOT NULL, session_id TEXT NOT NULL, tx_hash TEXT NOT NULL, what TEXT NOT NULL,
  upokt INTEGER NOT NULL,
  PRIMARY KEY (supplier, session_id, tx_hash));
CREATE TABLE IF NOT EXISTS signed (
  supplier TEXT NOT NULL, session_end INTEGER NOT NULL, what TEXT NOT NULL, tx_hash TEXT NOT NULL,
  signed TEXT NOT NULL, PRIMARY KEY (supplier, session_end, what, tx_hash));
CREATE INDEX IF NOT EXISTS outcome_end ON outcome (supplier, json_extract(body, '$.details.session_end_height'));
"""
FIRST_LINK: Final = "0" * 64
"""Hash before the first outcome."""


def link_of(previous: str, body: str) -> str:
    """Return the hash of an outcome's text and of the one before it."""
    return hashlib.sha256(f"{previous}\n{body}".encode()).hexdigest()
