"""What runs on Ray: tuning, training and serving."""
