"""The version of the package, read by the build and stamped into pickles."""

__version__ = "0.1.0"
