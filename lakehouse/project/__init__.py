"""The project format: files become definitions here; `binding` binds their SQL, and needs DuckDB."""

from lakeloop.lakehouse.project.definitions import Project
from lakeloop.lakehouse.project.parsing import find_project, parse_project, read_project

__all__ = ["Project", "find_project", "parse_project", "read_project"]
