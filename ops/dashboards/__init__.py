"""Dashboards and alert rules over the names of `ops/metrics`: files for Grafana and Prometheus, and their makers."""
