"""Batch predictions: what is asked, the rows it is asked of, their parts, and the table that the answers go to."""
