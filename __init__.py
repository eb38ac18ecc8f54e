"""Lakeloop: the whole MLOps loop on a bucket."""
