"""Nothing: the peers save pictures by it, and none is saved while their time is taken."""
