"""Stores and serves: the log, its brokers and the controller."""
