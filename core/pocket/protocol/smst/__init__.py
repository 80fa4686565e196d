"""The sparse Merkle sum trie of a session (protocol/smst.md)."""
