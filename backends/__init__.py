"""The adapters: one module a backend, found through the entry-point group `blocks.backends`."""
