"""What programs that talk to a running Marquee import: `marquee.client`. It needs httpx alone."""
