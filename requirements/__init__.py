"""The pinned requirements, and what can be said of them: their licences, a bill of materials."""
