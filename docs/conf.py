"""Sphinx configuration."""

from importlib.metadata import version as version_of

project = "skmmcrf"
author = "The skmmcrf developers"
version = release = version_of("skmmcrf")
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 2

html_theme = "pydata_sphinx_theme"
html_title = project
html_sidebars = {
    page: []
    for page in ("index", "install", "tutorial", "guide", "theory", "benchmarks", "cite", "contributing", "changelog")
}
html_theme_options = {"header_links_before_dropdown": 5, "show_prev_next": False}
html_static_path = ["_static"]
html_css_files = ["equations.css"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_typehints = "none"  # the docstrings say it in words
numpydoc_show_class_members = False  # the template of classes does
templates_path = ["_templates"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",  # the others take hours, or data
    "copyfile_regex": r".*\.rst",
    "reference_url": {"skmmcrf": None},
    "download_all_examples": False,
    "show_memory": False,
}
