"""Rollbacks: kill and lift over both wings, the record with its times, preview and report."""
