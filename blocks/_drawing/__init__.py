"""The parts of `draw`: what is shown, its words, its places, its SVG."""
