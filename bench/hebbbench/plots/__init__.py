"""Pictures of results and of what was learnt, as PNG and SVG: `hebbbench plot`. They need matplotlib.

One file a picture. Each takes results or a tensors file and returns a figure; none computes a number that a result
does not hold, except means and standard deviations over seeds.
"""
