"""Endpoints: what answers requests, what it logs, and how both are kept running."""
