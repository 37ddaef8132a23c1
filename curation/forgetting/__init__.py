"""People's wishes: whoever asked to be forgotten leaves every run, dataset and index, and does not return."""
