"""Compiled ring signatures (`combine.so`) and tries (`trie.so`) for pocket-relay-mining.

`pocket.protocol` loads them, compares them with its own code and uses them if they agree.
"""
