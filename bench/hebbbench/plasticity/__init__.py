"""Learning rules and the one place where they meet a network's layers."""
