"""Session arithmetic, session ids and supplier selection (protocol/sessions.md)."""
