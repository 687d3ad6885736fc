"""Sphinx configuration."""

project = "skmmcrf"
author = "The skmmcrf developers"
extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
html_theme = "pydata_sphinx_theme"
exclude_patterns = ["_build"]
nitpicky = True
