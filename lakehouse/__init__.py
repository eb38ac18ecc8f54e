"""The floor: what is stored, and what can be asked of it."""
