"""What a run tells of itself while it works: metrics, log lines."""

from typing import Literal

from pydantic import Field

from curation.settings.base import Settings, path


class TelemetrySettings(Settings):
    """Nothing here changes a result, and nothing listens or is written unless it is asked for."""

    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Prometheus metrics at this port, 0: any free one; None: none"
    )
    metrics_host: str = Field("127.0.0.1", min_length=1, description="address that the port is opened at")
    metrics_file: str | None = path(
        None,
        pattern=r"\.prom$",
        description="the same metrics as a file, for the node exporter's textfile collector",
    )
    log_format: Literal["text", "json"] = Field("text", description="json: one object a line")
    log_every_s: float = Field(15.0, ge=0, description="off a terminal, a line at most so often")
