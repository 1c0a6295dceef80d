"""What happens to rows between the source and the sink, as the manifest's `transform` says.

    rename -> derive -> where -> mask -> drop -> function

`rules` is what the manifest says and imports nothing, `compiled` the rules made fit for one stream, `reading` a source
that is read through them.
"""
