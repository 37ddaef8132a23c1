"""The phase `captions`: a sentence for each photo of a group; never identity, never clothes."""
