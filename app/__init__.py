"""The online half of Marquee: from a request to a slate of recommendations."""
