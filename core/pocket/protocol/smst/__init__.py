"""The sparse Merkle sum trie of a session (docs/protocol/smst.md)."""
