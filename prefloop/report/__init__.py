"""Runs -> one self-contained HTML page that a person can decide on. No torch here."""
