"""What is measured of a network beside its accuracy: pure functions on tensors, one idea a file.

`activity` alone looks at a network: it shows those functions what they are of.

Letters as in the rules: w (out, in) with row k the weights of unit k, Δw its update, y (n, out) the activity of the
layer's units on n samples, a (out,) the step size of each unit. None stands for a number that does not exist.
"""
