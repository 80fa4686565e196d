"""Store in Redis: relay streams, seals, budgets and notifications."""
