"""The Shannon protocol and its chain: crypto, SMST, messages, sessions, claims, chain client, keys."""
