"""The connectors that come with dpone. They are found by their entry points, like any other."""
