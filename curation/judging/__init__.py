"""How good a judge of outfits is: pairs that people label, calibration, figures and a sheet to look at."""
