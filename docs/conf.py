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
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 2

html_theme = "pydata_sphinx_theme"
html_title = f"{project} {version}"
html_sidebars = {"**": ["sidebar-pages"], "index": []}
html_theme_options = {"header_links_before_dropdown": 5}
toc_object_entries_show_parents = "hide"
html_static_path = ["_static"]
html_css_files = ["skmmcrf.css"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_typehints = "none"  # the docstrings say it in words
numpydoc_show_class_members = False  # the template of classes does
templates_path = ["_templates"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*$",  # these take hours, or data: scripts.md shows them
    "capture_repr": (),
    "remove_config_comments": True,
    "copyfile_regex": r".*\.rst",
    "reference_url": {"skmmcrf": None},
    "show_memory": False,
}
