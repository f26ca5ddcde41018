"""The evaluators that are measured beside ours, each offline, with the same three flags in its own form."""
