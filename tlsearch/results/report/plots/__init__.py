"""The plots of a report: each a function of a View that gives a Plot, as SVG and PNG."""
