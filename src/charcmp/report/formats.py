"""The files that a report can be written as."""

FORMATS = ("csv", "md", "tex", "svg", "png", "html")
