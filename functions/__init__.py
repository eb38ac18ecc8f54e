"""What happens when something is to be done: one small function per kind of work. Needs no Ray."""
