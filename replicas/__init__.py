"""How copies agree: high watermark, in-sync set, epochs."""
