"""Inputs made from what the caller sends. Nothing of Lakeloop's is imported, so this runs and is tested anywhere."""

from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")


def derive(row: dict) -> dict:
    """Hour and day of the week of the departure, as people at the airport read them off the clock."""
    local = row["sched_dep"].astimezone(NEW_YORK)
    return {"dep_hour": local.hour, "dep_weekday": local.isoweekday()}
