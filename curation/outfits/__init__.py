"""The phase `outfits`: which photos of a person show the same full-body appearance."""
