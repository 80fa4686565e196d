"""Hold the compiled ring signatures (`combine.so`) and tries (`trie.so`).

`pocket.protocol` loads them, compares them with its own code and uses them if they agree.
"""
