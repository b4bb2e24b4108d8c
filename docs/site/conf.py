"""Sphinx's settings of the documentation site; ``make docs`` builds it by build.py."""

project = "Verse"
author = "The authors of Verse"
extensions = ["myst_parser"]
myst_heading_anchors = 4  # links such as page.md#a-heading, by GitHub's rule
html_theme = "furo"
html_title = "Verse"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
# Blocks that only look like their language: shortened JSON, a prompt before a command.
suppress_warnings = ["misc.highlighting_failure"]
