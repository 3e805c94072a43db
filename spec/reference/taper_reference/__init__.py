"""A reference verifier of the capability profile, written from the pages of `spec/` alone."""
