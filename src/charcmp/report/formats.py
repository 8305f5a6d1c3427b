"""The formats that a report can be written in."""

FORMATS = ("csv", "md", "tex", "svg", "png", "html")
