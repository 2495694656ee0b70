"""Pictures of results and of what was learnt, as PNG and SVG: `hebbbench plot`. They need matplotlib.

One file a picture, beside what they share: what is drawn (`collection`, `series`, `lines`, `published`), what it is
called (`names`), and how it looks (`sheet`, `style`). Each picture takes results or a tensors file and returns a
figure; none computes a number that a result does not hold, except means and standard deviations over seeds.
"""
