"""The version of the SDK, as it is told to the server."""

__version__ = "0.1.0"
