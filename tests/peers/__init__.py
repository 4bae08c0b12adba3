"""Our numbers beside a peer's, on the same tensors. ``make test-peers`` runs them in the peer's own environment."""
