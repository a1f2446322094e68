"""Everything that runs, watches and measures the appliance, and the one place that composes processes."""
