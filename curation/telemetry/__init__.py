"""What a run tells of itself to machines: metrics for Prometheus, spans for OpenTelemetry."""
