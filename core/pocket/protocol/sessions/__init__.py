"""Session arithmetic, session ids and supplier selection (docs/protocol/sessions.md)."""
