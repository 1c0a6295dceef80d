"""The tests of dpone: real systems, values compared row by row."""
