"""Learners: how a model is fitted, asked, kept and loaded. Two are built in; a project may bring its own file."""
