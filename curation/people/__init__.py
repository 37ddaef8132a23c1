"""The phase `people`: who is on each photo, how much of them, their face, mask and regions."""
