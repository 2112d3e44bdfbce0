"""The embedded study: a simulated embryo, written as Cell Ranger ARC would write it."""
