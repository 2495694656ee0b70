"""One file a family: plain torch modules with a `body` and a `head`, which know no rule. Found by file name."""
