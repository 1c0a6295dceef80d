"""The checks, by what they are about. `dpone.testing` puts them together for a source, a sink and a route."""
