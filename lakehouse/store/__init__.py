"""Object stores behind one small port: S3, a folder, memory."""

from lakeloop.lakehouse.store.port import Entry, Location, Store

__all__ = ["Entry", "Location", "Store"]
