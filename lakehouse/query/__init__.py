"""SQL over the lake, with DuckDB. The only package that imports duckdb."""
