"""The top: puts the parts together, and puts them somewhere; the command line."""
