"""Features: point-in-time joins, the training set, and the online snapshot that answers by key."""
