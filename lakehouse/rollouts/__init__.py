"""Rollouts: how a version takes over from another, step by step, and when it goes back."""
