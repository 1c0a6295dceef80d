"""What happens to rows between the source and the sink, as the manifest's `transform` says.

    rename -> derive -> where -> mask -> drop -> function

`Rules` is what the manifest says, `Transform` the rules compiled for one stream, `TransformedSource` a source that
reads through them.
"""

from __future__ import annotations

from dpone.transform.compiled import Problems, Transform, refused, touched
from dpone.transform.reading import TransformedReading, TransformedSource
from dpone.transform.rules import Mask, Rules

__all__ = [
    "Mask",
    "Problems",
    "Rules",
    "Transform",
    "TransformedReading",
    "TransformedSource",
    "refused",
    "touched",
]
