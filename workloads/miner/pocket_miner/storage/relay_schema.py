"""The tables of a session-end file, and the queries over them."""

from typing import Final

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS session (
  id INTEGER PRIMARY KEY, supplier TEXT NOT NULL, session_id TEXT NOT NULL, header BLOB NOT NULL,
  position TEXT NOT NULL DEFAULT '0-0', incarnation TEXT NOT NULL DEFAULT '', refused INTEGER NOT NULL DEFAULT 0,
  UNIQUE (supplier, session_id));
CREATE TABLE IF NOT EXISTS leaf (
  session INTEGER NOT NULL, path BLOB NOT NULL, digest BLOB NOT NULL, weight INTEGER NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (session, path));
CREATE TABLE IF NOT EXISTS validation (session INTEGER PRIMARY KEY, terms TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS params (session INTEGER PRIMARY KEY, params TEXT NOT NULL);
"""
# Relays are stored in the order in which they came, and only the small index of the primary key is in order of the
# paths, which are random. Earlier versions kept the relays themselves in that order: each went into another page.
LEAVES: Final = "SELECT path, digest FROM leaf WHERE rowid IN (SELECT rowid FROM leaf WHERE session=?)"
LEAVES_BY_PATH: Final = "SELECT path, digest FROM leaf WHERE session=?"
LARGEST: Final = "SELECT max(length(value)) FROM leaf WHERE rowid IN (SELECT rowid FROM leaf WHERE session=?)"
LARGEST_BY_PATH: Final = "SELECT max(length(value)) FROM leaf WHERE session=?"
ARRIVALS: Final = "SELECT path FROM leaf WHERE session=? ORDER BY rowid"
PATHS: Final = "SELECT path FROM leaf WHERE session=? ORDER BY path"
PAGE: Final = "SELECT rowid, value FROM leaf WHERE session=? AND rowid>? ORDER BY rowid"
PAGE_BY_PATH: Final = "SELECT path, value FROM leaf WHERE session=? AND path>? ORDER BY path"
VALIDATED: Final = (
    "INSERT INTO validation VALUES (?, ?) ON CONFLICT (session) "
    "DO UPDATE SET terms='several' WHERE terms<>excluded.terms"
)
"""Records the terms by which leaves of a session are valid, as long as there is one set of them."""
SESSIONS: Final = (
    "SELECT s.supplier, s.session_id, s.header, s.position, s.incarnation, coalesce(v.terms, ''), "
    "coalesce(p.params, '') FROM session s LEFT JOIN validation v ON v.session=s.id LEFT JOIN params p "
    "ON p.session=s.id"
)
SESSIONS_ALONE: Final = "SELECT supplier, session_id, header, position, incarnation FROM session"
"""The same in a file of an earlier version that is read only."""
PARAMS: Final = (
    "INSERT INTO params VALUES (?, ?) ON CONFLICT (session) DO UPDATE SET params=excluded.params "
    "WHERE params<>excluded.params"
)
