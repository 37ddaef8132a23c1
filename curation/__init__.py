"""From a scraped collection to decided, captioned groups of photos: the Ray side of persona."""
