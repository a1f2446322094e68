"""Gateways, one folder a protocol."""
