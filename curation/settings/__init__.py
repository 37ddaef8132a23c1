"""Every setting of a pipeline, typed, with units in the names: the home of each key of pipelines.yaml."""

from curation.settings.pipeline import EngineSettings, PipelineSettings, PipelinesFile

__all__ = ["EngineSettings", "PipelineSettings", "PipelinesFile"]
