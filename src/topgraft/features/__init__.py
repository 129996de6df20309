"""The one pass over the data, the engines that run it, and the store of what came out."""
