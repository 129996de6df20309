"""How Sphinx builds the documentation; what it is built from is put together by ``build.py``."""

from __future__ import annotations

from importlib.metadata import version as version_of

project, author = "Topgraft", "The Topgraft authors"
project_copyright = author
release = version = version_of("topgraft")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
napoleon_google_docstring = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
suppress_warnings = ["misc.highlighting_failure"]
html_theme = "furo"
html_title = f"Topgraft {release}"
html_static_path = ["static"]
html_css_files = ["topgraft.css"]
html_theme_options = {
    "light_css_variables": {"color-foreground-muted": "#5a5c63", "color-foreground-border": "#6b6f76"},
    "dark_css_variables": {"color-foreground-muted": "#a5a9b0", "color-foreground-border": "#9a9da3"},
}
html_show_sourcelink = False
html_copy_source = False
