"""From a cell to a result: training, freezing, probing."""
